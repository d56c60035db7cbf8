//! A run, from its first event to its report: what every verb that works has in common.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{context::Context, drill::repair, operator::Begun};
use crate::{
    error::{Error, Result},
    event::{Event, Events},
    workspace::RunLock,
};

/// A run under way.
pub(crate) struct Run<'a> {
    pub context: &'a Context,
    pub events: Events,
    /// `runs/<time>`.
    pub folder: PathBuf,
    pub begun: jiff::Timestamp,
    /// Set when the operator wants to stop.
    pub cancel: &'a CancellationToken,
}

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
        let session = Session {
            context,
            verb: self.verb,
            beside: false,
            cancel: self.cancel,
        };
        session.run(work).await
    }

    pub(super) fn lock(&self) -> &RunLock {
        &self.lock
    }
}

/// Does `work` as a run of its own, beside the one of the verb or of whoever has taken the cluster.
///
/// A verb that changes something takes the cluster; see [`Taken`].
pub(super) async fn beside<T>(
    context: &Context,
    verb: &'static str,
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(&Run<'_>) -> Result<T>,
) -> Result<T> {
    let session = Session {
        context,
        verb,
        beside: true,
        cancel,
    };
    session.run(work).await
}

/// A run to be: with a folder, events and an end, whatever comes of it.
struct Session<'a> {
    context: &'a Context,
    verb: &'static str,
    beside: bool,
    cancel: &'a CancellationToken,
}

impl Session<'_> {
    async fn run<T>(&self, work: impl AsyncFnOnce(&Run<'_>) -> Result<T>) -> Result<T> {
        let Self {
            context,
            verb,
            beside,
            cancel,
        } = *self;
        let begun = jiff::Timestamp::now();
        let folder = context.workspace.new_run(begun)?;
        let (events, receiver) = Events::channel();
        context.connections.tell(&events);
        context.operator.begin(Begun {
            beside,
            folder: folder.clone(),
            hosts: match beside {
                true => Vec::new(),
                false => context.host_names(),
            },
            events: receiver,
        })?;
        events.emit(Event::RunStarted {
            verb,
            cluster: context.inventory.cluster.clone(),
            version: env!("CARGO_PKG_VERSION"),
            at: begun,
        });
        let run = Run {
            context,
            events,
            folder,
            begun,
            cancel,
        };
        let result = work(&run).await;
        // The hosts are given back before anybody reads how it ended.
        context.connections.close().await;
        let error = result.as_ref().err();
        run.events.emit(Event::RunFinished {
            exit_code: error.map_or(0, |error| error.kind().exit_code()),
            seconds: run.events.elapsed(),
            error: error.map(Error::to_string),
            code: error.map(Error::code),
        });
        context.operator.end(error).await;
        result
    }
}
