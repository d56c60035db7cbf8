//! The part of the page about a drill: what clients saw, compared with what the settings promise.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::{KeptRun, axis::pct, chart::chart, layout::section, run};
use crate::{
    drill::{
        Scenario,
        record::{Drill, GAP, Measured, Record, Route, Settings, Spread, Summary},
    },
    event::Moment,
    report::{
        drills,
        quantity::{count, duration},
        text,
    },
};

pub(super) fn body(kept: &KeptRun, record: &Record) -> Markup {
    let history = &kept.history;
    html! {
        (run::failures(history))
        (results(record))
        (settings(record))
        @for summary in &record.summaries {
            (scenario(record, summary))
        }
        (run::proof(history))
        (run::software(history))
    }
}

fn results(record: &Record) -> Markup {
    let several = record.summaries.iter().any(|summary| summary.runs > 1);
    let longest = record
        .summaries
        .iter()
        .map(|summary| summary.write_outage.worst.max(summary.bound))
        .fold(0.1, f64::max);
    let table = html! {
        div.scroll {
            table.results {
                thead {
                    tr {
                        th { "scenario" } th { "passed" } th.number { "lost" }
                        th.number { "no writes for" } th.number { "at most" } th.share { "against it" }
                        th.number { "no reads for" } th.number { "new leader" }
                        th.number { "whole" } th.number { "commits" }
                    }
                }
                tbody {
                    @for summary in &record.summaries {
                        (result(summary, longest))
                    }
                }
            }
        }
    };
    let lead = if several {
        "Seconds as clients at HAProxy's ports measured them: the median, and the worst of all runs."
    } else {
        "Seconds as clients at HAProxy's ports measured them."
    };
    section("Results", lead, &table)
}

fn result(summary: &Summary, longest: f64) -> Markup {
    let held = summary.passed == summary.runs;
    let worst = summary.write_outage.worst;
    let bound = promised(summary.scenario, summary.bound);
    html! {
        tr {
            td { a href=(format!("#{}", summary.scenario)) { (summary.scenario) } }
            td.(if held { "good" } else { "bad" }) {
                @if summary.runs == 1 {
                    (if held { "yes" } else { "no" })
                } @else {
                    (summary.passed) " of " (summary.runs)
                }
            }
            td.number.(if summary.missing == 0 { "plain" } else { "bad" }) { (summary.missing) }
            td.number { (spread(Some(summary.write_outage), summary.runs)) }
            td.number { (at_most(bound)) }
            td.share { (against(worst, bound, longest)) }
            td.number { (spread(Some(summary.read_outage), summary.runs)) }
            td.number { (spread(summary.new_leader, summary.runs)) }
            td.number { (spread(summary.whole, summary.runs)) }
            td.number { (summary.acknowledged) }
        }
    }
}

fn spread(spread: Option<Spread>, runs: usize) -> Markup {
    html! {
        @match spread {
            None => { "–" }
            Some(spread) if runs == 1 => { (duration(spread.worst)) }
            Some(spread) => {
                (duration(spread.median)) span.worst { " / " (duration(spread.worst)) }
            }
        }
    }
}

/// What the settings promise for a scenario; `None` for something that others did.
fn promised(scenario: Scenario, bound: f64) -> Option<f64> {
    (scenario != Scenario::Watch).then_some(bound)
}

/// Whether clients noticed no more than is allowed; a gap that is too short to be listed does not count.
fn within(measured: f64, bound: Option<f64>) -> bool {
    bound.is_none_or(|bound| measured <= bound.max(GAP))
}

fn at_most(bound: Option<f64>) -> String {
    match bound {
        None => "–".into(),
        Some(bound) if bound > 0.0 => duration(bound),
        Some(_) => "no gap".into(),
    }
}

/// A measured time as a bar, and its limit as a mark, all on one scale.
fn against(measured: f64, bound: Option<f64>, longest: f64) -> Markup {
    let class = if within(measured, bound) {
        "critical"
    } else {
        "over"
    };
    // The mark must stay inside the scale.
    let at = |seconds: f64| (seconds / longest * 98.0).clamp(0.6, 98.0);
    html! {
        svg.share width="100%" height="13" aria-hidden="true" {
            rect class=(class) y="2" width=(pct(at(measured))) height="9" rx="2" {}
            @if let Some(bound) = bound {
                line.bound x1=(pct(at(bound))) x2=(pct(at(bound))) y1="0" y2="13" {}
            }
        }
    }
}

fn settings(record: &Record) -> Markup {
    let Settings {
        ttl,
        loop_wait,
        retry_timeout,
        synchronous,
        failsafe,
        tls,
        members,
        etcd,
    } = &record.settings;
    let yes = |yes: &bool| if *yes { "on" } else { "off" };
    let limits = &record.limits;
    let body = html! {
        dl.settings {
            div { dt { "ttl" } dd { (ttl) " s" } }
            div { dt { "loop_wait" } dd { (loop_wait) " s" } }
            div { dt { "retry_timeout" } dd { (retry_timeout) " s" } }
            div { dt { "synchronous" } dd { (yes(synchronous)) } }
            div { dt { "failsafe" } dd { (yes(failsafe)) } }
            div { dt { "tls" } dd { (yes(tls)) } }
            div { dt { "databases" } dd { (members) } }
            div { dt { "etcd" } dd { (etcd) } }
        }
        p.lead {
            "A lost leader is replaced when its key has expired: within ttl + 2 s, here "
            b { (duration(f64::from(*ttl) + 2.0)) } ". A clean stop or switchover does not wait for that: "
            b { "2.0 s" } ". "
            @if let Some(outage) = limits.max_outage {
                "This drill was allowed no more than " b { (duration(outage)) } " without writes. "
            }
            "It was allowed to lose " b { (count_commits(limits.max_lost)) } "."
        }
    };
    section("What the settings promise", "", &body)
}

fn count_commits(n: u64) -> String {
    match n {
        0 => "no commit".into(),
        n => count(usize::try_from(n).unwrap_or(usize::MAX), "commit"),
    }
}

/// A scenario: the chart of its worst run, and its other runs folded.
fn scenario(record: &Record, summary: &Summary) -> Markup {
    let mut drills: Vec<&Drill> = record
        .drills
        .iter()
        .filter(|drill| drill.scenario == summary.scenario)
        .collect();
    // Failed runs first, then the longest.
    drills.sort_by(|a, b| {
        let rank = |drill: &Drill| (drill.failures.is_empty(), -drill.measured.write_outage);
        let ((a_held, a_took), (b_held, b_took)) = (rank(a), rank(b));
        a_held.cmp(&b_held).then(a_took.total_cmp(&b_took))
    });
    let Some((worst, others)) = drills.split_first() else {
        return html! {};
    };
    html! {
        section #(summary.scenario) {
            h2 { (summary.scenario) }
            p.lead { (what(summary.scenario)) }
            (card(worst, summary.runs))
            @for drill in others {
                details {
                    summary { "run " (drill.run) ": no writes for " (duration(drill.measured.write_outage)) }
                    (card(drill, summary.runs))
                }
            }
        }
    }
}

fn what(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Switchover => "The leadership was handed over as planned.",
        Scenario::HaproxyRestart => "HAProxy was restarted.",
        Scenario::HaproxyDown => "The host of a front door died.",
        Scenario::ReplicaDown => "Patroni was stopped on a replica.",
        Scenario::ArchiveDown => "The repository of the backups was stopped.",
        Scenario::DropTable => {
            "A table of the drill's own was dropped, and brought back from the backups."
        }
        Scenario::EtcdDown => "etcd was stopped on all of its hosts.",
        Scenario::StopLeader => "Patroni was stopped cleanly on the leader.",
        Scenario::KillLeader => "Patroni and PostgreSQL on the leader were killed.",
        Scenario::CrashHost => "The leader's host died.",
        Scenario::IsolateLeader => "The leader's host was cut off from the network.",
        Scenario::Watch => {
            "Nothing was broken here: this is what clients saw of what was done meanwhile."
        }
    }
}

fn card(drill: &Drill, runs: usize) -> Markup {
    let measured = &drill.measured;
    html! {
        article.drill {
            header {
                h3 {
                    @if runs > 1 { "Run " (drill.run) " of " (runs) ": " }
                    (drill.hosts.join(", ")) " "
                    @if drill.failures.is_empty() { span.good { "passed" } } @else { span.bad { "not passed" } }
                }
                @for failure in &drill.failures { p.bad { (failure) } }
            }
            (chart(drill))
            (numbers(drill))
            @if let Some(pooled) = &measured.pooled {
                p.plain { (text::sentence(&pooled.in_words())) }
            }
            @if let Some(archive) = drills::archive(drill) {
                p.plain { (text::sentence(&archive)) }
            }
            @if let Some(dropped) = drills::dropped(drill) {
                p.(if drill.failures.is_empty() { "plain" } else { "bad" }) { (text::sentence(&dropped)) }
            }
            @if let Some(held_up) = drills::held_up(drill) {
                p.(if measured.missing == 0 { "plain" } else { "bad" }) { (text::sentence(&held_up)) }
            }
            (errors("Writes failed", &measured.write_errors))
            (errors("Reads failed", &measured.read_errors))
            @if !measured.missing_rows.is_empty() {
                p.bad {
                    "Acknowledged and gone (writer/number): " (measured.missing_rows.join(", "))
                    @if measured.missing > measured.missing_rows.len() as u64 { ", …" }
                }
            }
            @for conflict in &measured.two_leaders {
                p.bad {
                    "At " (duration(conflict.t)) " "
                    (conflict.member.as_deref().unwrap_or("HAProxy's write port"))
                    " took a write on timeline " (conflict.timeline) ", though "
                    (conflict.newer_member.as_deref().unwrap_or("another")) " had taken some on timeline "
                    (conflict.newer) "."
                }
            }
        }
    }
}

fn numbers(drill: &Drill) -> Markup {
    let Measured {
        write_outage,
        read_outage,
        worst_writer,
        worst_reader,
        write_baseline,
        read_baseline,
        acknowledged,
        missing,
        unexpected,
        new_leader,
        whole,
        leader_before,
        leader_after,
        timeline_before,
        timeline_after,
        ..
    } = &drill.measured;
    let bound = promised(drill.scenario, drill.bound);
    let over = if within(*write_outage, bound) {
        "good"
    } else {
        "bad"
    };
    let change = |before: Option<String>, after: Option<String>| match (before, after) {
        (Some(before), Some(after)) if before == after => format!("{before}, as before"),
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (before, after) => format!(
            "{} → {}",
            before.unwrap_or_else(|| "?".into()),
            after.unwrap_or_else(|| "?".into())
        ),
    };
    let never = || "–".to_owned();
    let repaired = drill.marks.iter().any(|mark| mark.moment == Moment::Repair);
    let text = |timeline: &Option<u32>| timeline.map(|timeline| timeline.to_string());
    html! {
        dl.numbers {
            div {
                dt { "no writes for" }
                dd.(over) { (duration(*write_outage)) }
                dd.aside { @if bound.is_some() { "at most " (at_most(bound)) "; " } "worst client " (duration(*worst_writer)) }
            }
            div {
                dt { "no reads for" }
                dd { (duration(*read_outage)) }
                dd.aside { "worst client " (duration(*worst_reader)) }
            }
            div {
                dt { "new leader after" }
                dd { (new_leader.map_or_else(never, duration)) }
                dd.aside { (change(leader_before.clone(), leader_after.clone())) }
            }
            div {
                dt { "whole again after" }
                dd { (whole.map_or_else(never, duration)) }
                dd.aside { @if repaired { "of the repair; " } "timeline " (change(text(timeline_before), text(timeline_after))) }
            }
            div {
                dt { "commits acknowledged" }
                dd { (acknowledged) }
                dd.aside { (unexpected) " more whose answer was lost" }
            }
            div {
                dt { "commits lost" }
                dd.(if *missing == 0 { "good" } else { "bad" }) { (missing) }
                dd.aside {
                    "noise before: " (format!("{:.0} ms", write_baseline.max(*read_baseline) * 1000.0))
                    @if drill.route == Route::Ssh { "; measured through SSH" }
                }
            }
        }
    }
}

fn errors(what: &str, errors: &BTreeMap<String, u64>) -> Markup {
    html! {
        @if !errors.is_empty() {
            p.errors {
                (what) ": "
                @for (i, (kind, n)) in errors.iter().enumerate() {
                    @if i > 0 { ", " }
                    (kind.replace('_', " ")) " " b { (n) }
                }
            }
        }
    }
}
