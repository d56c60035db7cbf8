//! Every file of a host: those that each host has, and those of its services.

use super::{Kind, Role};
use crate::{
    cluster::{Cluster, Node},
    services::{
        self, Stage, When,
        file::{Embedded, Entry, command, early, template},
    },
};

/// The certificates that the user's `ca_bundle` holds, for whatever downloads something.
pub(super) const CA_BUNDLE: &str = "/etc/pgherd/ca-bundle.crt";

/// What every host has.
const EARLY: &[Entry] = &[
    // Whose host this is goes first, so that a run that was cut off knows its own.
    early("/etc/pgherd/cluster", template!("etc/pgherd/cluster")),
    Entry {
        kind: Kind::Block,
        ..early("/etc/hosts", template!("etc/hosts"))
    },
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

/// What a person on any host types.
const COMMANDS: &[Entry] = &[
    command(
        "/usr/local/bin/patronictl",
        template!("usr/local/bin/patronictl"),
    ),
    command("/usr/local/bin/etcdctl", template!("usr/local/bin/etcdctl")),
];

/// What a person reads who logs in.
const GREETING: &[Entry] = &[early("/etc/motd.d/pgherd", template!("etc/motd.d/pgherd"))];

/// The files of all hosts, in the order in which they are written: what others name comes first. With
/// each goes the role whose hosts get it, if not all do.
pub(super) fn entries() -> Vec<(Option<Role>, &'static Entry)> {
    let all = |entries: &'static [Entry]| entries.iter().map(|entry| (None, entry));
    let of_services = |part: fn(&services::Service) -> &'static [Entry]| {
        Role::ALL.into_iter().flat_map(move |role| {
            let entries = part(role.service()).iter();
            entries.map(move |entry| (Some(role), entry))
        })
    };
    let is_early = |(_, entry): &(Option<Role>, &Entry)| entry.stage == Stage::Prepare;
    all(EARLY)
        .chain(of_services(|it| it.files).filter(is_early))
        .chain(all(COMMANDS))
        .chain(of_services(|it| it.commands))
        .chain(all(GREETING))
        .chain(of_services(|it| it.files).filter(|it| !is_early(it)))
        .collect()
}

pub(super) fn belongs_on(
    role: Option<Role>,
    entry: &Entry,
    node: &Node,
    cluster: &Cluster,
) -> bool {
    role.is_none_or(|role| node.roles.contains(&role)) && cluster.wants(entry.when)
}

/// The paths of the files that are pgherd's as a whole on a host of these roles, whatever the rest of
/// the inventory says.
pub(super) fn paths(roles: &[Role]) -> Vec<&'static str> {
    let mine = |(role, entry): &(Option<Role>, &Entry)| {
        entry.kind == Kind::Whole && role.is_none_or(|role| roles.contains(&role))
    };
    let entries = entries().into_iter();
    entries.filter(mine).map(|(_, entry)| entry.path).collect()
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
