//! docs/json.md names every event.

use regex::Regex;

use super::*;

#[test]
fn the_page_of_json_has_every_event_and_no_other() {
    let source = read("src/event.rs");
    let (_, rest) = source.split_once("pub enum Event {\n").unwrap();
    let (body, _) = rest.split_once("\n}\n").unwrap();
    let variant = Regex::new(r"(?m)^    ([A-Z][A-Za-z]+)(?: \{|,)").unwrap();
    let mut events: Vec<String> = variant
        .captures_iter(body)
        .map(|it| snake(&it[1]))
        .collect();
    let page = read("docs/json.md");
    let (_, table) = page
        .split_once("| `event` | when | fields |\n|---|---|---|\n")
        .unwrap();
    let row = Regex::new("^[|] `([a-z_]+)` [|]").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut told: Vec<String> = rows
        .map(|line| row.captures(line).expect(line)[1].to_owned())
        .collect();
    events.sort();
    told.sort();
    assert!(events.len() > 15, "{events:?}");
    assert_eq!(
        told, events,
        "the table of docs/json.md, and the variants of `Event`"
    );
}

/// `RunStarted` is `run_started`, as serde writes it.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
