//! Whether a host has a role, whatever the inventory says.

use super::Found;
use crate::{
    cluster::{Cluster, Node},
    configs::Mark,
    contract::{MARKER, etcd_dir},
    facts::Facts,
    inventory::Role,
    services::{Data, etcd::Member},
};

/// What shows that a host has a role, whatever the inventory gives it.
pub(super) fn has_role(
    cluster: &Cluster,
    found: &Found,
    node: &Node,
    role: Role,
) -> Option<String> {
    let name = &node.name;
    let in_dcs = role == Role::Postgres
        && found
            .dcs
            .as_ref()
            .is_some_and(|keys| keys.members.contains_key(name.as_str()));
    let listed = |member: &Member| member.host() == Some(name.as_str());
    let in_store = role == Role::Etcd
        && found
            .stores
            .values()
            .any(|view| view.members.iter().any(listed));
    match found.facts.get(name) {
        _ if in_store => Some("it is in etcd's list of members".to_owned()),
        _ if in_dcs => Some("Patroni has it as a member".to_owned()),
        Some(facts) => evidence(cluster, facts, role),
        // It cannot be looked at: what the last run left there is there.
        None => found
            .known
            .iter()
            .any(|known| known.name == *name && known.joined && known.roles.contains(&role))
            .then(|| "it had it when the last run ended, and cannot be reached".to_owned()),
    }
}

/// What shows that a host has a role in this cluster.
pub(super) fn evidence(cluster: &Cluster, facts: &Facts, role: Role) -> Option<String> {
    let id = &cluster.secrets.cluster_id;
    let marker = facts.files.get(MARKER);
    if !marker.is_some_and(|marker| Mark::names(&marker.content, id)) {
        return None;
    }
    let service = role.service();
    match service.data {
        Data::Database => (facts.data_marker.as_ref() == Some(id)
            && facts.data.as_ref().is_some_and(|data| data.entries > 0))
        .then(|| {
            let dir = &cluster.inventory.postgresql.data_dir;
            format!("a database of this cluster is in {dir}")
        }),
        Data::Store => facts
            .etcd_data
            .then(|| format!("etcd's data is in {}", etcd_dir(cluster.name()))),
        // Somebody else's HAProxy may be at work on a host that pgherd has only put etcd on.
        Data::Folder { .. } | Data::Kept { .. } | Data::Nothing => {
            (facts.unit(role.unit()).is_active()
                && service
                    .mark()
                    .is_some_and(|mark| facts.files.contains_key(mark)))
            .then(|| format!("the cluster's {} runs there", service.title))
        }
    }
}
