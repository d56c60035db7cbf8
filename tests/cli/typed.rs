//! Verbs that are mistyped, and runs that are listed.

use std::fs;

use serde_json::{Value, json};

use super::Desk;

/// Somebody who mistypes a verb at night does what is suggested.
#[test]
fn a_mistyped_verb_is_never_answered_with_one_that_takes_something_away() {
    let desk = Desk::new();
    let said = desk.expect(2, &["statu"]);
    assert!(said.stderr.contains("'status'"), "{}", said.text());
    for typed in ["dow", "restor", "replac", "upgrad", "failove"] {
        let said = desk.expect(2, &[typed]);
        for harmful in [
            "'down'",
            "'restore'",
            "'replace'",
            "'upgrade'",
            "'failover'",
        ] {
            assert!(!said.stderr.contains(harmful), "{}", said.text());
        }
    }
}

#[test]
fn runs_are_listed_the_latest_first() {
    let desk = Desk::with_inventory();
    let said = desk.expect(1, &["report", "--list"]);
    assert!(said.stderr.contains("no run"), "{}", said.text());
    let runs = desk.path(".pgherd/local/runs");
    for (name, verb) in [
        ("2026-09-21T14-13-20Z", "up"),
        ("2026-09-22T08-00-00Z", "drill"),
    ] {
        let run = runs.join(name);
        fs::create_dir_all(&run).unwrap();
        let begun = json!({"t": 0.0, "event": "run_started", "verb": verb, "cluster": "local", "version": "0.1.0"});
        fs::write(run.join("events.jsonl"), format!("{begun}\n")).unwrap();
    }
    let said = desk.expect(0, &["report", "--list"]);
    let (up, drill) = (said.stdout.find("up"), said.stdout.find("drill"));
    assert!(drill < up && drill.is_some(), "{}", said.text());
    let said = desk.expect(0, &["report", "--list", "--json"]);
    let listed: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(listed[1]["run"], "2026-09-21T14-13-20Z");
    assert_eq!(listed[1]["verdict"], "unfinished");
}
