//! A Network Load Balancer in front of the front doors: one name for clients, where no address can move.
//!
//! Its names follow from the cluster's name, and its tags say which cluster it belongs to. It has no security
//! groups: hosts see each client's own address, and their own groups decide as they do without it. Its health
//! checks come from its addresses in the subnets, so the groups let in the networks of these subnets, too.
//!
//! A health check is a TCP connection. If it asked whether HAProxy finds a leader, all front doors would be
//! taken out while there is no leader, and the load balancer ends the connections of those that it takes out.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::Client;
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use super::{
    failure::{Doing, Failure},
    instance::Found,
};
use crate::inventory::{HostName, Inventory, Role, Scheme};

mod change;
mod difference;
mod look;
mod removal;

pub(super) use self::{
    change::{Work, ensure},
    difference::{lines, made},
    look::{Seen, find, look},
    removal::{deregister, remove, resources},
};

/// The kinds of resources, as they are shown.
pub(super) const BALANCER: &str = "load balancer";
pub(super) const TARGET_GROUP: &str = "target group";

/// AWS's limit for the names of load balancers and target groups.
const LONGEST_NAME: usize = 32;

/// For how many seconds clients of a front door that leaves may continue before their connections end.
pub(super) const DRAINING: u32 = 30;

/// A port of the load balancer, and the same port of the front doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    Write,
    Read,
}

impl Door {
    pub(super) const ALL: [Self; 2] = [Self::Write, Self::Read];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }

    pub(super) fn port(self, inventory: &Inventory) -> i32 {
        i32::from(match self {
            Self::Write => inventory.haproxy.write_port,
            Self::Read => inventory.haproxy.read_port,
        })
    }
}

/// The name of the load balancer, or of the target group of one of its ports.
pub(super) fn name(cluster: &str, door: Option<Door>) -> String {
    let end = door.map_or_else(String::new, |door| format!("-{}", door.as_str()));
    let whole = format!("pgherd-{cluster}{end}");
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    let digest = Sha256::digest(cluster.as_bytes());
    let digest: String = digest
        .iter()
        .take(4)
        .map(|it| format!("{it:02x}"))
        .collect();
    let room = LONGEST_NAME - "pgherd--".len() - digest.len() - end.len();
    let head = cluster.get(..room).unwrap_or(cluster);
    let head = head.trim_end_matches('-');
    format!("pgherd-{head}-{digest}{end}")
}

/// The desired load balancer.
pub(super) struct Wanted<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) scheme: Scheme,
    pub(super) vpc: String,
    /// A subnet for each zone that has a front door.
    pub(super) subnets: BTreeMap<String, String>,
    /// The front doors that run, by instance.
    pub(super) targets: BTreeMap<String, HostName>,
    /// The instances of front doors that do not run now.
    pub(super) resting: BTreeSet<String>,
}

impl<'a> Wanted<'a> {
    /// For a cluster that has no front door yet.
    pub(super) fn none(inventory: &'a Inventory, scheme: Scheme) -> Self {
        Self {
            inventory,
            scheme,
            vpc: String::new(),
            subnets: BTreeMap::new(),
            targets: BTreeMap::new(),
            resting: BTreeSet::new(),
        }
    }

    /// `None` if no front door exists yet.
    pub(super) fn of(inventory: &'a Inventory, scheme: Scheme, alive: &[Found]) -> Option<Self> {
        let mut wanted = Self::none(inventory, scheme);
        for host in inventory.with_role(Role::Haproxy) {
            let Some(found) = alive.iter().find(|it| it.host == *host) else {
                continue;
            };
            match found.state.as_str() {
                "running" => drop(wanted.targets.insert(found.id.clone(), host.clone())),
                _ => drop(wanted.resting.insert(found.id.clone())),
            }
            if let (Some(vpc), Some(subnet)) = (&found.vpc, &found.subnet) {
                wanted.vpc.clone_from(vpc);
                wanted.is_in(&found.zone, subnet);
            }
        }
        (!wanted.subnets.is_empty()).then_some(wanted)
    }

    /// Notes the subnet of a front door. A load balancer has one subnet in each zone.
    pub(super) fn is_in(&mut self, zone: &str, subnet: &str) {
        let known = self.subnets.entry(zone.to_owned());
        known.or_insert_with(|| subnet.to_owned());
    }

    /// The desired subnets and those that it has. These stay: if a zone were removed, clients that know its
    /// address there would lose it.
    fn all_subnets(&self, found: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = self.subnets.clone();
        all.extend(found.clone());
        all
    }
}

/// The networks from which the health checks come.
pub(super) async fn networks(
    ec2: &Client,
    subnets: impl IntoIterator<Item = &String>,
) -> Result<Vec<Ipv4Net>, Failure> {
    let ids: BTreeSet<&String> = subnets.into_iter().collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let answer = ec2
        .describe_subnets()
        .set_subnet_ids(Some(ids.into_iter().cloned().collect()))
        .send()
        .await
        .doing("look at the load balancer's subnets")?;
    let networks = answer.subnets().iter().filter_map(|it| it.cidr_block());
    let networks: BTreeSet<Ipv4Net> = networks.filter_map(|it| it.parse().ok()).collect();
    Ok(networks.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_no_two_clusters_have_the_same() {
        assert_eq!(name("pg", None), "pgherd-pg");
        assert_eq!(name("pg", Some(Door::Write)), "pgherd-pg-write");
        let long = [
            "a".repeat(31),
            format!("{}b", "a".repeat(30)),
            format!("{}-{}", "a".repeat(9), "a".repeat(21)),
        ];
        let mut seen = BTreeSet::new();
        for cluster in &long {
            for door in [None, Some(Door::Write), Some(Door::Read)] {
                let name = name(cluster, door);
                assert!(name.len() <= LONGEST_NAME, "{name}");
                assert!(!name.contains("--") && !name.ends_with('-'), "{name}");
                assert!(seen.insert(name));
            }
        }
    }
}
