//! The summary of a run, counted from its events.

use std::{collections::HashSet, path::PathBuf};

use super::{
    quantity::duration,
    terminal::{BAD, BOLD, DIM, GOOD, Paint, Terminal},
    text,
};
use crate::{
    error::Kind,
    event::{Event, HostState, Outcome, Stamped},
    inventory::HostName,
};

/// How long one step took.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTime {
    pub host: HostName,
    pub name: &'static str,
    pub seconds: f64,
}

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Run {
    pub seconds: f64,
    /// As the run reported at its end; 0 if it did not.
    pub exit_code: u8,
    /// Hosts, networks and the like that were created.
    pub created: usize,
    pub removed: usize,
    /// Hosts that have another address now.
    pub moved: usize,
    /// Steps that changed their host; hosts that were started, and resources that were changed.
    pub changed: usize,
    /// Steps that only looked or waited.
    pub unchanged: usize,
    pub failed: usize,
    /// Steps that were planned and never ran.
    pub cancelled: usize,
    /// Every step that ran, in the order of their ends.
    pub steps: Vec<StepTime>,
    /// Where the run's log is.
    pub log: Option<PathBuf>,
    /// Where the run's page is, if it could be written.
    pub page: Option<PathBuf>,
    /// Why the log is incomplete.
    pub log_trouble: Option<String>,
}

impl Run {
    pub fn nothing_changed(&self) -> bool {
        self.created + self.removed + self.moved + self.changed + self.failed + self.cancelled == 0
    }

    /// The `n` slowest steps, slowest first.
    pub fn slowest(&self, n: usize) -> Vec<&StepTime> {
        let mut steps: Vec<&StepTime> = self.steps.iter().collect();
        steps.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        steps.truncate(n);
        steps
    }
}

/// Counts events as they pass.
#[derive(Debug, Default)]
pub(super) struct RunTotals {
    run: Run,
    /// Hosts and resources that are being created: `created` alone may be about an existing one.
    making: HashSet<String>,
    finished: bool,
}

impl RunTotals {
    pub(super) fn event(&mut self, stamped: &Stamped) {
        if !self.finished {
            self.run.seconds = stamped.t;
        }
        match &stamped.event {
            Event::Host { host, state, .. } => self.thing(host.as_str(), *state, false),
            // A provider names a resource only when it creates, changes or removes it.
            Event::Resource {
                kind, name, state, ..
            } => {
                self.thing(&format!("{kind} {name}"), *state, true);
            }
            Event::StepFinished {
                host,
                name,
                outcome,
                seconds,
                ..
            } => {
                let count = match outcome {
                    Outcome::Changed => &mut self.run.changed,
                    Outcome::Done => &mut self.run.unchanged,
                    Outcome::Failed => &mut self.run.failed,
                    Outcome::Cancelled => &mut self.run.cancelled,
                };
                *count += 1;
                if *outcome != Outcome::Cancelled {
                    self.run.steps.push(StepTime {
                        host: host.clone(),
                        name,
                        seconds: *seconds,
                    });
                }
            }
            Event::RunFinished {
                seconds, exit_code, ..
            } => {
                self.run.seconds = *seconds;
                self.run.exit_code = *exit_code;
                self.finished = true;
            }
            _ => {}
        }
    }

    fn thing(&mut self, key: &str, state: HostState, told_only_when_made: bool) {
        match state {
            HostState::Creating => {
                self.making.insert(key.to_owned());
            }
            HostState::Created if self.making.remove(key) || told_only_when_made => {
                self.run.created += 1;
            }
            HostState::Removed => self.run.removed += 1,
            HostState::Moved => self.run.moved += 1,
            HostState::Changed => self.run.changed += 1,
            HostState::Starting if !self.making.contains(key) => self.run.changed += 1,
            HostState::Created
            | HostState::Starting
            | HostState::Connecting
            | HostState::Waiting
            | HostState::Connected
            | HostState::Removing => {}
        }
    }

    /// The run's duration, so far or in total.
    pub(super) fn seconds(&self) -> f64 {
        self.run.seconds
    }

    pub(super) fn into_run(self) -> Run {
        self.run
    }
}

/// What the end of a run says in addition to its numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary<'a> {
    /// Why there was nothing to do: "5 hosts are as the inventory says".
    pub settled: &'a str,
    /// How to reach what exists now, as label and text: `("write", "psql -h … -p 5000")`.
    pub endpoints: &'a [(&'a str, String)],
}

/// Prints the summary of a run on stderr. With `--json`, the stream of events has said it already.
pub fn print_summary(terminal: &Terminal, run: &Run, summary: &Summary<'_>) {
    if !terminal.json {
        terminal.say(&summary_text(run, summary, terminal.stderr.paint()));
    }
}

/// The summary's text: one line if nothing changed.
pub(super) fn summary_text(run: &Run, summary: &Summary<'_>, paint: Paint) -> String {
    let took = duration(run.seconds);
    let stopped = run.exit_code == Kind::Interrupted.exit_code();
    let failed = run.exit_code != 0 || run.failed + run.cancelled > 0;
    let heading = if stopped {
        paint.on(BAD, format_args!("stopped after {took}"))
    } else if failed {
        paint.on(BAD, format_args!("failed after {took}"))
    } else {
        paint.on(GOOD, format_args!("done in {took}"))
    };
    let mut text = if run.nothing_changed() && !failed {
        let heading = paint.on(GOOD, "nothing to do:");
        format!("{heading} {}  ({took})\n", summary.settled)
    } else {
        let numbers = numbers(run);
        let colon = if numbers.is_empty() { "" } else { ": " };
        let table = table(run, summary, failed, paint);
        format!("{heading}{colon}{numbers}\n{table}")
    };
    if let Some(trouble) = &run.log_trouble {
        text += &format!("warning: the run's log is incomplete: {trouble}\n");
    }
    text
}

fn numbers(run: &Run) -> String {
    let counts = [
        (run.created, "created"),
        (run.removed, "removed"),
        (run.moved, "moved"),
        (run.changed, "changed"),
        (run.unchanged, "unchanged"),
        (run.failed, "failed"),
        (run.cancelled, "not run"),
    ];
    let said: Vec<String> = counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| format!("{n} {word}"))
        .collect();
    said.join(", ")
}

fn table(run: &Run, summary: &Summary<'_>, failed: bool, paint: Paint) -> String {
    let slowest: Vec<&StepTime> = run
        .slowest(5)
        .into_iter()
        .filter(|step| step.seconds >= 0.1)
        .collect();
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let host_width = widest(&mut slowest.iter().map(|step| step.host.as_str().len()));
    let name_width = widest(&mut slowest.iter().map(|step| step.name.len()));
    let mut rows: Vec<(&str, String)> = Vec::new();
    for (i, step) in slowest.iter().enumerate() {
        let row = format!(
            "{:<host_width$}  {:<name_width$}  {:>9}",
            step.host,
            step.name,
            duration(step.seconds)
        );
        rows.push((if i == 0 { "slowest" } else { "" }, row));
    }
    rows.extend(
        summary
            .endpoints
            .iter()
            .map(|(label, text)| (*label, text.clone())),
    );
    if let (Some(log), true) = (&run.log, failed) {
        rows.push(("log", log.display().to_string()));
    }
    if let Some(page) = &run.page {
        rows.push(("report", page.display().to_string()));
    }
    let label_width = widest(&mut rows.iter().map(|(label, _)| text::width(label)));
    rows.iter()
        .map(|(label, text)| {
            let style = if matches!(*label, "slowest" | "log" | "report" | "") {
                DIM
            } else {
                BOLD
            };
            let label = paint.on(style, text::pad(label, label_width));
            format!("  {label}  {text}\n")
        })
        .collect()
}
