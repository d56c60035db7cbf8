//! The results of drills as tables.

use super::{
    quantity::duration,
    table::{Table, Tone},
    terminal::Terminal,
};
use crate::drill::record::{Drill, Record, Spread};

/// Prints what drills came to: a document with `--json`, else a table of runs and one of summaries.
pub fn print_drills(terminal: &Terminal, record: &Record) {
    if terminal.json {
        terminal.print_json(record);
        return;
    }
    runs(record).print(terminal);
    for drill in &record.drills {
        if let Some(errors) = errors(drill) {
            terminal.say(&errors);
        }
    }
    if record.summaries.iter().any(|summary| summary.runs > 1) {
        summaries(record).print(terminal);
    }
}

pub(super) fn runs(record: &Record) -> Table {
    let mut table = Table::new([
        "scenario",
        "broken",
        "no writes",
        "no reads",
        "new leader",
        "whole",
        "TL",
        "commits",
        "missing",
        "",
    ])
    .title(title(record));
    for drill in &record.drills {
        let measured = &drill.measured;
        let (tone, word) = if drill.failures.is_empty() {
            (Tone::Plain, "holds")
        } else {
            (Tone::Bad, "DOES NOT HOLD")
        };
        let timeline = |timeline: Option<u32>| {
            timeline.map_or_else(|| "?".to_owned(), |timeline| timeline.to_string())
        };
        table.toned_row(
            tone,
            [
                drill.scenario.to_string(),
                drill.hosts.join(", "),
                duration(measured.write_outage),
                duration(measured.read_outage),
                optional(measured.new_leader),
                optional(measured.whole),
                format!(
                    "{} > {}",
                    timeline(measured.timeline_before),
                    timeline(measured.timeline_after)
                ),
                measured.acknowledged.to_string(),
                measured.missing.to_string(),
                word.to_owned(),
            ],
        );
    }
    table
}

pub(super) fn summaries(record: &Record) -> Table {
    let mut table = Table::new([
        "scenario",
        "runs",
        "hold",
        "no writes: median",
        "worst",
        "bound",
        "no reads: worst",
        "new leader: median",
        "missing",
    ]);
    let both = |spread: Option<Spread>| optional(spread.map(|spread| spread.median));
    for summary in &record.summaries {
        let tone = if summary.passed == summary.runs {
            Tone::Plain
        } else {
            Tone::Bad
        };
        table.toned_row(
            tone,
            [
                summary.scenario.to_string(),
                summary.runs.to_string(),
                summary.passed.to_string(),
                duration(summary.write_outage.median),
                duration(summary.write_outage.worst),
                duration(summary.bound),
                duration(summary.read_outage.worst),
                both(summary.new_leader),
                summary.missing.to_string(),
            ],
        );
    }
    table
}

fn title(record: &Record) -> String {
    let settings = &record.settings;
    let replication = if settings.synchronous {
        "synchronous"
    } else {
        "asynchronous"
    };
    format!(
        "cluster {}: ttl {}, loop_wait {}, retry_timeout {}, {replication}",
        record.cluster, settings.ttl, settings.loop_wait, settings.retry_timeout
    )
}

/// What went wrong for clients, if anything did.
fn errors(drill: &Drill) -> Option<String> {
    let list = |errors: &std::collections::BTreeMap<String, u64>| {
        let said: Vec<String> = errors
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        said.join(", ")
    };
    let (writes, reads) = (
        list(&drill.measured.write_errors),
        list(&drill.measured.read_errors),
    );
    let parts: Vec<String> = [("writes", writes), ("reads", reads)]
        .into_iter()
        .filter(|(_, errors)| !errors.is_empty())
        .map(|(what, errors)| format!("{what} failed: {errors}"))
        .collect();
    (!parts.is_empty()).then(|| format!("{}: {}", drill.scenario, parts.join("; ")))
}

fn optional(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), duration)
}
