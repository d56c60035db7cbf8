//! Decides which database leads if a store begins without data: the newest.
//!
//! With etcd's data, Patroni loses all knowledge of who led, how far the members were, and who was synchronous.
//! The first member to register finds no other to compare itself with, and promotes itself, even if another one
//! has commits that it lacks. So if no member accepts writes, the member with the newest database leads before
//! the others start.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    components::{Configured, Turn},
};
use crate::{
    cluster::{Cluster, Node},
    error::{Code, Error, Result},
    facts::{DataFact, Facts},
    inventory::{HostName, Role},
    remote::Script,
    services::postgres::PATRONI,
};

/// The member that must lead before any other one starts; `None` if there is no such choice.
pub(super) fn first<'a>(cluster: &'a Cluster, found: &Found) -> Option<&'a HostName> {
    if found.is_paused() || !is_new(cluster, found) || somebody_takes_writes(found) {
        return None;
    }
    let databases: Vec<(&HostName, &DataFact)> = cluster
        .with_role(Role::Postgres)
        .filter_map(|node| {
            let facts = found.facts.get(&node.name)?;
            Some((&node.name, whole(cluster, facts)?))
        })
        .collect();
    if databases.len() < 2 {
        return None;
    }
    // The first of several equal ones.
    let newest = databases
        .iter()
        .rev()
        .max_by_key(|(_, data)| (data.timeline, data.led, data.position));
    newest.map(|(host, _)| *host)
}

/// Refuses to begin a store while a database that may be the newest cannot be observed.
pub(super) fn check(cluster: &Cluster, found: &Found) -> Result<()> {
    let nodes = || cluster.with_role(Role::Postgres);
    let unseen: Vec<&str> = nodes()
        .filter(|node| !found.facts.contains_key(&node.name))
        .map(|node| node.name.as_str())
        .collect();
    let others = nodes()
        .filter_map(|node| found.facts.get(&node.name))
        .any(|facts| whole(cluster, facts).is_some());
    if unseen.is_empty() || !others || !is_new(cluster, found) || somebody_takes_writes(found) {
        return Ok(());
    }
    let unseen = unseen.join(", ");
    Err(Error::new(
        Code::EtcdDataLost,
        format!("etcd has lost its data, no member takes writes, and {unseen} cannot be reached"),
    )
    .cause("its database may be the newest: if another one led, acknowledged writes would be lost")
    .left("nothing was changed")
    .hint(format!("bring {unseen} back, and run this again")))
}

/// Whether the store is empty, or would be empty when it runs.
fn is_new(cluster: &Cluster, found: &Found) -> bool {
    match &found.dcs {
        Some(keys) => keys.leader.is_none() && keys.initialize.is_none(),
        None => cluster.with_role(Role::Etcd).all(|node| {
            let facts = found.facts.get(&node.name);
            facts.is_some_and(|facts| !facts.etcd_data)
        }),
    }
}

/// Whether a member is known to accept writes, according to PostgreSQL itself.
fn somebody_takes_writes(found: &Found) -> bool {
    leads(found).is_some()
}

/// The host whose PostgreSQL accepts writes, as it says itself.
pub(super) fn leads(found: &Found) -> Option<&HostName> {
    let mut all = found.facts.iter();
    let leader = all.find(|(_, facts)| facts.in_recovery == Some(false));
    leader.map(|(host, _)| host)
}

/// A complete and used database of this cluster.
fn whole<'a>(cluster: &Cluster, facts: &'a Facts) -> Option<&'a DataFact> {
    let ours = facts.data_marker.as_ref() == Some(&cluster.secrets.cluster_id);
    facts
        .data
        .as_ref()
        .filter(|data| ours && data.entries > 0 && !data.is_half_made() && !data.never_started)
}

/// Stops every Patroni except that of `first`, which waits for a store. The others start again when `first`
/// leads. Returns the steps after which a store may begin.
pub(super) fn hold(
    plan: &mut Plan,
    found: &Found,
    first: &HostName,
    databases: &mut [(&Node, Configured)],
) -> Vec<StepId> {
    let mut held = Vec::new();
    for (node, configured) in databases.iter_mut().filter(|(node, _)| node.name != *first) {
        let runs = found
            .facts
            .get(&node.name)
            .is_some_and(|facts| facts.unit("patroni").is_active());
        if !runs {
            continue;
        }
        plan.unchanged
            .retain(|right| right.host != node.name || right.name != PATRONI.start);
        configured.turn = Turn::Start;
        configured.why = format!("it waited until {first} leads, which has the newest database");
        held.push(plan.push(Step {
            host: node.name.clone(),
            name: "hold-patroni",
            why: format!(
                "etcd has lost its data: the first member to register would lead, and {first} has the newest database"
            ),
            after: Vec::new(),
            changes: vec![Change::Unit {
                unit: "patroni",
                verb: "stop",
            }],
            action: Action::Run(
                Script::new()
                    .alone("hold-patroni")
                    .line("systemctl stop patroni"),
            ),
            limit: Duration::from_secs(120),
            units: vec!["patroni"],
        }));
    }
    held
}
