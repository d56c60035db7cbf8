//! A run in a terminal: the tables of the page, without its charts.

use super::{
    KeptRun,
    critical::critical_path,
    history::{Ending, Failure, History},
    layout,
};
use crate::report::{Side, Table, Tone, drills, quantity::duration, text};

impl KeptRun {
    /// The run's report as text, for a stream of this kind.
    pub fn text(&self, side: &Side) -> String {
        let history = &self.history;
        let mut text = heading(self);
        for failure in history.failures() {
            text.push('\n');
            push_failure(&failure, &mut text);
        }
        let mut tables = Vec::new();
        let mut notes = Vec::new();
        match &self.drill {
            Some(record) => {
                tables.push(drills::runs(record));
                notes = drills::notes(record);
                if record.summaries.iter().any(|summary| summary.runs > 1) {
                    tables.push(drills::summaries(record));
                }
            }
            None => tables.extend([path(history), slowest(history)].into_iter().flatten()),
        }
        tables.extend(proof(history));
        for table in tables {
            text.push('\n');
            text.push_str(&table.render(side));
        }
        for note in notes {
            text.push_str(&note);
            text.push('\n');
        }
        text
    }
}

fn heading(run: &KeptRun) -> String {
    let history = &run.history;
    let mut text = format!(
        "{} {}: {} after {}",
        history.verb,
        history.cluster,
        layout::word(history),
        duration(history.seconds)
    );
    let counts = [
        (history.created, "made"),
        (history.removed, "removed"),
        (history.moved, "moved"),
        (history.altered, "altered"),
        (history.count(Ending::Changed), "changed"),
        (history.count(Ending::Done), "waited"),
        (history.count(Ending::Failed), "failed"),
        (history.count(Ending::CutOff), "cut off"),
        (history.not_run.len(), "never ran"),
    ];
    for (n, word) in counts {
        if n > 0 {
            text += &format!(", {n} {word}");
        }
    }
    text.push('\n');
    if let Some(began) = history.began {
        let began = began.strftime("%Y-%m-%d %H:%M:%S UTC");
        text += &format!("begun {began}, run {}\n", run.name);
    }
    text
}

fn push_failure(failure: &Failure, text: &mut String) {
    let at = [&failure.host, &failure.step];
    let at: Vec<&str> = at.into_iter().flatten().map(String::as_str).collect();
    let colon = if at.is_empty() { "" } else { ": " };
    let mut line = |indent: usize, line: &str| {
        text.push_str(&" ".repeat(indent));
        text.push_str(line);
        text.push('\n');
    };
    line(
        0,
        &format!(
            "{}{colon}{}",
            at.join(", "),
            text::first_line(&failure.message)
        ),
    );
    for cause in &failure.causes {
        line(2, &format!("caused by: {}", text::lines(cause).join(" ")));
    }
    for excerpt in &failure.excerpts {
        if !excerpt.title.trim().is_empty() {
            line(2, &format!("{}:", excerpt.title.trim()));
        }
        for said in text::lines(&excerpt.text) {
            line(4, &said);
        }
    }
    if let Some(left) = &failure.left {
        line(
            2,
            &format!("left as it is: {}", text::lines(left).join(" ")),
        );
    }
    for hint in &failure.hints {
        line(0, &format!("hint: {hint}"));
    }
    for inner in &failure.failures {
        push_failure(inner, text);
    }
}

fn path(history: &History) -> Option<Table> {
    let path = critical_path(history);
    if path.is_empty() {
        return None;
    }
    let mut table = Table::new(["from", "where", "what", "took"]).title("critical path");
    for link in path {
        let span = &history.spans[link.span];
        table.toned_row(
            tone(span.ending),
            [
                duration(span.begin),
                span.host().unwrap_or_default().to_owned(),
                span.name.clone(),
                duration(span.seconds()),
            ],
        );
    }
    Some(table)
}

fn slowest(history: &History) -> Option<Table> {
    let slowest = history.slowest(5);
    if slowest.is_empty() {
        return None;
    }
    let mut table = Table::new(["host", "step", "took"]).title("slowest steps");
    for span in slowest {
        table.toned_row(
            tone(span.ending),
            [
                span.host().unwrap_or_default().to_owned(),
                span.name.clone(),
                duration(span.seconds()),
            ],
        );
    }
    Some(table)
}

fn tone(ending: Ending) -> Tone {
    match ending {
        Ending::Changed | Ending::Done => Tone::Plain,
        Ending::Failed => Tone::Bad,
        Ending::CutOff => Tone::Warn,
    }
}

fn proof(history: &History) -> Option<Table> {
    if history.checks.is_empty() {
        return None;
    }
    let mut table = Table::new(["", "check", "what was seen"]);
    for check in &history.checks {
        let (tone, mark) = if check.passed {
            (Tone::Plain, "ok")
        } else {
            (Tone::Bad, "FAILED")
        };
        table.toned_row(tone, [mark, &check.name, &check.detail]);
    }
    Some(table)
}
