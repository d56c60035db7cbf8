//! Rolling work: the turn of one host, whatever is done to it. All verbs that go from host to host walk this way.
//!
//! A leader hands over first. Then the front doors lead no new reads to the member, and wait until those that are under
//! way have ended. After the work the leader must stream to the member again before anything else happens.

use std::time::Duration;

use super::{
    Action, Change, Plan, Step, StepId, read_drain,
    seen::Seen,
    waits::{await_leader, await_streaming},
};
use crate::{
    cluster::Cluster,
    inventory::{HostName, Role},
};

/// How long PostgreSQL may take to stop, start and catch up.
pub(super) const RESTARTING: Duration = Duration::from_secs(600);
/// How long a change of leader may take, in addition to `ttl`.
pub(super) const HANDING_OVER: Duration = Duration::from_secs(60);

/// The order in which hosts take their turn: replicas, etcd, the repository of backups, front doors, and the leader
/// last. Where a host has several roles, the first of these counts.
pub fn order(cluster: &Cluster, leader: Option<&HostName>, hosts: &mut [HostName]) {
    hosts.sort_by_key(|host| {
        let has = |role| {
            let node = cluster.nodes.get(host);
            node.is_some_and(|node| node.roles.contains(&role))
        };
        let place = if leader == Some(host) {
            4
        } else if has(Role::Postgres) {
            0
        } else if has(Role::Etcd) {
            1
        } else if has(Role::Haproxy) {
            3
        } else {
            2
        };
        (place, host.clone())
    });
}

/// A member and its place among the others, when its turn begins.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    cluster: &'a Cluster,
    host: &'a HostName,
    pub leads: bool,
    /// Whether the cluster has other members.
    pub has_others: bool,
    /// The front doors that keep reads away from it.
    doors: &'a [HostName],
}

impl<'a> Turn<'a> {
    pub(super) fn of(seen: &Seen<'a>, host: &'a HostName, doors: &'a [HostName]) -> Self {
        let members = seen.cluster.with_role(Role::Postgres).count();
        Self {
            cluster: seen.cluster,
            host,
            leads: seen.leader() == Some(host),
            has_others: members > 1,
            // Reads need another replica to go to.
            doors: if members > 2 { doors } else { &[] },
        }
    }

    /// Plans the turn; returns the steps after which it is over.
    pub(super) fn plan(
        &self,
        plan: &mut Plan,
        mut after: Vec<StepId>,
        work: impl FnOnce(&mut Plan, Vec<StepId>) -> StepId,
    ) -> Vec<StepId> {
        let host = self.host;
        if self.leads && self.has_others {
            let over = plan.push(Step {
                host: host.clone(),
                name: "hand-over",
                why: "a leader is not restarted while it takes writes".into(),
                after,
                changes: vec![Change::Other("another member becomes the leader".into())],
                action: Action::HandOver,
                limit: HANDING_OVER,
                units: vec!["patroni"],
            });
            after = vec![await_streaming(plan, host, vec![over], RESTARTING)];
        }
        let drained = read_drain::drain(plan, self.cluster, self.doors, host, &after);
        if !drained.is_empty() {
            after = drained;
        }
        let done = work(plan, after);
        if !self.has_others {
            return vec![await_leader(plan, host, vec![done], RESTARTING)];
        }
        let back = vec![await_streaming(plan, host, vec![done], RESTARTING)];
        let let_in = read_drain::let_in(plan, self.cluster, self.doors, host, &back);
        if let_in.is_empty() { back } else { let_in }
    }
}
