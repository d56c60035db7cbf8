//! A verb that works, from its first event to its report.

use std::{path::PathBuf, sync::Arc};

use super::{connections::Connections, context::Base};
use crate::{
    error::{Error, Result},
    event::{Event, Events},
    inventory::HostName,
    report::{Handle, Options, Reporter, Run, RunLog, Terminal},
};

/// What a verb tells, who listens, and the folder where it is kept.
pub(crate) struct Session {
    pub events: Events,
    pub reporter: Handle,
    /// `runs/<time>`.
    pub folder: PathBuf,
    pub begun: jiff::Timestamp,
    connections: Arc<Connections>,
}

impl Session {
    /// `hosts` are shown from the start, in this order; others as they turn up.
    pub(crate) fn begin(
        base: &Base,
        verb: &'static str,
        terminal: Terminal,
        hosts: Vec<HostName>,
    ) -> Result<Self> {
        let begun = jiff::Timestamp::now();
        let folder = base.workspace.new_run(begun)?;
        let (events, receiver) = Events::channel();
        let options = Options {
            terminal,
            run_log: Some(RunLog::create(&folder)?),
            hosts,
        };
        let reporter = Reporter::start(receiver, options);
        events.emit(Event::RunStarted {
            verb,
            cluster: base.inventory.cluster.clone(),
            version: env!("CARGO_PKG_VERSION"),
            at: begun,
        });
        Ok(Self {
            events,
            reporter,
            folder,
            begun,
            connections: base.connections.clone(),
        })
    }

    /// Gives the cluster back, tells how it ended, and waits until everything has been reported.
    pub(crate) async fn end<T>(self, result: &Result<T>) -> Run {
        self.connections.close().await;
        let error = result.as_ref().err();
        self.events.emit(Event::RunFinished {
            exit_code: error.map_or(0, |error| error.kind().exit_code()),
            seconds: self.events.elapsed(),
            error: error.map(Error::to_string),
        });
        self.reporter.conclude(error).await
    }
}
