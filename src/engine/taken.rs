//! The cluster, locked for a verb that changes something.

use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    drill::repair,
    run::{self, Run},
};
use crate::{error::Result, workspace::RunLock};

/// What becomes of what a drill that was killed has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// The operator is asked whether it is put right first.
    Offer,
    /// It is put right first.
    Repair,
    /// It is of no concern.
    Leave,
}

/// The cluster, taken for a run of a verb that changes something.
///
/// Without one there are no events, and nothing that was taken stays taken: the workspace is free once
/// this is dropped, and the hosts' lease is given back at the end of the run.
pub(super) struct Taken<'a> {
    context: &'a Context,
    verb: &'static str,
    lock: RunLock,
    cancel: &'a CancellationToken,
}

impl<'a> Taken<'a> {
    /// Takes the cluster, or says who has it.
    pub(super) async fn by(
        context: &'a Context,
        verb: &'static str,
        leftovers: Leftovers,
        cancel: &'a CancellationToken,
    ) -> Result<Self> {
        let lock = context.lock(verb)?;
        match leftovers {
            Leftovers::Offer => repair::offer(context, cancel).await?,
            Leftovers::Repair => repair::at_once(context, cancel).await?,
            Leftovers::Leave => {}
        }
        Ok(Self {
            context,
            verb,
            lock,
            cancel,
        })
    }

    pub(super) async fn run<T>(&self, work: impl AsyncFnOnce(&Run<'_>) -> Result<T>) -> Result<T> {
        self.run_in(self.context, work).await
    }

    /// The same in another context of the same cluster, such as one with more hosts in its inventory.
    pub(super) async fn run_in<T>(
        &self,
        context: &Context,
        work: impl AsyncFnOnce(&Run<'_>) -> Result<T>,
    ) -> Result<T> {
        run::of_verb(&self.lock, context, self.verb, self.cancel, work).await
    }

    pub(super) fn lock(&self) -> &RunLock {
        &self.lock
    }
}
