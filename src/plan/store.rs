//! Checks that the inventory's etcd hosts, and no others, are the members of one store.

use std::collections::{BTreeMap, BTreeSet};

pub use super::finding::Finding;
use super::{
    Found,
    etcd_joins::{self, From, Join},
};
use crate::{
    cluster::Cluster,
    facts::DataFact,
    inventory::{HostName, Role},
    services::etcd::{Member, View},
};

/// Why a member that was not added must not start.
const SPLITS: &str = "an etcd that starts before the others have added it makes a store of its own: Patroni follows the store that answers, two leaders take writes, and acknowledged writes are lost";
/// What two stores lead to.
const SPLIT: &str =
    "with more than one store there can be two leaders, and acknowledged writes can be lost";
/// Why the quorum differs from the inventory's.
const VOTES: &str = "a member that is not declared counts in etcd's quorum";

/// The command that adds members.
const TAKE_IN: &str = "let etcd take it in: pgherd up";
const GO_ON: &str = "let a run go on with it: pgherd up";
const AS_BEFORE: &str = "restore the inventory: the same hosts with the role etcd";

fn names(members: &[Member]) -> String {
    let mut names: Vec<&str> = members
        .iter()
        .map(|member| member.host().unwrap_or(member.id.as_str()))
        .collect();
    names.sort_unstable();
    names.join(", ")
}

fn join(hosts: &[&HostName]) -> String {
    let names: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    names.join(", ")
}

/// Reasons why etcd's members cannot become the declared ones.
pub(super) fn findings(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    if found.stores.is_empty() {
        return Vec::from_iter(unasked(cluster, found, &declared(cluster)));
    }
    // Members that are not declared are found together with all other undeclared hosts.
    match two_stores(&found.stores) {
        Some(finding) => vec![finding],
        None => etcd_joins::obstacles(cluster, found),
    }
}

fn declared(cluster: &Cluster) -> Vec<&HostName> {
    let nodes = cluster.with_role(Role::Etcd);
    nodes.map(|node| &node.name).collect()
}

/// Members of different stores, and declared hosts in none, according to those that answer.
pub(super) fn split_of(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    split(&declared(cluster), &found.stores)
}

/// How the members differ from the declared ones, whether or not a run would correct it.
pub(super) fn told(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    if found.stores.is_empty() {
        return findings(cluster, found);
    }
    let mut told = split_of(cluster, found);
    told.extend(learners(&found.stores));
    match etcd_joins::quorum_lost(cluster, found) {
        Some(finding) => told.push(finding),
        None => told.extend(anew(cluster, found)),
    }
    told
}

/// Contradictions between the members' answers, or between these and the inventory.
///
/// Only members that answer are in `stores`.
pub fn differences(declared: &[&HostName], stores: &BTreeMap<HostName, View>) -> Vec<Finding> {
    let mut findings = split(declared, stores);
    findings.extend(others(declared, stores));
    findings.extend(learners(stores));
    findings
}

/// Members that are not declared.
fn others(declared: &[&HostName], stores: &BTreeMap<HostName, View>) -> Option<Finding> {
    let (host, view) = stores.iter().next()?;
    let others: Vec<&str> = view
        .members
        .iter()
        .filter_map(Member::host)
        .filter(|name| !declared.iter().any(|host| host.as_str() == *name))
        .collect();
    (!others.is_empty()).then(|| Finding {
        what: format!(
            "etcd's list has {} (says {host}), to which the inventory does not give the role etcd",
            others.join(", ")
        ),
        why: VOTES,
        instead: AS_BEFORE.into(),
    })
}

/// Members that were added and never got their vote.
fn learners(stores: &BTreeMap<HostName, View>) -> Option<Finding> {
    let (host, view) = stores.iter().next()?;
    let members = view.members.iter().filter(|member| member.is_learner);
    let learners: Vec<Member> = members.cloned().collect();
    (!learners.is_empty()).then(|| Finding {
        what: format!(
            "etcd's member {} is a learner (says {host}): it was added, and has no vote yet",
            names(&learners)
        ),
        why: "a run that takes a member in was interrupted",
        instead: GO_ON.into(),
    })
}

/// Members of more than one store, and declared hosts in none.
fn split(declared: &[&HostName], stores: &BTreeMap<HostName, View>) -> Vec<Finding> {
    match two_stores(stores) {
        Some(finding) => vec![finding],
        None => Vec::from_iter(missing(declared, stores)),
    }
}

/// Members of more than one store.
fn two_stores(stores: &BTreeMap<HostName, View>) -> Option<Finding> {
    // Only the members' ids are compared: a member gets its name at its first start, and URLs change.
    let kinds: BTreeSet<(&str, BTreeSet<&str>)> = stores
        .values()
        .map(|view| {
            let ids = view.members.iter().map(|member| member.id.as_str());
            (view.cluster_id.as_str(), ids.collect())
        })
        .collect();
    if kinds.len() < 2 {
        return None;
    }
    let said: Vec<String> = stores
        .iter()
        .map(|(host, view)| {
            format!(
                "{host} belongs to the store {} with the members {}",
                view.cluster_id,
                names(&view.members)
            )
        })
        .collect();
    Some(Finding {
            what: format!("etcd's members do not belong to one store: {}", said.join("; ")),
            why: SPLIT,
            instead: "keep the store that the cluster began with: on the hosts of another store, run `systemctl disable --now etcd` and move its data away; then remove the role etcd from them in the inventory"
                .into(),
        })
}

/// Declared hosts that are not in the store's list.
fn missing(declared: &[&HostName], stores: &BTreeMap<HostName, View>) -> Option<Finding> {
    let (host, view) = stores.iter().next()?;
    let listed: BTreeSet<&str> = view.members.iter().filter_map(Member::host).collect();
    let missing: Vec<&HostName> = declared
        .iter()
        .filter(|host| !listed.contains(host.as_str()))
        .copied()
        .collect();
    (!missing.is_empty()).then(|| Finding {
        what: format!(
            "the inventory wants etcd on {}; etcd's members are {} (says {host})",
            join(&missing),
            names(&view.members)
        ),
        why: "etcd takes a member in one at a time, which is `up`'s alone",
        instead: format!("{TAKE_IN}; or {AS_BEFORE}"),
    })
}

/// Members that once started and have lost their data: the others wait for members that they know.
fn anew(cluster: &Cluster, found: &Found) -> Option<Finding> {
    let joins = etcd_joins::joins(cluster, found);
    let lost = |join: &&Join<'_>| matches!(join.from, From::Lost { .. });
    let hosts: Vec<&HostName> = joins.iter().filter(lost).map(|it| &it.node.name).collect();
    let (says, _) = found.stores.iter().next()?;
    (!hosts.is_empty()).then(|| Finding {
        instead: TAKE_IN.into(),
        ..lost_of(
            &hosts,
            &format!("{says} has known it as a member since before"),
        )
    })
}

/// The finding about hosts that have lost the data of a store which others still have.
fn lost_of(hosts: &[&HostName], why: &str) -> Finding {
    Finding {
        what: format!(
            "etcd on {} has no data, and {why}: the others would not accept it under its old name",
            join(hosts)
        ),
        why: "a member that lost its data must be removed from etcd's list and added again; the cluster keeps working with the others as long as they are a majority",
        instead: format!(
            "restore the data folder of etcd on {}, if you have a copy",
            join(hosts)
        ),
    }
}

/// The same if no member can be asked: by what is on the hosts, and by the known members.
///
/// If nothing has data and nothing is known, this is the first bring-up. If all of the same members have lost
/// their data, no store is left beside which another could begin.
fn unasked(cluster: &Cluster, found: &Found, declared: &[&HostName]) -> Option<Finding> {
    let mut full = Vec::new();
    let mut empty = Vec::new();
    let mut unseen = Vec::new();
    for host in declared {
        match found.facts.get(*host) {
            Some(facts) if facts.etcd_data => full.push(*host),
            Some(_) => empty.push(*host),
            None => unseen.push(*host),
        }
    }
    if empty.is_empty() {
        return None;
    }
    let known: Vec<&HostName> = found
        .known
        .iter()
        .filter(|known| known.joined && known.roles.contains(&Role::Etcd))
        .map(|known| &known.name)
        .collect();
    if known.is_empty() && !was_whole(cluster, found) {
        return None;
    }
    let newcomers: Vec<&HostName> = empty
        .iter()
        .filter(|host| !known.is_empty() && !known.contains(*host))
        .copied()
        .collect();
    if !newcomers.is_empty() {
        return Some(Finding {
            what: format!(
                "the inventory wants etcd on {}; etcd's members were {} when the last run ended, and none of them answers now",
                join(&newcomers),
                join(&known)
            ),
            why: SPLITS,
            instead: AS_BEFORE.into(),
        });
    }
    // For a cluster without a kept list: hosts of which only the names are known may run etcd.
    let undeclared: Vec<&HostName> = found
        .known
        .iter()
        .filter(|known| known.roles.is_empty() && !cluster.nodes.contains_key(&known.name))
        .map(|known| &known.name)
        .collect();
    if known.is_empty() && full.is_empty() && !undeclared.is_empty() {
        return Some(Finding {
            what: format!(
                "no declared host has data of etcd, and {} left the inventory and may have it",
                join(&undeclared)
            ),
            why: SPLITS,
            instead: AS_BEFORE.into(),
        });
    }
    let rest = [full, unseen].concat();
    if rest.is_empty() {
        return None;
    }
    Some(Finding {
        instead: format!(
            "start etcd on {} first, and run the same again",
            join(&rest)
        ),
        ..lost_of(
            &empty,
            &format!(
                "etcd on {} has its data or cannot be reached, and does not answer",
                join(&rest)
            ),
        )
    })
}

/// Whether a database of this cluster was ever complete on any observed host: then etcd was complete too.
pub(super) fn was_whole(cluster: &Cluster, found: &Found) -> bool {
    let id = &cluster.secrets.cluster_id;
    found.facts.values().any(|facts| {
        facts.data_marker.as_ref() == Some(id)
            && facts
                .data
                .as_ref()
                .is_some_and(|data: &DataFact| data.entries > 0 && !data.is_half_made())
    })
}
