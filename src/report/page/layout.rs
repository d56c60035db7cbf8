//! The layout of a page: its head, its figures, its frame.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    KeptRun,
    history::{Ending, History, Verdict},
};
use crate::report::quantity::{count, duration};

const STYLE: &str = include_str!("style.css");

/// Nothing is loaded and no script runs, whatever a host has printed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) fn page(run: &KeptRun, body: &Markup) -> String {
    let history = &run.history;
    let title = format!("{} {}: {}", history.verb, history.cluster, word(history));
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "pgherd " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(run))
                main { (body) }
                (foot(run))
            }
        }
    };
    page.into_string()
}

/// How a run ended, in a word or two.
pub(super) fn word(history: &History) -> &'static str {
    match history.verdict() {
        Verdict::Done if history.verb == "drill" => "passed",
        Verdict::Done => "done",
        Verdict::Failed => "failed",
        Verdict::Broken if history.verb == "drill" => "not passed",
        Verdict::Broken => "not healthy",
        Verdict::Stopped => "stopped",
        Verdict::Unfinished => "never finished",
    }
}

fn head(run: &KeptRun) -> Markup {
    let history = &run.history;
    let tone = match history.verdict() {
        Verdict::Done => "good",
        Verdict::Failed | Verdict::Broken => "bad",
        Verdict::Stopped | Verdict::Unfinished => "warn",
    };
    html! {
        header {
            p.kind { "pgherd " (history.verb) }
            h1 { (history.cluster) " " span.verdict.(tone) { (word(history)) } }
            p.when {
                @if let Some(began) = history.began {
                    time datetime=(began) { (began.strftime("%-d %B %Y, %H:%M:%S UTC")) }
                    " · "
                }
                "run " code { (run.name) }
                @if !history.version.is_empty() { " · pgherd " (history.version) }
            }
            @if history.end.is_none() {
                p.note {
                    "This run has not recorded its end: it was killed, or it is still running. "
                    "The page shows what it had recorded until then."
                }
            }
            dl.figures {
                @for (name, value, tone) in figures(run) {
                    div { dt { (name) } dd.(tone) { (value) } }
                }
            }
        }
    }
}

/// The figures at the top: a name, a value, and a tone.
fn figures(run: &KeptRun) -> Vec<(&'static str, String, &'static str)> {
    let history = &run.history;
    let mut figures = vec![("in all", duration(history.seconds), "plain")];
    let mut number = |name, n: usize, tone| {
        if n > 0 {
            figures.push((name, n.to_string(), tone));
        }
    };
    number("hosts", history.hosts.len(), "plain");
    number("made", history.created, "plain");
    number("removed", history.removed, "plain");
    number("moved", history.moved, "plain");
    number("altered", history.altered, "plain");
    number(
        "steps that changed",
        history.count(Ending::Changed),
        "plain",
    );
    number("steps that waited", history.count(Ending::Done), "plain");
    number("failed", history.count(Ending::Failed), "bad");
    number("cut off", history.count(Ending::CutOff), "warn");
    number("never ran", history.not_run.len(), "warn");
    if let Some(record) = &run.drill {
        let held = record
            .drills
            .iter()
            .filter(|drill| drill.failures.is_empty());
        let all = record.drills.len();
        let tone = if record.passed { "good" } else { "bad" };
        figures.push(("drills hold", format!("{} of {all}", held.count()), tone));
    } else if !history.checks.is_empty() {
        let passed = history.checks.iter().filter(|check| check.passed).count();
        let all = history.checks.len();
        let tone = if passed == all { "good" } else { "bad" };
        figures.push(("checks hold", format!("{passed} of {all}"), tone));
    }
    figures
}

fn foot(run: &KeptRun) -> Markup {
    html! {
        footer {
            p {
                @if run.logs.is_empty() {
                    "The run's events are beside this page in " code { "events.jsonl" } "."
                } @else {
                    "Beside this page: the run's events in " code { "events.jsonl" }
                    ", and all that hosts printed, in "
                    @for (i, log) in run.logs.iter().enumerate() {
                        @if i > 0 { ", " }
                        code { (log) }
                    }
                    "."
                }
            }
            p { "Again in a terminal: " code { "pgherd report --text " (run.name) } }
        }
    }
}

/// A section with its heading, and a sentence about its content.
pub(super) fn section(heading: &str, lead: &str, body: &Markup) -> Markup {
    html! {
        section {
            h2 { (heading) }
            @if !lead.is_empty() { p.lead { (lead) } }
            (body)
        }
    }
}

/// `3 steps`, for headings that fold.
pub(super) fn folded(n: usize, noun: &str, body: &Markup) -> Markup {
    html! {
        details {
            summary { (count(n, noun)) }
            (body)
        }
    }
}
