//! Verbs that are mistyped, runs that are listed, and inventories that are typed by programs.

use std::fs;

use serde_json::{Value, json};

use super::{Desk, run};

/// Somebody who mistypes a verb at night does what is suggested.
#[test]
fn a_mistyped_verb_is_never_answered_with_one_that_takes_something_away() {
    let desk = Desk::new();
    let said = desk.expect(2, &["statu"]);
    assert!(said.stderr.contains("'status'"), "{}", said.text());
    for typed in ["dow", "restor", "replac", "upgrad", "failove"] {
        let said = desk.expect(2, &[typed]);
        assert!(!said.stderr.contains("\n\n\n"), "{}", said.text());
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

/// Terraform's outputs are JSON, and JSON is YAML.
#[test]
fn an_inventory_may_come_from_a_program() {
    let desk = Desk::new();
    let piped = |words: &[&str], text: &str| {
        let mut command = desk.command(&[&["-i", "-"][..], words].concat());
        command.write_stdin(text);
        run(command, words)
    };
    let inventory = json!({
        "cluster": "piped",
        "provider": {"kind": "existing"},
        "ssh": {"user": "ubuntu", "identity_file": "key", "port": null},
        "hosts": {"node1": {"roles": ["postgres", "etcd", "haproxy"], "address": "192.0.2.11"}},
    });
    let text = inventory.to_string();
    let said = piped(&["status"], &text);
    assert_eq!(said.code, 2, "{}", said.text());
    // A relative path starts from where the user is.
    let told = "<stdin>:1:";
    assert!(said.stderr.contains(told), "{}", said.text());
    assert!(
        said.stderr.contains("there is no file `key`"),
        "{}",
        said.text()
    );

    let without = text.replace("\"identity_file\":\"key\",", "");
    let said = piped(&["status"], &without);
    assert_eq!(said.code, 1, "{}", said.text());
    let told = "there is no cluster piped here";
    assert!(said.stderr.contains(told), "{}", said.text());
    assert!(said.stderr.contains(".pgherd/piped/"), "{}", said.text());
    assert!(said.stderr.contains("pgherd -i - up"), "{}", said.text());

    // Laid out by a person or a tool, and a mistake is where it is.
    let laid_out = serde_json::to_string_pretty(&inventory).unwrap();
    let said = piped(&["plan"], &laid_out.replace("postgres", "postgras"));
    assert_eq!(said.code, 2, "{}", said.text());
    assert!(said.stderr.contains("<stdin>:"), "{}", said.text());
    assert!(said.stderr.contains("did you mean"), "{}", said.text());

    let said = piped(&["plan"], "\n");
    assert_eq!(said.code, 2, "{}", said.text());
    assert!(said.stderr.contains("which is empty"), "{}", said.text());

    // Runs are listed of the workspace beside it: in this folder.
    let ran = desk.path(".pgherd/piped/runs/2026-09-21T14-13-20Z");
    fs::create_dir_all(&ran).unwrap();
    let begun = json!({"t": 0.0, "event": "run_started", "verb": "up", "cluster": "piped", "version": "0.1.0"});
    fs::write(ran.join("events.jsonl"), format!("{begun}\n")).unwrap();
    let said = piped(&["report", "--list"], &without);
    assert_eq!(said.code, 0, "{}", said.text());
    assert!(said.stdout.contains("2026-09-21"), "{}", said.text());
}
