//! A run, from its first event to its report: everything that is common to verbs with a run.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::{context::Context, operator::Begun};
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

/// Calls `work` as the run of a verb that has [taken](super::taken) the cluster; the lock proves it.
pub(super) async fn of_verb<T>(
    _lock: &RunLock,
    context: &Context,
    verb: &'static str,
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(&Run<'_>) -> Result<T>,
) -> Result<T> {
    let session = Session {
        context,
        verb,
        beside: false,
        cancel,
    };
    session.run(work).await
}

/// Calls `work` as a separate run, beside the run of the verb or the run that has the cluster.
///
/// A verb that changes something must take the cluster; see [`super::taken::Taken`].
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

/// A run before it begins. It gets a folder and events, and always ends properly.
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
        let worked = work(&run).await;
        // Another run may begin as soon as the lease is given back.
        let stored = context.store_state().await;
        let result = worked.and_then(|done| stored.map(|()| done));
        let result = result.map_err(|error| context.told(error));
        let error = result.as_ref().err();
        context.connections.conclude(error).await;
        // The lease is given back before anybody reads how the run ended.
        context.connections.close(result.is_ok()).await;
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
