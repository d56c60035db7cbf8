//! Checks that each data volume is mounted where PostgreSQL's data is.

use std::collections::BTreeMap;

use super::{Check, Settles};
use crate::{
    cluster::{Cluster, Node},
    facts::{DataMount, Facts},
    inventory::HostName,
};

const NAME: &str = "mount";

/// `None` where no host has a data volume, or is to have one.
pub(super) fn check(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Option<Check> {
    let inventory = &cluster.inventory;
    let at = inventory.mount_point();
    let nodes = cluster.nodes.values();
    let with_one = nodes.clone().filter(|node| node.data_volume.is_some());
    let lacks =
        |node: &&Node| node.data_volume.is_none() && inventory.data_volume(&node.name).is_some();
    let without: Vec<&HostName> = nodes.filter(lacks).map(|node| &node.name).collect();
    if with_one.clone().next().is_none() && without.is_empty() {
        return None;
    }
    let wrong = with_one.filter_map(|node| wrong(node, facts.get(&node.name)?, at));
    let wrong: Vec<String> = wrong.collect();
    let mut right = format!("every data volume is mounted on {at}");
    for host in without {
        right.push_str(&format!(
            "; {host} has none yet, its data is on its root volume: `{}` gives it one",
            inventory.command(&format!("replace {host}"))
        ));
    }
    Some(Check::of(NAME, wrong, right).settles(Settles::Never))
}

fn wrong(node: &Node, facts: &Facts, at: &str) -> Option<String> {
    let volume = node.data_volume.as_ref()?;
    let host = &node.name;
    match &facts.disks.data_mount {
        None => Some(format!(
            "{host}: the data volume {volume} is not mounted on {at}, and PostgreSQL does not start without it; `up` mounts it"
        )),
        Some(DataMount { device, .. }) if facts.disks.is_another_mounted(volume) => Some(format!(
            "{host}: {device} is mounted on {at}, and not the data volume {volume}"
        )),
        Some(DataMount { at_boot: false, .. }) => Some(format!(
            "{host}: the data volume {volume} is not mounted at boot; `up` repairs it"
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        facts::{Disk, Disks},
        inventory::Inventory,
        plan::tests::world::{ONE, World},
    };

    #[test]
    fn each_way_to_lack_a_disk_is_told() {
        let mut cluster = World::settled(ONE).cluster;
        let host = HostName::new("all");
        let of = |mount: Option<(&str, bool)>| {
            let disk = Disk {
                device: "/dev/nvme1n1".into(),
                blank: false,
                bytes: None,
            };
            let disks = Disks {
                data_mount: mount.map(|(device, at_boot)| DataMount {
                    device: device.into(),
                    at_boot,
                    bytes: None,
                }),
                found: [("vol-1".to_owned(), disk)].into(),
                ..Disks::default()
            };
            let facts = Facts {
                disks,
                ..Facts::default()
            };
            BTreeMap::from([(host.clone(), facts)])
        };
        let right = of(Some(("/dev/nvme1n1", true)));
        assert_eq!(check(&cluster, &right), None, "no host has a data volume");
        cluster.nodes[&host].data_volume = Some("vol-1".into());
        assert!(check(&cluster, &right).unwrap().passed);
        for (mount, said) in [
            (None, "vol-1 is not mounted on /data"),
            (Some(("/dev/sdb", true)), "/dev/sdb is mounted on /data"),
            (Some(("/dev/nvme1n1", false)), "not mounted at boot"),
        ] {
            let check = check(&cluster, &of(mount)).unwrap();
            assert!(!check.passed && check.detail.contains(said), "{check:?}");
        }
        // The key came after the host.
        cluster.nodes[&host].data_volume = None;
        let text = "cluster: pg\nprovider: { kind: aws, data_volume_gb: 100 }\nhosts:\n  \
                    all: { roles: [postgres, etcd, haproxy] }\n";
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
        cluster.inventory.provider = inventory.provider;
        let check = check(&cluster, &of(None)).unwrap();
        assert!(
            check.passed && check.detail.contains("replace all"),
            "{check:?}"
        );
    }
}
