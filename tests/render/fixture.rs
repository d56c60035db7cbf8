//! Clusters made in code, and the files that are rendered for them.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::LazyLock};

use indexmap::IndexMap;
use pgherd::{
    cluster::{Address, Certificate, Cluster, Node, Secrets, TlsStage},
    inventory::{Host, HostName, Inventory, Provider, Role, Tls},
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
    let smallest = "
cluster: postgres
provider: { kind: docker }
hosts: { node1: { roles: [postgres, etcd, haproxy] } }
";
    let inventory = Inventory {
        provider: Provider::Existing,
        tls: Tls { enabled: tls },
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
        ..Inventory::parse(Path::new("pgherd.yaml"), smallest).unwrap()
    };
    let nodes: IndexMap<HostName, Node> = hosts
        .iter()
        .map(|(name, address, roles)| {
            let node = Node {
                name: HostName::new(*name),
                roles: roles.to_vec(),
                address: Address::Known(Ipv4Addr::from(*address)),
                postgresql: roles.contains(&Role::Postgres).then_some(16),
                arch: "x86_64".into(),
                certificate: tls.then(|| Certificate {
                    cert: pem("CERTIFICATE", name),
                    key: Secret::new(pem("PRIVATE KEY", name)),
                }),
                data_volume: None,
                size: None,
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
            vrrp: None,
            backup: None,
            s3: None,
            pooler: None,
            webhook: None,
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
