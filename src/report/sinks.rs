//! Sends each event to every sink, masked once for all of them.

use std::{
    io::{self, Write},
    sync::Arc,
};

use serde_json::Value;

use super::{
    Options,
    board::Board,
    live::Live,
    plain::{Detail, Plain},
    run_log::RunLog,
    summary::{Run, RunTotals},
    terminal::{Paint, Terminal},
};
use crate::{
    event::{Event, Stamped},
    inventory::HostName,
};

/// All sinks of a run.
pub(super) struct Sinks {
    terminal: Terminal,
    totals: RunTotals,
    json: Option<Pipe>,
    run_log: Option<RunLog>,
    people: Option<People>,
}

/// What people see.
enum People {
    Lines(Plain, Pipe),
    Bars(Plain, Box<Live>),
}

impl Sinks {
    /// The sinks for these options and this terminal.
    pub(super) fn open(options: Options) -> Self {
        let Options {
            terminal,
            run_log,
            hosts,
        } = options;
        let people = if terminal.lively {
            let screen = Arc::new(console::Term::buffered_stderr());
            let live = Live::new(Board::new(&hosts), screen, terminal.stderr);
            let detail = Detail::of(terminal.verbose, true);
            let plain = Plain::new(detail, terminal.stderr.paint(), &hosts);
            Some(People::Bars(plain, Box::new(live)))
        } else if !terminal.json || terminal.verbose > 0 {
            Some(People::lines(&terminal, &hosts, Pipe::new(io::stderr())))
        } else {
            None
        };
        let json = terminal.json.then(|| Pipe::new(io::stdout()));
        Self::new(terminal, run_log, json, people)
    }

    fn new(
        terminal: Terminal,
        run_log: Option<RunLog>,
        json: Option<Pipe>,
        people: Option<People>,
    ) -> Self {
        Self {
            terminal,
            totals: RunTotals::default(),
            json,
            run_log,
            people,
        }
    }

    pub(super) fn event(&mut self, mut stamped: Stamped) {
        self.terminal.masks.hide_in_event(&mut stamped);
        round(&mut stamped);
        self.totals.event(&stamped);
        if self.json.is_some() || self.run_log.is_some() {
            // Events are plain data with string keys; serialising them cannot fail.
            let line = serde_json::to_string(&stamped).unwrap_or_default();
            if let Some(json) = &mut self.json {
                json.line(&line);
            }
            if let Some(log) = &mut self.run_log {
                log.event(&stamped, &line);
            }
        }
        match &mut self.people {
            Some(People::Lines(plain, pipe)) => {
                if let Some(line) = plain.line(&stamped) {
                    pipe.line(&line);
                }
            }
            Some(People::Bars(plain, live)) => {
                live.event(&stamped);
                if let Some(line) = plain.line(&stamped) {
                    live.line(&line);
                }
            }
            None => {}
        }
    }

    /// Records the error that ended the run; people and programs get it elsewhere.
    pub(super) fn failure(&mut self, mut failure: Value) {
        self.terminal.masks.hide_in_json(&mut failure);
        if let Some(log) = &mut self.run_log {
            log.failure(self.totals.seconds(), failure);
        }
    }

    /// Writes everything that is buffered.
    pub(super) fn flush(&mut self) {
        if let Some(json) = &mut self.json {
            json.flush();
        }
        if let Some(log) = &mut self.run_log {
            log.flush();
        }
        if let Some(People::Lines(_, pipe)) = &mut self.people {
            pipe.flush();
        }
    }

    pub(super) fn draw(&mut self) {
        if let Some(live) = self.live() {
            live.draw();
        }
    }

    /// Leaves the terminal to others, until `show`.
    pub(super) fn hide(&mut self) {
        self.flush();
        if let Some(live) = self.live() {
            live.hide();
        }
    }

    pub(super) fn show(&mut self) {
        if let Some(live) = self.live() {
            live.show();
        }
    }

    pub(super) fn finish(mut self) -> Run {
        self.hide();
        let mut run = self.totals.into_run();
        if let Some(log) = &mut self.run_log {
            run.page = log.write_page();
            run.log = Some(log.folder().to_owned());
            run.log_trouble = log.trouble().map(str::to_owned);
        }
        run
    }

    fn live(&mut self) -> Option<&mut Live> {
        match &mut self.people {
            Some(People::Bars(_, live)) => Some(live),
            _ => None,
        }
    }
}

impl People {
    /// Lines without colours, even on a terminal: logs and dumb terminals get these.
    fn lines(terminal: &Terminal, hosts: &[HostName], pipe: Pipe) -> Self {
        let detail = Detail::of(terminal.verbose, false);
        People::Lines(Plain::new(detail, Paint::OFF, hosts), pipe)
    }
}

/// Rounds to milliseconds; finer times are noise in a log.
fn round(stamped: &mut Stamped) {
    let round = |seconds: &mut f64| *seconds = (*seconds * 1000.0).round() / 1000.0;
    round(&mut stamped.t);
    match &mut stamped.event {
        Event::StepFinished { seconds, .. } | Event::RunFinished { seconds, .. } => round(seconds),
        Event::Load {
            refused: Some(refused),
            ..
        } => round(refused),
        Event::DrillFinished {
            write_outage,
            read_outage,
            ..
        } => {
            round(write_outage);
            round(read_outage);
        }
        _ => {}
    }
}

/// A stream whose reader may go away.
struct Pipe {
    out: Box<dyn Write + Send>,
    buffer: String,
    broken: bool,
}

impl Pipe {
    fn new(out: impl Write + Send + 'static) -> Self {
        Self {
            out: Box::new(out),
            buffer: String::new(),
            broken: false,
        }
    }

    fn line(&mut self, line: &str) {
        if !self.broken {
            self.buffer.push_str(line);
            self.buffer.push('\n');
        }
    }

    /// Writes whole lines only. When the reader is gone, nothing more is written, and the run continues.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self
            .out
            .write_all(self.buffer.as_bytes())
            .and_then(|()| self.out.flush());
        self.broken = written.is_err();
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests;
