//! What is lost with hosts that leave.

use super::names;
use crate::{
    contract::BACKUPS,
    inventory::{HostName, Place, Role},
};

/// What becomes of the data of a host that leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// This is its folder.
    IsDeleted(&'a str),
    /// They are on this volume, which the next machine of the host gets.
    Stays(&'a str),
}

/// What is lost with a host that has these roles, one line for each.
///
/// `stay` are the databases that stay. `leads` says whether the host is the leader, `goes` whether its machine is
/// removed, and `backups` where they are kept.
pub fn lost(
    roles: &[Role],
    stay: &[&HostName],
    data: Data<'_>,
    leads: bool,
    goes: bool,
    backups: &[Place],
) -> Vec<String> {
    let mut lost = Vec::new();
    if roles.contains(&Role::Postgres) {
        if leads {
            lost.push(
                "it leads: another member takes over first; clients are disconnected, and new ones wait for about 2 s"
                    .to_owned(),
            );
        }
        lost.push(match data {
            Data::Stays(volume) => {
                format!("its data stay on {volume}, which the new machine gets")
            }
            Data::IsDeleted(dir) => format!(
                "its copy of the data in {dir} is deleted; {} stay: {}",
                match stay.len() {
                    0 => "no copies".to_owned(),
                    1 => "1 other copy".to_owned(),
                    count => format!("{count} other copies"),
                },
                names(stay)
            ),
        });
    }
    if roles.contains(&Role::Etcd) {
        lost.push("its copy of etcd's data is deleted".into());
    }
    if roles.contains(&Role::Haproxy) {
        lost.push("clients that connect to its address are refused".into());
    }
    if roles.contains(&Role::Backup) {
        lost.push(match (backups, goes) {
            ([Place::Bucket], _) => "no backup is made until another host has the role; those that are there stay in the bucket".to_owned(),
            ([Place::Disk, Place::Bucket], true) => "no backup is made until another host has the role; those on its disk are deleted, and those in the bucket stay".to_owned(),
            (_, true) => "all backups of the cluster are deleted, and the WAL between them".to_owned(),
            (_, false) => format!("its backups stay in {BACKUPS}, and no new ones are made there"),
        });
    }
    lost
}
