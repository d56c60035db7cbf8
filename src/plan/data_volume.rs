//! Mounts a host's data volume before anything is written where the database belongs.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId};
use crate::{
    cluster::{Cluster, Node},
    facts::Facts,
    remote::{Script, quote},
};

/// The step that formats and mounts a data volume.
pub(super) const MOUNT: &str = "mount-data";

const SCRIPT: &str = include_str!("mount_data.sh");

/// Whether a volume that is not mounted may have a database. What the cluster needs can be told only once it is
/// mounted and read.
pub(super) fn is_unread(cluster: &Cluster, found: &Found) -> bool {
    cluster.nodes.values().any(|node| {
        let facts = found.facts.get(&node.name).zip(node.data_volume.as_ref());
        facts.is_some_and(|(facts, volume)| {
            facts.disks.data_mount.is_none() && !facts.disks.is_blank(volume)
        })
    })
}

/// Plans that a host's data volume is mounted. The user postgres exists after `after`.
pub(super) fn mount(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    after: Vec<StepId>,
) -> Option<StepId> {
    let volume = node.data_volume.as_ref()?;
    let at = cluster.inventory.mount_point();
    let disks = &facts.disks;
    let grows = disks.can_grow_to(volume);
    let what = match &disks.data_mount {
        Some(_) if disks.is_another_mounted(volume) => {
            format!("{volume} is mounted on {at}, in place of another disk")
        }
        Some(mount) if mount.at_boot && grows.is_some() => {
            let gib = grows.unwrap_or_default() >> 30;
            format!("the file system on {volume} grows to {gib} GiB, while it is in use")
        }
        Some(mount) if mount.at_boot => {
            plan.skip(&node.name, MOUNT, format!("{volume} is mounted on {at}"));
            return None;
        }
        Some(_) => format!("{volume} is mounted on {at} at each boot"),
        None if disks.is_blank(volume) => {
            format!("{volume} is formatted (ext4) and mounted on {at}")
        }
        None => format!("{volume} is mounted on {at}"),
    };
    let script = Script::new()
        .alone(MOUNT)
        .line(format!("HOST={}", node.name))
        .line(format!("VOLUME={}", quote(volume)))
        .line(format!("MOUNT_POINT={}", quote(at)))
        .line(format!(
            "DATA_DIR={}",
            quote(&cluster.inventory.postgresql.data_dir)
        ))
        .line(format!("CLUSTER_ID={}", quote(&cluster.secrets.cluster_id)))
        .line(SCRIPT);
    Some(plan.push(Step {
        host: node.name.clone(),
        name: MOUNT,
        why: "the database belongs on its data volume".into(),
        after,
        changes: vec![Change::Other(what)],
        action: Action::Run(script),
        limit: Duration::from_secs(300),
        units: Vec::new(),
    }))
}

/// What a script begins with that writes where the database belongs: without its disk, it ends.
pub(super) fn only_if_mounted(cluster: &Cluster, node: &Node) -> Option<String> {
    let volume = node.data_volume.as_ref()?;
    let at = cluster.inventory.mount_point();
    let said = format!("the data volume {volume} is not mounted on {at}");
    Some(format!(
        "mountpoint -q {} || {{ echo {} >&2; exit 1; }}\n",
        quote(at),
        quote(&said)
    ))
}
