//! A run as one JSON document, for `pgherd report --json`.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use super::{
    KeptRun,
    critical::critical_path,
    history::{Check, Ending, Failure, Planned, Software, Span, Verdict},
};
use crate::drill::record::Record;

/// The content of the document; all times are seconds since the run began.
#[derive(Debug, Serialize)]
struct Document<'a> {
    run: &'a str,
    page: &'a Path,
    verb: &'a str,
    cluster: &'a str,
    /// pgherd's own version.
    version: &'a str,
    began: Option<jiff::Timestamp>,
    seconds: f64,
    verdict: &'static str,
    /// Null for a run that never reported its end.
    exit_code: Option<u8>,
    hosts: &'a [String],
    made: usize,
    removed: usize,
    moved: usize,
    altered: usize,
    steps: Counts,
    critical_path: Vec<Piece<'a>>,
    /// Everything that took time, by its beginning.
    spans: Vec<Piece<'a>>,
    never_ran: &'a [Planned],
    checks: &'a [Check],
    software: &'a BTreeMap<String, Software>,
    failures: Vec<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drill: Option<&'a Record>,
}

/// Something that took time.
#[derive(Debug, Serialize)]
struct Piece<'a> {
    /// Null for what belongs to no single host.
    host: Option<&'a str>,
    name: &'a str,
    begin: f64,
    seconds: f64,
    ending: Ending,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Piece<'a> {
    fn of(span: &'a Span) -> Self {
        // Differences of milliseconds are shown as milliseconds.
        let seconds = (span.seconds() * 1000.0).round() / 1000.0;
        Self {
            host: span.host(),
            name: &span.name,
            begin: span.begin,
            seconds,
            ending: span.ending,
            why: span.step.as_ref().map(|step| step.why.as_str()),
            error: span.error.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Counts {
    changed: usize,
    done: usize,
    failed: usize,
    cut_off: usize,
    never_ran: usize,
}

/// A run among others.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    pub run: &'a str,
    pub verb: &'a str,
    pub began: Option<jiff::Timestamp>,
    pub seconds: f64,
    pub verdict: &'static str,
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "done",
        Verdict::Failed => "failed",
        Verdict::Broken => "broken",
        Verdict::Stopped => "interrupted",
        Verdict::Unfinished => "unfinished",
    }
}

impl KeptRun {
    /// What a list of runs says of it.
    pub fn line(&self) -> Line<'_> {
        let history = &self.history;
        Line {
            run: &self.name,
            verb: &history.verb,
            began: history.began,
            seconds: history.seconds,
            verdict: word(history.verdict()),
        }
    }

    /// The run as a JSON document that names `page`.
    pub fn document<'a>(&'a self, page: &'a Path) -> impl Serialize + use<'a> {
        let history = &self.history;
        Document {
            run: &self.name,
            page,
            verb: &history.verb,
            cluster: &history.cluster,
            version: &history.version,
            began: history.began,
            seconds: history.seconds,
            verdict: word(history.verdict()),
            exit_code: history.end.as_ref().map(|end| end.exit_code),
            hosts: &history.hosts,
            made: history.created,
            removed: history.removed,
            moved: history.moved,
            altered: history.altered,
            steps: Counts {
                changed: history.count(Ending::Changed),
                done: history.count(Ending::Done),
                failed: history.count(Ending::Failed),
                cut_off: history.count(Ending::CutOff),
                never_ran: history.not_run.len(),
            },
            critical_path: critical_path(history)
                .iter()
                .map(|link| Piece::of(&history.spans[link.span]))
                .collect(),
            spans: history.spans.iter().map(Piece::of).collect(),
            never_ran: &history.not_run,
            checks: &history.checks,
            software: &history.software,
            failures: history.failures(),
            drill: self.drill.as_ref(),
        }
    }
}
