//! Restarts members one at a time, in an order that keeps a member accepting writes.

use std::time::Duration;

use super::{
    Action, Change, Condition, Found, Plan, Step, StepId,
    components::{self, Configured, Turn},
    haproxy_hold,
    waits::{COPYING, FORMING, await_leader, await_streaming},
};
use crate::{
    cluster::{Cluster, Node},
    inventory::Role,
};

/// Replaces Patroni on each host for which etcd's addresses have changed, one host at a time.
///
/// Replicas first, unless none of the etcd hosts that the members know is left. In that case the leader goes on
/// only because all members confirm it (`failsafe_mode`), so none of them may be away before it has its lock
/// again.
///
/// A primary without the lock, whose Patroni has an unknown config loaded, may be unable to get the lock. Its
/// Patroni is replaced here, before any step waits for a leader, and is restarted later in its turn anyway.
pub(super) fn restart_patroni_in_turn(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    databases: &[(&Node, Configured)],
    leader: Option<&str>,
    dcs_ready: &[StepId],
) -> Vec<StepId> {
    let locked = found.dcs.as_ref().is_some_and(|keys| keys.leader.is_some());
    let mut waiting: Vec<&(&Node, Configured)> = databases
        .iter()
        .filter(|(node, configured)| {
            let leads = Some(node.name.as_str()) == leader;
            configured.turn == Turn::RestartPatroniAlone
                || (leads && !locked && configured.turn == Turn::Restart && configured.unheard)
        })
        .collect();
    let lost = waiting.iter().any(|(_, configured)| configured.told.lost);
    waiting.sort_by_key(|(node, _)| (Some(node.name.as_str()) == leader) != lost);
    let mut last: Vec<StepId> = Vec::new();
    for (node, configured) in waiting {
        let mut before = last.clone();
        before.extend(dcs_ready);
        if remembered_elsewhere(found, node) {
            let mut after = before.clone();
            after.extend(&configured.ready);
            before.push(forget(plan, node, after));
        }
        let leads = Some(node.name.as_str()) == leader;
        if leads {
            before.extend(&configured.ready);
            before.extend(haproxy_hold::hold(plan, cluster, found, node, &before));
        }
        let alone = Configured {
            turn: Turn::RestartPatroniAlone,
            ..configured.clone()
        };
        let Some(step) = components::run_unit(plan, node, Role::Postgres, &alone, &before) else {
            continue;
        };
        last = vec![plan.push(Step {
            host: node.name.clone(),
            name: "await-member",
            why: "the DCS must have it again before the next one restarts".into(),
            after: vec![step],
            changes: Vec::new(),
            action: Action::Await(Condition::Ready(Role::Postgres)),
            limit: Duration::from_secs(60),
            units: vec!["patroni"],
        })];
        if leads {
            let released = haproxy_hold::release(plan, cluster, found, node, &last);
            if !released.is_empty() {
                last = released;
            }
        }
    }
    last
}

/// Whether the DCS has, or may have, a member with an address that it no longer has.
fn remembered_elsewhere(found: &Found, node: &Node) -> bool {
    let address = format!("://{}:", node.address);
    let Some(keys) = &found.dcs else {
        return true;
    };
    let known = keys.members.get(node.name.as_str());
    known
        .and_then(|member| member["conn_url"].as_str())
        .is_some_and(|url| !url.contains(&address))
}

/// A Patroni that starts first contacts the member with its own name. At an address that is gone, this takes
/// six seconds.
fn forget(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "forget-member",
        why: "the DCS may have an address for it that does not answer".into(),
        after,
        changes: vec![Change::Other(format!(
            "the entry of {} in the DCS, until its Patroni writes it again",
            node.name
        ))],
        action: Action::ForgetMember,
        limit: Duration::from_secs(10),
        units: vec!["etcd"],
    })
}

/// Restarts Patroni where nothing less is enough: replicas first, one at a time, and the leader last, after a
/// hand-over. Members in `not` are left out, because they could not stream afterwards.
pub(super) fn restart_in_turn(
    plan: &mut Plan,
    databases: &[(&Node, Configured)],
    leader: Option<&str>,
    not: &[&str],
    settled: &mut Vec<StepId>,
) {
    let mut restarts: Vec<&(&Node, Configured)> = databases
        .iter()
        .filter(|(node, configured)| {
            configured.turn == Turn::Restart && !not.contains(&node.name.as_str())
        })
        .collect();
    restarts.sort_by_key(|(node, _)| Some(node.name.as_str()) == leader);
    for (node, configured) in restarts {
        if Some(node.name.as_str()) == leader && databases.len() > 1 {
            let mut after = settled.clone();
            after.extend(&configured.ready);
            *settled = vec![plan.push(Step {
                host: node.name.clone(),
                name: "hand-over",
                why: "a leader is not restarted while it takes writes".into(),
                after,
                changes: vec![Change::Other("another member becomes the leader".into())],
                action: Action::HandOver,
                limit: Duration::from_secs(60),
                units: vec!["patroni"],
            })];
        }
        if let Some(step) = components::run_unit(plan, node, Role::Postgres, configured, settled) {
            *settled = vec![if databases.len() > 1 {
                await_streaming(plan, &node.name, vec![step], COPYING)
            } else {
                await_leader(plan, &node.name, vec![step], FORMING)
            }];
        }
    }
}
