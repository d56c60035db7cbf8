//! The results of drills as tables.

use super::{
    quantity::{agree, bytes, count, duration},
    table::{Table, Tone},
    terminal::Terminal,
};
use crate::drill::{
    client_errors,
    record::{Drill, GAP, Pooled, Record, Spread, Summary},
};

/// Prints the results of drills: a document with `--json`, otherwise a table of runs and one of summaries.
pub fn print_drills(terminal: &Terminal, record: &Record) {
    if terminal.json {
        terminal.print_json(record);
        return;
    }
    runs(record).print(terminal);
    for note in notes(record) {
        terminal.explain(&note);
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
        "result",
    ])
    .title(title(record));
    for drill in &record.drills {
        let measured = &drill.measured;
        let (tone, word) = if drill.failures.is_empty() {
            (Tone::Plain, "passed")
        } else {
            (Tone::Bad, "NOT PASSED")
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

/// What the table has no room for: one line for each.
pub(super) fn notes(record: &Record) -> Vec<String> {
    let runs = |drill: &Drill| {
        let mut summaries = record.summaries.iter();
        let summary = summaries.find(|summary| summary.scenario == drill.scenario);
        summary.map_or(1, |summary| summary.runs)
    };
    let notes = record.drills.iter().flat_map(|drill| {
        let name = |note| format!("{}: {note}", drill.scenario);
        let pooled = drill.measured.pooled.as_ref().filter(|_| runs(drill) == 1);
        let pooled = pooled.map(Pooled::in_words);
        [
            errors(drill),
            pooled,
            held_up(drill),
            archive(drill),
            dropped(drill),
        ]
        .map(|note| note.map(name))
    });
    let several = record.summaries.iter().filter(|summary| summary.runs > 1);
    notes.flatten().chain(several.filter_map(pooled)).collect()
}

/// What clients of the poolers saw in several runs.
fn pooled(summary: &Summary) -> Option<String> {
    let wait = summary.pooled_wait?;
    Some(format!(
        "{}: the client of the poolers that waited longest got no acknowledgement for {} (median of the runs; worst \
         {}), and {} got errors in all runs together",
        summary.scenario,
        duration(wait.median),
        duration(wait.worst),
        count(summary.pooled_errors, "attempt")
    ))
}

/// How replication was delayed before the fault, and what that cost.
pub(super) fn held_up(drill: &Drill) -> Option<String> {
    let hold = drill.hold.as_ref()?;
    let (missing, span) = (drill.measured.missing, drill.measured.missing_span);
    let cost = match span {
        Some(span) => {
            format!(
                "{} acknowledged within {} {} missing",
                count(missing, "commit"),
                duration(span.to - span.from),
                agree(missing, "is", "are")
            )
        }
        None if hold.waited > GAP => format!(
            "commits waited for up to {}, and no acknowledged commit is missing",
            duration(hold.waited)
        ),
        None => "no acknowledged commit is missing".to_owned(),
    };
    Some(format!(
        "replication was held up for {}, until the best replica lacked {} (one that lacks more than {} does \
         not take over); {cost}",
        duration(hold.to - hold.from),
        bytes(hold.behind),
        bytes(hold.limit)
    ))
}

/// What became of the WAL while the repository was away.
pub(super) fn archive(drill: &Drill) -> Option<String> {
    let outage = drill.archive.as_ref()?;
    let missing = match outage.missing.as_slice() {
        [] => "none is missing".to_owned(),
        missing => format!("missing: {}", missing.join(", ")),
    };
    let sent = match drill.measured.whole {
        Some(seconds) => format!(
            "everything was in the repository {} after it came back",
            duration(seconds)
        ),
        None => "not everything got into the repository in time".to_owned(),
    };
    Some(format!(
        "{} of WAL waited for the repository; {sent}, and {missing}",
        count(outage.waited, "segment")
    ))
}

/// What became of the table that was dropped.
pub(super) fn dropped(drill: &Drill) -> Option<String> {
    let dropped = drill.dropped.as_ref()?;
    let there = dropped.rows - dropped.missing;
    let after = drill.measured.whole.map(duration).unwrap_or_default();
    Some(format!(
        "{there} of {} of the dropped table were back {after} after the drop, as they were just before it",
        count(dropped.rows, "row")
    ))
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
    let measured = &drill.measured;
    let pooled = measured.pooled.as_ref();
    let parts: Vec<String> = [
        ("writes", client_errors(&measured.write_errors)),
        ("reads", client_errors(&measured.read_errors)),
        (
            "writes through the poolers",
            pooled.map_or_else(String::new, |it| client_errors(&it.errors)),
        ),
    ]
    .into_iter()
    .filter(|(_, errors)| !errors.is_empty())
    .map(|(what, errors)| format!("{what} failed: {errors}"))
    .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn optional(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::{
        Scenario,
        record::{Dropped, Hold, Measured, Outage, Route, Samples, Span},
    };

    fn drill(waited: f64, measured: Measured) -> Drill {
        Drill {
            scenario: Scenario::CrashHost,
            run: 1,
            hosts: vec!["node1".into()],
            begun: jiff::Timestamp::UNIX_EPOCH,
            route: Route::Direct,
            bound: 22.0,
            hold: Some(Hold {
                from: 3.0,
                to: 8.0,
                behind: 340_624,
                limit: 1_048_576,
                waited,
            }),
            archive: None,
            dropped: None,
            measured,
            failures: Vec::new(),
            samples: Samples::default(),
            marks: Vec::new(),
            bands: Vec::new(),
        }
    }

    #[test]
    fn what_a_hold_cost_is_said() {
        let lost = Measured {
            missing: 1788,
            missing_span: Some(Span { from: 3.2, to: 8.3 }),
            ..Measured::default()
        };
        assert_eq!(
            held_up(&drill(0.1, lost)).unwrap_or_default(),
            "replication was held up for 5.0 s, until the best replica lacked 332.6 KiB (one that lacks more \
             than 1.0 MiB does not take over); 1788 commits acknowledged within 5.1 s are missing"
        );
        let waited = held_up(&drill(4.9, Measured::default())).unwrap_or_default();
        assert!(
            waited.ends_with(
                "; commits waited for up to 4.9 s, and no acknowledged commit is missing"
            ),
            "{waited}"
        );
        let without = Drill {
            hold: None,
            ..drill(0.0, Measured::default())
        };
        assert_eq!(held_up(&without), None);
    }

    #[test]
    fn what_became_of_a_dropped_table_is_said() {
        let measured = Measured {
            whole: Some(12.5),
            ..Measured::default()
        };
        let drill = Drill {
            dropped: Some(Dropped {
                moment: jiff::Timestamp::UNIX_EPOCH,
                rows: 200,
                missing: 0,
                unexpected: 0,
            }),
            ..drill(0.0, measured)
        };
        assert_eq!(
            dropped(&drill).unwrap_or_default(),
            "200 of 200 rows of the dropped table were back 12.5 s after the drop, as they were just before it"
        );
    }

    #[test]
    fn what_became_of_wal_that_waited_is_said() {
        let measured = Measured {
            whole: Some(3.25),
            ..Measured::default()
        };
        let drill = Drill {
            archive: Some(Outage {
                waited: 5,
                missing: Vec::new(),
            }),
            ..drill(0.0, measured)
        };
        assert_eq!(
            archive(&drill).unwrap_or_default(),
            "5 segments of WAL waited for the repository; everything was in the repository 3.2 s after it came \
             back, and none is missing"
        );
    }
}
