//! Inventories as users write them: the examples load, and mistakes are reported.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use pgherd::{
    error::{Error, Kind},
    inventory::{Inventory, PgVersion, Provider, Role},
};

#[path = "inventory/properties.rs"]
mod properties;
#[path = "inventory/schema.rs"]
mod schema;

/// The files of a folder of the repository with an extension, by path relative to its root.
///
/// Tests run in the root folder, so that their output has no paths of this machine.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    files.sort();
    files
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

/// An error with all its parts, as plain text.
fn shown(error: &Error) -> String {
    let mut text = format!("exit {}: {}\n", error.kind().exit_code(), error.what());
    for cause in error.causes() {
        let _ = writeln!(text, "because: {cause}");
    }
    for excerpt in error.excerpts() {
        let _ = writeln!(text, "{}", excerpt.text);
    }
    for hint in error.hints() {
        let _ = writeln!(text, "hint: {hint}");
    }
    for failure in error.failures() {
        let _ = write!(text, "\n{}", shown(failure));
    }
    text
}

/// Whether a headline begins with `FILE:LINE:COLUMN: `.
fn has_place(what: &str, file: &Path) -> bool {
    let Some(rest) = what.strip_prefix(&format!("{}:", file.display())) else {
        return false;
    };
    let mut parts = rest.splitn(3, ':');
    let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
    number() && number()
}

#[test]
fn every_bad_inventory_is_refused_with_place_and_reason() {
    let bad = files("tests/bad-inventories", "yaml");
    assert!(bad.len() > 40, "only {} bad inventories", bad.len());
    let mut passed = Vec::new();
    for path in &bad {
        let Err(error) = Inventory::load(path) else {
            passed.push(path);
            continue;
        };
        assert_eq!(error.kind(), Kind::Input, "{}", path.display());
        let all = match error.failures() {
            [] => std::slice::from_ref(&error),
            several => several,
        };
        for one in all {
            assert!(
                has_place(one.what(), path),
                "{}: {}",
                path.display(),
                one.what()
            );
            assert_eq!(one.kind(), Kind::Input);
            assert!(
                path.ends_with("empty.yaml") || !one.excerpts().is_empty(),
                "{} shows no line",
                path.display()
            );
        }
        insta::with_settings!({
            snapshot_path => "bad-inventories",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(stem(path), shown(&error));
        });
    }
    assert!(passed.is_empty(), "taken for right ones: {passed:?}");
    let names = |files: &[PathBuf]| files.iter().map(|it| stem(it)).collect::<BTreeSet<_>>();
    let snapshots = files("tests/bad-inventories", "snap");
    assert_eq!(
        names(&bad),
        names(&snapshots),
        "a snapshot without its inventory"
    );
}

#[test]
fn every_example_loads() {
    let examples = files("inventories", "yaml");
    assert!(examples.len() >= 5);
    for path in examples {
        let inventory = Inventory::load(&path).unwrap_or_else(|it| panic!("{}", shown(&it)));
        let count = |role| inventory.with_role(role).count();
        let counts = [Role::Postgres, Role::Etcd, Role::Haproxy].map(count);
        // Those for production keep every service if any one host is lost.
        let expected = match stem(&path).as_str() {
            "production" => [3, 3, 2],
            "three-zones" => [3, 3, 3],
            "two-and-witness" => [2, 3, 2],
            _ => [3, 1, 1],
        };
        assert_eq!(counts, expected, "{}", path.display());
    }
}

/// Layouts in which no single host is needed by all.
#[test]
fn layouts_that_survive_a_host_load() {
    let witness = "  a: { roles: [postgres, etcd] }\n  b: { roles: [postgres, etcd] }\n  \
                   witness: { roles: [etcd] }\n  d1: { roles: [haproxy] }\n  d2: { roles: [haproxy] }\n";
    let zones = "  a: { roles: [postgres, etcd, haproxy], zone: eu-central-1a }\n  \
                 b: { roles: [postgres, etcd, haproxy], zone: eu-central-1b }\n  \
                 c: { roles: [postgres, etcd, haproxy], zone: eu-central-1c }\n";
    for (kind, hosts, doors) in [
        ("docker", witness, 2),
        ("aws", witness, 2),
        ("aws", zones, 3),
    ] {
        let text = format!("cluster: pg\nprovider: {{ kind: {kind} }}\nhosts:\n{hosts}");
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), &text);
        let inventory = inventory.unwrap_or_else(|it| panic!("{}", shown(&it)));
        assert_eq!(inventory.with_role(Role::Haproxy).count(), doors);
    }
}

#[test]
fn the_tutorials_example_has_its_addresses() {
    let inventory = Inventory::load(Path::new("inventories/tutorial.yaml")).expect("an inventory");
    let addresses: Vec<String> = inventory
        .hosts
        .iter()
        .map(|(name, host)| {
            let address = host.address.map(|it| it.to_string()).unwrap_or_default();
            format!("{name} {address}")
        })
        .collect();
    assert_eq!(
        addresses,
        [
            "node1 192.168.0.249",
            "node2 192.168.0.248",
            "node3 192.168.0.21",
            "node4 192.168.0.179",
            "haproxy 192.168.0.173"
        ]
    );
    let Provider::Docker(docker) = &inventory.provider else {
        panic!("not docker");
    };
    assert_eq!(
        docker.subnet.map(|it| it.to_string()).as_deref(),
        Some("192.168.0.0/24")
    );
}

/// The contract's own example, with every default left out.
const SMALLEST: &str = "
cluster: postgres
provider: { kind: docker }
hosts:
  node1: { roles: [postgres, etcd, haproxy] }
";

fn parse(text: &str) -> Inventory {
    schema::takes(text);
    Inventory::parse(Path::new("some/pgherd.yaml"), text)
        .unwrap_or_else(|error| panic!("{}", shown(&error)))
}

/// The same by sections.
const SMALLEST_SECTIONS: [&str; 3] = [
    "cluster: postgres\n",
    "provider: { kind: docker }\n",
    "hosts: { node1: { roles: [postgres, etcd, haproxy] } }\n",
];

/// The smallest inventory with one more section.
fn parse_with(section: &str) -> Inventory {
    parse(&format!("{SMALLEST}{section}\n"))
}

#[test]
fn what_is_left_out_gets_the_contracts_defaults() {
    let inventory = parse(SMALLEST);
    assert_eq!(inventory.ssh.user, "ubuntu");
    assert_eq!(
        (inventory.ssh.port, inventory.ssh.connect_timeout),
        (22, 10)
    );
    assert_eq!(inventory.ssh.keep_alive, 60);
    assert_eq!(inventory.postgresql.version, PgVersion::Major(16));
    assert_eq!(inventory.postgresql.port, 5432);
    assert_eq!(inventory.postgresql.data_dir, "/data/patroni");
    assert_eq!(
        inventory.postgresql.allow,
        ["0.0.0.0/0".parse().expect("a network")]
    );
    assert!(inventory.postgresql.parameters.is_empty());
    let patroni = &inventory.patroni;
    assert_eq!(
        (patroni.ttl, patroni.loop_wait, patroni.retry_timeout),
        (30, 10, 10)
    );
    assert_eq!(patroni.maximum_lag_on_failover, 1_048_576);
    assert!(!patroni.synchronous && patroni.failsafe);
    let haproxy = &inventory.haproxy;
    let ports = (haproxy.write_port, haproxy.read_port, haproxy.stats_port);
    assert_eq!(ports, (5000, 5001, 7000));
    assert!(inventory.tls.enabled);
    assert_eq!(
        inventory.workspace_dir(),
        Path::new("some/.pgherd/postgres")
    );
}

#[test]
fn a_section_with_nothing_in_it_means_its_defaults() {
    let inventory =
        parse_with("postgresql:\n  # port: 5433\npatroni:\nssh:\nhaproxy:\ntls:\netcd:");
    assert_eq!(inventory.postgresql, parse(SMALLEST).postgresql);
}

#[test]
fn several_roles_can_share_a_host_and_come_sorted() {
    let inventory = parse(
        "
cluster: small
provider: { kind: docker }
hosts:
  a: { roles: [haproxy, etcd, postgres] }
  b: { roles: [etcd, postgres] }
  c: { roles: [postgres, etcd] }
",
    );
    let all = [Role::Postgres, Role::Etcd, Role::Haproxy];
    assert_eq!(inventory.hosts[0].roles, all);
    assert_eq!(inventory.with_role(Role::Etcd).count(), 3);
}

#[test]
fn anchors_and_merges_work() {
    let inventory = parse(
        "
cluster: postgres
provider: { kind: docker }
hosts:
  node1: &database { roles: [postgres] }
  node2: *database
  node3:
    <<: *database
    address: 10.1.2.3
  node4: { roles: [etcd, haproxy] }
",
    );
    assert_eq!(inventory.with_role(Role::Postgres).count(), 3);
}

#[test]
fn parameters_keep_their_text_and_know_where_they_live() {
    let inventory = parse_with(
        r#"postgresql:
  parameters:
    Shared_Buffers: 1GB
    random_page_cost: 1.10
    autovacuum: true
    fsync: "true"
    jit: off
    max_connections: 200
    wal_level: logical
    wal_keep_size: 1GB
    log_line_prefix: '%m {{ x }} # "ü" \ '' : '
    restore_command: 'false'
    pg_stat_statements.track: all"#,
    );
    let postgresql = &inventory.postgresql;
    let local: Vec<(&str, &str)> = postgresql.local_parameters().collect();
    assert_eq!(
        local,
        [
            ("autovacuum", "on"),
            ("fsync", "true"),
            ("jit", "off"),
            ("log_line_prefix", r#"%m {{ x }} # "ü" \ ' : "#),
            ("pg_stat_statements.track", "all"),
            ("random_page_cost", "1.10"),
            ("restore_command", "false"),
            ("shared_buffers", "1GB"),
        ]
    );
    let dcs: Vec<(&str, &str)> = postgresql.dcs_parameters().collect();
    assert_eq!(
        dcs,
        [
            ("max_connections", "200"),
            ("wal_keep_size", "1GB"),
            ("wal_level", "logical")
        ]
    );
}

#[test]
fn addresses_without_a_subnet_imply_the_network_around_them() {
    let inventory = parse(
        "
cluster: postgres
provider: { kind: docker }
hosts:
  a: { roles: [postgres, etcd], address: 10.9.8.7 }
  b: { roles: [haproxy] }
",
    );
    let Provider::Docker(docker) = inventory.provider else {
        panic!("not docker");
    };
    assert_eq!(
        docker.subnet.map(|it| it.to_string()).as_deref(),
        Some("10.9.8.0/24")
    );
}

#[test]
fn files_are_found_beside_the_inventory_and_given_by_absolute_path() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    };
    let bundle = write("ca.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
    let key = write("key", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o600);
    let text = format!("{SMALLEST}ca_bundle: ca.pem\nssh: {{ identity_file: key }}\n");
    let inventory = write("pgherd.yaml", &text, 0o644);
    let loaded = Inventory::load(&inventory).unwrap_or_else(|it| panic!("{}", shown(&it)));
    assert_eq!(loaded.ca_bundle, Some(bundle));
    assert_eq!(loaded.ssh.identity_file, Some(key));

    for (text, mode, reason) in [
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
            0o644,
            "can be read by other users",
        ),
        ("ssh-ed25519 AAAA me\n", 0o600, "is a public key"),
    ] {
        write("key", text, mode);
        let error = Inventory::load(&inventory).expect_err("not a usable key");
        assert!(error.what().ends_with(reason), "{}", error.what());
    }
}

#[test]
fn what_is_no_readable_file_is_bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("pgherd.yaml");
    let error = Inventory::load(&missing).expect_err("there is none");
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.hints().iter().any(|hint| hint.contains("init")));

    let error = Inventory::load(folder.path()).expect_err("a folder");
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.what().ends_with("this is a folder, not an inventory"));

    let below_a_file = Path::new("Cargo.toml/pgherd.yaml");
    let error = Inventory::load(below_a_file).expect_err("no folder");
    assert_eq!(error.kind(), Kind::Input);
    assert!(!error.causes().is_empty());
}

/// Asks the schema itself: at every level, the keys that it names when it meets one that it lacks.
fn keys_of_the_contract() -> BTreeSet<String> {
    let sections = [
        "zzz: 1",
        "provider: { zzz: 1 }",
        "ssh: { zzz: 1 }",
        "postgresql: { zzz: 1 }",
        "patroni: { zzz: 1 }",
        "etcd: { zzz: 1 }",
        "haproxy: { zzz: 1 }",
        "tls: { zzz: 1 }",
        "secrets: { zzz: 1 }",
        "hosts: { a: { zzz: 1 } }",
        "postgresql: { users: { a: { zzz: 1 } } }",
        "postgresql: { databases: { a: { zzz: 1 } } }",
    ];
    let mut keys = BTreeSet::new();
    for text in sections {
        let error = Inventory::parse(Path::new("x"), text).expect_err("`zzz` is no key");
        let hint = error.hints().last().cloned().unwrap_or_default();
        assert!(hint.starts_with("valid here: "), "{hint}");
        let prefix = match text.split_once(':') {
            Some(("zzz", _)) => String::new(),
            Some(("hosts", _)) => "hosts.<name>.".to_owned(),
            Some((_, inner)) if inner.contains("users") => "postgresql.users.<name>.".to_owned(),
            Some((_, inner)) if inner.contains("databases") => {
                "postgresql.databases.<name>.".to_owned()
            }
            Some((section, _)) => format!("{section}."),
            None => unreachable!(),
        };
        keys.extend(
            hint.split('`')
                .skip(1)
                .step_by(2)
                .map(|key| format!("{prefix}{key}")),
        );
    }
    keys
}

#[test]
fn the_manual_names_every_key() {
    let manual = fs::read_to_string("docs/inventory.md").expect("the manual");
    let keys = keys_of_the_contract();
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        assert!(
            manual.contains(&format!("`{key}`")),
            "`{key}` is not in the manual"
        );
    }
}

/// The manual's own examples are inventories, or sections of one.
#[test]
fn the_manuals_examples_load() {
    let manual = fs::read_to_string("docs/inventory.md").expect("the manual");
    let blocks: Vec<&str> = manual
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let missing = SMALLEST_SECTIONS.iter().filter(|section| {
            let key = section.split(':').next().unwrap_or_default();
            !block
                .lines()
                .any(|line| line.starts_with(&format!("{key}:")))
        });
        let text: String = std::iter::once(&block).chain(missing).copied().collect();
        parse(&text);
    }
}
