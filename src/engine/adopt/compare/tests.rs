//! The tutorial's cluster, with two databases, and what is wrong with others.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::*;

const CONFIG: &str = "scope: postgres\nnamespace: /db/\nname: NAME\nrestapi:\n  listen: ADDRESS:8008\n  \
    connect_address: ADDRESS:8008\netcd:\n  host: 192.0.2.4:2379\npostgresql:\n   listen: ADDRESS:5432\n   \
    connect_address: ADDRESS:5432\n   data_dir: /data/patroni\n   authentication:\n    replication:\n      \
    username: replicator\n      password: \"A1qaz2wsx3edc\"\n    superuser:\n      username: postgres\n      \
    password: \"B1qaz2wsx3edc\"\n      parameters:\n      unix_socket_directories: '.'\ntags:\n   nofailover: false\n";

const HAPROXY: &str = "global\n  maxconn 100\ndefaults\n  mode tcp\nlisten stats\n  mode http\n  bind *:7000\n  stats enable\n\
    listen postgres\n  bind *:5000\n  option httpchk\n  server node1 192.0.2.1:5432 check port 8008\n  \
    server node2 192.0.2.2:5432 check port 8008\n";

/// The answers of a cluster's hosts, each with a change.
struct Cluster {
    inventory: String,
    config: String,
    haproxy: String,
    /// More facts of the databases' hosts.
    database: String,
    /// More facts of etcd's host.
    etcd: String,
}

impl Cluster {
    fn new() -> Self {
        Self {
            inventory: "cluster: postgres\nprovider: { kind: existing }\npostgresql: { version: 15 }\nhosts:\n  \
                node1: { roles: [postgres], address: 192.0.2.1 }\n  node2: { roles: [postgres], address: 192.0.2.2 }\n  \
                node4: { roles: [etcd], address: 192.0.2.4 }\n  door: { roles: [haproxy], address: 192.0.2.5 }\n"
                .into(),
            config: CONFIG.into(),
            haproxy: HAPROXY.into(),
            database: String::new(),
            etcd: "etcd\tETCD_NAME\tnode4\netcd\tETCD_DATA_DIR\t/var/lib/etcd/default\n".into(),
        }
    }

    fn database(&self, name: &str, address: &str, leads: bool) -> String {
        let config = self
            .config
            .replace("NAME", name)
            .replace("ADDRESS", address);
        let member = |name: &str, role: &str, host: &str| json!({"name": name, "role": role, "state": "running", "host": host});
        let members = json!({"members": [member("node1", "leader", "192.0.2.1"), member("node2", "replica", "192.0.2.2")]});
        let dcs = json!({"ttl": 30, "postgresql": null});
        let b64 = |text: String| BASE64_STANDARD.encode(text);
        format!(
            "unit\tpatroni\tactive\tdisabled\t/etc/systemd/system/patroni.service\t\n\
             program\t/usr/local/bin/patroni\t4.1.5\nconfig\t/etc/patroni.yml\t{}\nrest\t{address}:8008\n\
             answer\tpatroni\t{}\nanswer\tconfig\t{}\nanswer\tcluster\t{}\ndata\t/data/patroni\t15\t\n\
             postmaster\t172\t1795841500\t5432\t/var/run/postgresql\nrecovery\t{}\t\t\t\t\n\
             rule\thost\tall\tall\t0.0.0.0/0\tmd5\nown-cluster\t15\tmain\t5432\tauto\n{}",
            b64(config),
            b64(json!({"state": "running"}).to_string()),
            b64(dcs.to_string()),
            b64(members.to_string()),
            !leads,
            self.database,
        )
    }

    fn differences(&self) -> Vec<Difference> {
        let inventory =
            Inventory::parse("pgherd.yaml".as_ref(), &self.inventory).expect("an inventory");
        let of = |host: &str| match host {
            "node1" => self.database(host, "192.0.2.1", true),
            "node2" => self.database(host, "192.0.2.2", false),
            "node4" => format!(
                "unit\tetcd\tactive\tenabled\t/lib/systemd/system/etcd.service\t\n{}",
                self.etcd
            ),
            _ => format!(
                "unit\thaproxy\tactive\tenabled\t/lib/systemd/system/haproxy.service\t\nproxies\t/etc/haproxy/haproxy.cfg\t{}\n",
                BASE64_STANDARD.encode(&self.haproxy)
            ),
        };
        let seen = |host: &HostName| {
            let text = format!(
                "adoption\t1\nos\tdebian\t12\tDebian 12\tbookworm\tx86_64\n{}end\n",
                of(host.as_str())
            );
            (host.clone(), Seen::parse(&text).expect("a whole answer"))
        };
        let hosts = inventory.hosts.keys().map(seen).collect();
        let addresses = inventory
            .hosts
            .iter()
            .filter_map(|(name, host)| Some((name.clone(), host.address?)));
        compare(&Scene {
            inventory: &inventory,
            hosts: &hosts,
            addresses: &addresses.collect(),
            files: &Files::new(),
            config: &json!({"ttl": 30, "postgresql": {"parameters": {"wal_log_hints": "on"}}}),
        })
    }

    /// What is refused, without what to do about it.
    fn refused(&self) -> Vec<String> {
        let all = self.differences();
        let refused = all.iter().filter(|it| it.fate == Fate::Refused);
        refused
            .map(|it| format!("{}: {}", it.what, it.found))
            .collect()
    }
}

#[test]
fn the_tutorials_cluster_can_be_taken_in() {
    let cluster = Cluster::new();
    assert_eq!(cluster.refused(), [""; 0]);
    let all = cluster.differences();
    let fate = |what: &str, found: &str| {
        let row = all
            .iter()
            .find(|it| it.what == what && it.found.contains(found));
        row.unwrap_or_else(|| panic!("{what}, {found}: {all:#?}"))
            .fate
    };
    assert_eq!(fate("store", "version 2"), Fate::Converged);
    assert_eq!(fate("namespace", "/db/"), Fate::Kept);
    assert_eq!(fate("data", "/data/patroni"), Fate::Kept);
    assert_eq!(fate("unit", "patroni.service"), Fate::HandOver);
    assert_eq!(fate("other databases", "15/main"), Fate::Converged);
    assert_eq!(fate("etcd", "/var/lib/etcd/default"), Fate::Kept);
    assert_eq!(fate("HAProxy", "postgres at *:5000"), Fate::Kept);
    assert_eq!(fate("HAProxy", "stats at *:7000"), Fate::Converged);
    assert_eq!(fate("TLS", "clients"), Fate::Clients);
    assert!(all.is_sorted_by_key(|it| std::cmp::Reverse(it.fate)));
    let shown = format!("{all:?}");
    for password in ["A1qaz2wsx3edc", "B1qaz2wsx3edc"] {
        assert!(!shown.contains(password), "{shown}");
    }
}

#[test]
fn what_would_be_lost_is_refused_by_its_name() {
    type Change = fn(&mut Cluster);
    let cases: [(&str, Change); 16] = [
        ("store: Consul", |it| {
            it.config = it
                .config
                .replace("etcd:\n  host: 192.0.2.4:2379", "consul:\n  host: a");
        }),
        ("store: Kubernetes", |it| {
            it.config.push_str("kubernetes:\n  use_endpoints: true\n");
        }),
        ("store: Raft", |it| {
            it.config.push_str("raft:\n  self_addr: a\n");
        }),
        ("store: etcd with TLS", |it| {
            it.config = it.config.replace(
                "  host: 192.0.2.4:2379",
                "  host: 192.0.2.4:2379\n  protocol: https",
            );
        }),
        ("store: etcd at 192.0.2.9:2379", |it| {
            it.config = it.config.replace("192.0.2.4:", "192.0.2.9:");
        }),
        ("config: citus", |it| {
            it.config.push_str("citus:\n  group: 0\n");
        }),
        ("config: postgresql.callbacks", |it| {
            it.config = it.config.replace(
                "   data_dir",
                "   callbacks:\n     on_start: /x\n   data_dir",
            );
        }),
        ("config: tags.nofailover: true", |it| {
            it.config = it.config.replace("nofailover: false", "nofailover: true");
        }),
        ("cluster: main", |it| {
            it.config = it.config.replace("scope: postgres", "scope: main");
        }),
        ("data: /data/patroni", |it| {
            it.inventory = it
                .inventory
                .replace("version: 15", "version: 15, data_dir: /srv/pg");
        }),
        ("PostgreSQL: 15", |it| {
            it.inventory = it.inventory.replace("version: 15", "version: 16");
        }),
        ("passwords: superuser: admin", |it| {
            it.config = it.config.replace("username: postgres", "username: admin");
        }),
        ("members: node2 is not in the inventory", |it| {
            it.inventory = it
                .inventory
                .replace("  node2: { roles: [postgres], address: 192.0.2.2 }\n", "");
        }),
        ("HAProxy: web at *:80", |it| {
            it.haproxy
                .push_str("listen web\n  bind *:80\n  server a 192.0.2.9:80\n");
        }),
        ("HAProxy: postgres at *:6000", |it| {
            it.haproxy = it.haproxy.replace("*:5000", "*:6000");
        }),
        ("access: host all from 10.0.0.0/8: ldap", |it| {
            it.database = "rule\thost\tall\tall\t10.0.0.0/8\tldap\n".into();
        }),
    ];
    for (what, change) in cases {
        let mut cluster = Cluster::new();
        change(&mut cluster);
        let refused = cluster.refused();
        assert!(
            refused.iter().any(|it| it.starts_with(what)),
            "{what}: {refused:?}"
        );
        let all = cluster.differences();
        let mut rows = all.iter().filter(|it| it.fate == Fate::Refused);
        assert!(
            rows.all(|row| !row.becomes.is_empty()),
            "{what}: what to do is said"
        );
    }
}

#[test]
fn clients_that_must_change_are_named() {
    let mut cluster = Cluster::new();
    cluster.database = "role\tshop\tfalse\tmd5\t\t\nclient\tshop\t192.0.2.77\tfalse\t\t\nrule\thost\tall\tall\t10.0.0.0/8\ttrust\n".into();
    let all = cluster.differences();
    let clients: Vec<&str> = all
        .iter()
        .filter(|it| it.fate == Fate::Clients)
        .map(|it| it.found.as_str())
        .collect();
    for found in [
        "shop: its password is stored as MD5",
        "host all from 10.0.0.0/8: trust",
        "shop from 192.0.2.77",
    ] {
        assert!(
            clients.iter().any(|it| it.contains(found)),
            "{found}: {clients:?}"
        );
    }
}

#[test]
fn etcd_by_its_options_is_read_like_etcd_by_its_environment() {
    let mut cluster = Cluster::new();
    cluster.etcd =
        "etcd-option\t--name=other\netcd-option\t--data-dir\netcd-option\t/srv/etcd\n".into();
    let all = cluster.differences();
    let found: Vec<&str> = all
        .iter()
        .filter(|it| it.what == "etcd")
        .map(|it| it.found.as_str())
        .collect();
    assert!(found.contains(&"member other"), "{found:?}");
    assert!(cluster.refused().contains(&"etcd: member other".to_owned()));
    assert!(found.iter().any(|it| it.contains("/srv/etcd")), "{found:?}");
}
