//! One line for each event: for pipes and files, and above the bars.
//!
//! `  12.3s  node1    install-packages        changed (8.1 s)`: the columns are fixed, so that `grep`, `awk`
//! and `diff` are useful.

use std::collections::HashMap;

use super::{
    labels,
    quantity::{count, duration},
    terminal::{BAD, DIM, GOOD, PLAIN, Paint, WARN},
    text,
};
use crate::{
    event::{Event, HostState, Moment, Outcome, Stamped},
    inventory::HostName,
};

/// The drill that breaks nothing.
pub(super) const SWITCHOVER: &str = "switchover";

const NAME_WIDTH: usize = 22;

/// How much is shown; each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    Failures,
    /// What was done.
    Results,
    /// Also what begins, and what is not true yet.
    Starts,
    /// Also each line that a host prints.
    Output,
}

impl Detail {
    /// Without bars, results are printed; bars show them by themselves.
    pub(super) fn of(verbose: u8, bars: bool) -> Self {
        match u32::from(verbose) + u32::from(!bars) {
            0 => Detail::Failures,
            1 => Detail::Results,
            2 => Detail::Starts,
            _ => Detail::Output,
        }
    }
}

/// Turns events into lines.
#[derive(Debug)]
pub(super) struct Plain {
    detail: Detail,
    paint: Paint,
    host_width: usize,
    image: Option<String>,
    /// Whether the drill is a change of leader, which breaks nothing.
    planned: bool,
    /// The latest result of each check; `verify` repeats checks until a cluster has settled.
    checks: HashMap<&'static str, (bool, String)>,
}

/// The level from which on something is shown, and its columns: the host, a name, and the text.
type Told<'a> = (Detail, Option<&'a HostName>, String, String);

impl Plain {
    pub(super) fn new(detail: Detail, paint: Paint, hosts: &[HostName]) -> Self {
        let longest = hosts.iter().map(|host| host.as_str().len()).max();
        Self {
            detail,
            paint,
            host_width: longest.unwrap_or(0).max(5),
            image: None,
            planned: false,
            checks: HashMap::new(),
        }
    }

    /// The line for an event, if it is shown.
    pub(super) fn line(&mut self, stamped: &Stamped) -> Option<String> {
        let (detail, host, name, what) = self.tell(&stamped.event)?;
        (detail <= self.detail).then(|| self.columns(stamped.t, host, &name, &what))
    }

    fn columns(&self, t: f64, host: Option<&HostName>, name: &str, what: &str) -> String {
        let host = host.map_or("-", HostName::as_str);
        let line = format!(
            "{}  {host:<width$}  {name:<NAME_WIDTH$}  {what}",
            self.paint
                .on(DIM, format_args!("{:>7}", format!("{t:.1}s"))),
            width = self.host_width,
        );
        line.trim_end().to_owned()
    }

    /// The level from which on an event is shown, and its columns.
    fn tell<'a>(&mut self, event: &'a Event) -> Option<Told<'a>> {
        match event {
            Event::RunStarted { .. }
            | Event::Image { .. }
            | Event::Host { .. }
            | Event::Resource { .. }
            | Event::FactsRead { .. }
            | Event::Stage { .. }
            | Event::Planned { .. } => self.of_hosts(event),
            Event::StepStarted { .. } | Event::StepOutput { .. } | Event::StepFinished { .. } => {
                self.of_steps(event)
            }
            Event::Check {
                check,
                passed,
                detail,
            } => self.of_check(check, *passed, detail),
            Event::DrillStarted { .. }
            | Event::DrillMoment { .. }
            | Event::DrillFinished { .. }
            | Event::Load { .. } => self.of_drills(event),
            // Its checks, its steps and the summary say it.
            Event::VerifyStarted
            | Event::Software { .. }
            | Event::StepPlanned { .. }
            | Event::RunFinished { .. } => None,
        }
    }

    /// The lines about the run and its hosts.
    fn of_hosts<'a>(&mut self, event: &'a Event) -> Option<Told<'a>> {
        Some(match event {
            Event::RunStarted {
                verb,
                cluster,
                version,
                at: _,
            } => (
                Detail::Starts,
                None,
                (*verb).to_owned(),
                format!("{cluster} (pgherd {version})"),
            ),
            Event::Host {
                host,
                state,
                detail,
            } => (
                reached(*state),
                Some(host),
                "host".into(),
                with_detail(labels::host_state(*state), detail.as_deref()),
            ),
            Event::Resource {
                kind,
                id,
                name,
                state,
            } => (
                reached(*state),
                None,
                kind.clone(),
                with_detail(
                    &format!("{} {name}", labels::host_state(*state)),
                    (id != name).then_some(id.as_str()),
                ),
            ),
            Event::Image { image, line } => {
                let line = text::one_line(line);
                let news = self.image.as_ref() != Some(image);
                self.image = Some(image.clone());
                let detail = if news {
                    Detail::Results
                } else {
                    Detail::Output
                };
                let what = if line.is_empty() {
                    image.clone()
                } else {
                    format!("{image}: {line}")
                };
                (detail, None, "image".into(), what)
            }
            Event::FactsRead { host } => {
                (Detail::Starts, Some(host), "facts".into(), "read".into())
            }
            Event::Stage { stage } => (Detail::Results, None, "stage".into(), (*stage).to_owned()),
            Event::Planned { steps, changes } => (
                Detail::Results,
                None,
                "plan".into(),
                format!("{}, {}", count(*steps, "step"), count(*changes, "change")),
            ),
            _ => return None,
        })
    }

    fn of_steps<'a>(&self, event: &'a Event) -> Option<Told<'a>> {
        let paint = self.paint;
        Some(match event {
            Event::StepStarted { host, name, .. } => (
                Detail::Starts,
                Some(host),
                (*name).to_owned(),
                paint.on(DIM, "started"),
            ),
            Event::StepOutput {
                host, name, line, ..
            } => (
                Detail::Output,
                Some(host),
                (*name).to_owned(),
                paint.on(DIM, format_args!("| {}", text::one_line(line))),
            ),
            Event::StepFinished {
                host,
                name,
                outcome,
                seconds,
                error,
                ..
            } => {
                let (detail, style) = match outcome {
                    Outcome::Failed => (Detail::Failures, BAD),
                    Outcome::Changed => (Detail::Results, GOOD),
                    Outcome::Done => (Detail::Results, PLAIN),
                    Outcome::Cancelled => (Detail::Starts, DIM),
                };
                let mut what = paint.on(style, labels::outcome(*outcome));
                if *outcome != Outcome::Cancelled {
                    what += &format!(" ({})", duration(*seconds));
                }
                if let Some(error) = error {
                    what += &format!(": {}", text::first_line(error));
                }
                (detail, Some(host), (*name).to_owned(), what)
            }
            _ => return None,
        })
    }

    /// A check is shown when its result changes.
    fn of_check(
        &mut self,
        check: &'static str,
        passed: bool,
        detail: &str,
    ) -> Option<Told<'static>> {
        let paint = self.paint;
        let told = (passed, detail.to_owned());
        let before = self.checks.insert(check, told.clone());
        let same = match &before {
            Some((true, _)) => passed,
            Some(_) => before.as_ref() == Some(&told),
            None => false,
        };
        if same {
            return None;
        }
        let (level, word) = if passed {
            (Detail::Results, paint.on(GOOD, "passed"))
        } else {
            (Detail::Starts, paint.on(WARN, "not yet"))
        };
        let detail = text::first_line(detail);
        Some((
            level,
            None,
            check.to_owned(),
            with_detail(&word, (!detail.is_empty()).then_some(&detail)),
        ))
    }

    fn of_drills<'a>(&mut self, event: &'a Event) -> Option<Told<'a>> {
        let paint = self.paint;
        Some(match event {
            Event::DrillStarted {
                scenario,
                run,
                runs,
                hosts,
            } => {
                let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
                self.planned = *scenario == SWITCHOVER;
                let verb = if self.planned {
                    "moves the leader away from"
                } else {
                    "breaks"
                };
                let mut what = format!("{verb} {}", hosts.join(", "));
                if *runs > 1 {
                    what += &format!(", run {run} of {runs}");
                }
                (Detail::Results, None, (*scenario).to_owned(), what)
            }
            Event::DrillMoment { moment, host } => {
                let style = match moment {
                    Moment::HeldUp | Moment::Fault | Moment::Refused => BAD,
                    Moment::NewLeader | Moment::Accepted | Moment::Whole => GOOD,
                    Moment::Load | Moment::Repair | Moment::End => PLAIN,
                };
                (
                    // Bars disappear; people want to read these lines afterwards.
                    Detail::Failures,
                    host.as_ref(),
                    "drill".into(),
                    paint.on(style, labels::moment(*moment, self.planned)),
                )
            }
            Event::Load {
                writes,
                reads,
                refused,
            } => {
                let mut what = format!("{writes} writes/s, {reads} reads/s");
                if let Some(refused) = refused {
                    what += &format!(", no write for {}", duration(*refused));
                }
                (Detail::Starts, None, "load".into(), paint.on(DIM, what))
            }
            Event::DrillFinished {
                scenario,
                passed,
                write_outage,
                read_outage,
                acknowledged,
                missing,
            } => {
                let word = if *passed {
                    paint.on(GOOD, "passed")
                } else {
                    paint.on(BAD, "not passed")
                };
                let what = format!(
                    "{word}: no writes for {}, no reads for {}, {missing} of {} missing",
                    duration(*write_outage),
                    duration(*read_outage),
                    count(*acknowledged, "commit")
                );
                (Detail::Failures, None, (*scenario).to_owned(), what)
            }
            _ => return None,
        })
    }
}

fn reached(state: HostState) -> Detail {
    if labels::is_reached(state) || state == HostState::Waiting {
        Detail::Results
    } else {
        Detail::Starts
    }
}

fn with_detail(what: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) => format!("{what} ({})", text::first_line(detail)),
        None => what.to_owned(),
    }
}
