//! Every file that reaches a host: as it is for the tutorial's five hosts, and whatever the values.
//!
//! `UPDATE_GOLDEN=1 cargo test --test render` writes `tests/golden` anew; look at the diff.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use indexmap::IndexMap;
use pgherd::{
    cluster::{Address, Certificate, Cluster, Node, Secrets},
    error::Kind,
    inventory::{
        Haproxy, Host, HostName, Inventory, Patroni, PatroniSource, PgSource, PgVersion,
        Postgresql, Provider, Role, Ssh, Tls,
    },
    render::{self, Effect, File, Files, Templates, Visibility},
    secret::Secret,
};
use proptest::prelude::*;
use serde_json::Value;

mod parsers;

/// The tutorial's five hosts, with its addresses.
const HOSTS: [(&str, [u8; 4], &[Role]); 5] = [
    ("node1", [192, 168, 0, 249], &[Role::Postgres]),
    ("node2", [192, 168, 0, 248], &[Role::Postgres]),
    ("node3", [192, 168, 0, 21], &[Role::Postgres]),
    ("node4", [192, 168, 0, 179], &[Role::Etcd]),
    ("haproxy", [192, 168, 0, 173], &[Role::Haproxy]),
];

fn pem(label: &str, of: &str) -> String {
    format!("-----BEGIN {label}-----\nnot a real one, but that of {of}\n-----END {label}-----\n")
}

fn cluster(hosts: &[(&str, [u8; 4], &[Role])], tls: bool) -> Cluster {
    let inventory = Inventory {
        path: PathBuf::from("pgherd.yaml"),
        cluster: "postgres".into(),
        provider: Provider::Existing,
        ssh: Ssh {
            user: "ubuntu".into(),
            port: 22,
            identity_file: None,
            connect_timeout: 10,
        },
        postgresql: Postgresql {
            version: PgVersion::Major(16),
            source: PgSource::Distro,
            port: 5432,
            data_dir: "/data/patroni".into(),
            allow: vec!["0.0.0.0/0".parse().unwrap()],
            parameters: BTreeMap::new(),
        },
        patroni: Patroni {
            source: PatroniSource::Pypi,
            ttl: 30,
            loop_wait: 10,
            retry_timeout: 10,
            maximum_lag_on_failover: 1_048_576,
            synchronous: false,
            failsafe: true,
        },
        haproxy: Haproxy {
            write_port: 5000,
            read_port: 5001,
            stats_port: 7000,
        },
        tls: Tls { enabled: tls },
        ca_bundle: None,
        hosts: hosts
            .iter()
            .map(|(name, _, roles)| {
                let host = Host {
                    roles: roles.to_vec(),
                    address: None,
                };
                (HostName::new(*name), host)
            })
            .collect(),
    };
    let nodes: IndexMap<HostName, Node> = hosts
        .iter()
        .map(|(name, address, roles)| {
            let node = Node {
                name: HostName::new(*name),
                roles: roles.to_vec(),
                address: Address::Known(Ipv4Addr::from(*address)),
                postgresql: roles.contains(&Role::Postgres).then_some(16),
                certificate: tls.then(|| Certificate {
                    cert: pem("CERTIFICATE", name),
                    key: Secret::new(pem("PRIVATE KEY", name)),
                }),
            };
            (node.name.clone(), node)
        })
        .collect();
    Cluster {
        inventory,
        nodes,
        secrets: Secrets {
            cluster_id: "0a1b2c3d4e5f".into(),
            superuser: Secret::new("superuser-s3cret"),
            replication: Secret::new("replication-s3cret"),
            rewind: Secret::new("rewind-s3cret"),
            rest_api: Secret::new("rest-s3cret"),
            stats: Secret::new("stats-s3cret"),
        },
        ca: tls.then(|| pem("CERTIFICATE", "the authority")),
        ca_bundle: None,
    }
}

static TEMPLATES: LazyLock<Templates> = LazyLock::new(|| Templates::embedded().unwrap());

fn rendered(cluster: &Cluster) -> Files {
    render::render(cluster, &TEMPLATES).unwrap()
}

fn file<'a>(files: &'a Files, host: &str, path: &str) -> &'a File {
    files[&HostName::new(host)]
        .iter()
        .find(|file| file.path == path)
        .unwrap_or_else(|| panic!("{host} has no {path}"))
}

// Golden files

fn golden(name: &str, cluster: &Cluster) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let mut expected: BTreeMap<PathBuf, String> = BTreeMap::new();
    for (host, files) in rendered(cluster) {
        let dir = root.join(host.as_str());
        let mut table = String::new();
        for file in files {
            table.push_str(&format!(
                "{} {}:{} {:04o} {:?} {:?} {:?} {:?}\n",
                file.path,
                file.owner,
                file.group,
                file.mode,
                file.visibility,
                file.stage,
                file.kind,
                file.effect
            ));
            expected.insert(dir.join(file.path.trim_start_matches('/')), file.content);
        }
        expected.insert(root.join(format!("{host}.files")), table);
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&root);
        for (path, content) in &expected {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
    let known: BTreeSet<&PathBuf> = expected.keys().collect();
    let found = walk(&root);
    assert_eq!(
        known,
        found.iter().collect(),
        "files under tests/golden/{name}"
    );
    for (path, content) in &expected {
        let golden = fs::read_to_string(path).unwrap();
        assert!(
            golden == *content,
            "{} is not as rendered:\n{}",
            path.display(),
            similar::TextDiff::from_lines(&golden, content).unified_diff()
        );
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn golden_tls() {
    golden("tls", &cluster(&HOSTS, true));
}

#[test]
fn golden_plain() {
    golden("plain", &cluster(&HOSTS, false));
}

/// What the tutorial's inventory does not have: roles together, three etcds, a narrower `allow`,
/// parameters, a bundle, everything from the distribution.
#[test]
fn golden_combined() {
    let all: &[Role] = &[Role::Postgres, Role::Etcd, Role::Haproxy];
    let hosts: [(&str, [u8; 4], &[Role]); 3] = [
        ("db1", [10, 0, 0, 1], all),
        ("db2", [10, 0, 0, 2], &[Role::Postgres, Role::Etcd]),
        ("db3", [10, 0, 0, 3], &[Role::Postgres, Role::Etcd]),
    ];
    let mut cluster = cluster(&hosts, true);
    cluster.ca_bundle = Some(pem("CERTIFICATE", "an inspecting proxy"));
    cluster.inventory.patroni.source = PatroniSource::Distro;
    cluster.inventory.patroni.synchronous = true;
    cluster.inventory.patroni.ttl = 20;
    cluster.inventory.patroni.loop_wait = 2;
    cluster.inventory.patroni.retry_timeout = 5;
    let postgresql = &mut cluster.inventory.postgresql;
    postgresql.port = 5433;
    postgresql.data_dir = "/srv/pg data/100%".into();
    postgresql.allow = vec![
        "10.1.0.0/16".parse().unwrap(),
        "10.2.3.4/32".parse().unwrap(),
    ];
    postgresql.parameters = BTreeMap::from(
        [
            ("max_connections", "400"),
            ("shared_buffers", "4GB"),
            ("log_line_prefix", "%m [%p] 'who' \\ "),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    golden("combined", &cluster);
}

// What must hold for any cluster

#[test]
fn the_same_cluster_gives_the_same_files() {
    let cluster = cluster(&HOSTS, true);
    assert_eq!(rendered(&cluster), rendered(&cluster));
}

#[test]
fn hosts_without_an_address_yet_can_be_shown() {
    let mut cluster = cluster(&HOSTS, true);
    for (name, node) in &mut cluster.nodes {
        node.address = Address::Pending(name.clone());
        node.postgresql = None;
    }
    cluster.inventory.postgresql.version = PgVersion::Distro;
    let files = rendered(&cluster);
    let patroni = &file(&files, "node1", "/etc/patroni.yml").content;
    assert!(patroni.contains("connect_address: \"<node1's address>:5432\""));
    assert!(patroni.contains("bin_dir: \"/usr/lib/postgresql/<version>/bin\""));
}

#[test]
fn secrets_are_only_in_files_that_not_everybody_may_read() {
    for tls in [true, false] {
        let cluster = cluster(&HOSTS, tls);
        for file in rendered(&cluster).values().flatten() {
            let secret = file.content.contains("s3cret") || file.content.contains("PRIVATE KEY");
            assert_eq!(
                secret,
                file.mode & 0o007 == 0,
                "{} {:o}",
                file.path,
                file.mode
            );
            assert_eq!(
                secret,
                file.visibility != Visibility::Public,
                "{}",
                file.path
            );
            let shown = render::mask(&file.content, &cluster.secrets);
            assert!(!shown.contains("s3cret") && !shown.contains("PRIVATE KEY"));
        }
    }
}

#[test]
fn plaintext_and_tls_do_not_mix() {
    for (host, files) in rendered(&cluster(&HOSTS, true)) {
        for file in files {
            // etcd's own host, on loopback.
            let content = file.content.replace("http://127.0.0.1:2381", "");
            assert!(!content.contains("http://"), "{host} {}", file.path);
            let plain = content
                .lines()
                .any(|line| line.contains("- \"host ") && !line.ends_with("reject\""));
            assert!(!plain, "{host} {}", file.path);
        }
    }
    for (host, files) in rendered(&cluster(&HOSTS, false)) {
        for file in files {
            let mentions =
                ["https://", "/etc/pgherd/tls", "ssl"].map(|word| file.content.contains(word));
            let docs =
                file.path.ends_with("patroni.service") || file.path.ends_with("requirements.txt");
            assert!(docs || mentions == [false; 3], "{host} {}", file.path);
        }
    }
}

#[test]
fn a_member_that_moves_changes_what_names_it_and_nothing_else() {
    let before = cluster(&HOSTS, true);
    let mut after = before.clone();
    let node2 = after.nodes.get_mut(&HostName::new("node2")).unwrap();
    node2.address = Address::Known(Ipv4Addr::new(192, 168, 0, 99));
    let (before, after) = (rendered(&before), rendered(&after));
    for (host, files) in &after {
        let changed: Vec<(&str, Effect)> = files
            .iter()
            .filter(|file| !before[host].contains(file))
            .map(|new| {
                (
                    new.path.as_str(),
                    new.effect_of_change(Some(&file(&before, host.as_str(), &new.path).content)),
                )
            })
            .collect();
        let expected: &[(&str, Effect)] = match host.as_str() {
            "node4" => &[("/etc/hosts", Effect::Nothing)],
            "haproxy" => &[
                ("/etc/hosts", Effect::Nothing),
                ("/etc/haproxy/haproxy.cfg", Effect::Reload),
            ],
            _ => &[
                ("/etc/hosts", Effect::Nothing),
                ("/etc/patroni.yml", Effect::Reload),
            ],
        };
        assert_eq!(changed, expected, "{host}");
    }
}

#[test]
fn another_etcd_takes_a_restart_of_patroni() {
    let before = cluster(&HOSTS, true);
    let mut after = before.clone();
    let node4 = after.nodes.get_mut(&HostName::new("node4")).unwrap();
    node4.address = Address::Known(Ipv4Addr::new(192, 168, 0, 99));
    let (before, after) = (rendered(&before), rendered(&after));
    let old = &file(&before, "node1", "/etc/patroni.yml").content;
    let new = file(&after, "node1", "/etc/patroni.yml");
    assert_eq!(new.effect_of_change(Some(old)), Effect::Restart);
    assert_eq!(new.effect_of_change(None), Effect::Reload);
}

#[test]
fn the_dcs_gets_what_the_file_cannot_say() {
    let mut cluster = cluster(&HOSTS, false);
    let parameters = [
        ("max_connections", "250"),
        ("work_mem", "8MB"),
        ("wal_log_hints", "off"),
    ];
    cluster.inventory.postgresql.parameters = parameters
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    let config = render::dcs_config(&cluster);
    assert_eq!(
        config["postgresql"]["parameters"],
        serde_json::json!({"wal_log_hints": "off", "max_connections": "250"})
    );
    let files = rendered(&cluster);
    let yaml = yaml(&file(&files, "node2", "/etc/patroni.yml").content);
    let mut bootstrap = yaml["bootstrap"]["dcs"].clone();
    assert_eq!(bootstrap["loop_wait"], 1);
    bootstrap["loop_wait"] = config["loop_wait"].clone();
    assert_eq!(bootstrap, config);
    assert_eq!(yaml["postgresql"]["parameters"]["work_mem"], "8MB");
    assert_eq!(
        yaml["postgresql"]["parameters"]["max_connections"],
        Value::Null
    );
    let haproxy = &file(&files, "haproxy", "/etc/haproxy/haproxy.cfg").content;
    assert!(
        haproxy.contains("maxconn 247\n"),
        "250, less 3 for superusers"
    );
}

#[test]
fn the_listeners_have_the_names_that_the_client_looks_for() {
    let files = rendered(&cluster(&HOSTS, true));
    let haproxy = &file(&files, "haproxy", "/etc/haproxy/haproxy.cfg").content;
    for listener in [pgherd::haproxy::WRITE, pgherd::haproxy::READ] {
        assert!(haproxy.contains(&format!("\nlisten {listener}\n")));
    }
}

// Any value survives, or is refused

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// Text made of what is special somewhere, and of anything else.
fn any_text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "\"", "'", "\\", "\n", "\r", "\t", ":", ": ", "#", " #", "{{", "}}", "{%", "%}", "{#", "%",
        "%%", "%h", "$", "$HOME", "${x}", "`", "<", ">", "|", "&", "*", "!", "- ", "? ", ",", "[",
        "]", "=", "@", " ", "\u{85}", "\u{2028}", "\u{feff}", "\u{7f}", "\0", "\u{1}", "\u{1b}",
        "é", "ß", "漢", "🐘", "yes", "null", "~", "1e3", "0o17", "012", "12:30:00", "\\n", "\\x41",
        "***", "--", "//", "/*", ";",
    ]);
    let part = prop_oneof![
        3 => special.prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[a-zA-Z0-9]{1,8}",
    ];
    prop::collection::vec(part, 1..12).prop_map(|parts| parts.concat())
}

fn has_controls(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn is_ascii(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Renders `cluster`, which must work exactly if `possible`, and never tell a secret.
fn render_if(cluster: &Cluster, possible: bool) -> Result<Option<Files>, TestCaseError> {
    match render::render(cluster, &TEMPLATES) {
        Ok(files) => {
            prop_assert!(possible, "this should have been refused");
            Ok(Some(files))
        }
        Err(error) => {
            prop_assert!(!possible, "{error}");
            prop_assert_eq!(error.kind(), Kind::Input);
            Ok(None)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_password_survives(passwords in prop::array::uniform4(any_text()), rest in prop_oneof![any_text(), "[ -~]{1,30}"]) {
        let mut cluster = cluster(&HOSTS, true);
        let [superuser, replication, rewind, stats] = passwords;
        let possible = [&superuser, &replication, &rewind, &stats].iter().all(|text| !has_controls(text))
            && is_ascii(&rest);
        cluster.secrets = Secrets {
            superuser: Secret::new(superuser.clone()),
            replication: Secret::new(replication.clone()),
            rewind: Secret::new(rewind.clone()),
            rest_api: Secret::new(rest.clone()),
            stats: Secret::new(stats.clone()),
            ..cluster.secrets
        };
        if let Some(files) = render_if(&cluster, possible)? {
            let patroni = yaml(&file(&files, "node1", "/etc/patroni.yml").content);
            let login = &patroni["postgresql"]["authentication"];
            prop_assert_eq!(&login["superuser"]["password"], &superuser);
            prop_assert_eq!(&login["replication"]["password"], &replication);
            prop_assert_eq!(&login["rewind"]["password"], &rewind);
            prop_assert_eq!(&patroni["restapi"]["authentication"]["password"], &rest);
            let haproxy = parsers::haproxy(&file(&files, "haproxy", "/etc/haproxy/haproxy.cfg").content);
            let auth = haproxy.iter().find(|words| words.starts_with(&["stats".into(), "auth".into()])).unwrap();
            prop_assert_eq!(&auth[2..], &[format!("pgherd:{stats}")]);
        }
    }

    #[test]
    fn any_parameter_survives(value in any_text(), other in any_text()) {
        let mut cluster = cluster(&HOSTS, false);
        let possible = [&value, &other].iter().all(|text| !has_controls(&text.replace('\t', "")));
        cluster.inventory.postgresql.parameters = BTreeMap::from([
            ("archive_command".to_owned(), value.clone()),
            ("wal_level".to_owned(), other.clone()),
        ]);
        if let Some(files) = render_if(&cluster, possible)? {
            let patroni = yaml(&file(&files, "node1", "/etc/patroni.yml").content);
            prop_assert_eq!(&patroni["postgresql"]["parameters"]["archive_command"], &value);
            prop_assert_eq!(&patroni["bootstrap"]["dcs"]["postgresql"]["parameters"]["wal_level"], &other);
        }
    }

    #[test]
    fn a_parameter_cannot_have_any_name(name in any_text()) {
        let mut cluster = cluster(&HOSTS, false);
        cluster.inventory.postgresql.parameters = BTreeMap::from([(name.clone(), "1".to_owned())]);
        let possible = name.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        if let Some(files) = render_if(&cluster, possible)? {
            let patroni = yaml(&file(&files, "node1", "/etc/patroni.yml").content);
            prop_assert_eq!(&patroni["postgresql"]["parameters"][&name], "1");
        }
    }

    #[test]
    fn any_data_directory_survives(path in any_text()) {
        let mut cluster = cluster(&HOSTS, false);
        cluster.inventory.postgresql.data_dir = format!("/{path}");
        if let Some(files) = render_if(&cluster, !has_controls(&path))? {
            let patroni = yaml(&file(&files, "node1", "/etc/patroni.yml").content);
            prop_assert_eq!(&patroni["postgresql"]["data_dir"], &format!("/{path}"));
            let unit = &file(&files, "node1", "/etc/systemd/system/patroni.service").content;
            let setting = unit.lines().find_map(|line| line.strip_prefix("RequiresMountsFor=")).unwrap();
            prop_assert_eq!(parsers::systemd(setting), vec![format!("/{path}")]);
        }
    }

    #[test]
    fn any_cluster_name_survives(name in any_text()) {
        let mut cluster = cluster(&HOSTS, true);
        cluster.inventory.cluster = name.clone();
        if let Some(files) = render_if(&cluster, !has_controls(&name))? {
            let patroni = yaml(&file(&files, "node1", "/etc/patroni.yml").content);
            prop_assert_eq!(&patroni["scope"], &name);
            let etcd = parsers::environment_file(&file(&files, "node4", "/etc/default/etcd").content);
            prop_assert_eq!(&etcd["ETCD_INITIAL_CLUSTER_TOKEN"], &format!("{name}-0a1b2c3d4e5f"));
            prop_assert_eq!(&etcd["ETCD_DATA_DIR"], &format!("/var/lib/etcd/pgherd-{name}"));
            let marker = &file(&files, "node4", "/etc/pgherd/cluster").content;
            prop_assert_eq!(marker, &format!("{name}\n0a1b2c3d4e5f\n"));
        }
    }

    #[test]
    fn masked_files_hold_no_secret(secret in "[ -~é漢]{6,30}") {
        let mut cluster = cluster(&HOSTS, false);
        // A password that is a part of the files by chance would be masked there too.
        let secret = format!("§{secret}");
        cluster.secrets.superuser = Secret::new(secret.clone());
        cluster.secrets.stats = Secret::new(secret.clone());
        let files = rendered(&cluster);
        for (host, path) in [("node1", "/etc/patroni.yml"), ("haproxy", "/etc/haproxy/haproxy.cfg")] {
            let content = &file(&files, host, path).content;
            let masked = render::mask(content, &cluster.secrets);
            prop_assert!(!masked.contains(&secret) && !masked.contains('§') && !masked.contains("\\xA7"));
            prop_assert_eq!(masked.lines().count(), content.lines().count());
        }
    }
}

/// Patroni reads its file with PyYAML, which speaks YAML 1.1.
#[test]
fn python_reads_the_same() {
    let python = |code: &str| {
        std::process::Command::new("python3")
            .args(["-c", code])
            .env("PYTHONIOENCODING", "utf-8")
            .output()
    };
    if !python("import yaml").is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: python3 has no yaml module");
        return;
    }
    let mut cluster = cluster(&HOSTS, true);
    let odd =
        "yes: 1e3 #\"'\\ 0o17 12:30 {{ x }} \u{2028}\u{feff}\u{85}é漢🐘 \t~".replace('\u{85}', "");
    cluster.secrets.superuser = Secret::new(odd.replace('\t', " "));
    cluster.inventory.postgresql.parameters = BTreeMap::from([("archive_command".to_owned(), odd)]);
    let files = rendered(&cluster);
    let text = &file(&files, "node1", "/etc/patroni.yml").content;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("patroni.yml");
    fs::write(&path, text).unwrap();
    let code = format!("import json, yaml; print(json.dumps(yaml.safe_load(open({path:?}))))");
    let output = python(&code).unwrap();
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read, yaml(text));
}

// Templates of the user's

fn overridden(name: &str, text: &str) -> pgherd::error::Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let error = match Templates::with_overrides(dir.path()) {
        Err(error) => error,
        Ok(templates) => render::render(&cluster(&HOSTS, true), &templates).unwrap_err(),
    };
    assert_eq!(error.kind(), Kind::Input);
    error
}

#[test]
fn an_override_replaces_its_template() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    fs::write(
        dir.path().join("etc/hosts"),
        "10.9.9.9 {{ node.name | hostname }}\n",
    )
    .unwrap();
    let templates = Templates::with_overrides(dir.path()).unwrap();
    let files = render::render(&cluster(&HOSTS, true), &templates).unwrap();
    assert_eq!(
        file(&files, "node2", "/etc/hosts").content,
        "10.9.9.9 node2\n"
    );
    assert_eq!(
        file(&files, "node2", "/etc/patroni.yml"),
        file(
            &rendered(&cluster(&HOSTS, true)),
            "node2",
            "/etc/patroni.yml"
        )
    );
}

#[test]
fn an_override_of_nothing_is_refused() {
    let error = overridden("etc/patroni.yaml", "");
    assert!(
        error
            .what()
            .ends_with("etc/patroni.yaml replaces no template"),
        "{error}"
    );
    assert_eq!(error.hints(), ["the nearest name is etc/patroni.yml"]);
}

#[test]
fn a_mistake_in_an_override_is_shown_with_its_line() {
    for (text, line, cause, hint) in [
        ("a\n{{ node.name }\n", 2, "expected", ""),
        ("a\n{% if tls.enabled %}\n", 3, "expected", ""),
        (
            "a\n\n{% if tls.enabeld %}{% endif %}",
            3,
            "unknown variable `tls.enabeld`",
            "the nearest name is `tls.enabled`",
        ),
        ("{{ node.name }}", 1, "text is printed without a filter", ""),
        (
            "a\n{% for host in hosts %}\n{{ host.name }}\n{% endfor %}",
            3,
            "text is printed without a filter",
            "",
        ),
        (
            "a\n{{ 'x' ~ node.name }}",
            2,
            "text is printed without a filter",
            "",
        ),
        (
            "a\n{% filter yaml %}{{ node.name }}{% endfilter %}",
            2,
            "printed without a filter",
            "",
        ),
        (
            "a\n{{ cluster | haproxy }}",
            2,
            "a list or a mapping cannot be printed here",
            "",
        ),
        ("a\n{{ ca_bundle | pem }}", 2, "there is no value here", ""),
        ("a\n{{ node.name | hostnam }}", 2, "hostnam", ""),
        (
            "{# \n #}a\n{% for host in hosts %}{{ host.name | address }}{% endfor %}",
            3,
            "this is not an IPv4 address",
            "",
        ),
    ] {
        let error = overridden("etc/hosts", text);
        let error = error.failures().first().unwrap_or(&error);
        assert!(
            error.what().contains(&format!("etc/hosts, line {line}")),
            "{text:?}: {error}"
        );
        assert!(
            error.causes().join("\n").contains(cause),
            "{text:?}: {error}"
        );
        assert!(
            hint.is_empty() || error.hints().contains(&hint.to_owned()),
            "{text:?}: {error:?}"
        );
    }
}
