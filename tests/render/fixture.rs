//! Clusters made in code, and what is rendered for them.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf, sync::LazyLock};

use indexmap::IndexMap;
use pgherd::{
    cluster::{Address, Certificate, Cluster, Node, Secrets, TlsStage},
    inventory::{
        Haproxy, Host, HostName, Inventory, Patroni, PatroniSource, PgSource, PgVersion,
        Postgresql, Provider, Role, SecretsSource, Ssh, Tls,
    },
    render::{self, File, Files, Templates},
    secret::Secret,
};

/// The tutorial's five hosts, with its addresses.
pub(crate) const HOSTS: [(&str, [u8; 4], &[Role]); 5] = [
    ("node1", [192, 168, 0, 249], &[Role::Postgres]),
    ("node2", [192, 168, 0, 248], &[Role::Postgres]),
    ("node3", [192, 168, 0, 21], &[Role::Postgres]),
    ("node4", [192, 168, 0, 179], &[Role::Etcd]),
    ("haproxy", [192, 168, 0, 173], &[Role::Haproxy]),
];

pub(crate) fn pem(label: &str, of: &str) -> String {
    format!("-----BEGIN {label}-----\nnot a real one, but that of {of}\n-----END {label}-----\n")
}

pub(crate) fn cluster(hosts: &[(&str, [u8; 4], &[Role])], tls: bool) -> Cluster {
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
            users: IndexMap::new(),
            databases: IndexMap::new(),
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
            connections_per_source: None,
        },
        tls: Tls { enabled: tls },
        secrets: SecretsSource::default(),
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
        tls: TlsStage::of(&inventory),
        inventory,
        nodes,
        secrets: Secrets {
            cluster_id: "0a1b2c3d4e5f".into(),
            superuser: Secret::new("superuser-s3cret"),
            replication: Secret::new("replication-s3cret"),
            rewind: Secret::new("rewind-s3cret"),
            rest_api: Secret::new("rest-s3cret"),
            stats: Secret::new("stats-s3cret"),
            users: BTreeMap::new(),
            interim: None,
        },
        ca: tls.then(|| pem("CERTIFICATE", "the authority")),
        ca_bundle: None,
    }
}

pub(crate) static TEMPLATES: LazyLock<Templates> = LazyLock::new(|| Templates::embedded().unwrap());

pub(crate) fn rendered(cluster: &Cluster) -> Files {
    render::render(cluster, &TEMPLATES).unwrap()
}

pub(crate) fn file<'a>(files: &'a Files, host: &str, path: &str) -> &'a File {
    files[&HostName::new(host)]
        .iter()
        .find(|file| file.path == path)
        .unwrap_or_else(|| panic!("{host} has no {path}"))
}
