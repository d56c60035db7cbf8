//! Every file of whole clusters, byte for byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pgherd::{
    cluster::Cluster,
    inventory::{Inventory, PatroniSource, Role},
    secret::Secret,
};

use crate::fixture::{HOSTS, cluster, pem, rendered};

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
            let path = dir.join(file.path.trim_start_matches('/'));
            expected.insert(path, file.content.to_string());
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

/// Two front doors, and an address that moves between them.
#[test]
fn golden_front_doors() {
    let door: &[Role] = &[Role::Haproxy, Role::Keepalived];
    let hosts: [(&str, [u8; 4], &[Role]); 4] = [
        ("db1", [192, 0, 2, 1], &[Role::Postgres, Role::Etcd]),
        ("db2", [192, 0, 2, 2], &[Role::Postgres]),
        ("door1", [192, 0, 2, 21], door),
        ("door2", [192, 0, 2, 22], door),
    ];
    let mut cluster = cluster(&hosts, true);
    cluster.inventory.haproxy.vip = Some([192, 0, 2, 100].into());
    cluster.secrets.vrrp = Some(Secret::new("vrrps3cr"));
    golden("front-doors", &cluster);
}

/// Backups on a host beside the front door, of two members.
#[test]
fn golden_backups() {
    let hosts: [(&str, [u8; 4], &[Role]); 3] = [
        (
            "db1",
            [192, 0, 2, 1],
            &[Role::Postgres, Role::Etcd, Role::Archive],
        ),
        ("db2", [192, 0, 2, 2], &[Role::Postgres, Role::Archive]),
        ("door", [192, 0, 2, 21], &[Role::Haproxy, Role::Backup]),
    ];
    let mut cluster = cluster(&hosts, true);
    let text = "cluster: pg\nprovider: { kind: docker }\nhosts:\n  db1: { roles: [postgres, etcd] }\n  \
                door: { roles: [haproxy, backup] }\n";
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
    cluster.inventory.hosts = inventory.hosts;
    cluster.secrets.backup = Some(Secret::new("backups3cr"));
    golden("backups", &cluster);
}

/// Backups on the host's disk and in a bucket.
#[test]
fn golden_places() {
    let hosts: [(&str, [u8; 4], &[Role]); 3] = [
        (
            "db1",
            [192, 0, 2, 1],
            &[Role::Postgres, Role::Etcd, Role::Archive],
        ),
        ("db2", [192, 0, 2, 2], &[Role::Postgres, Role::Archive]),
        ("keeper", [192, 0, 2, 21], &[Role::Backup]),
    ];
    let mut cluster = cluster(&hosts, true);
    let text = "cluster: pg\nprovider: { kind: docker }\nmonitoring: {}\n\
                backup: { s3: { bucket: backups, region: eu-central-1 }, disk: true }\nhosts:\n  \
                db1: { roles: [postgres, etcd] }\n  door: { roles: [haproxy] }\n  keeper: { roles: [backup] }\n";
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
    cluster.inventory.hosts = inventory.hosts;
    cluster.inventory.backup = inventory.backup;
    cluster.inventory.monitoring = inventory.monitoring;
    cluster.secrets.backup = Some(Secret::new("backups3cr"));
    cluster.secrets.s3 = Some((Secret::new("s3-key"), Secret::new("s3-s3cret")));
    golden("places", &cluster);
}

/// Backups in a bucket that an instance profile of EC2 opens: the host that keeps them has no access key, and there alone
/// postgres may ask the metadata service.
#[test]
fn golden_profile() {
    let hosts: [(&str, [u8; 4], &[Role]); 2] = [
        (
            "db1",
            [192, 0, 2, 1],
            &[Role::Postgres, Role::Etcd, Role::Archive],
        ),
        ("keeper", [192, 0, 2, 21], &[Role::Backup]),
    ];
    let mut cluster = cluster(&hosts, true);
    let text = "cluster: pg\nprovider: { kind: aws, region: eu-central-1 }\n\
                backup: { s3: { bucket: backups, region: eu-central-1, profile: backups } }\nhosts:\n  \
                db1: { roles: [postgres, etcd] }\n  door: { roles: [haproxy] }\n  keeper: { roles: [backup] }\n";
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
    cluster.inventory.hosts = inventory.hosts;
    cluster.inventory.provider = inventory.provider;
    cluster.inventory.backup = inventory.backup;
    cluster.secrets.backup = Some(Secret::new("backups3cr"));
    golden("profile", &cluster);
}

/// PgBouncer on the front door, and databases that it offers for reading too, except one.
#[test]
fn golden_pooler() {
    let hosts: [(&str, [u8; 4], &[Role]); 3] = [
        ("db1", [192, 0, 2, 1], &[Role::Postgres, Role::Etcd]),
        ("db2", [192, 0, 2, 2], &[Role::Postgres]),
        ("door", [192, 0, 2, 21], &[Role::Haproxy, Role::Pgbouncer]),
    ];
    let mut cluster = cluster(&hosts, true);
    let text = "cluster: pg\nprovider: { kind: docker }\npgbouncer: { max_client_conn: 500 }\n\
                postgresql: { allow: [10.0.0.0/8], users: { shop: }, databases: { shop: , 'my shop': { owner: shop } } }\n\
                hosts:\n  db1: { roles: [postgres, etcd] }\n  door: { roles: [haproxy] }\n";
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
    cluster.inventory.hosts = inventory.hosts;
    cluster.inventory.postgresql = inventory.postgresql;
    cluster.inventory.pgbouncer = inventory.pgbouncer;
    cluster.secrets.pooler = Some(Secret::new("poolers3cr"));
    golden("pooler", &cluster);
}

/// Metrics of every host, and a Prometheus on one that keeps the backups too.
#[test]
fn golden_monitoring() {
    let text = "cluster: pg\nprovider: { kind: existing }\nmonitoring: { allow: [10.9.0.0/16], keep_days: 7, \
                email_to: oncall@example.com, email_from: pg@example.com, smarthost: 'mail.example.com:25' }\n\
                hosts:\n  db1: { roles: [postgres, etcd], address: 192.0.2.1 }\n  \
                door: { roles: [haproxy], address: 192.0.2.21 }\n  \
                watch: { roles: [monitoring, backup], address: 192.0.2.31 }\n";
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
    let hosts: Vec<(&str, [u8; 4], Vec<Role>)> = inventory
        .hosts
        .iter()
        .map(|(name, host)| {
            let address = host.address.unwrap().octets();
            (name.as_str(), address, host.roles.clone())
        })
        .collect();
    let hosts: Vec<(&str, [u8; 4], &[Role])> = hosts
        .iter()
        .map(|(name, address, roles)| (*name, *address, roles.as_slice()))
        .collect();
    let mut cluster = cluster(&hosts, true);
    cluster.inventory.hosts.clone_from(&inventory.hosts);
    cluster
        .inventory
        .monitoring
        .clone_from(&inventory.monitoring);
    cluster.secrets.backup = Some(Secret::new("backups3cr"));
    cluster.secrets.webhook = Some(Secret::new("https://example.com/hook?key=s3cret"));
    golden("monitoring", &cluster);
}

#[test]
fn golden_plain() {
    golden("plain", &cluster(&HOSTS, false));
}

/// What the tutorial's inventory does not have: roles together, three etcds, a narrower `allow`, parameters, a
/// bundle, everything from the distribution.
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

/// A host that pgherd launches on EC2, with an architecture for which etcd 3.4 needs an extra setting.
#[test]
fn golden_graviton() {
    let all = [Role::Postgres, Role::Etcd, Role::Haproxy];
    let mut cluster = cluster(&[("db1", [10, 0, 0, 1], &all)], true);
    let text = "cluster: pg\nprovider: { kind: aws, region: eu-central-1 }\nhosts:\n  \
                db1: { roles: [postgres, etcd, haproxy] }\n";
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
    cluster.inventory.provider = inventory.provider;
    cluster.nodes[0].arch = "aarch64".into();
    golden("graviton", &cluster);
}
