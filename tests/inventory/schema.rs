//! The JSON Schema for editors: it accepts valid inventories, and refuses invalid ones as far as a schema can
//! express it.

use std::{collections::BTreeSet, fs, path::Path, sync::LazyLock};

use boon::{Compiler, SchemaIndex, Schemas};
use pgherd::inventory::json_schema;
use serde_json::Value;

use super::{files, stem};

static SCHEMA: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    compiler
        .add_resource("pgherd.schema.json", json_schema())
        .expect("a document");
    let index = compiler
        .compile("pgherd.schema.json", &mut schemas)
        .unwrap_or_else(|error| panic!("{error:#}"));
    (schemas, index)
});

/// What the schema says against an inventory, if anything.
fn against(inventory: &Value) -> Option<String> {
    let (schemas, index) = &*SCHEMA;
    let refused = schemas.validate(inventory, *index);
    refused.err().map(|error| format!("{error:#}"))
}

/// The text as an editor sees it: YAML 1.2, without any code of pgherd in between.
fn value(text: &str) -> Option<Value> {
    let options = serde_yaml::options! {
        strict_booleans: true,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_yaml::from_str_with_options(text, options).ok()
}

/// Whether an editor accepts a valid inventory too.
pub(super) fn takes(text: &str) {
    let value = value(text).expect("YAML");
    if let Some(why) = against(&value) {
        panic!("{text}\n{why}");
    }
}

#[test]
fn every_example_is_right_for_an_editor_too() {
    for path in files("inventories", "yaml") {
        takes(&fs::read_to_string(path).expect("a file"));
    }
}

/// Bad inventories that a schema cannot recognise, by the reason.
const NOT_SAID: [(&str, &[&str]); 10] = [
    (
        "it compares values that stand in different places",
        &[
            "address-of-the-broadcast",
            "address-of-the-gateway",
            "address-of-the-network",
            "address-outside-the-first-hosts-network",
            "address-outside-the-subnet",
            "address-twice",
            "backup-nowhere",
            "backup-profile-makes-no-bucket",
            "backup-with-an-archive-command",
            "backup-without-a-host",
            "backup-without-tls",
            "data-volume-on-the-root",
            "data-volume-without-a-database",
            "data-volume-without-a-size",
            "database-owner-unknown",
            "database-owner-without-users",
            "database-without-an-owner",
            "monitoring-mail-without-a-server",
            "parameter-twice",
            "parameters-that-keep-all-connections-back",
            "patroni-timing",
            "patroni-timing-against-the-default",
            "pgbouncer-database-of-its-console",
            "pgbouncer-without-tls",
            "user-a-member-of-itself",
            "vip-of-a-host",
            "vip-outside-the-subnet",
        ],
    ),
    (
        "it depends on which services share a host, on ports that are nobody's to set too",
        &[
            "backup-beside-etcd",
            "backup-beside-postgres",
            "pgbouncer-on-haproxys-port",
            "port-of-haproxy-taken-by-default",
            "port-of-haproxy-taken-by-etcds-metrics",
            "port-of-haproxy-taken-by-postgresql",
            "port-of-haproxy-taken-by-ssh",
            "port-of-postgresql-taken-by-etcd",
            "port-of-postgresql-taken-by-patroni",
            "ports-of-haproxy-alike",
        ],
    ),
    (
        "it counts the hosts that have a role; a schema counts in lists, not in maps",
        &[
            "backup-on-two-hosts",
            "etcd-on-two-hosts",
            "vip-with-one-front-door",
            "no-etcd-host",
            "no-haproxy-host",
            "no-postgres-host",
        ],
    ),
    (
        "it calculates with the bits of a network",
        &[
            "allow-with-host-bits",
            "docker-subnet-too-small",
            "docker-subnet-with-host-bits",
        ],
    ),
    (
        "it looks at the checksum of a key, and at a folder's place",
        &["state-in-the-workspace", "state-to-a-mistyped-key"],
    ),
    (
        "it compares two numbers",
        &["aws-iops-for-the-size", "data-volume-too-fast"],
    ),
    (
        "it compares the way to the hosts with the provider, the hosts and itself",
        &[
            "aws-proxy-jump-to-public-addresses",
            "ssh-agent-without-a-key",
            "ssh-proxy-jump-a-host-of-the-cluster",
            "ssh-proxy-jump-on-docker",
            "ssh-proxy-jump-port-too-high",
            "ssh-proxy-jump-twice",
        ],
    ),
    (
        "it looks at a disk",
        &[
            "ca-bundle-missing",
            "ca-bundle-without-a-certificate",
            "monitoring-webhook-missing",
            "secrets-file-missing",
            "ssh-config-missing",
            "ssh-identity-file-a-folder",
            "ssh-identity-file-missing",
            "ssh-identity-file-not-a-key",
        ],
    ),
    (
        "it is a value of PostgreSQL's, by version, in any spelling and unit",
        &[
            "parameter-below-patronis-least",
            "parameter-not-a-boolean",
            "parameter-not-a-choice",
            "parameter-of-a-later-version",
            "parameter-out-of-range",
            "parameter-password-encryption-md5",
            "parameter-wal-level-minimal",
            "parameter-with-a-bad-unit",
            "unicode-before-the-mistake",
        ],
    ),
    (
        "it is a tag of YAML, which is gone from the value",
        &["unknown-tag"],
    ),
];

#[test]
fn bad_inventories_are_bad_for_an_editor_as_far_as_a_schema_can_say() {
    let not_said: BTreeSet<&str> = NOT_SAID
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in files("tests/bad-inventories", "yaml") {
        let text = fs::read(&path).expect("a file");
        // Editors show invalid YAML by themselves.
        let Some(value) = String::from_utf8(text).ok().as_deref().and_then(value) else {
            assert!(
                !not_said.contains(stem(&path).as_str()),
                "{path:?} is no YAML"
            );
            continue;
        };
        seen += 1;
        if against(&value).is_some() == not_said.contains(stem(&path).as_str()) {
            wrong.push(stem(&path));
        }
    }
    assert!(seen > 150, "only {seen}");
    assert!(
        wrong.is_empty(),
        "refused although listed, or taken although not: {wrong:#?}"
    );
}

/// The repository has the schema beside the examples, which name it.
#[test]
fn the_schema_beside_the_examples_is_this_versions() {
    let path = Path::new("inventories/pgherd.schema.json");
    let expected = format!("{:#}\n", json_schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, &expected).expect("a file");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "`UPDATE_GOLDEN=1 cargo test --test inventory schema` writes it anew:\n{}",
        similar::TextDiff::from_lines(&found, &expected).unified_diff()
    );
    let lines = found.lines().count();
    assert!(lines > 500, "only {lines} lines: every key is in it");
}
