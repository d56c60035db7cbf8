//! The board of a run: one line for each host, and one for the whole.
//!
//! Only state and text; `live` draws it on the screen.

use indexmap::IndexMap;

mod canvas;

pub(super) use canvas::Canvas;
use canvas::{ROOMY, bar};

use super::{
    labels,
    plain::SWITCHOVER,
    quantity::{count, ticking},
    terminal::{BAD, BOLD, BUSY, DIM, GOOD, WARN},
    text,
};
use crate::{
    event::{Event, HostState, Moment, Outcome, Stamped},
    inventory::HostName,
};

#[derive(Debug)]
pub(super) struct Board {
    hosts: IndexMap<HostName, HostLine>,
    image: Option<Image>,
    /// Steps of the plan; `None` before there is a plan.
    steps: Option<usize>,
    /// How many steps had ended when the first step of the plan was reported, before the plan was complete.
    ahead: Option<usize>,
    finished: usize,
    failed: usize,
    checks: IndexMap<&'static str, (bool, String)>,
    verifying: bool,
    /// What the run does before there is a plan.
    verb: &'static str,
    /// Whether the drill is a change of leader, which breaks nothing.
    planned: bool,
    /// What a drill's clients get.
    load: Option<Load>,
}

#[derive(Debug)]
struct Load {
    writes: u32,
    reads: u32,
    /// In seconds of the run.
    refused_since: Option<f64>,
}

#[derive(Debug)]
struct Image {
    name: String,
    line: String,
    since: f64,
}

#[derive(Debug, Default)]
struct HostLine {
    /// What is running there now, the oldest first.
    running: Vec<Running>,
    finished: usize,
    rest: Rest,
}

#[derive(Debug)]
struct Running {
    step: Option<usize>,
    label: &'static str,
    since: f64,
    last_line: String,
}

/// What a host shows while nothing runs on it.
#[derive(Debug, Default)]
enum Rest {
    #[default]
    Waiting,
    Reached(&'static str),
    /// What a drill has done to it.
    Hurt(&'static str),
    Failed(&'static str),
}

impl Board {
    pub(super) fn new(hosts: &[HostName]) -> Self {
        Self {
            hosts: hosts
                .iter()
                .map(|host| (host.clone(), HostLine::default()))
                .collect(),
            image: None,
            steps: None,
            ahead: None,
            finished: 0,
            failed: 0,
            checks: IndexMap::new(),
            verifying: false,
            verb: "",
            planned: false,
            load: None,
        }
    }

    pub(super) fn event(&mut self, stamped: &Stamped) {
        let t = stamped.t;
        match &stamped.event {
            Event::RunStarted { verb, .. } => self.verb = verb,
            Event::Image { image, line } => {
                let since = self.image.as_ref().map_or(t, |image| image.since);
                self.image = Some(Image {
                    name: image.clone(),
                    line: text::one_line(line),
                    since,
                });
            }
            Event::Host {
                host,
                state,
                detail,
            } => {
                // Hosts are created from images, so there is one now.
                self.image = None;
                self.host(host).becomes(*state, t, detail.as_deref());
            }
            Event::FactsRead { host } => {
                let line = self.host(host);
                if line.running.is_empty() {
                    line.rest = Rest::Reached("facts read");
                }
            }
            // New hosts begin before the plan is complete. The plan counts their steps too.
            Event::StepPlanned { .. } if self.steps.is_none() => {
                self.ahead.get_or_insert(self.finished);
            }
            Event::Planned { steps, .. } => {
                let before = self.ahead.take().unwrap_or(self.finished);
                self.steps = Some(before + steps);
            }
            Event::StepStarted { .. } | Event::StepOutput { .. } | Event::StepFinished { .. } => {
                self.step(t, &stamped.event);
            }
            Event::VerifyStarted => self.verifying = true,
            Event::Check {
                check,
                passed,
                detail,
            } => {
                self.verifying = true;
                self.checks
                    .insert(check, (*passed, text::first_line(detail)));
            }
            Event::DrillStarted { scenario, .. } => {
                self.verb = scenario;
                self.steps = None;
                self.verifying = false;
                self.checks.clear();
                self.planned = *scenario == SWITCHOVER;
                // Earlier changes of hosts say nothing about the present ones.
                for line in self.hosts.values_mut() {
                    *line = HostLine::default();
                }
            }
            Event::Load {
                writes,
                reads,
                refused,
            } => {
                self.load = Some(Load {
                    writes: *writes,
                    reads: *reads,
                    refused_since: refused.map(|refused| t - refused),
                });
            }
            Event::DrillMoment { moment, host } => self.moment(*moment, host.as_ref()),
            _ => {}
        }
    }

    fn step(&mut self, t: f64, event: &Event) {
        match event {
            Event::StepStarted { step, host, name } => {
                let line = self.host(host);
                // A connection or a boot has ended, even if no event said so.
                line.running.retain(|running| running.step.is_some());
                line.running.push(Running {
                    step: Some(*step),
                    label: name,
                    since: t,
                    last_line: String::new(),
                });
            }
            Event::StepOutput {
                step, host, line, ..
            } => {
                let said = text::one_line(line);
                let running = &mut self.host(host).running;
                if let Some(running) = running.iter_mut().find(|r| r.step == Some(*step))
                    && !said.is_empty()
                {
                    running.last_line = said;
                }
            }
            Event::StepFinished {
                step,
                host,
                name,
                outcome,
                ..
            } => {
                let line = self.host(host);
                line.running.retain(|running| running.step != Some(*step));
                match outcome {
                    Outcome::Changed | Outcome::Done => {
                        line.finished += 1;
                        if !matches!(line.rest, Rest::Failed(_)) {
                            line.rest = Rest::Reached(name);
                        }
                        self.finished += 1;
                    }
                    Outcome::Failed => {
                        line.rest = Rest::Failed(name);
                        self.failed += 1;
                        self.finished += 1;
                    }
                    Outcome::Cancelled => self.finished += 1,
                }
            }
            _ => {}
        }
    }

    fn moment(&mut self, moment: Moment, host: Option<&HostName>) {
        let word = labels::moment(moment, self.planned);
        match moment {
            Moment::End => self.load = None,
            Moment::Repair | Moment::Whole => {
                for line in self.hosts.values_mut() {
                    if matches!(line.rest, Rest::Hurt(_)) {
                        line.rest = Rest::Reached(word);
                    }
                }
            }
            _ => {}
        }
        if let Some(host) = host {
            let hurts = matches!(moment, Moment::Fault | Moment::HeldUp) && !self.planned;
            self.host(host).rest = if hurts {
                Rest::Hurt(word)
            } else {
                Rest::Reached(word)
            };
        }
    }

    fn host(&mut self, host: &HostName) -> &mut HostLine {
        self.hosts.entry(host.clone()).or_default()
    }

    /// The lines to show at `now`, in seconds of the run.
    pub(super) fn lines(&self, now: f64, canvas: &Canvas) -> Vec<String> {
        let name_width = self
            .hosts
            .keys()
            .map(|host| host.as_str().len())
            .max()
            .unwrap_or(0)
            .min(20);
        let label_width = self
            .hosts
            .values()
            .filter_map(HostLine::label)
            .map(|label| label.len())
            .max()
            .unwrap_or(0)
            .clamp(16, 28);
        let mut lines = Vec::new();
        if let Some(image) = &self.image {
            lines.push(image.line(now, canvas));
        }
        // One row stays free, so that the picture never scrolls.
        let room = canvas.rows.saturating_sub(lines.len() + 2).max(1);
        let shown = self.shown(room);
        let hidden = self.hosts.len() - shown.len();
        lines.extend(
            shown
                .into_iter()
                .map(|(host, line)| line.line(host, name_width, label_width, now, canvas)),
        );
        if hidden > 0 {
            let more = format!("  and {} more", count(hidden, "host"));
            lines.push(canvas.paint.on(DIM, more));
        }
        lines.push(self.total(now, canvas));
        lines
            .iter()
            .map(|line| text::truncate(line, canvas.columns.max(1), canvas.unicode).into_owned())
            .collect()
    }

    /// The hosts to show, in their order. If there is no room for all, busy hosts come first.
    fn shown(&self, room: usize) -> Vec<(&HostName, &HostLine)> {
        if self.hosts.len() <= room {
            return self.hosts.iter().collect();
        }
        let room = room.saturating_sub(1);
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.sort_by_key(|&i| self.hosts[i].dullness());
        order.truncate(room);
        order.sort_unstable();
        order
            .into_iter()
            .filter_map(|i| self.hosts.get_index(i))
            .collect()
    }

    fn total(&self, now: f64, canvas: &Canvas) -> String {
        let paint = canvas.paint;
        let mut parts = Vec::new();
        match self.steps {
            Some(steps) => {
                if canvas.columns >= ROOMY {
                    parts.push(bar(self.finished, steps, 24, canvas));
                }
                let of = format!("{}/{steps}", self.finished.min(steps));
                let word = if steps == 1 { "step" } else { "steps" };
                parts.push(format!("{} {word}", paint.on(BOLD, of)));
            }
            None if !self.verb.is_empty() => parts.push(paint.on(BOLD, self.verb)),
            None => {}
        }
        parts.push(ticking(now));
        if self.failed > 0 {
            parts.push(paint.on(BAD, format_args!("{} failed", self.failed)));
        }
        if let Some(load) = &self.load {
            parts.push(format!("{} writes/s  {} reads/s", load.writes, load.reads));
            if let Some(since) = load.refused_since {
                let seconds = format!("no write for {:.1} s", now - since);
                parts.push(paint.on(BAD, seconds));
            }
        }
        if self.verifying {
            parts.push(self.verify(canvas));
        }
        format!("  {}", parts.join("  "))
    }

    fn verify(&self, canvas: &Canvas) -> String {
        let hold = self.checks.values().filter(|(passed, _)| *passed).count();
        let mut text = format!("verify {hold}/{}", self.checks.len());
        if self.checks.is_empty() {
            text = "verify".into();
        }
        match self.checks.iter().find(|(_, (passed, _))| !passed) {
            Some((check, (_, detail))) => {
                let waits = if detail.is_empty() {
                    (*check).to_owned()
                } else {
                    format!("{check}: {detail}")
                };
                format!("{text}  {}", canvas.paint.on(WARN, waits))
            }
            None => text,
        }
    }
}

impl Image {
    fn line(&self, now: f64, canvas: &Canvas) -> String {
        format!(
            "{} image {}  {}  {}",
            canvas.paint.on(BUSY, canvas.spinner()),
            self.name,
            ticking(now - self.since),
            canvas.paint.on(DIM, &self.line)
        )
    }
}

impl HostLine {
    fn becomes(&mut self, state: HostState, t: f64, detail: Option<&str>) {
        self.running.retain(|running| running.step.is_some());
        let label = labels::host_state(state);
        if labels::is_reached(state) {
            if !matches!(self.rest, Rest::Failed(_)) {
                self.rest = Rest::Reached(label);
            }
        } else {
            self.running.push(Running {
                step: None,
                label,
                since: t,
                last_line: detail.map(text::first_line).unwrap_or_default(),
            });
        }
    }

    /// What is running there: the oldest step, and the number of others.
    fn label(&self) -> Option<String> {
        let first = self.running.first()?;
        Some(match self.running.len() {
            1 => first.label.to_owned(),
            n => format!("{} +{}", first.label, n - 1),
        })
    }

    /// What can be left out first if there is no room for all.
    fn dullness(&self) -> u8 {
        match (&self.rest, self.running.is_empty()) {
            (Rest::Failed(_) | Rest::Hurt(_), _) => 0,
            (_, false) => 1,
            (Rest::Waiting, true) => 2,
            (Rest::Reached(_), true) => 3,
        }
    }

    fn line(
        &self,
        host: &HostName,
        name_width: usize,
        label_width: usize,
        now: f64,
        canvas: &Canvas,
    ) -> String {
        let paint = canvas.paint;
        let (good, bad, idle) = if canvas.unicode {
            ("✓", "✗", "·")
        } else {
            ("*", "x", ".")
        };
        let name = text::pad(host.as_str(), name_width);
        let Some(first) = self.running.first() else {
            return match &self.rest {
                Rest::Waiting => format!("{} {}", paint.on(DIM, idle), paint.on(DIM, name)),
                Rest::Hurt(what) => {
                    format!("{} {name}  {}", paint.on(BAD, bad), paint.on(BAD, what))
                }
                Rest::Failed(step) => {
                    let what = paint.on(BAD, format_args!("{step} failed"));
                    format!("{} {name}  {what}", paint.on(BAD, bad))
                }
                Rest::Reached(what) => {
                    let mut what = (*what).to_owned();
                    if self.finished > 0 {
                        what = format!("{what}, {} done", count(self.finished, "step"));
                    }
                    format!("{} {name}  {}", paint.on(GOOD, good), paint.on(DIM, what))
                }
            };
        };
        let mark = if matches!(self.rest, Rest::Failed(_)) {
            paint.on(BAD, bad)
        } else {
            paint.on(BUSY, canvas.spinner())
        };
        let label = self.label().unwrap_or_default();
        if canvas.columns < ROOMY {
            let seconds = ticking(now - first.since);
            return format!("{mark} {name}  {label} {seconds}");
        }
        // The latest message of any of the steps.
        let said = self
            .running
            .iter()
            .rev()
            .map(|running| running.last_line.as_str())
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        format!(
            "{mark} {name}  {}  {:>5}  {}",
            text::pad(&label, label_width),
            ticking(now - first.since),
            paint.on(DIM, said)
        )
    }
}
