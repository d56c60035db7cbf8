//! Checks that each host is the one that the inventory means.

use std::collections::BTreeMap;

use crate::{
    cluster::Cluster,
    configs::Mark,
    contract::MARKER,
    error::{Code, Error, Result},
    facts::Facts,
    inventory::HostName,
};

/// Refuses hosts that know the cluster by another name, and one host under two names.
pub(crate) fn check(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Result<()> {
    let first = renamed(cluster, facts)
        .or_else(|| twice(facts))
        .or_else(|| data_elsewhere(cluster, facts));
    match first {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The cluster's name is in etcd's data, in Patroni's keys and in the names of folders. With another name, a
/// new store and a second leader would start beside the first.
fn renamed(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Option<Error> {
    let wanted = cluster.name();
    let (host, name) = facts.iter().find_map(|(host, facts)| {
        let mark = Mark::parse(&facts.files.get(MARKER)?.content)?;
        let is_ours = mark.id == cluster.secrets.cluster_id;
        (is_ours && mark.name != wanted).then(|| (host, mark.name.to_owned()))
    })?;
    Some(
        Error::new(
            Code::InventoryContradictsHosts,
            format!("the hosts know this cluster as {name}, and the inventory calls it {wanted}"),
        )
        .cause(format!(
            "{MARKER} on {host} says so, with the id of this workspace"
        ))
        .cause(format!(
            "under the name {wanted}, etcd would begin another store, and there would be two leaders"
        ))
        .left("nothing was touched")
        .hint(format!(
            "pgherd does not rename a cluster. Restore its name: cluster: {name}"
        ))
        .hint(format!(
            "and its workspace, if it was renamed too: .pgherd/{name}"
        )),
    )
}

/// Every step would run on it twice at the same time.
fn twice(facts: &BTreeMap<HostName, Facts>) -> Option<Error> {
    let mut seen = BTreeMap::new();
    let (one, other) = facts.iter().find_map(|(host, facts)| {
        let first = seen.insert(facts.system.as_deref()?, host)?;
        Some((first, host))
    })?;
    Some(
        Error::new(Code::InventoryContradictsHosts, format!("{one} and {other} are the same host"))
            .cause("the same running system answers at both addresses")
            .left("nothing was touched")
            .hint(format!(
                "correct the address of one of them, or give {one} the roles of both and take {other} out of the inventory"
            )),
    )
}

/// With an empty folder, Patroni would count the database as lost, and `down` would leave it there.
fn data_elsewhere(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Option<Error> {
    let (host, dir) = facts.iter().find_map(|(host, facts)| {
        let (dir, id) = facts.data_elsewhere.as_ref()?;
        (*id == cluster.secrets.cluster_id).then_some((host, dir))
    })?;
    let wanted = &cluster.inventory.postgresql.data_dir;
    Some(
        Error::new(
            Code::InventoryContradictsHosts,
            format!("the cluster's data is in {dir}, and the inventory says {wanted}"),
        )
        .on(host)
        .cause("pgherd does not move a database to another folder")
        .left("nothing was touched")
        .hint(format!(
            "put it back into the inventory: postgresql: {{ data_dir: {dir} }}"
        )),
    )
}
