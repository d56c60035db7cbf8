//! The page about templates lists every variable, and no other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{of_host, shared};
use crate::plan::tests::world::{FIVE, cluster};

const PAGE: &str = include_str!("../../../docs/templates.md");
/// A word in code that is no variable, but a role.
const OTHERS: [&str; 1] = ["postgres"];

fn words(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let is_name = |it: &&str| {
        it.chars()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
    };
    words.filter(is_name).collect()
}

/// What the page says of each variable, without its remarks in brackets.
fn rows() -> BTreeMap<&'static str, String> {
    let (_, table) = PAGE
        .split_once("| variable | meaning |\n|---|---|\n")
        .unwrap();
    let rows = table.lines().take_while(|it| it.starts_with('|'));
    rows.map(|row| {
        let name = row.split(['`', '.']).nth(1).unwrap();
        let pieces = row.split('(').enumerate();
        let outside = pieces.map(|(n, piece)| match n {
            0 => piece,
            _ => piece.split_once(')').map_or("", |(_, rest)| rest),
        });
        let text: String = outside.collect();
        (name, text.replace(&format!("`{name}."), "`"))
    })
    .collect()
}

fn names(value: &Value) -> BTreeSet<&str> {
    let value = value.as_array().and_then(|it| it.first()).unwrap_or(value);
    let names = value.as_object().into_iter().flatten();
    names.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn the_page_about_templates_has_every_variable() {
    let cluster = cluster("", FIVE);
    let node = cluster.nodes.values().next().unwrap();
    let context = of_host(shared(&cluster), &cluster, node).unwrap();
    let rows = rows();
    let known: Vec<&str> = context.keys().map(String::as_str).collect();
    for name in rows.keys() {
        assert!(known.contains(name), "there is no variable {name}");
    }
    for (name, value) in &context {
        let row = rows.get(name.as_str());
        let told = words(row.unwrap_or_else(|| panic!("{name} is not on the page")));
        // These are what other pages describe: hosts, and Patroni's configuration.
        let names = match name.as_str() {
            "members" | "bootstrap_dcs" => continue,
            _ => names(value),
        };
        let lacks: Vec<_> = names.difference(&told).collect();
        assert!(lacks.is_empty(), "{name}: the page lacks {lacks:?}");
        let known = |it: &&&str| names.contains(*it) || **it == name || OTHERS.contains(*it);
        let more: Vec<_> = told.iter().filter(|it| !known(it)).collect();
        assert!(more.is_empty(), "{name}: there is no {more:?}");
    }
}
