//! The dashboards of docs/dashboards/: their panels, what they ask Prometheus, and which metrics that names.

use std::collections::BTreeSet;

use serde_json::Value;

/// The files, by their names.
pub(crate) const DASHBOARDS: [(&str, &str); 2] = [
    (
        "cluster.json",
        include_str!("../../docs/dashboards/cluster.json"),
    ),
    ("host.json", include_str!("../../docs/dashboards/host.json")),
];

/// One expression of a panel.
pub(crate) struct Asked {
    pub title: String,
    pub expr: String,
}

/// All panels of a dashboard, rows and those in them included.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    let outer = dashboard["panels"].as_array().into_iter().flatten();
    outer
        .flat_map(|panel| {
            let inner = panel["panels"].as_array().into_iter().flatten();
            std::iter::once(panel).chain(inner)
        })
        .collect()
}

/// What the panels of a dashboard ask.
pub(crate) fn asked(dashboard: &Value) -> Vec<Asked> {
    let of = |panel: &Value| -> Vec<Asked> {
        let targets = panel["targets"].as_array().into_iter().flatten();
        let one = |target: &Value| Asked {
            title: panel["title"].as_str().unwrap_or_default().to_owned(),
            expr: target["expr"].as_str().unwrap_or_default().to_owned(),
        };
        targets.map(one).collect()
    };
    panels(dashboard).into_iter().flat_map(of).collect()
}

/// The metrics that an expression of Prometheus names: its words that are no function, no label, no keyword, and in no
/// string, selector or range.
pub(crate) fn metrics(expr: &str) -> BTreeSet<String> {
    const KEYWORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];
    const BEFORE_LABELS: [&str; 6] = [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ];
    let mut names = BTreeSet::new();
    let mut rest = expr;
    while let Some(first) = rest.chars().next() {
        let word: String = rest.chars().take_while(|it| in_word(*it)).collect();
        if word.is_empty() {
            rest = match first {
                '"' => after(&rest[1..], '"'),
                '{' => after_selector(&rest[1..]),
                '[' => after(&rest[1..], ']'),
                _ => &rest[first.len_utf8()..],
            };
            continue;
        }
        rest = &rest[word.len()..];
        let then = rest.trim_start();
        if BEFORE_LABELS.contains(&word.as_str()) {
            if then.starts_with('(') {
                rest = after(then, ')');
            }
        } else if !is_called(then)
            && !KEYWORDS.contains(&word.as_str())
            && !word.starts_with(|it: char| it.is_ascii_digit() || it == '.')
        {
            names.insert(word);
        }
    }
    names
}

/// What stands before this is a function, or `sum` in `sum by (…)`.
fn is_called(then: &str) -> bool {
    let word: String = then.chars().take_while(|it| in_word(*it)).collect();
    then.starts_with('(') || word == "by" || word == "without"
}

/// Words and numbers.
fn in_word(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '_' | ':' | '.')
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// A brace in a string of a selector does not end it.
fn after_selector(text: &str) -> &str {
    let mut quoted = false;
    let end = text.find(|it: char| {
        quoted ^= it == '"';
        it == '}' && !quoted
    });
    end.map_or("", |at| &text[at + 1..])
}
