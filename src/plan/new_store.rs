//! What changes where etcd's store was lost, and another one takes its place.
//!
//! A running Patroni remembers how far its store has come (the Raft term). All stores of one cluster have the same
//! id, so a new one looks to it like a member that was left behind: it refuses every answer, and no member takes
//! over from a leader that dies. Only a restart makes it forget.

use super::Found;
use crate::{
    cluster::Cluster,
    facts::Facts,
    inventory::Role,
    services::etcd::{HOLD, JOIN},
};

pub(super) const WHY: &str = "etcd lost its data, and a running Patroni trusts no other store";

/// Whether etcd has, or begins, a store to which the Patroni on a host has never written.
///
/// A Patroni with a database has always written its keys. `initialize` and others do not expire, so a member that
/// is only cut off from etcd still has them there.
pub(super) fn is_other(cluster: &Cluster, found: &Found, facts: &Facts) -> bool {
    // PostgreSQL answers, so this is no bootstrap.
    let runs = facts.unit("patroni").is_active() && facts.in_recovery.is_some();
    let known = facts.data_marker.as_ref() == Some(&cluster.secrets.cluster_id);
    runs && known
        && match &found.dcs {
            Some(keys) => keys.is_empty(),
            None => found.stores.is_empty() && all_lost(cluster, found),
        }
}

/// Whether etcd has no data on any of its hosts.
fn all_lost(cluster: &Cluster, found: &Found) -> bool {
    let mut hosts = cluster.with_role(Role::Etcd);
    hosts.all(|node| {
        let facts = found.facts.get(&node.name);
        facts.is_some_and(|facts| !facts.etcd_data)
    })
}

/// What lets etcd begin a store of its own. A member that was once added to a store does not start without its data.
pub(super) fn before_it_begins(facts: &Facts) -> Option<String> {
    let is_held = facts.belongings.there.contains_key(HOLD);
    (is_held && !facts.etcd_data).then(|| format!("rm -f {HOLD} {JOIN}"))
}
