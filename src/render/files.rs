//! Every file of a host: the files of all hosts, and those of its services.

use super::{Kind, Role};
use crate::{
    cluster::{Cluster, Node},
    services::{
        self, Service, Stage, When,
        file::{Embedded, Entry, command, early, template},
    },
};

/// The certificates of the user's `ca_bundle`, for everything that downloads something.
pub(super) const CA_BUNDLE: &str = "/etc/pgherd/ca-bundle.crt";

/// The cluster that the host belongs to, and the names of the other hosts.
const IDENTITY: &[Entry] = &[
    // The host's mark goes first, so that an interrupted run recognises its own hosts.
    early("/etc/pgherd/cluster", template!("etc/pgherd/cluster")),
    Entry {
        kind: Kind::Block,
        ..early("/etc/hosts", template!("etc/hosts"))
    },
];

/// The names that etcd's unit restores if something rewrites /etc/hosts at boot, and the script for it.
const NAMES: &[Entry] = &[
    early("/etc/pgherd/hosts", template!("etc/pgherd/hosts")),
    command("/etc/pgherd/put-hosts", template!("etc/pgherd/put-hosts")),
];

/// Protects EC2's metadata service at each boot.
const METADATA: &[Entry] = &[Entry {
    when: When::Ec2,
    ..early(
        "/etc/systemd/system/pgherd-metadata-guard.service",
        template!("etc/systemd/system/pgherd-metadata-guard.service"),
    )
}];

/// Files for the installation of packages.
const BEFORE_PACKAGES: &[Entry] = &[
    Entry {
        when: When::CaBundle,
        ..early(CA_BUNDLE, template!("etc/pgherd/ca-bundle.crt"))
    },
    early(
        "/etc/apt/apt.conf.d/90pgherd",
        template!("etc/apt/apt.conf.d/90pgherd"),
    ),
    early(
        "/etc/needrestart/conf.d/pgherd.conf",
        template!("etc/needrestart/conf.d/pgherd.conf"),
    ),
];

/// Commands for people on any host.
const COMMANDS: &[Entry] = &[
    command(
        "/usr/local/bin/patronictl",
        template!("usr/local/bin/patronictl"),
    ),
    command("/usr/local/bin/etcdctl", template!("usr/local/bin/etcdctl")),
];

/// The message for people who log in.
const GREETING: &[Entry] = &[early("/etc/motd.d/pgherd", template!("etc/motd.d/pgherd"))];

/// The hosts that get a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    All,
    /// Hosts with a service that needs the names of the others at boot.
    Named,
    Role(Role),
}

impl On {
    fn is_for(self, roles: &[Role]) -> bool {
        match self {
            Self::All => true,
            Self::Named => roles.iter().any(|role| role.service().keeps_names),
            Self::Role(role) => roles.contains(&role),
        }
    }

    pub(super) fn role(self) -> Option<Role> {
        match self {
            Self::Role(role) => Some(role),
            Self::All | Self::Named => None,
        }
    }
}

/// The files of all hosts, in the order in which they are written: a file comes after those that it names.
pub(super) fn entries() -> Vec<(On, &'static Entry)> {
    let shared = |on: On, entries: &'static [Entry]| entries.iter().map(move |entry| (on, entry));
    let of_services = |part: fn(&Service) -> &'static [Entry]| {
        let roles = services::by_rank().into_iter();
        roles.flat_map(move |role| shared(On::Role(role), part(role.service())))
    };
    let is_early = |(_, entry): &(On, &Entry)| entry.stage == Stage::Prepare;
    shared(On::All, IDENTITY)
        .chain(shared(On::Named, NAMES))
        .chain(shared(On::All, METADATA))
        .chain(shared(On::All, BEFORE_PACKAGES))
        .chain(of_services(|it| it.files).filter(is_early))
        .chain(shared(On::All, COMMANDS))
        .chain(of_services(|it| it.commands))
        .chain(shared(On::All, GREETING))
        .chain(of_services(|it| it.files).filter(|it| !is_early(it)))
        .collect()
}

pub(super) fn belongs_on(on: On, entry: &Entry, node: &Node, cluster: &Cluster) -> bool {
    on.is_for(&node.roles) && cluster.wants(entry.when)
}

/// The paths of the files that are wholly pgherd's on a host with these roles, whatever the rest of the
/// inventory says.
pub(super) fn paths(roles: &[Role]) -> Vec<&'static str> {
    let mine = |(on, entry): &(On, &Entry)| entry.kind == Kind::Whole && on.is_for(roles);
    let entries = entries().into_iter();
    entries.filter(mine).map(|(_, entry)| entry.path).collect()
}

/// The paths of the files that the installation of packages and of Patroni's venv needs.
pub(super) fn for_packages() -> Vec<&'static str> {
    let roles = services::by_rank().into_iter();
    let of_services = roles.flat_map(|role| role.service().files);
    let early = of_services.filter(|entry| entry.stage == Stage::Prepare);
    let all = BEFORE_PACKAGES.iter().chain(early);
    all.map(|entry| entry.path).collect()
}

/// Every template once, in the table's order.
pub(super) fn templates() -> Vec<Embedded> {
    let mut templates: Vec<Embedded> = Vec::new();
    for (_, entry) in entries() {
        if !templates.iter().any(|(name, _)| *name == entry.template.0) {
            templates.push(entry.template);
        }
    }
    templates
}
