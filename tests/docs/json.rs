//! docs/json.md and the schemas in docs/json: what they have, and that it is what the code has.

use std::collections::{BTreeMap, BTreeSet};

use boon::{Compiler, Schemas};
use pgherd::{error::Code, inventory::Role};
use regex::Regex;
use serde_json::{Value, json};

use super::*;

#[path = "fields.rs"]
mod fields;

const FOLDER: &str = "docs/json";

/// The schemas by their names.
fn schemas() -> BTreeMap<String, Value> {
    let files = fs::read_dir(root().join(FOLDER)).unwrap();
    let files = files.map(|it| it.unwrap().file_name().into_string().unwrap());
    files
        .map(|file| {
            let schema = serde_json::from_str(&read(format!("{FOLDER}/{file}"))).expect(FOLDER);
            (file.trim_end_matches(".json").to_owned(), schema)
        })
        .collect()
}

fn schema(name: &str) -> Value {
    schemas().remove(name).expect("a schema of this name")
}

#[test]
fn every_schema_is_one() {
    let all = schemas();
    assert!(all.len() > 25, "{:?}", all.keys());
    let mut compiler = Compiler::new();
    for (name, schema) in &all {
        let file = format!("{name}.json");
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        assert_eq!(schema["$id"], file.as_str());
        assert!(schema["title"].is_string() && schema["description"].is_string());
        compiler.add_resource(&file, schema.clone()).unwrap();
    }
    let mut compiled = Schemas::new();
    for name in all.keys() {
        let file = format!("{name}.json");
        if let Err(error) = compiler.compile(&file, &mut compiled) {
            panic!("{file}: {error:#}");
        }
    }
}

#[test]
fn every_name_is_described_and_later_ones_are_allowed() {
    for (name, schema) in &schemas() {
        look(schema, &mut |at, part| {
            let place = format!("{name}.json: {at}");
            assert!(
                part.get("additionalProperties") != Some(&json!(false)),
                "{place}"
            );
            let Some(properties) = part.get("properties").and_then(Value::as_object) else {
                let open = part["type"] == "object" && part.get("additionalProperties").is_none();
                assert!(!open, "{place}: an object says what is in it");
                return;
            };
            for required in part["required"].as_array().expect(&place) {
                let required = required.as_str().unwrap();
                assert!(properties.contains_key(required), "{place}: {required}");
            }
            for (key, property) in properties {
                let words = property["description"].as_str().unwrap_or_default();
                assert!(words.len() > 4, "{place}: {key} has no description");
                assert!(!words.ends_with('.'), "{place}: {words}");
                let says = ["type", "$ref", "anyOf", "oneOf"];
                let typed = says.iter().any(|it| property.get(it).is_some());
                assert!(typed, "{place}: {key} has no type");
            }
        });
    }
}

/// Shows each schema in a schema, with its place.
fn look(schema: &Value, seen: &mut impl FnMut(&str, &Value)) {
    fn walk(at: &str, part: &Value, seen: &mut dyn FnMut(&str, &Value)) {
        seen(at, part);
        for (key, value) in part.as_object().into_iter().flatten() {
            let at = format!("{at}/{key}");
            match key.as_str() {
                "properties" | "$defs" => {
                    for (name, inner) in value.as_object().unwrap() {
                        walk(&format!("{at}/{name}"), inner, seen);
                    }
                }
                "items" | "additionalProperties" => walk(&at, value, seen),
                "oneOf" | "anyOf" => {
                    for inner in value.as_array().unwrap() {
                        walk(&at, inner, seen);
                    }
                }
                _ => {}
            }
        }
    }
    walk("", schema, seen);
}

#[test]
fn the_page_of_json_links_to_every_schema() {
    let page = read("docs/json.md");
    let link = Regex::new(r"\]\(json/([a-z-]+)\.json\)").unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let linked: BTreeSet<String> = rows
        .flat_map(|row| link.captures_iter(row))
        .map(|it| it[1].to_owned())
        .collect();
    let there: BTreeSet<String> = schemas().into_keys().collect();
    assert_eq!(linked, there, "the tables of docs/json.md, and {FOLDER}");
}

#[test]
fn the_page_of_json_has_every_event_and_no_other() {
    let events: BTreeSet<String> = fields::variants("src/event.rs", "Event")
        .into_keys()
        .collect();
    assert!(events.len() > 15, "{events:?}");
    let page = read("docs/json.md");
    let (_, table) = page.split_once("| `event` | when |\n|---|---|\n").unwrap();
    let row = Regex::new("^[|] `([a-z_]+)` [|]").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let told: BTreeSet<String> = rows
        .map(|line| row.captures(line).expect(line)[1].to_owned())
        .collect();
    assert_eq!(
        told, events,
        "the table of docs/json.md, and the variants of `Event`"
    );
}

/// The words of an enumeration at a place of a schema, without null.
fn words(schema: &Value, at: &str) -> BTreeSet<String> {
    let words = schema.pointer(at).and_then(Value::as_array).expect(at);
    let words = words.iter().filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}

#[test]
fn words_are_those_of_the_code() {
    let snake = |file: &str, name: &str| -> BTreeSet<String> {
        fields::variants(file, name).into_keys().collect()
    };
    let kebab = |file: &str, name: &str| -> BTreeSet<String> {
        let words = snake(file, name).into_iter();
        words.map(|it| it.replace('_', "-")).collect()
    };
    let (events, drill, plan) = (schema("events"), schema("drill"), schema("plan"));
    let scenarios = kebab("src/scenario.rs", "Scenario");
    let moments = snake("src/event.rs", "Moment");
    let states = snake("src/event.rs", "HostState");
    let event = |event: &str, key: &str| {
        let at = format!("/$defs/{event}/properties/{key}/enum");
        words(&events, &at)
    };
    assert_eq!(event("host", "state"), states);
    assert_eq!(event("resource", "state"), states);
    assert_eq!(event("drill_moment", "moment"), moments);
    assert_eq!(event("drill_started", "scenario"), scenarios);
    assert_eq!(event("drill_finished", "scenario"), scenarios);
    assert_eq!(
        event("step_output", "stream"),
        snake("src/event.rs", "Stream")
    );
    assert_eq!(
        event("step_finished", "outcome"),
        snake("src/event.rs", "Outcome")
    );
    let of_drill = |at: &str| words(&drill, &format!("/$defs/{at}/enum"));
    assert_eq!(of_drill("mark/properties/moment"), moments);
    assert_eq!(of_drill("drill/properties/scenario"), scenarios);
    assert_eq!(of_drill("summary/properties/scenario"), scenarios);
    let seen = snake("src/drill/record.rs", "Seen");
    assert_eq!(of_drill("band/properties/role"), seen);
    let route = snake("src/drill/record.rs", "Route");
    assert_eq!(of_drill("drill/properties/route"), route);
    let ending = snake("src/report/page/history.rs", "Ending");
    let report = schema("report");
    assert_eq!(
        words(&report, "/$defs/piece/properties/ending/enum"),
        ending
    );
    let roles: BTreeSet<String> = Role::ALL.map(|it| it.as_str().to_owned()).into();
    let leave = "/properties/leave/items/properties/roles/items/enum";
    assert_eq!(words(&plan, leave), roles);
    let witnesses = snake("src/plan/membership.rs", "Witness");
    let seen_by = "/$defs/left/properties/seen_by/items/enum";
    assert_eq!(words(&schema("status"), seen_by), witnesses);
    let places = snake("src/inventory/backup.rs", "Place");
    let (backups, restore) = (schema("backups"), schema("restore-dry-run"));
    for (schema, at) in [
        (&backups, "/$defs/backup/properties/place/enum"),
        (&backups, "/$defs/verdict/properties/place/enum"),
        (&backups, "/properties/places/items/properties/place/enum"),
        (&restore, "/properties/place/enum"),
    ] {
        assert_eq!(words(schema, at), places, "{at}");
    }
    let source = read("src/cli/plan.rs");
    let action = Regex::new(r#"Action::\w+.* => "([a-z_]+)","#).unwrap();
    let actions: BTreeSet<String> = action
        .captures_iter(&source)
        .map(|it| it[1].to_owned())
        .collect();
    let at = "/properties/steps/items/properties/action/enum";
    assert_eq!(words(&plan, at), actions);
}

/// `UPDATE_DOCS=1 cargo test --test docs` writes them anew.
#[test]
fn every_schema_with_codes_has_all_of_them() {
    let codes = Code::GROUPS.iter().flat_map(|(_, codes)| *codes);
    let codes: Vec<&str> = codes.map(|code| code.word()).collect();
    for (name, mut schema) in schemas() {
        if let Some(code) = schema.pointer_mut("/$defs/code/enum") {
            *code = json!(codes);
            assert_page(&format!("{FOLDER}/{name}.json"), &format!("{schema:#}\n"));
        }
    }
}

/// The schema that a definition comes from, where several have it: each can be used without the others.
fn home(part: &str) -> Option<&str> {
    let homes = [
        ("error", &["code", "excerpt", "failure"][..]),
        ("status", &["at_work", "left", "prepared_image"]),
        ("verify", &["checked"]),
        ("backups", &["backup", "verdict"]),
    ];
    let found = homes.iter().find(|(_, parts)| parts.contains(&part));
    found
        .map(|(home, _)| *home)
        .or(part.strip_suffix("_document"))
}

#[test]
fn a_definition_is_the_same_in_every_schema() {
    let all = schemas();
    let mut copies = 0;
    for (name, schema) in &all {
        for (part, is) in schema["$defs"].as_object().into_iter().flatten() {
            let Some(home) = home(part).filter(|home| home != name) else {
                continue;
            };
            copies += 1;
            let mut should = all[home].clone();
            if part.ends_with("_document") {
                let keys = should.as_object_mut().unwrap();
                keys.retain(|key, _| !["$schema", "$id", "title", "$defs"].contains(&key.as_str()));
                let words = keys["description"].as_str().unwrap();
                let words = words.trim_end_matches('.').to_owned();
                keys["description"] = words.into();
            } else {
                should = should["$defs"][part].take();
            }
            let text = |it: &Value| format!("{it:#}");
            let (is, should) = (text(is), text(&should));
            assert!(
                is == should,
                "{part} in {name}.json is not that of {home}.json:\n{is}\n{should}"
            );
        }
    }
    assert!(copies > 10, "only {copies}");
}
