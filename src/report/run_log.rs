//! The log of a run: its events, and each host's full output.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{labels, page::KeptRun, quantity::duration, text};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Outcome, Stamped, Stream},
    inventory::HostName,
};

/// The folder of one run: `events.jsonl`, and a `<host>.log` for each host that took part.
#[derive(Debug)]
pub struct RunLog {
    folder: PathBuf,
    events: BufWriter<File>,
    hosts: BTreeMap<HostName, HostLog>,
    heading: String,
    /// The first error of the log; a full disk must not stop a running run.
    trouble: Option<String>,
}

#[derive(Debug)]
struct HostLog {
    file: BufWriter<File>,
    /// The step of the last lines. Several steps may run on one host at once.
    step: Option<usize>,
}

impl RunLog {
    /// Begins a log in `folder`, which is created if it is missing.
    pub fn create(folder: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::new(
                Code::LocalFileFailed,
                format!("the run's log cannot be kept in {}", folder.display()),
            )
            .because(error)
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let events = open(&folder.join("events.jsonl")).map_err(failed)?;
        Ok(Self {
            folder: folder.to_owned(),
            events,
            hosts: BTreeMap::new(),
            heading: String::new(),
            trouble: None,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Records a masked event, and its JSON line.
    pub(super) fn event(&mut self, stamped: &Stamped, json: &str) {
        let written = writeln!(self.events, "{json}").and_then(|()| self.host_line(stamped));
        self.note(written);
    }

    /// Records the masked error that ended the run, as the last line of the events.
    pub(super) fn failure(&mut self, t: f64, mut failure: Value) {
        if let Value::Object(fields) = &mut failure {
            fields.insert("t".into(), t.into());
        }
        let written = writeln!(self.events, "{failure}");
        self.note(written);
    }

    /// Makes the run's page from its log; `None` if the log could not be kept.
    pub(super) fn write_page(&mut self) -> Option<PathBuf> {
        self.flush();
        match KeptRun::read(&self.folder).and_then(|run| run.write()) {
            Ok(path) => Some(path),
            Err(error) => {
                self.trouble.get_or_insert_with(|| error.to_string());
                None
            }
        }
    }

    /// Writes everything to disk, so that a run that is killed leaves its log.
    pub(super) fn flush(&mut self) {
        let mut flushed = self.events.flush();
        for log in self.hosts.values_mut() {
            flushed = flushed.and(log.file.flush());
        }
        self.note(flushed);
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.trouble.get_or_insert_with(|| error.to_string());
        }
    }

    fn host_line(&mut self, stamped: &Stamped) -> io::Result<()> {
        let t = stamped.t;
        match &stamped.event {
            Event::RunStarted {
                verb,
                cluster,
                version,
                at,
            } => {
                self.heading =
                    format!("# pgherd {version} {verb}, cluster {cluster}, begun {at}\n");
                Ok(())
            }
            Event::Host {
                host,
                state,
                detail,
            } => {
                let detail = detail.as_ref().map(|d| format!(" ({d})"));
                let state = labels::host_state(*state);
                self.host(host)?.heading(
                    t,
                    None,
                    format_args!("{state}{}", detail.unwrap_or_default()),
                )
            }
            Event::FactsRead { host } => {
                self.host(host)?
                    .heading(t, None, format_args!("facts read"))
            }
            Event::StepStarted { step, host, name } => {
                self.host(host)?
                    .heading(t, Some(*step), format_args!("{name}"))
            }
            Event::StepOutput {
                step,
                host,
                name,
                stream,
                line,
            } => {
                let log = self.host(host)?;
                if log.step != Some(*step) {
                    log.heading(t, Some(*step), format_args!("{name}, continued"))?;
                }
                let mark = match stream {
                    Stream::Stdout => ' ',
                    Stream::Stderr => '!',
                };
                // A progress line holds several states; a log keeps them all.
                line.trim_end_matches(['\n', '\r'])
                    .split('\r')
                    .map(text::one_line)
                    .try_for_each(|line| {
                        let line = format!("{t:>9.3} {mark} {line}");
                        writeln!(log.file, "{}", line.trim_end())
                    })
            }
            // It never ran, so its host's log has nothing about it; `events.jsonl` has it.
            Event::StepFinished {
                outcome: Outcome::Cancelled,
                ..
            } => Ok(()),
            Event::StepFinished {
                step,
                host,
                name,
                outcome,
                seconds,
                error,
                ..
            } => {
                let log = self.host(host)?;
                let (outcome, seconds) = (labels::outcome(*outcome), duration(*seconds));
                log.heading(
                    t,
                    Some(*step),
                    format_args!("{name}: {outcome} ({seconds})"),
                )?;
                match error {
                    Some(error) => error
                        .lines()
                        .try_for_each(|line| writeln!(log.file, "{t:>9.3} ! {line}")),
                    None => Ok(()),
                }
            }
            // `events.jsonl` has it.
            _ => Ok(()),
        }
    }

    fn host(&mut self, host: &HostName) -> io::Result<&mut HostLog> {
        if !self.hosts.contains_key(host) {
            let mut file = open(&self.folder.join(format!("{host}.log")))?;
            file.write_all(self.heading.as_bytes())?;
            self.hosts
                .insert(host.clone(), HostLog { file, step: None });
        }
        self.hosts
            .get_mut(host)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl HostLog {
    fn heading(
        &mut self,
        t: f64,
        step: Option<usize>,
        text: std::fmt::Arguments<'_>,
    ) -> io::Result<()> {
        self.step = step;
        writeln!(self.file, "{t:>9.3} == {text}")
    }
}

/// Logs hold the output of hosts, which other users must not read.
fn open(path: &Path) -> io::Result<BufWriter<File>> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(BufWriter::new)
}
