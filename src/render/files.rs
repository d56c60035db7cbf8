//! Which template becomes which file, on which hosts, and what must happen when it changes.

use super::{Effect, Kind, Stage, Visibility};
use crate::{
    cluster::{Cluster, Node},
    inventory::{PatroniSource, Role},
};

/// Where each service finds its certificates; one folder each, for each runs as another user.
pub(super) const POSTGRES_TLS: &str = "/etc/pgherd/tls/postgres";
pub(super) const ETCD_TLS: &str = "/etc/pgherd/tls/etcd";
pub(super) const HAPROXY_TLS: &str = "/etc/pgherd/tls/haproxy";
/// The certificates that the user's `ca_bundle` holds, for whatever downloads something.
pub(super) const CA_BUNDLE: &str = "/etc/pgherd/ca-bundle.crt";

/// A template, by its name under `templates/`, with the text that is built in.
pub(super) type Embedded = (&'static str, &'static str);

macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../../templates/", $name)))
    };
}

/// When a file is there at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// While `tls` is on.
    Tls,
    /// If the inventory has a `ca_bundle`.
    CaBundle,
    /// If Patroni comes from PyPI.
    Pypi,
}

/// One file, before it is rendered.
pub(super) struct Entry {
    pub path: &'static str,
    pub template: Embedded,
    /// The hosts that get it: those with this role, or all.
    pub role: Option<Role>,
    when: When,
    pub owner: &'static str,
    pub group: &'static str,
    pub mode: u32,
    pub visibility: Visibility,
    pub stage: Stage,
    pub kind: Kind,
    pub effect: Effect,
}

impl Entry {
    pub(super) fn belongs_on(&self, node: &Node, cluster: &Cluster) -> bool {
        let here = self.role.is_none_or(|role| node.roles.contains(&role));
        here && match self.when {
            When::Always => true,
            When::Tls => cluster.tls.is_offered(),
            When::CaBundle => cluster.ca_bundle.is_some(),
            When::Pypi => cluster.inventory.patroni.source == PatroniSource::Pypi,
        }
    }
}

/// A file for every host, before the packages: root's, 0644, nothing secret, without effect.
const fn host(path: &'static str, template: Embedded) -> Entry {
    Entry {
        path,
        template,
        role: None,
        when: When::Always,
        owner: "root",
        group: "root",
        mode: 0o644,
        visibility: Visibility::Public,
        stage: Stage::Prepare,
        kind: Kind::Whole,
        effect: Effect::Nothing,
    }
}

/// A program for whoever is on the host, in front of the package's own on every `PATH`.
const fn command(role: Option<Role>, path: &'static str, template: Embedded) -> Entry {
    Entry {
        role,
        mode: 0o755,
        ..host(path, template)
    }
}

/// A file of a service, once its package is there: root's, 0644, nothing secret.
const fn service(role: Role, path: &'static str, template: Embedded, effect: Effect) -> Entry {
    Entry {
        role: Some(role),
        stage: Stage::Configure,
        effect,
        ..host(path, template)
    }
}

/// A certificate, which everybody may read.
const fn certificate(role: Role, path: &'static str, template: Embedded, effect: Effect) -> Entry {
    Entry {
        when: When::Tls,
        ..service(role, path, template, effect)
    }
}

/// A private key, which the service's own user alone may read.
const fn key(
    role: Role,
    path: &'static str,
    template: Embedded,
    effect: Effect,
    owner: &'static str,
) -> Entry {
    Entry {
        owner,
        group: owner,
        mode: 0o600,
        visibility: Visibility::Hidden,
        ..certificate(role, path, template, effect)
    }
}

/// The files of a host, in the order in which they are written: what others name comes first.
#[rustfmt::skip]
pub(super) const ENTRIES: &[Entry] = &[
    // Whose host this is goes first, so that a run that was cut off knows its own.
    host("/etc/pgherd/cluster", template!("etc/pgherd/cluster")),
    Entry { kind: Kind::Block, ..host("/etc/hosts", template!("etc/hosts")) },
    // What etcd's unit puts back where something rewrites /etc/hosts at boot.
    Entry { role: Some(Role::Etcd), ..host("/etc/pgherd/hosts", template!("etc/pgherd/hosts")) },
    Entry { role: Some(Role::Etcd), mode: 0o755, ..host("/etc/pgherd/put-hosts", template!("etc/pgherd/put-hosts")) },
    Entry { when: When::CaBundle, ..host(CA_BUNDLE, template!("etc/pgherd/ca-bundle.crt")) },
    host("/etc/apt/apt.conf.d/90pgherd", template!("etc/apt/apt.conf.d/90pgherd")),
    host("/etc/needrestart/conf.d/pgherd.conf", template!("etc/needrestart/conf.d/pgherd.conf")),
    Entry {
        role: Some(Role::Postgres),
        ..host("/etc/postgresql-common/createcluster.d/pgherd.conf", template!("etc/postgresql-common/createcluster.d/pgherd.conf"))
    },
    // Beside the venv that is made from it: `/opt/patroni` is replaced as a whole.
    Entry {
        role: Some(Role::Postgres),
        when: When::Pypi,
        ..host("/etc/pgherd/patroni-requirements.txt", template!("opt/patroni/requirements.txt"))
    },

    // What a person on the host types and reads.
    command(None, "/usr/local/bin/patronictl", template!("usr/local/bin/patronictl")),
    command(None, "/usr/local/bin/etcdctl", template!("usr/local/bin/etcdctl")),
    command(Some(Role::Postgres), "/usr/local/bin/psql", template!("usr/local/bin/psql")),
    host("/etc/motd.d/pgherd", template!("etc/motd.d/pgherd")),

    // etcd reads certificate and key anew at every handshake, but its authority only at its start.
    certificate(Role::Etcd, "/etc/pgherd/tls/etcd/ca.crt", template!("etc/pgherd/tls/ca.crt"), Effect::Restart),
    certificate(Role::Etcd, "/etc/pgherd/tls/etcd/server.crt", template!("etc/pgherd/tls/server.crt"), Effect::Nothing),
    key(Role::Etcd, "/etc/pgherd/tls/etcd/server.key", template!("etc/pgherd/tls/server.key"), Effect::Nothing, "etcd"),
    service(Role::Etcd, "/etc/systemd/system/etcd.service.d/pgherd.conf", template!("etc/systemd/system/etcd.service.d/pgherd.conf"), Effect::Restart),
    service(Role::Etcd, "/etc/default/etcd", template!("etc/default/etcd"), Effect::Restart),

    // Patroni's reload takes them over, its own and PostgreSQL's.
    certificate(Role::Postgres, "/etc/pgherd/tls/postgres/ca.crt", template!("etc/pgherd/tls/ca.crt"), Effect::Reload),
    certificate(Role::Postgres, "/etc/pgherd/tls/postgres/server.crt", template!("etc/pgherd/tls/server.crt"), Effect::Reload),
    key(Role::Postgres, "/etc/pgherd/tls/postgres/server.key", template!("etc/pgherd/tls/server.key"), Effect::Reload, "postgres"),
    service(Role::Postgres, "/etc/systemd/system/patroni.service", template!("etc/systemd/system/patroni.service"), Effect::Restart),
    // Patroni reads these when it starts; they are nothing to its PostgreSQL.
    service(Role::Postgres, "/etc/pgherd/patroni/sitecustomize.py", template!("etc/pgherd/patroni/sitecustomize.py"), Effect::Exchange),
    service(Role::Postgres, "/etc/systemd/system/patroni.service.d/pgherd.conf", template!("etc/systemd/system/patroni.service.d/pgherd.conf"), Effect::Exchange),
    Entry {
        owner: "postgres",
        group: "postgres",
        mode: 0o600,
        visibility: Visibility::Masked,
        ..service(Role::Postgres, "/etc/patroni.yml", template!("etc/patroni.yml"), Effect::Reload)
    },

    service(Role::Haproxy, "/etc/systemd/system/haproxy.service.d/pgherd.conf", template!("etc/systemd/system/haproxy.service.d/pgherd.conf"), Effect::Nothing),
    certificate(Role::Haproxy, "/etc/pgherd/tls/haproxy/ca.crt", template!("etc/pgherd/tls/ca.crt"), Effect::Reload),
    // HAProxy reads it as root, before it becomes its own user.
    key(Role::Haproxy, "/etc/pgherd/tls/haproxy/server.pem", template!("etc/pgherd/tls/server.pem"), Effect::Reload, "root"),
    Entry {
        group: "haproxy",
        mode: 0o640,
        visibility: Visibility::Masked,
        ..service(Role::Haproxy, "/etc/haproxy/haproxy.cfg", template!("etc/haproxy/haproxy.cfg"), Effect::Reload)
    },
];

/// The paths of the files that are pgherd's as a whole on a host of these roles, whatever the rest of
/// the inventory says.
pub(super) fn paths(roles: &[Role]) -> Vec<&'static str> {
    let mine = |entry: &&Entry| {
        entry.kind == Kind::Whole && entry.role.is_none_or(|role| roles.contains(&role))
    };
    ENTRIES
        .iter()
        .filter(mine)
        .map(|entry| entry.path)
        .collect()
}

/// Every template once, in the table's order.
pub(super) fn templates() -> Vec<Embedded> {
    let mut templates: Vec<Embedded> = Vec::new();
    for entry in ENTRIES {
        if !templates.iter().any(|(name, _)| *name == entry.template.0) {
            templates.push(entry.template);
        }
    }
    templates
}
