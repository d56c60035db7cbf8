//! What verbs print with `--json` that need no host. `Desk::run` compares each document with docs/json.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{
    Desk, Said, VERBS, run,
    schemas::{Shape, against, check, shape},
};

fn parsed(text: &str, said: &Said) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {}", said.text()))
}

/// What a verb needs so that its arguments are right.
fn words_of(verb: &'static str) -> Vec<&'static str> {
    let more: &[&str] = match verb {
        "restore" => &["--to", "latest"],
        "upgrade" => &["--to", "18"],
        "replace" | "reinit" | "restart" | "ssh" | "logs" => &["node1"],
        "rotate" => &["certs"],
        "image" => &["list"],
        "failover" => &["--to", "node1"],
        _ => &[],
    };
    [&[verb, "--json"][..], more].concat()
}

#[test]
fn with_json_an_error_is_one_object_on_stdout_and_told_to_people_too() {
    let desk = Desk::with_inventory();
    let said = desk.expect(1, &["--json", "status"]);
    assert_eq!(said.stdout.lines().count(), 1);
    let error: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        error,
        json!({
            "event": "error",
            "code": "cluster-not-found",
            "kind": "failed",
            "exit_code": 1,
            "message": "there is no cluster local here",
            "causes": [".pgherd/local/secrets.yaml is not there"],
            "hints": ["create it: pgherd up"],
        })
    );
    assert!(said.stderr.starts_with("error: there is no cluster local"));
}

#[test]
fn without_an_inventory_every_verb_prints_one_error() {
    let desk = Desk::new();
    let without = ["init", "schema", "completions", "man"];
    for verb in VERBS.into_iter().filter(|verb| !without.contains(verb)) {
        let said = desk.expect(2, &words_of(verb));
        let error = parsed(&said.stdout, &said);
        assert_eq!(error["code"], "inventory-not-found", "{verb}");
    }
}

#[test]
fn without_a_cluster_every_verb_prints_documents_or_one_error() {
    let desk = Desk::with_inventory();
    // They begin with the container engine, which may be there.
    let without = [
        "init", "up", "plan", "replace", "render", "image", "down", "adopt", "recover", "restore",
    ];
    let mut errors = 0;
    for verb in VERBS.into_iter().filter(|verb| !without.contains(verb)) {
        let said = desk.run(&words_of(verb));
        let last = said.stdout.lines().last().unwrap_or_default();
        if said.code == 0 || said.stdout.is_empty() {
            continue;
        }
        let error = parsed(last, &said);
        assert_eq!(error["exit_code"], said.code, "{}", said.text());
        errors += 1;
    }
    assert!(errors > 15, "only {errors}");
}

#[test]
fn a_mistake_in_the_arguments_is_one_error_and_people_are_told_as_without_json() {
    let desk = Desk::with_inventory();
    let cases: [&[&str]; 9] = [
        &["frobnicate"],
        &["statsu"],
        &["dow"],
        &["plan", "--chek"],
        &["init", "--provider", "gcp"],
        &["logs", "node1", "-n", "many"],
        &["ssh"],
        &["status", "--watch", "--check"],
        &["drill", "crash-host", "--lag", "1m"],
    ];
    let mut told = Vec::new();
    for words in cases {
        let said = desk.expect(2, &[&["--json"][..], words].concat());
        assert_eq!(said.stderr, desk.expect(2, words).stderr);
        let error = parsed(&said.stdout, &said);
        assert_eq!(error["code"], "invalid-arguments", "{}", said.text());
        assert_eq!(said.stdout.lines().count(), 1);
        told.push(error);
    }
    insta::assert_json_snapshot!("wrong-arguments-json", told);
    // Nothing at all, and a part of a verb.
    for words in [&["--json"][..], &["rotate", "--json"]] {
        let said = desk.expect(2, words);
        let error = parsed(&said.stdout, &said);
        assert_eq!(error["code"], "invalid-arguments", "{}", said.text());
    }
    // What was asked for is no mistake, and what is another program's is not for pgherd.
    assert!(
        desk.expect(0, &["--version", "--json"])
            .stdout
            .starts_with("pgherd ")
    );
    assert_eq!(desk.expect(2, &["psq", "--", "--json"]).stdout, "");
}

#[test]
fn what_verbs_that_need_no_host_print_is_as_documented() {
    let desk = Desk::with_inventory();
    let printed = |words: &[&str]| -> Value {
        let said = desk.expect(0, words);
        parsed(&said.stdout, &said)
    };
    assert_eq!(printed(&["report", "--list", "--json"]), json!([]));
    let written = printed(&["render", "--out", "rendered", "--json"]);
    assert!(
        written["written"].as_array().unwrap().len() > 10,
        "{written}"
    );
    let folder = desk.path(".pgherd/local/runs/2026-09-21T14-13-20Z");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("events.jsonl"), events_of_a_run()).unwrap();
    let listed = printed(&["report", "--list", "--json"]);
    assert_eq!(listed[0]["verdict"], "failed");
    let report = printed(&["report", "--json"]);
    assert_eq!(report["steps"]["failed"], 1);
    assert_eq!(report["never_ran"][0]["name"], "start-patroni");
    assert_eq!(report["failures"][0]["step"], "install-packages");
}

/// Runs on real hosts, as their logs were kept for the tests of pages.
#[test]
fn recorded_runs_are_as_documented() {
    let desk = Desk::with_inventory();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
    for (kept, run) in [
        ("up", "2026-09-21T14-13-20Z"),
        ("drill", "2026-09-22T08-00-00Z"),
    ] {
        let folder = desk.path(".pgherd/local/runs").join(run);
        fs::create_dir_all(&folder).unwrap();
        for name in ["events.jsonl", "drill.json"] {
            let from = pages.join(kept).join(name);
            if from.exists() {
                fs::copy(from, folder.join(name)).unwrap();
            }
        }
        let events = fs::read(folder.join("events.jsonl")).unwrap();
        check(&["up"], &events);
        let said = desk.expect(0, &["report", run, "--json"]);
        let report = parsed(&said.stdout, &said);
        assert_eq!(report["verb"], kept);
        assert_eq!(report.get("drill").is_some(), kept == "drill");
    }
}

/// A run that failed, as its log has it: each line is as documented too.
fn events_of_a_run() -> String {
    let step = |event: &str, step: usize, name: &str, more: Value| {
        let mut line =
            json!({"t": 1.5, "event": event, "step": step, "host": "node1", "name": name});
        let keys = more.as_object().cloned().unwrap_or_default();
        line.as_object_mut().unwrap().extend(keys);
        line
    };
    let planned = |id, name: &str, after: &[usize]| {
        step(
            "step_planned",
            id,
            name,
            json!({"why": "it is missing", "after": after}),
        )
    };
    let lines = [
        json!({"t": 0.0, "event": "run_started", "verb": "up", "cluster": "local", "version": "0.1.0",
               "at": "2026-09-21T14:13:20Z"}),
        json!({"t": 0.1, "event": "resource", "kind": "network", "id": "1", "name": "local-net", "state": "created"}),
        json!({"t": 0.2, "event": "host", "host": "node1", "state": "created", "detail": "192.0.2.1"}),
        json!({"t": 0.5, "event": "facts_read", "host": "node1"}),
        json!({"t": 1.0, "event": "planned", "steps": 2, "changes": 2}),
        planned(0, "install-packages", &[]),
        planned(1, "start-patroni", &[0]),
        step("step_started", 0, "install-packages", json!({})),
        step(
            "step_output",
            0,
            "install-packages",
            json!({"stream": "stderr", "line": "E: no such package"}),
        ),
        step(
            "step_finished",
            0,
            "install-packages",
            json!({"outcome": "failed", "seconds": 0.5, "error": "exit code 100", "code": "script-failed"}),
        ),
        step(
            "step_finished",
            1,
            "start-patroni",
            json!({"outcome": "cancelled", "seconds": 0.0}),
        ),
        json!({"t": 2.0, "event": "software", "host": "node1", "os": "Debian", "packages": {"etcd-server": "3.4.23"}}),
        json!({"t": 2.0, "event": "check", "check": "leader", "passed": false, "detail": "nobody leads"}),
        json!({"t": 2.0, "event": "run_finished", "exit_code": 1, "seconds": 2.0, "error": "node1: exit code 100",
               "code": "script-failed"}),
        json!({"t": 2.0, "event": "error", "code": "script-failed", "kind": "failed", "exit_code": 1,
               "message": "exit code 100", "host": "node1", "step": "install-packages",
               "excerpts": [{"title": "stderr", "text": "E: no such package"}], "hints": ["try again"]}),
    ];
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    let text = lines.join("\n");
    check(&["up"], text.as_bytes());
    text
}

#[test]
fn a_mistake_in_an_inventory_from_a_program_is_one_error() {
    let desk = Desk::new();
    let words = ["-i", "-", "plan", "--json"];
    let mut command = desk.command(&words);
    command.write_stdin("cluster: pg\nhosts: {}\n");
    let said = run(command, &words);
    let error = parsed(&said.stdout, &said);
    assert_eq!(error["kind"], "input");
}

#[test]
fn words_have_a_schema_and_a_name_that_it_lacks_is_a_mistake() {
    for (words, expected) in [
        (&["status", "--json"][..], Shape::One("status")),
        (
            &["-i", "plan", "--json", "state", "pull"],
            Shape::One("state-pull"),
        ),
        (
            &["rotate", "certs", "--yes", "--json"],
            Shape::Lines("events"),
        ),
        (&["psql", "--", "status"], Shape::Other),
    ] {
        assert_eq!(shape(words), expected, "{words:?}");
    }
    let mut proof = json!({"passed": true, "checks": []});
    assert_eq!(against("verify", &proof), None);
    proof["more"] = 1.into();
    assert!(against("verify", &proof).is_some());
}
