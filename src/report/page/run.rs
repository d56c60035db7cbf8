//! The part of the page about a run: failures, times, the proof, the software.

use maud::{Markup, html};

use super::{
    KeptRun,
    axis::pct,
    critical::{Link, critical_path},
    gantt::{class_of, gantt, on_path},
    history::{Ending, Failure, History, Planned, Span},
    layout::{folded, section},
};
use crate::report::quantity::duration;

/// How many of the slowest steps are listed.
const SLOWEST: usize = 8;

/// Shorter times between two links of the critical path, in seconds, get no line.
const SHORTEST_GAP: f64 = 0.1;

pub(super) fn body(run: &KeptRun) -> Markup {
    let history = &run.history;
    html! {
        (failures(history))
        (time(history))
        (proof(history))
        (software(history))
        (steps(history))
    }
}

pub(super) fn failures(history: &History) -> Markup {
    let failures = history.failures();
    if failures.is_empty() {
        return html! {};
    }
    let body = html! { @for failure in &failures { (card(failure)) } };
    section("What went wrong", "", &body)
}

fn card(failure: &Failure) -> Markup {
    html! {
        article.failure {
            h3 {
                @if let Some(host) = &failure.host { span.host { (host) } " " }
                @if let Some(step) = &failure.step { code { (step) } " " }
            }
            p.what { (failure.message) }
            @if !failure.causes.is_empty() {
                ul.causes { @for cause in &failure.causes { li { (cause) } } }
            }
            @for excerpt in &failure.excerpts {
                figure.excerpt {
                    @if !excerpt.title.trim().is_empty() {
                        figcaption { (excerpt.title.trim()) }
                    }
                    pre { (crate::report::text::lines(&excerpt.text).join("\n")) }
                }
            }
            @if let Some(left) = &failure.left { p { b { "Left as it is: " } (left) } }
            @for hint in &failure.hints { p.hint { (hint) } }
            @for inner in &failure.failures { (card(inner)) }
        }
    }
}

fn time(history: &History) -> Markup {
    if history.spans.is_empty() {
        return html! {};
    }
    let path = critical_path(history);
    let body = html! {
        (gantt(history, &path))
        div.columns {
            div {
                h3 { "The critical path" }
                (path_table(history, &path))
            }
            @if history.steps().next().is_some() {
                div {
                    h3 { "The slowest steps" }
                    (slowest(history, &path))
                }
            }
        }
    };
    section(
        "Where the time went",
        "Only what is on the critical path made the run as long as it was.",
        &body,
    )
}

/// A line of the critical path: from when, where, what, for how long.
struct Row<'a> {
    from: f64,
    place: &'a str,
    what: &'a str,
    class: &'static str,
    seconds: f64,
}

fn path_rows<'a>(history: &'a History, path: &[Link]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    let between = |from: f64, seconds: f64| {
        (seconds >= SHORTEST_GAP).then_some(Row {
            from,
            place: "",
            what: "pgherd itself",
            class: "between",
            seconds,
        })
    };
    for link in path {
        let span = &history.spans[link.span];
        rows.extend(between(span.begin - link.gap, link.gap));
        rows.push(Row {
            from: span.begin,
            place: span.host().unwrap_or(""),
            what: &span.name,
            class: class_of(span.ending),
            seconds: span.seconds(),
        });
    }
    let last = path.last().map_or(0.0, |link| history.spans[link.span].end);
    rows.extend(between(last, history.seconds - last));
    rows
}

fn path_table(history: &History, path: &[Link]) -> Markup {
    let whole = history.seconds.max(0.001);
    html! {
        table.path {
            thead { tr { th.number { "from" } th { "where" } th { "what" } th.number { "took" } th.share { "share" } } }
            tbody {
                @for row in path_rows(history, path) {
                    tr.(row.class) {
                        td.number { (duration(row.from)) }
                        td { (row.place) }
                        td { (row.what) }
                        td.number { (duration(row.seconds)) }
                        td.share { (share(row.seconds / whole, "critical")) }
                    }
                }
            }
        }
    }
}

/// A bar with a share of its cell's length.
pub(super) fn share(share: f64, class: &str) -> Markup {
    let width = pct((share * 100.0).clamp(0.5, 100.0));
    html! {
        svg.share width="100%" height="9" aria-hidden="true" {
            rect class=(class) width=(width) height="9" rx="2" {}
        }
    }
}

fn slowest(history: &History, path: &[Link]) -> Markup {
    let slowest = history.slowest(SLOWEST);
    let longest = slowest
        .first()
        .map_or(0.0, |span| span.seconds())
        .max(0.001);
    let critical = |span: &Span| {
        let i = history
            .spans
            .iter()
            .position(|other| std::ptr::eq(other, span));
        i.is_some_and(|i| on_path(path, i))
    };
    html! {
        table.slowest {
            thead { tr { th { "host" } th { "step" } th.number { "took" } th.share { } } }
            tbody {
                @for span in slowest {
                    tr.(class_of(span.ending)) {
                        td { (span.host().unwrap_or("")) }
                        td { (span.name) }
                        td.number { (duration(span.seconds())) }
                        td.share {
                            (share(span.seconds() / longest, if critical(span) { "critical" } else { "beside" }))
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn proof(history: &History) -> Markup {
    if history.checks.is_empty() {
        return html! {};
    }
    let body = html! {
        table.proof {
            thead { tr { th {} th { "check" } th { "what was seen" } } }
            tbody {
                @for check in &history.checks {
                    tr {
                        @if check.passed { td.good { "passed" } } @else { td.bad { "failed" } }
                        td { (check.name) }
                        td { (check.detail) }
                    }
                }
            }
        }
    };
    section("The proof", "", &body)
}

pub(super) fn software(history: &History) -> Markup {
    if history.software.is_empty() {
        return html! {};
    }
    // In the order of the charts; a host that is in none comes last.
    let place = |host: &str| {
        let hosts = &history.hosts;
        hosts
            .iter()
            .position(|known| known == host)
            .unwrap_or(hosts.len())
    };
    let mut hosts: Vec<_> = history.software.iter().collect();
    hosts.sort_by_key(|(host, _)| place(host));
    let body = html! {
        table.software {
            thead { tr { th { "host" } th { "serves" } th { "system" } } }
            tbody {
                @for (host, software) in hosts {
                    tr {
                        td { (host) }
                        td {
                            @for (i, (package, version)) in software.packages.iter().enumerate() {
                                @if i > 0 { ", " }
                                span.version { (package) " " b { (version) } }
                            }
                            @if software.packages.is_empty() { "nothing yet" }
                        }
                        td { (software.os) }
                    }
                }
            }
        }
    };
    section("Versions", "", &body)
}

fn steps(history: &History) -> Markup {
    let ran: Vec<&Span> = history.steps().collect();
    if ran.is_empty() && history.not_run.is_empty() {
        return html! {};
    }
    let all: Vec<&Planned> = ran
        .iter()
        .filter_map(|span| span.step.as_ref())
        .chain(&history.not_run)
        .collect();
    let needs = |step: &Planned| -> Vec<String> {
        let after = step.after.iter().flatten();
        after
            .filter_map(|key| all.iter().find(|other| other.id == *key))
            .map(|other| {
                if other.host == step.host {
                    other.name.clone()
                } else {
                    format!("{} on {}", other.name, other.host)
                }
            })
            .collect()
    };
    let table = html! {
        table.steps {
            thead {
                tr { th.number { "from" } th { "host" } th { "step" } th { "ended" } th.number { "took" } th { "why, and what it waited for" } }
            }
            tbody {
                @for span in &ran {
                    @if let Some(step) = &span.step {
                        tr.(class_of(span.ending)) {
                            td.number { (duration(span.begin)) }
                            td { (step.host) }
                            td { (step.name) }
                            td { (ended(span.ending)) }
                            td.number { (duration(span.seconds())) }
                            td { (reasons(step, &needs(step))) }
                        }
                    }
                }
                @for step in &history.not_run {
                    tr.not-run {
                        td {} td { (step.host) } td { (step.name) } td { "never ran" } td {}
                        td { (reasons(step, &needs(step))) }
                    }
                }
            }
        }
    };
    section("Every step", "", &folded(all.len(), "step", &table))
}

fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Changed => "changed",
        Ending::Done => "done",
        Ending::Failed => "failed",
        Ending::CutOff => "cut off",
    }
}

fn reasons(step: &Planned, needs: &[String]) -> Markup {
    html! {
        (step.why)
        @if !needs.is_empty() {
            span.needs { " after " (needs.join(", ")) }
        }
    }
}
