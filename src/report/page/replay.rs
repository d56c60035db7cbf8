//! Makes a history of events, one by one.

use super::history::{
    Check, End, Ending, History, Kept, Line, Place, Planned, Software, Span, StepKey,
};

/// An incomplete history.
#[derive(Debug, Default)]
pub(super) struct Replay {
    history: History,
    /// Spans that have begun and not ended.
    open: Vec<Span>,
    planned: Vec<Planned>,
    /// Counts the plans of the run.
    plan: Option<usize>,
    /// The steps of the present plan that have ended.
    ended: Vec<usize>,
    last_step_end: f64,
    /// When hosts were last read again, after the first observation.
    looked_again: f64,
    last: f64,
}

/// Reads the text of an `events.jsonl`.
pub(super) fn read(text: &str) -> History {
    let mut replay = Replay::default();
    text.lines()
        // A run that was killed may have left half a line.
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .for_each(|line| replay.take(line));
    replay.finish()
}

impl Replay {
    pub(super) fn take(&mut self, line: Line) {
        let t = line.t;
        self.last = self.last.max(t);
        match line.event {
            Kept::RunStarted {
                verb,
                cluster,
                version,
                at,
            } => {
                self.history.verb = verb;
                self.history.cluster = cluster;
                self.history.version = version;
                self.history.began = at;
            }
            Kept::Image { image } => {
                let name = format!("image {image}");
                if !self.is_open(&Place::Site, &name) {
                    self.begin(t, Place::Site, &name, None);
                }
            }
            Kept::Host { host, state } => self.host(t, host, &state),
            Kept::FactsRead { host } => {
                let place = Place::Host(host);
                if self.is_open(&place, "read facts") {
                    self.end(t, &place, "read facts", Ending::Done);
                } else {
                    self.looked_again = t;
                }
            }
            Kept::Software { host, os, packages } => {
                let software = Software { os, packages };
                self.history.software.insert(host, software);
            }
            Kept::StepPlanned {
                step,
                host,
                name,
                why,
                after,
            } => {
                // Only the first step of a plan shows that a new plan begins.
                if step == 0 || self.plan.is_none() {
                    self.next_plan();
                }
                let key = |step| StepKey {
                    plan: self.plan.unwrap_or_default(),
                    step,
                };
                self.planned.push(Planned {
                    id: key(step),
                    host,
                    name,
                    why,
                    after: Some(after.into_iter().map(key).collect()),
                });
            }
            Kept::StepStarted { step, host, name } => self.step_started(t, step, host, &name),
            Kept::StepFinished {
                step,
                host,
                name,
                outcome,
                error,
            } => self.step_finished(t, step, &host, &name, &outcome, error),
            Kept::VerifyStarted => {
                // Only a run that has changed something observes twice before its proof.
                if self.last_step_end > 0.0 && self.looked_again > self.last_step_end {
                    self.begin(self.last_step_end, Place::Proof, "look again", None);
                    self.end(self.looked_again, &Place::Proof, "look again", Ending::Done);
                }
                self.begin(t, Place::Proof, "prove", None);
            }
            Kept::Check {
                check,
                passed,
                detail,
            } => self.check(t, check, passed, detail),
            Kept::Resource { kind, name, state } => {
                self.thing(t, &Place::Site, &format!("{kind} {name}"), &state);
            }
            Kept::RunFinished {
                exit_code,
                seconds,
                error,
            } => {
                self.last = seconds;
                self.history.end = Some(End { exit_code, error });
            }
            Kept::Error(failure) => self.history.failure = Some(failure),
            Kept::Other => {}
        }
    }

    pub(super) fn finish(mut self) -> History {
        let seconds = self.last;
        let good = self
            .history
            .end
            .as_ref()
            .is_some_and(|end| end.exit_code == 0);
        for mut span in std::mem::take(&mut self.open) {
            span.end = seconds.max(span.begin);
            // Some providers do not report that something is ready; a successful run proves it.
            span.ending = if good { Ending::Done } else { Ending::CutOff };
            self.history.spans.push(span);
        }
        let mut history = self.history;
        history.seconds = seconds;
        history.spans.sort_by(|a, b| a.begin.total_cmp(&b.begin));
        let ran = |id| {
            let ids = history.spans.iter().filter_map(|span| span.step.as_ref());
            ids.into_iter().any(|step| step.id == id)
        };
        history.not_run = self
            .planned
            .into_iter()
            .filter(|planned| !ran(planned.id))
            .collect();
        history
    }

    fn next_plan(&mut self) {
        self.plan = Some(self.plan.map_or(0, |plan| plan + 1));
        self.ended.clear();
    }

    fn host(&mut self, t: f64, host: String, state: &str) {
        if !self.history.hosts.contains(&host) {
            self.history.hosts.push(host.clone());
        }
        let place = Place::Host(host);
        // Hosts are created from images, so there is one now.
        while let Some(image) = self
            .open
            .iter()
            .position(|span| span.name.starts_with("image "))
        {
            let mut image = self.open.remove(image);
            image.end = t;
            self.history.spans.push(image);
        }
        match state {
            "connecting" => self.begin(t, place, "connect", None),
            "connected" => {
                self.end(t, &place, "connect", Ending::Done);
                self.begin(t, place, "read facts", None);
            }
            _ => self.thing(t, &place, "", state),
        }
    }

    /// Something that is being created, started or removed.
    fn thing(&mut self, t: f64, place: &Place, name: &str, state: &str) {
        let called = |verb: &str| format!("{verb} {name}").trim_end().to_owned();
        let launch = match place {
            Place::Host(_) => called("launch"),
            Place::Site | Place::Proof => called("make"),
        };
        let (start, remove) = (called("start"), called("remove"));
        match state {
            "creating" => self.begin(t, place.clone(), &launch, None),
            "starting" if !self.is_open(place, &launch) => {
                self.begin(t, place.clone(), &start, None);
            }
            "created" => {
                if self.end(t, place, &launch, Ending::Changed) {
                    self.history.created += 1;
                } else if *place == Place::Site {
                    // It is reported only when it exists.
                    self.moment(t, place, &launch);
                    self.history.created += 1;
                } else {
                    self.end(t, place, &start, Ending::Changed);
                }
            }
            // These two are reported only when they are done.
            "moved" => {
                self.moment(t, place, &called("move"));
                self.history.moved += 1;
            }
            "changed" => {
                self.moment(t, place, &called("change"));
                self.history.altered += 1;
            }
            "removing" => self.begin(t, place.clone(), &remove, None),
            "removed" => {
                self.end(t, place, &remove, Ending::Changed);
                self.history.removed += 1;
            }
            _ => {}
        }
    }

    /// Something that was just done; its duration is unknown.
    fn moment(&mut self, t: f64, place: &Place, name: &str) {
        self.begin(t, place.clone(), name, None);
        self.end(t, place, name, Ending::Changed);
    }

    fn step_started(&mut self, t: f64, step: usize, host: String, name: &str) {
        // Without planned steps, a step that runs again shows that another plan began.
        if self.plan.is_none() || self.ended.contains(&step) {
            self.next_plan();
        }
        let id = StepKey {
            plan: self.plan.unwrap_or_default(),
            step,
        };
        let planned = self.planned.iter().find(|planned| planned.id == id);
        let planned = planned.cloned().unwrap_or_else(|| Planned {
            id,
            host: host.clone(),
            name: name.to_owned(),
            ..Planned::default()
        });
        if !self.history.hosts.contains(&host) {
            self.history.hosts.push(host.clone());
        }
        self.begin(t, Place::Host(host), name, Some(planned));
    }

    fn step_finished(
        &mut self,
        t: f64,
        step: usize,
        host: &str,
        name: &str,
        outcome: &str,
        error: Option<String>,
    ) {
        self.ended.push(step);
        let ending = match outcome {
            "changed" => Ending::Changed,
            "failed" => Ending::Failed,
            // A step that was running counts as interrupted; one that never began is only planned.
            "cancelled" => return self.cancelled(step, host, name),
            _ => Ending::Done,
        };
        self.last_step_end = t;
        let Some(mut span) = self.close(|span| {
            span.host() == Some(host) && span.step.as_ref().is_some_and(|it| it.id.step == step)
        }) else {
            return;
        };
        span.end = t;
        span.ending = ending;
        span.error = error;
        self.history.spans.push(span);
    }

    fn cancelled(&mut self, step: usize, host: &str, name: &str) {
        let id = StepKey {
            plan: self.plan.unwrap_or_default(),
            step,
        };
        if self.planned.iter().all(|planned| planned.id != id) {
            self.planned.push(Planned {
                id,
                host: host.to_owned(),
                name: name.to_owned(),
                ..Planned::default()
            });
        }
    }

    fn check(&mut self, t: f64, check: String, passed: bool, detail: String) {
        let place = Place::Proof;
        let ending = if passed { Ending::Done } else { Ending::Failed };
        if !self.end(t, &place, "prove", ending)
            && let Some(proof) = self
                .history
                .spans
                .iter_mut()
                .rev()
                .find(|span| span.place == place)
        {
            proof.end = t;
            if !passed {
                proof.ending = ending;
            }
        }
        let checks = &mut self.history.checks;
        match checks.iter_mut().find(|known| known.name == check) {
            Some(known) => (known.passed, known.detail) = (passed, detail),
            None => checks.push(Check {
                name: check,
                passed,
                detail,
            }),
        }
    }

    fn is_open(&self, place: &Place, name: &str) -> bool {
        let mut open = self.open.iter();
        open.any(|span| span.place == *place && span.name == name)
    }

    fn begin(&mut self, t: f64, place: Place, name: &str, step: Option<Planned>) {
        self.open.push(Span {
            place,
            name: name.to_owned(),
            begin: t,
            end: t,
            ending: Ending::Done,
            error: None,
            step,
        });
    }

    fn end(&mut self, t: f64, place: &Place, name: &str, ending: Ending) -> bool {
        let Some(mut span) = self.close(|span| span.place == *place && span.name == name) else {
            return false;
        };
        span.end = t;
        span.ending = ending;
        self.history.spans.push(span);
        true
    }

    fn close(&mut self, is: impl Fn(&Span) -> bool) -> Option<Span> {
        let position = self.open.iter().position(is)?;
        Some(self.open.remove(position))
    }
}
