//! Any value survives each template exactly, read back by a parser of its format, or is refused.

use std::{collections::BTreeMap, fs, net::Ipv4Addr};

use pgherd::{
    cluster::{Cluster, Secrets},
    error::Kind,
    inventory::Role,
    mask,
    render::{self, Files},
    secret::Secret,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::{
    fixture::{HOSTS, TEMPLATES, cluster, file, rendered},
    parsers, yaml,
};

/// Text made of characters that are special somewhere, and of others.
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

/// Renders `cluster`, which must succeed if and only if `possible`, and must never show a secret.
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
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

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
            prop_assert_eq!(marker.as_str(), format!("{name}\n0a1b2c3d4e5f\n"));
        }
    }

    #[test]
    fn masked_files_hold_no_secret(secret in "[ -~é漢]{6,30}") {
        let mut cluster = cluster(&HOSTS, false);
        // A password that happens to be a part of the files would be masked there too.
        let secret = format!("§{secret}");
        cluster.secrets.superuser = Secret::new(secret.clone());
        cluster.secrets.stats = Secret::new(secret.clone());
        let files = rendered(&cluster);
        for (host, path) in [("node1", "/etc/patroni.yml"), ("haproxy", "/etc/haproxy/haproxy.cfg")] {
            let content = &file(&files, host, path).content;
            let masked = mask::file(content, &cluster.secrets);
            prop_assert!(!masked.contains(&secret) && !masked.contains('§') && !masked.contains("\\xA7"));
            prop_assert_eq!(masked.lines().count(), content.lines().count());
        }
    }
}

/// Patroni reads its file with PyYAML, which implements YAML 1.1.
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
    fs::write(&path, text.as_str()).unwrap();
    let code = format!("import json, yaml; print(json.dumps(yaml.safe_load(open({path:?}))))");
    let output = python(&code).unwrap();
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(read, yaml(text));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    /// The address that moves, as read by the three that must agree on it: keepalived, its unit's script, and
    /// HAProxy.
    #[test]
    fn any_vip_survives(vip in any::<[u8; 4]>(), password in "[A-Za-z0-9]{1,8}") {
        let vip = Ipv4Addr::from(vip);
        let door: &[Role] = &[Role::Haproxy, Role::Keepalived];
        let hosts: [(&str, [u8; 4], &[Role]); 3] = [
            ("db", [192, 0, 2, 1], &[Role::Postgres, Role::Etcd]),
            ("door1", [192, 0, 2, 21], door),
            ("door2", [192, 0, 2, 22], door),
        ];
        let mut cluster = cluster(&hosts, true);
        cluster.inventory.haproxy.vip = Some(vip);
        cluster.inventory.postgresql.allow = vec!["10.0.0.0/8".parse().unwrap()];
        cluster.secrets.vrrp = Some(Secret::new(password.clone()));
        let files = rendered(&cluster);
        for (host, other) in [("door1", "192.0.2.22"), ("door2", "192.0.2.21")] {
            let config = &file(&files, host, "/etc/keepalived/keepalived.conf").content;
            let words: Vec<&str> = config.split_whitespace().collect();
            let after = |key: &str| words.iter().position(|it| *it == key).map(|at| words[at + 1..].to_vec());
            let addresses = after("virtual_ipaddress").unwrap();
            prop_assert_eq!(&addresses[..3], &["{", &format!("{vip}/32"), "}"]);
            prop_assert_eq!(after("auth_pass").unwrap()[0], password.as_str());
            prop_assert_eq!(&after("unicast_peer").unwrap()[..3], &["{", other, "}"]);
            let id: u8 = after("virtual_router_id").unwrap()[0].parse().unwrap();
            prop_assert!(id > 0);
            let script = &file(&files, host, "/etc/pgherd/vip").content;
            let line = format!("\nvip={vip}\n");
            prop_assert!(script.contains(&line));
            let haproxy = &file(&files, host, "/etc/haproxy/haproxy.cfg").content;
            let source = format!("acl client_allowed src {vip}\n");
            prop_assert!(haproxy.contains(&source));
        }
    }
}
