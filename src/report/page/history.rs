//! The history of a run, from `events.jsonl`.
//!
//! It is read from the file, not kept in memory, so that a run that was killed has a page too. Unknown lines
//! and fields are skipped: another version may have written them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The group of a span in the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Networks, images and everything else that belongs to no single host.
    Site,
    Host(String),
    /// The proof, and the observation of all hosts before it.
    Proof,
}

/// How a span ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    Changed,
    /// It only waited or checked.
    Done,
    Failed,
    /// It was running when the run ended.
    CutOff,
}

/// Something that took time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub place: Place,
    pub name: String,
    /// Seconds since the run began.
    pub begin: f64,
    pub end: f64,
    pub ending: Ending,
    pub error: Option<String>,
    /// Set for steps of a plan.
    pub step: Option<Planned>,
}

impl Span {
    pub(super) fn seconds(&self) -> f64 {
        (self.end - self.begin).max(0.0)
    }

    pub(super) fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Host(host) => Some(host),
            Place::Site | Place::Proof => None,
        }
    }
}

/// A step of a plan: one run may execute several plans, each with steps numbered from 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Planned {
    #[serde(skip)]
    pub id: StepKey,
    pub host: String,
    pub name: String,
    pub why: String,
    /// The steps that had to end before; `None` if the log does not say.
    #[serde(skip)]
    pub after: Option<Vec<StepKey>>,
}

/// The number of the plan in the run, and of the step in the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StepKey {
    pub plan: usize,
    pub step: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    #[serde(rename = "check")]
    pub name: String,
    pub passed: bool,
    pub detail: String,
}

/// The software of a host's services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Software {
    pub os: String,
    pub packages: BTreeMap<String, String>,
}

/// An error in parts, as `report` writes it to JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Failure {
    pub kind: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excerpts: Vec<Quote>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Quote {
    pub title: String,
    pub text: String,
}

/// What a run reported at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub exit_code: u8,
    pub error: Option<String>,
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct History {
    pub verb: String,
    pub cluster: String,
    /// pgherd's own version.
    pub version: String,
    pub began: Option<jiff::Timestamp>,
    pub seconds: f64,
    /// `None` for a run that was killed, or that is still running.
    pub end: Option<End>,
    /// Hosts in the order in which they appeared.
    pub hosts: Vec<String>,
    /// By their beginning.
    pub spans: Vec<Span>,
    /// Steps that were planned and never ran.
    pub not_run: Vec<Planned>,
    /// What was created and what was removed: hosts, networks and the like.
    pub created: usize,
    pub removed: usize,
    /// Hosts that run with another address than before.
    pub moved: usize,
    /// Existing resources that were changed, such as security groups.
    pub altered: usize,
    /// The latest result of each check, in order.
    pub checks: Vec<Check>,
    pub software: BTreeMap<String, Software>,
    pub failure: Option<Failure>,
}

/// The outcome of a run, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    Failed,
    /// The cluster is not healthy.
    Broken,
    Stopped,
    /// It never reported its end.
    Unfinished,
}

impl History {
    pub(super) fn verdict(&self) -> Verdict {
        use crate::error::Kind;
        let Some(end) = &self.end else {
            return Verdict::Unfinished;
        };
        match end.exit_code {
            0 => Verdict::Done,
            code if code == Kind::Interrupted.exit_code() => Verdict::Stopped,
            code if code == Kind::Broken.exit_code() => Verdict::Broken,
            _ => Verdict::Failed,
        }
    }

    /// The spans that are steps of a plan.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(|span| span.step.is_some())
    }

    /// How many steps ended that way.
    pub(super) fn count(&self, ending: Ending) -> usize {
        self.steps().filter(|span| span.ending == ending).count()
    }

    /// The `n` slowest steps, slowest first.
    pub(super) fn slowest(&self, n: usize) -> Vec<&Span> {
        let mut steps: Vec<&Span> = self.steps().collect();
        steps.sort_by(|a, b| b.seconds().total_cmp(&a.seconds()));
        steps.truncate(n);
        steps
    }

    /// The failures to show: each on its own, without the one that only counts them.
    ///
    /// If the run's error was not kept whole, what its steps and its end reported.
    pub(super) fn failures(&self) -> Vec<Failure> {
        if let Some(failure) = &self.failure {
            let mut all = failure.failures.clone();
            if all.is_empty() || !failure.causes.is_empty() || !failure.excerpts.is_empty() {
                all.insert(
                    0,
                    Failure {
                        failures: Vec::new(),
                        ..failure.clone()
                    },
                );
            } else if let Some(last) = all.last_mut() {
                last.hints.extend(failure.hints.iter().cloned());
            }
            return all;
        }
        let mut all: Vec<Failure> = self
            .spans
            .iter()
            .filter(|span| span.ending == Ending::Failed)
            .map(|span| Failure {
                host: span.host().map(str::to_owned),
                step: Some(span.name.clone()),
                message: span.error.clone().unwrap_or_default(),
                ..Failure::default()
            })
            .collect();
        let error = self.end.as_ref().and_then(|end| end.error.clone());
        if all.is_empty()
            && let Some(message) = error
        {
            all.push(Failure {
                message,
                ..Failure::default()
            });
        }
        all
    }
}

/// A line of `events.jsonl`.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub t: f64,
    #[serde(flatten)]
    pub event: Kept,
}

/// The events that a history is made from.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Kept {
    RunStarted {
        verb: String,
        cluster: String,
        version: String,
        at: Option<jiff::Timestamp>,
    },
    Image {
        image: String,
    },
    Host {
        host: String,
        state: String,
    },
    FactsRead {
        host: String,
    },
    Software {
        host: String,
        os: String,
        packages: BTreeMap<String, String>,
    },
    StepPlanned {
        step: usize,
        host: String,
        name: String,
        why: String,
        after: Vec<usize>,
    },
    StepStarted {
        step: usize,
        host: String,
        name: String,
    },
    StepFinished {
        step: usize,
        host: String,
        name: String,
        outcome: String,
        error: Option<String>,
    },
    VerifyStarted,
    Check {
        check: String,
        passed: bool,
        detail: String,
    },
    Resource {
        kind: String,
        name: String,
        state: String,
    },
    RunFinished {
        exit_code: u8,
        seconds: f64,
        error: Option<String>,
    },
    Error(Failure),
    #[serde(other)]
    Other,
}
