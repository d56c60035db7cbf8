//! Where secrets are shared, as a user sets it up and sees it.

use std::fs;

use serde_json::Value;

use super::{Desk, Said};

const HOSTS: &str = "hosts: { node1: { roles: [postgres, etcd, haproxy] } }\n";

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap()
}

/// A desk with a key and a place, and an inventory that names them.
fn desk() -> Desk {
    let desk = Desk::new();
    let made = desk.expect(0, &["--json", "state", "identity", "--new"]);
    let recipient = json(&made)["recipient"].as_str().unwrap().to_owned();
    let shown = desk.expect(0, &["state", "identity"]);
    assert!(shown.stderr.contains(&recipient), "{}", shown.text());
    fs::create_dir(desk.path("place")).unwrap();
    fs::write(
        desk.path("pgherd.yaml"),
        format!(
            "cluster: pg\nprovider: {{ kind: docker }}\n\
             state: {{ directory: place, recipients: [{recipient}] }}\n{HOSTS}"
        ),
    )
    .unwrap();
    desk
}

#[test]
fn a_key_is_made_once_and_shown() {
    let desk = Desk::new();
    let none = desk.expect(2, &["state", "identity"]);
    assert!(
        none.stderr.contains("pgherd state identity --new"),
        "{}",
        none.text()
    );
    desk.expect(0, &["state", "identity", "--new"]);
    let again = desk.expect(2, &["state", "identity", "--new"]);
    assert!(again.stderr.contains("cannot write"), "{}", again.text());
    let key = fs::read_to_string(desk.path(".config/pgherd/identity")).unwrap();
    let shown = desk.expect(0, &["state", "identity"]);
    assert!(!shown.text().contains(key.lines().last().unwrap()));
}

#[test]
fn without_the_section_it_says_where_the_secrets_are() {
    let desk = Desk::with_inventory();
    let said = desk.expect(2, &["state"]);
    assert!(
        said.stderr.contains("docs/shared-state.md"),
        "{}",
        said.text()
    );
}

#[test]
fn a_place_is_shown_before_and_after_something_is_there() {
    let desk = desk();
    let said = desk.expect(0, &["--json", "state"]);
    let state = json(&said);
    assert_eq!(state["there"], Value::Null);
    assert_eq!(state["here"], Value::Null);
    // Nothing to put there yet.
    let said = desk.expect(1, &["state", "init"]);
    assert!(said.stderr.contains("has no workspace"), "{}", said.text());

    // A workspace of before: `render --out` needs no host, and leaves none; so it is made by hand.
    let workspace = desk.path(".pgherd/pg");
    fs::create_dir_all(&workspace).unwrap();
    let secrets = "cluster_id: 0123456789abcdef0123456789abcdef\n";
    fs::write(workspace.join("secrets.yaml"), secrets).unwrap();
    let said = desk.expect(1, &["state"]);
    assert!(said.stderr.contains("pgherd state init"), "{}", said.text());
    desk.expect(0, &["state", "init"]);
    desk.expect(2, &["state", "init"]);
    let state = json(&desk.expect(0, &["--json", "state"]));
    assert_eq!(state["there"]["generation"], 1);
    assert_eq!(state["here"], 1);
    assert_eq!(state["changed_here"], serde_json::json!([]));

    // The workspace is removed, and had back.
    fs::remove_dir_all(desk.path(".pgherd")).unwrap();
    desk.expect(0, &["state", "pull"]);
    assert_eq!(
        fs::read_to_string(workspace.join("secrets.yaml")).unwrap(),
        secrets
    );

    // Two that differ: a question, to which nobody answers here.
    fs::write(
        workspace.join("secrets.yaml"),
        format!("{secrets}stats: other\n"),
    )
    .unwrap();
    let said = desk.expect(0, &["state"]);
    assert!(said.stderr.contains("secrets.yaml"), "{}", said.text());
    let said = desk.expect(2, &["state", "pull"]);
    assert!(said.stderr.contains("--yes"), "{}", said.text());
    desk.expect(0, &["state", "pull", "--yes"]);
    assert_eq!(
        fs::read_to_string(workspace.join("secrets.yaml")).unwrap(),
        secrets
    );
    let aside = fs::read_to_string(workspace.join("superseded/secrets.yaml")).unwrap();
    assert!(aside.contains("stats: other"));

    fs::remove_dir_all(desk.path("place")).unwrap();
    let said = desk.expect(1, &["state"]);
    assert!(said.stderr.contains("cannot be reached"), "{}", said.text());
}
