//! The events of a run, as data.
//!
//! All code that does work emits events. Only `report` turns them into bars, lines, JSON and logs. Events have
//! no styling and no prose: steps, checks and states have identifiers.

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
    /// It only waited or checked.
    Done,
    Failed,
    /// It never started: something that it needs failed, or the run was interrupted.
    Cancelled,
}

/// Where a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What happens to a host itself, before any script runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    Creating,
    Starting,
    Created,
    /// It existed and was changed.
    Changed,
    /// It runs under another address than before.
    Moved,
    Connecting,
    /// It waits for the lease of a run that gives no sign of life.
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
    /// Replication is delayed: from now on, replicas fall behind.
    HeldUp,
    /// Something was broken.
    Fault,
    /// The first write after the fault that was not acknowledged.
    Refused,
    /// A write was acknowledged on a newer timeline: a member was promoted, usually another one.
    NewLeader,
    /// The first acknowledged write after the outage.
    Accepted,
    /// The fault is repaired.
    Repair,
    /// All members stream, and both ports lead to the right members.
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
    /// A host image is built or downloaded; `line` is the latest line of the builder's output.
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
    /// The version of each service's package; for Patroni, that of its venv if it has one.
    Software {
        host: HostName,
        os: String,
        packages: BTreeMap<String, String>,
    },
    /// A change that takes several plans has reached its next plan.
    Stage {
        stage: &'static str,
    },
    /// The plan is ready; it has this many steps.
    Planned {
        steps: usize,
        changes: usize,
    },
    /// A step that will be executed; one event for each step, before the first step begins.
    StepPlanned {
        step: usize,
        host: HostName,
        name: &'static str,
        why: String,
        /// The steps that must end before this one.
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
        /// The error's code, as a word (docs/errors.md).
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<Code>,
    },
    /// `verify` looks at the cluster. The event repeats while `up` waits for the cluster to settle.
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
    /// One drill begins: the `run`th of `runs` of its scenario.
    DrillStarted {
        scenario: &'static str,
        run: usize,
        runs: usize,
        /// The hosts that will be broken.
        hosts: Vec<HostName>,
    },
    DrillMoment {
        moment: Moment,
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<HostName>,
    },
    /// What clients get now, once a second.
    Load {
        /// Acknowledged in the last second.
        writes: u32,
        reads: u32,
        /// Seconds since the last acknowledged write, from the moment when one was due.
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
    /// All texts of the event that come from elsewhere: a host, a provider, an error.
    ///
    /// `report` masks these texts, and nothing else of an event.
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

/// The sending side. It is cheap to clone, never blocks, and drops events once nobody listens.
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
        // The listener ends only with the process.
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
