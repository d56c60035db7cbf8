//! Compares a cluster that somebody made with the one that pgherd would make of the same inventory.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde_json::Value;

use self::{doors::doors, etcd::stores, patroni::members, postgres::databases};
use super::{
    convert,
    difference::{Difference, Differences, Fate},
    seen::Seen,
};
use crate::{
    configs::PatroniConfig,
    inventory::{HostName, Inventory, Role},
    render::Files,
};

pub(super) use self::etcd::data_dir as etcd_data;

mod doors;
mod etcd;
mod patroni;
mod postgres;

/// What was found, and what should be.
pub(super) struct Scene<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) hosts: &'a BTreeMap<HostName, Seen>,
    pub(super) addresses: &'a BTreeMap<HostName, Ipv4Addr>,
    /// pgherd's files for these hosts.
    pub(super) files: &'a Files,
    /// pgherd's settings in the DCS.
    pub(super) config: &'a Value,
}

impl<'a> Scene<'a> {
    /// The hosts with a role, with what they have.
    fn with_role(&self, role: Role) -> impl Iterator<Item = (&'a HostName, &'a Seen)> {
        let hosts = self.inventory.with_role(role);
        hosts.filter_map(|host| Some((host, self.hosts.get(host)?)))
    }

    /// A file of pgherd's for a host.
    fn file(&self, host: &HostName, path: &str) -> Option<&str> {
        let files = self.files.get(host)?;
        let file = files.iter().find(|file| file.path == path)?;
        Some(file.content.as_str())
    }

    /// Whether an address is this host's, by number or by name.
    fn is_at(&self, host: &HostName, address: &str) -> bool {
        let number = self.addresses.get(host).map(ToString::to_string);
        address == host.as_str() || Some(address) == number.as_deref()
    }

    /// The member that leads.
    pub(super) fn leader(&self) -> Option<(&'a HostName, &'a Seen)> {
        self.with_role(Role::Postgres)
            .find(|(_, seen)| seen.leads() == Some(true))
    }
}

/// Everything that was found, with what becomes of it.
pub(super) fn compare(scene: &Scene<'_>) -> Vec<Difference> {
    let mut all = Differences::default();
    for (host, seen) in scene.hosts {
        let os = seen.os();
        match matches!(os.id.as_str(), "debian" | "ubuntu") {
            true => all.keep(Some(host), "system", os.pretty),
            false => all.refuse(
                Some(host),
                "system",
                os.pretty,
                "pgherd works on Debian 12 and 13 and Ubuntu 24.04",
            ),
        }
    }
    let configs: Vec<(&HostName, &Seen, PatroniConfig)> = scene
        .with_role(Role::Postgres)
        .filter_map(|(host, seen)| Some((host, seen, seen.settings_of_patroni()?)))
        .collect();
    members(scene, &configs, &mut all);
    databases(scene, &configs, &mut all);
    stores(scene, &configs, &mut all);
    doors(scene, &mut all);
    all.in_order()
}

/// A row for a value that must already be as the inventory says.
fn must_be(
    all: &mut Differences,
    host: &HostName,
    what: &'static str,
    (found, wanted): (&str, &str),
    to_do: String,
) {
    match found == wanted {
        true => all.keep(Some(host), what, found),
        false => all.refuse(Some(host), what, found, to_do),
    }
}

/// Whether pgherd can edit the config, without what its path to etcd needs besides.
fn is_editable(seen: &Seen) -> bool {
    let text = seen.config();
    text.is_some_and(|(_, text)| convert::converted(&text).is_some())
}

#[cfg(test)]
mod tests;
