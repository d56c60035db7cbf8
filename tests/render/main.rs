//! Every file that reaches a host: for the tutorial's five hosts, and for any values.
//!
//! `UPDATE_GOLDEN=1 cargo test --test render` writes `tests/golden` anew; look at the diff.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::Ipv4Addr;

use pgherd::{
    cluster::{Address, Cluster},
    inventory::{HostName, PatroniSource, PgVersion},
    mask,
    render::{self, Effect, Visibility},
    services::haproxy::{READ, WRITE},
};
use serde_json::Value;

use fixture::{HOSTS, cluster, file, rendered};

mod fixture;
mod golden;
mod hosts;
mod overrides;
mod parsers;
mod room;
mod values;

fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

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
            let shown = mask::file(&file.content, &cluster.secrets);
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
            "node4" => &[
                ("/etc/hosts", Effect::Nothing),
                ("/etc/pgherd/hosts", Effect::Nothing),
            ],
            "haproxy" => &[
                ("/etc/hosts", Effect::Nothing),
                ("/usr/local/bin/patronictl", Effect::Nothing),
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
fn another_etcd_takes_another_patroni_and_spares_postgresql() {
    let before = cluster(&HOSTS, true);
    let mut after = before.clone();
    let node4 = after.nodes.get_mut(&HostName::new("node4")).unwrap();
    node4.address = Address::Known(Ipv4Addr::new(192, 168, 0, 99));
    let (before, after) = (rendered(&before), rendered(&after));
    let old = &file(&before, "node1", "/etc/patroni.yml").content;
    let new = file(&after, "node1", "/etc/patroni.yml");
    assert_eq!(new.effect_of_change(Some(old)), Effect::RestartPatroniAlone);
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
fn a_parameter_of_the_users_comes_before_pgherds_own() {
    let own = "wal_retrieve_retry_interval";
    let mut cluster = cluster(&HOSTS, false);
    let rendered_as = |cluster: &Cluster| {
        let files = rendered(cluster);
        yaml(&file(&files, "node1", "/etc/patroni.yml").content)["postgresql"]["parameters"][own]
            .clone()
    };
    assert_eq!(rendered_as(&cluster), "1s");
    let parameters = &mut cluster.inventory.postgresql.parameters;
    parameters.insert(own.to_owned(), "3s".to_owned());
    assert_eq!(rendered_as(&cluster), "3s");
}

#[test]
fn the_listeners_have_the_names_that_the_client_looks_for() {
    let files = rendered(&cluster(&HOSTS, true));
    let haproxy = &file(&files, "haproxy", "/etc/haproxy/haproxy.cfg").content;
    for listener in [WRITE, READ] {
        assert!(haproxy.contains(&format!("\nlisten {listener}\n")));
    }
}

#[test]
fn the_unit_starts_the_patroni_that_is_installed() {
    for (source, command) in [
        (PatroniSource::Pypi, "/opt/patroni/bin/patroni"),
        (PatroniSource::Distro, "/usr/bin/patroni"),
    ] {
        let mut cluster = cluster(&HOSTS, true);
        cluster.inventory.patroni.source = source;
        let files = rendered(&cluster);
        let unit = &file(&files, "node1", "/etc/systemd/system/patroni.service").content;
        assert!(unit.contains(&format!("\nExecStart={command} /etc/patroni.yml\n")));
        let patroni = yaml(&file(&files, "node1", "/etc/patroni.yml").content);
        let unused = !patroni["bootstrap"]["pg_hba"].is_null();
        assert_eq!(unused, source == PatroniSource::Distro);
    }
}
