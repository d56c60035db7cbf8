//! The cluster, locked for a verb that changes something.

use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    drill::repair,
    restore::under_way,
    run::{self, Run},
    upgrade,
};
use crate::{error::Result, workspace::RunLock};

/// What happens with things that a killed drill left broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftovers {
    /// The operator is asked whether to repair them first.
    Offer,
    /// They are repaired first.
    Repair,
    /// They do not matter.
    Leave,
}

/// The cluster, taken for the run of a verb that changes something.
///
/// There are no events without a run, and nothing stays taken without one: the workspace is unlocked when this
/// is dropped, and the hosts' lease is given back at the end of the run.
pub(super) struct Taken<'a> {
    context: &'a Context,
    verb: &'static str,
    lock: RunLock,
    cancel: &'a CancellationToken,
}

impl<'a> Taken<'a> {
    /// Takes the cluster, or returns an error that says who has it.
    pub(super) async fn by(
        context: &'a Context,
        verb: &'static str,
        leftovers: Leftovers,
        cancel: &'a CancellationToken,
    ) -> Result<Self> {
        let lock = context.lock(verb)?;
        context.begin_state(&lock).await?;
        if !["restore", "down"].contains(&verb)
            && let Some(restoring) = context.workspace.restoring()?
        {
            return Err(under_way::refused(context, &restoring));
        }
        if !["upgrade", "down"].contains(&verb) {
            upgrade::refuse_meanwhile(context)?;
        }
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

    /// The same with another context of the same cluster, such as one with more hosts in its inventory.
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
