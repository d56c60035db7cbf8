//! Compares the members of etcd and Patroni with the inventory.
//!
//! A member leaves only if the user has named it (`retire`, `etcd_leaves`), since its data goes with it. An inventory
//! that lacks a member is refused before anything changes: that member could still be elected, and a member of etcd
//! counts in the quorum.
//!
//! The members' own lists decide. If no member answers, the data on the hosts decides, and the list that the last run
//! left in the workspace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

use serde::Serialize;
use serde_json::Value;

pub use super::store::Finding;
use super::{
    Elsewhere, Found,
    belongings::is_ours,
    etcd_leaves,
    has_role::{evidence, has_role},
    store::{self, was_whole},
};
pub(crate) use crate::contract::MARKER;
use crate::{
    cluster::{Address, Cluster, KnownHost, Node},
    error::{Code, Error, Result},
    inventory::{HostName, Inventory, Role},
    services::{self, Data, Service},
};

/// Why a name can have only one host.
const TWICE: &str = "two hosts with one name would both be members: each with its own data, each able to lead, and each with an etcd of its own";

/// How a host that is not in the inventory is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Witness {
    /// Patroni's keys in etcd.
    Patroni,
    /// etcd's own list.
    Etcd,
    /// The list that runs keep in the workspace.
    Workspace,
    /// The label or tag of the cluster.
    Label,
}

/// A host that belongs to the cluster and is not in the inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    pub name: HostName,
    /// The roles that are known. Empty if only the name is known.
    pub roles: Vec<Role>,
    pub address: Option<Ipv4Addr>,
    pub seen_by: Vec<Witness>,
    /// What Patroni says of it, such as `leader` and `running`.
    pub role: Option<String>,
    pub state: Option<String>,
    /// Whether it is a member, or was one when the last run ended well.
    pub member: bool,
}

impl Left {
    fn new(name: &HostName) -> Self {
        Self {
            name: name.clone(),
            roles: Vec::new(),
            address: None,
            seen_by: Vec::new(),
            role: None,
            state: None,
            member: false,
        }
    }

    fn has(&mut self, role: Role) {
        if !self.roles.contains(&role) {
            self.roles.push(role);
            self.roles.sort_unstable();
        }
    }

    fn witnesses(&self) -> String {
        let patroni = format!(
            "Patroni has it as {} ({})",
            self.role.as_deref().unwrap_or("a member"),
            self.state.as_deref().unwrap_or("state unknown")
        );
        let words: Vec<&str> = self
            .seen_by
            .iter()
            .map(|witness| match witness {
                Witness::Patroni => patroni.as_str(),
                Witness::Etcd => "it is in etcd's list of members",
                Witness::Workspace if self.member => "it was there when the last run ended",
                Witness::Workspace => "an earlier run had it",
                Witness::Label => "it has the cluster's label",
            })
            .collect();
        words.join("; ")
    }

    /// Whether the user has named it and pgherd can retire it.
    pub fn may_leave(&self, found: &Found) -> bool {
        found.leaving.include(&self.name)
    }

    /// The entry that puts it back into the inventory.
    fn entry(&self) -> String {
        let address = self.address.map(|address| format!(", address: {address}"));
        let mut roles = self.roles.clone();
        roles.retain(|role| role.service().follows.is_none());
        format!(
            "{}: {{ roles: [{}]{} }}",
            self.name,
            words(&roles),
            address.unwrap_or_default()
        )
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = if self.roles.is_empty() {
            String::new()
        } else {
            format!(" ({})", words(&self.roles))
        };
        let who = if self.member {
            "is a member, and is not in the inventory"
        } else {
            "belongs to the cluster, and is not in the inventory"
        };
        write!(f, "{}{roles} {who}: {}", self.name, self.witnesses())
    }
}

fn words(roles: &[Role]) -> String {
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    words.join(", ")
}

/// Hosts of the cluster that are not in the inventory, from all sources.
///
/// `labelled` are the hosts that the provider has found by their label or tag.
pub fn left(inventory: &Inventory, found: &Found, labelled: &[HostName]) -> Vec<Left> {
    let mut hosts: BTreeMap<HostName, Left> = BTreeMap::new();
    let mut at = |name: &HostName, witness: Witness, tell: &dyn Fn(&mut Left)| {
        if inventory.hosts.contains_key(name) {
            return;
        }
        let left = hosts.entry(name.clone()).or_insert_with(|| Left::new(name));
        if !left.seen_by.contains(&witness) {
            left.seen_by.push(witness);
        }
        tell(left);
    };
    if let Some(keys) = &found.dcs {
        for (name, said) in &keys.members {
            at(&HostName::new(name), Witness::Patroni, &|left| {
                left.has(Role::Postgres);
                left.member = true;
                left.state = text(said, "state");
                left.role = text(said, "role");
                left.address = left.address.or(address_in(said));
                if keys.leader.as_deref() == Some(name) {
                    left.role = Some("leader".into());
                }
            });
        }
        if let Some(leader) = keys.leader.as_deref().filter(|name| !name.is_empty()) {
            at(&HostName::new(leader), Witness::Patroni, &|left| {
                left.has(Role::Postgres);
                left.member = true;
                left.role = Some("leader".into());
            });
        }
    }
    for member in found.stores.values().flat_map(|view| &view.members) {
        if let Some(name) = member.host() {
            at(&HostName::new(name), Witness::Etcd, &|left| {
                left.has(Role::Etcd);
                left.member = true;
            });
        }
    }
    for known in &found.known {
        at(&known.name, Witness::Workspace, &|left| {
            for role in &known.roles {
                left.has(*role);
            }
            // HAProxy is no member, since another host may take its place. It counts as one if it may take the
            // cluster's address.
            let counts = |role: &Role| {
                let Service {
                    follows,
                    is_member,
                    watches,
                    ..
                } = role.service();
                let follows = follows.as_ref().filter(|_| !watches);
                *is_member || follows.is_some_and(|it| inventory.wants(it.when))
            };
            left.member |= known.joined && known.roles.iter().any(counts);
            left.address = left.address.or(known.address);
        });
    }
    for host in labelled {
        at(host, Witness::Label, &|_| {});
    }
    hosts.into_values().collect()
}

fn text(said: &Value, key: &str) -> Option<String> {
    said.get(key)?.as_str().map(str::to_owned)
}

/// The address in a URL that a member has published.
fn address_in(said: &Value) -> Option<Ipv4Addr> {
    let url = said.get("conn_url")?.as_str()?;
    let (_, rest) = url.split_once("://")?;
    rest.split([':', '/']).next()?.parse().ok()
}

/// Members that work or can be elected, and are not declared. etcd's own list is not part of it.
pub fn undeclared(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    let mut findings: Vec<Finding> = left(&cluster.inventory, found, &[])
        .iter()
        .filter(|left| left.member && !left.may_leave(found))
        .map(gone)
        .collect();
    findings.extend(found.elsewhere.iter().filter_map(|(name, still)| {
        let node = cluster.nodes.get(name)?;
        Some(two_of_a_name(node, still))
    }));
    let given = |role: &Role| role.service().follows.is_none();
    findings.extend(taken_off(cluster, found, given));
    findings
}

/// Roles that hosts have and the inventory does not give them, as far as they are `meant`.
fn taken_off(cluster: &Cluster, found: &Found, meant: impl Fn(&Role) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in cluster.nodes.values() {
        for role in Role::ALL.into_iter().filter(&meant) {
            if !node.roles.contains(&role) {
                findings.extend(role_taken_off(cluster, found, node, role));
            }
        }
    }
    findings
}

/// All differences between the members and the inventory.
pub fn findings(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    let mut findings = undeclared(cluster, found);
    // A run takes off such a role without a question, since it has no data and no vote.
    let follows = |role: &Role| role.service().follows.is_some();
    findings.extend(taken_off(cluster, found, follows));
    findings.extend(store::told(cluster, found));
    findings
}

/// Refuses an inventory that would change the members, unless etcd can take the new ones in.
pub fn check(cluster: &Cluster, found: &Found) -> Result<()> {
    let mut of_store = store::findings(cluster, found);
    of_store.extend(etcd_leaves::obstacles(cluster, found));
    refuse(undeclared(cluster, found), of_store)
}

/// The same for verbs that start no etcd. A member of etcd that lost its data must not prevent a switchover while the
/// others are one store.
pub fn check_to_operate(cluster: &Cluster, found: &Found) -> Result<()> {
    refuse(undeclared(cluster, found), store::split_of(cluster, found))
}

/// `of_store` are findings about etcd: a cluster that waits for its etcd may serve all the while, and is not to be
/// removed.
fn refuse(undeclared: Vec<Finding>, of_store: Vec<Finding>) -> Result<()> {
    let is_other_cluster = of_store.is_empty();
    let findings = [undeclared, of_store].concat();
    if findings.is_empty() {
        return Ok(());
    }
    let mut error = Error::new(
        Code::MembershipDiffers,
        "the cluster's members are not those of the inventory",
    );
    let mut whys = BTreeSet::new();
    let mut hints = BTreeSet::new();
    for finding in &findings {
        error = error.cause(finding.what.clone());
    }
    for finding in &findings {
        if whys.insert(finding.why) {
            error = error.cause(finding.why);
        }
    }
    error = error.left("nothing was touched");
    for hint in findings.iter().flat_map(|it| it.instead.lines()) {
        if hints.insert(hint) {
            error = error.hint(hint);
        }
    }
    Err(match is_other_cluster {
        true => error
            .hint("or remove the whole cluster, with every host that belongs to it: pgherd down"),
        false => error,
    })
}

fn gone(left: &Left) -> Finding {
    let mut roles = left.roles.iter().copied();
    let member = roles.find(|role| {
        let service = role.service();
        service.is_member || service.follows.is_some() && !service.watches
    });
    let service = member.unwrap_or(Role::Postgres).service();
    let lost = match service.data {
        Data::Database | Data::Store => ", with its data",
        Data::Kept { .. } | Data::Folder { .. } | Data::Nothing => "",
    };
    let mut instead = format!(
        "to take it out for good{lost}: pgherd up --remove {}; else put it back into the inventory: {}",
        left.name,
        left.entry()
    );
    if left.seen_by == [Witness::Workspace] {
        instead.push_str(&format!(
            " (only if its host will never start again: take {} out of members.json in the workspace)",
            left.name
        ));
    }
    Finding {
        what: left.to_string(),
        why: service.taken_off,
        instead,
    }
}

/// Hosts that are new at their address, with the address at which a member of that name was before.
///
/// Either the host was made anew, or there are two hosts, and the first one still works.
pub fn former(cluster: &Cluster, found: &Found) -> Vec<(HostName, Ipv4Addr)> {
    let mut former = Vec::new();
    for node in cluster.nodes.values() {
        let is_member = node.roles.iter().any(|role| role.service().is_member);
        let facts = found.facts.get(&node.name);
        if !is_member || facts.is_none_or(|facts| is_ours(cluster, facts)) {
            continue;
        }
        let known = found.known.iter().find(|known| known.name == node.name);
        let noted = known.and_then(|known| known.address);
        let said = found.dcs.as_ref().and_then(|keys| {
            let said = keys.members.get(node.name.as_str())?;
            address_in(said)
        });
        let declared = |address: &Ipv4Addr| {
            let is_it = |node: &Node| node.address == Address::Known(*address);
            cluster.nodes.values().any(is_it)
        };
        let addresses: BTreeSet<Ipv4Addr> = [noted, said].into_iter().flatten().collect();
        let others = addresses.into_iter().filter(|it| !declared(it));
        former.extend(others.map(|address| (node.name.clone(), address)));
    }
    former
}

/// The address at which a member answers.
pub fn ports(inventory: &Inventory) -> Vec<u16> {
    let members = services::all().filter(|service| service.is_member);
    let ports = members.flat_map(|service| service.ports);
    ports
        .filter(|port| !port.from.is_empty())
        .map(|port| inventory.port(port.number))
        .collect()
}

fn two_of_a_name(node: &Node, still: &Elsewhere) -> Finding {
    let (name, address) = (&node.name, still.address);
    let ports: Vec<String> = still.ports.iter().map(u16::to_string).collect();
    Finding {
        what: format!(
            "{name} is a new host at {}, and the old one still answers at {address} (port {})",
            node.address,
            ports.join(", ")
        ),
        why: TWICE,
        instead: format!(
            "if {name} is still the host at {address}, restore that address; if another host replaces it, first switch off the one at {address} for good"
        ),
    }
}

/// A role that a host still has and the inventory no longer gives it.
fn role_taken_off(cluster: &Cluster, found: &Found, node: &Node, role: Role) -> Option<Finding> {
    let name = &node.name;
    if found.leaving.include(name) {
        return None;
    }
    let seen = has_role(cluster, found, node, role)?;
    let mut roles = node.roles.clone();
    roles.push(role);
    roles.sort_unstable();
    let mut instead = format!(
        "give it the role again: {name}: {{ roles: [{}] }}",
        words(&roles)
    );
    // An inventory cannot name such a role. A host has it while the key is set.
    if let Some(follows) = &role.service().follows {
        let key = follows.key;
        instead = format!("to take it off: pgherd up; else put {key} back into the inventory");
    } else {
        let lost = match role.service().data {
            Data::Database => "to take its database out of the cluster, with its copy of the data",
            Data::Store => "to take it out of etcd, with its copy of the store",
            Data::Kept { .. } => "to take the role off the host, which keeps its data",
            Data::Folder { .. } | Data::Nothing => "to take the role off the host",
        };
        instead = format!("{lost}: pgherd up --remove {name}; else {instead}");
    }
    Some(Finding {
        what: format!(
            "{name} still has the role {}, which the inventory does not give it: {seen}",
            role.as_str()
        ),
        why: role.service().taken_off,
        instead,
    })
}

/// The list of hosts to keep in the workspace.
///
/// `ended_well`: every declared host is a member now. Until then, a host counts as a member only if pgherd sees that it
/// is one: a mistyped name in the first run must not stop the next run. Hosts that left the inventory stay in the list,
/// for `down`.
pub fn remembered(cluster: &Cluster, found: &Found, ended_well: bool) -> Vec<KnownHost> {
    let whole = was_whole(cluster, found);
    let declared = cluster.nodes.values().map(|node| {
        let before = found.known.iter().find(|known| known.name == node.name);
        let address = match node.address {
            Address::Known(address) => Some(address),
            Address::Pending(_) => before.and_then(|known| known.address),
        };
        let known = KnownHost {
            name: node.name.clone(),
            roles: node.roles.clone(),
            address,
            size: node.size,
            joined: ended_well,
        };
        if ended_well {
            return KnownHost {
                roles: with_given_up(found, node, before),
                ..known
            };
        }
        if let Some(before) = before.filter(|before| before.joined) {
            // It stays a member with its roles, however often a run is interrupted.
            return KnownHost {
                roles: before.roles.clone(),
                joined: true,
                ..known
            };
        }
        let facts = found.facts.get(&node.name);
        let has =
            |role: &Role| facts.is_some_and(|facts| evidence(cluster, facts, *role).is_some());
        KnownHost {
            joined: whole && node.roles.iter().all(has),
            ..known
        }
    });
    let others = found
        .known
        .iter()
        .filter(|known| !cluster.nodes.contains_key(&known.name));
    declared.chain(others.cloned()).collect()
}

/// A host's roles, and those that it gives up in this run: until the machines of other hosts have gone, the same
/// command must know that it took them off.
fn with_given_up(found: &Found, node: &Node, before: Option<&KnownHost>) -> Vec<Role> {
    let named = before.filter(|_| found.leaving.include(&node.name));
    let given_up = named
        .into_iter()
        .flat_map(|known| known.roles.iter().copied())
        .filter(|role| !node.roles.contains(role));
    node.roles.iter().copied().chain(given_up).collect()
}
