//! The events of a run, as data.
//!
//! Everything that works emits these; `report` alone turns them into bars, lines, JSON and logs.
//! There is no styling and no prose in here: steps, checks and states are known by identifiers.

use std::{collections::BTreeMap, time::Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{error::Code, inventory::HostName};

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
    /// For the lease of a run that gives no sign of life.
    Waiting,
    Connected,
    Removing,
    Removed,
}

/// What can happen in a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Writers and readers are at work.
    Load,
    /// Replication is held up: from here on replicas fall behind.
    HeldUp,
    /// Something was broken.
    Fault,
    /// The first write after the fault that was not acknowledged.
    Refused,
    /// A write was acknowledged on a newer timeline: a member was promoted, most often another.
    NewLeader,
    /// The first acknowledged write after the time in which there was none.
    Accepted,
    /// What was broken is put right.
    Repair,
    /// All members stream, and both ports lead where they should.
    Whole,
    /// Writers and readers have stopped.
    End,
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
    /// What serves on a host, by package; Patroni's is that of its venv, where it has one.
    Software {
        host: HostName,
        os: String,
        packages: BTreeMap<String, String>,
    },
    /// A change that takes several plans has come to the next of them.
    Stage {
        stage: &'static str,
    },
    /// The plan is made: this many steps to do.
    Planned {
        steps: usize,
        changes: usize,
    },
    /// A step that the plan's execution is about to wait for or begin; one for each, before the first.
    StepPlanned {
        step: usize,
        host: HostName,
        name: &'static str,
        why: String,
        /// The steps that must have ended before.
        after: Vec<usize>,
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
        /// What failed, as a word (docs/errors.md).
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
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
    /// One drill begins, the `run`th of `runs` of its scenario.
    DrillStarted {
        scenario: &'static str,
        run: usize,
        runs: usize,
        /// Which are to be broken.
        hosts: Vec<HostName>,
    },
    DrillMoment {
        moment: Moment,
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<HostName>,
    },
    /// What clients get at this moment, told once a second.
    Load {
        /// Acknowledged in the last second.
        writes: u32,
        reads: u32,
        /// Seconds since the last acknowledged write, once there should have been one.
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<f64>,
    },
    DrillFinished {
        scenario: &'static str,
        passed: bool,
        /// Seconds.
        write_outage: f64,
        read_outage: f64,
        acknowledged: u64,
        missing: u64,
    },
    RunFinished {
        exit_code: u8,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
    },
}

impl Event {
    /// Every text in it that came from elsewhere: a host, a provider, an error.
    ///
    /// `report` masks these, and nothing else of an event.
    pub fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Image { image: _, line } | Self::StepOutput { line, .. } => vec![line],
            Self::Host { detail, .. } => detail.iter_mut().collect(),
            Self::StepFinished { error, .. } | Self::RunFinished { error, .. } => {
                error.iter_mut().collect()
            }
            Self::Check { detail, .. } => vec![detail],
            Self::StepPlanned { why, .. } => vec![why],
            Self::Software { os, packages, .. } => {
                std::iter::once(os).chain(packages.values_mut()).collect()
            }
            Self::RunStarted { .. }
            | Self::FactsRead { .. }
            | Self::Stage { .. }
            | Self::Planned { .. }
            | Self::StepStarted { .. }
            | Self::VerifyStarted
            | Self::Resource { .. }
            | Self::DrillStarted { .. }
            | Self::DrillMoment { .. }
            | Self::Load { .. }
            | Self::DrillFinished { .. } => Vec::new(),
        }
    }
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
