//! What happens in a run, as data.
//!
//! Everything that works emits these; `report` alone turns them into bars, lines, JSON and logs.
//! There is no styling and no prose in here: steps, checks and states are known by identifiers.

use std::time::Instant;

use serde::Serialize;
use tokio::sync::mpsc;

use crate::inventory::HostName;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed the host.
    Changed,
    /// It only waited or looked.
    Done,
    Failed,
    /// Never started, since something that it needs failed or the run was interrupted.
    Cancelled,
}

/// Where a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What happens to a host itself, before anything runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    Creating,
    Starting,
    Created,
    /// It was there and is different now.
    Changed,
    /// It runs under another address than before.
    Moved,
    Connecting,
    Connected,
    Removing,
    Removed,
}

/// The closed vocabulary of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    RunStarted {
        verb: &'static str,
        cluster: String,
        version: &'static str,
        at: jiff::Timestamp,
    },
    /// A host image is made or fetched; `line` is its builder's latest word.
    Image {
        image: String,
        line: String,
    },
    Host {
        host: HostName,
        state: HostState,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    FactsRead {
        host: HostName,
    },
    /// The plan is made: this many steps to do.
    Planned {
        steps: usize,
        changes: usize,
    },
    StepStarted {
        step: usize,
        host: HostName,
        name: &'static str,
    },
    StepOutput {
        step: usize,
        host: HostName,
        name: &'static str,
        stream: Stream,
        line: String,
    },
    StepFinished {
        step: usize,
        host: HostName,
        name: &'static str,
        outcome: Outcome,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// `verify` looks at the cluster; repeated while an `up` waits for it to settle.
    VerifyStarted,
    Check {
        check: &'static str,
        passed: bool,
        detail: String,
    },
    Resource {
        kind: String,
        id: String,
        name: String,
        state: HostState,
    },
    RunFinished {
        exit_code: u8,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// An event with the seconds since the run began.
#[derive(Debug, Clone, Serialize)]
pub struct Stamped {
    pub t: f64,
    #[serde(flatten)]
    pub event: Event,
}

/// The sending side; cheap to clone, never blocks, and silent once nobody listens.
#[derive(Debug, Clone)]
pub struct Events {
    start: Instant,
    sender: mpsc::UnboundedSender<Stamped>,
}

impl Events {
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Stamped>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let start = Instant::now();
        (Self { start, sender }, receiver)
    }

    pub fn emit(&self, event: Event) {
        let t = self.start.elapsed().as_secs_f64();
        // The listener is gone only when the process ends.
        let _ = self.sender.send(Stamped { t, event });
    }

    pub fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub fn host(&self, host: &HostName, state: HostState, detail: Option<String>) {
        self.emit(Event::Host {
            host: host.clone(),
            state,
            detail,
        });
    }
}
