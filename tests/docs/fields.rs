//! The fields of the types that are printed as JSON, read from the sources, beside those of their schemas.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use super::{read, schema};

/// How a field is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    always: bool,
    nullable: bool,
}

type Fields = BTreeMap<String, Field>;

/// The body of a type, such as `struct Record`, which ends where a line is only a brace.
fn body(file: &str, what: &str) -> String {
    let text = read(file);
    let visible = ["", "pub ", "pub(crate) ", "pub(super) "];
    let begins = visible.map(|it| format!("\n{it}{what} {{\n"));
    let rest = begins.iter().find_map(|it| text.split_once(it.as_str()));
    let (_, rest) = rest.unwrap_or_else(|| panic!("{file}: {what}"));
    let (body, _) = rest.split_once("\n}\n").expect(what);
    body.to_owned()
}

/// The variants of an enumeration as serde writes them, each with its fields.
pub(super) fn variants(file: &str, name: &str) -> BTreeMap<String, Fields> {
    let body = body(file, &format!("enum {name}"));
    let head = Regex::new(r"(?m)^    ([A-Z][A-Za-z]+)(?: \{|,)").unwrap();
    let heads: Vec<_> = head.captures_iter(&body).collect();
    let mut variants = BTreeMap::new();
    for (n, it) in heads.iter().enumerate() {
        let begin = it.get(0).unwrap().end();
        let end = heads
            .get(n + 1)
            .map_or(body.len(), |next| next.get(0).unwrap().start());
        variants.insert(snake(&it[1]), fields(&body[begin..end]));
    }
    variants
}

/// `RunStarted` is `run_started`.
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

fn fields(body: &str) -> Fields {
    let field = Regex::new(r"^\s+(?:pub(?:\([a-z]+\))? )?([a-z_]+): (.+),$").unwrap();
    let rename = Regex::new(r#"rename = "([a-z_]+)""#).unwrap();
    let mut fields = Fields::new();
    let mut attributes = String::new();
    for line in body.lines() {
        if line.trim_start().starts_with("#[serde(") {
            attributes.push_str(line);
        } else if let Some(it) = field.captures(line) {
            let told = std::mem::take(&mut attributes);
            if told.contains("serde(skip)") || told.contains("serde(flatten)") {
                continue;
            }
            let name = rename.captures(&told).map(|it| it[1].to_owned());
            let always = !told.contains("skip_serializing_if");
            let nullable = always && it[2].starts_with("Option<");
            fields.insert(name.unwrap_or(it[1].to_owned()), Field { always, nullable });
        }
    }
    fields
}

/// What a schema says of the same.
fn described(part: &Value) -> Fields {
    let required: BTreeSet<&str> = part["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let properties = part["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, property)| {
            let null = Value::from("null");
            let types = property["type"].as_array();
            let others = property["anyOf"].as_array();
            let nullable = types.is_some_and(|it| it.contains(&null))
                || others.is_some_and(|it| it.iter().any(|it| it["type"] == null));
            let always = required.contains(name.as_str());
            (name.clone(), Field { always, nullable })
        })
        .collect()
}

/// A file, a type in it, the place of its schema, and names that the schema has besides.
const TYPES: &str = "
src/drill/record.rs Record drill.json#
src/drill/record.rs Settings drill.json#/$defs/settings
src/drill/record.rs Limits drill.json#/$defs/limits
src/drill/record.rs Drill drill.json#/$defs/drill
src/drill/record.rs Hold drill.json#/$defs/hold
src/drill/record.rs Outage drill.json#/$defs/outage
src/drill/record.rs Dropped drill.json#/$defs/dropped
src/drill/record.rs Measured drill.json#/$defs/measured
src/drill/record.rs Pooled drill.json#/$defs/pooled
src/drill/record.rs Span drill.json#/$defs/span
src/drill/record.rs Conflict drill.json#/$defs/conflict
src/drill/record.rs Samples drill.json#/$defs/samples
src/drill/record.rs Mark drill.json#/$defs/mark
src/drill/record.rs Band drill.json#/$defs/band
src/drill/record.rs Summary drill.json#/$defs/summary
src/drill/record.rs Spread drill.json#/$defs/spread
src/report/page/document.rs Document<'a> report.json#
src/report/page/document.rs Piece<'a> report.json#/$defs/piece
src/report/page/document.rs Counts report.json#/properties/steps
src/report/page/document.rs Line<'a> report-list.json#/items
src/report/page/history.rs Planned report.json#/properties/never_ran/items
src/report/page/history.rs Check report.json#/properties/checks/items
src/report/page/history.rs Software report.json#/properties/software/additionalProperties
src/report/page/history.rs Failure report.json#/$defs/failed
src/report/page/history.rs Quote error.json#/$defs/excerpt
src/history.rs Record history.json#/properties/runs/items hosts at_work
src/history.rs Ended history.json#/properties/runs/items/properties/ended
src/services/archive/rehearsal.rs Verdict backups.json#/$defs/verdict
src/engine/watch.rs Member status-watch.json#/properties/seen/properties/members/additionalProperties
src/engine/watch.rs Picture status-watch.json#/properties/seen
src/plan/membership.rs Left status.json#/$defs/left
src/services/haproxy/client.rs Server status.json#/$defs/server
src/services/etcd/health/alarms.rs Raised status.json#/properties/etcd_alarms/items
src/services/health.rs Check verify.json#/$defs/checked
src/verify/mod.rs Proof verify.json#
src/tuning.rs Tuned plan.json#/properties/tuning/items/properties/parameters/items
src/cluster/targets.rs Target targets.json#/items
";

#[test]
fn every_field_of_a_type_is_in_its_schema() {
    for row in TYPES.trim().lines() {
        let mut parts = row.split(' ');
        let [file, name, place] = [(); 3].map(|()| parts.next().expect(row));
        let made = fields(&body(file, &format!("struct {name}")));
        assert!(!made.is_empty(), "{row}");
        let (of, at) = place.split_once(".json#").expect(row);
        let schema = schema(of);
        let mut told = described(schema.pointer(at).expect(row));
        for besides in parts {
            told.remove(besides).expect(row);
        }
        assert_eq!(told, made, "{row}");
    }
}

#[test]
fn every_field_of_an_event_is_in_the_schema() {
    let events = schema("events");
    let made = variants("src/event.rs", "Event");
    let mut told = BTreeMap::new();
    let lines = events["oneOf"].as_array().unwrap().iter();
    let lines = lines.map(|it| it["$ref"].as_str().unwrap().trim_start_matches("#/$defs/"));
    for event in lines.filter(|it| *it != "error_document") {
        let part = &events["$defs"][event];
        let mut fields = described(part);
        for common in ["t", "event"] {
            fields.remove(common).expect(event);
        }
        assert_eq!(part["properties"]["event"]["const"], event);
        told.insert(event.to_owned(), fields);
    }
    assert_eq!(told, made, "events.json, and `Event` in src/event.rs");
}

/// Documents that are made name by name, the files that make them, and names that come from elsewhere: from types
/// above, or from a constant.
const MADE: [(&[&str], &[&str], &[&str]); 11] = [
    (
        &["status", "backups"],
        &[
            "src/cli/status.rs",
            "src/services/backup/health.rs",
            "src/services/backup/health/document.rs",
            "src/cli/certificates.rs",
            "src/engine/at_work.rs",
            "src/prepared.rs",
            "src/services/postgres/health/shown.rs",
            "src/services/postgres/health/archive.rs",
            "src/services/etcd/health.rs",
            "src/services/haproxy/health.rs",
            "src/services/keepalived/health.rs",
            "src/services/pgbouncer/health.rs",
            "src/services/monitoring/health.rs",
        ],
        &[
            "backups",
            "pgbouncer",
            "monitoring",
            "roles",
            "seen_by",
            "member",
            "listener",
            "sessions",
            "check",
            "kind",
            "role",
            "status",
            "begun",
            "ended",
            "moment",
            "backup",
            "seconds",
            "heartbeats",
            "lost_seconds",
        ],
    ),
    (
        &["plan", "render-out"],
        &["src/cli/plan.rs", "src/cli/render.rs"],
        &["value"],
    ),
    (
        &["history"],
        &["src/cli/history.rs"],
        &[
            "run",
            "began",
            "by",
            "inventory",
            "verb",
            "command",
            "version",
            "ended",
            "at",
            "seconds",
            "exit_code",
            "error",
            "steps",
            "changes",
            "hosts",
        ],
    ),
    (&["connect"], &["src/engine/endpoint/format.rs"], &[]),
    (&["update-check"], &["src/cli/update.rs"], &[]),
    (&["reboot-dry-run"], &["src/cli/reboot.rs"], &[]),
    (
        &["restore-dry-run", "restore-into-dry-run"],
        &["src/cli/restore.rs", "src/cli/clone.rs"],
        &[],
    ),
    (&["upgrade-dry-run"], &["src/cli/upgrade.rs"], &[]),
    (
        &["adopt", "recover"],
        &["src/cli/adopt.rs", "src/cli/recover.rs"],
        &[],
    ),
    (
        &["state", "state-push", "state-pull", "state-identity"],
        &["src/cli/state.rs"],
        &[],
    ),
    (
        &["image-list", "image-remove", "diagnose"],
        &["src/cli/image.rs", "src/cli/diagnose.rs"],
        &[],
    ),
];

/// A schema without the definitions that it has from others.
fn own(name: &str) -> Value {
    let mut schema = schema(name);
    if let Some(parts) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        parts.retain(|part, _| super::home(part).is_none_or(|home| home == name));
    }
    schema
}

#[test]
fn every_name_that_is_written_is_in_its_schema() {
    let pairs = Regex::new(r#""([a-z_]+)":\s"#).unwrap();
    let keys = Regex::new(r#"\["([a-z_]+)"\](?:\["([a-z_]+)"\])? = "#).unwrap();
    let inserted = Regex::new(r#"\(\s*"([a-z_]+)"\.(?:to_owned|into)\(\),\s"#).unwrap();
    for (names, files, elsewhere) in MADE {
        let mut written: BTreeSet<String> = elsewhere.iter().map(|it| (*it).to_owned()).collect();
        for file in files {
            let text = read(file);
            let code = text.split("#[cfg(test)]").next().unwrap();
            for found in [&pairs, &keys, &inserted] {
                for it in found.captures_iter(code) {
                    let groups = it.iter().skip(1).flatten();
                    written.extend(groups.map(|it| it.as_str().to_owned()));
                }
            }
        }
        let mut told = BTreeSet::new();
        for name in names {
            super::look(&own(name), &mut |_, part| {
                let properties = part["properties"].as_object().into_iter().flatten();
                told.extend(properties.map(|(name, _)| name.clone()));
            });
        }
        // A word for people, in the place where a name would be.
        written.remove("unknown");
        assert_eq!(told, written, "{names:?}, and {files:?}");
    }
}
