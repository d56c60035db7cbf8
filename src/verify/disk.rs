//! Checks that the filesystems of the cluster have free space.
//!
//! PostgreSQL stops when it cannot write its WAL, and etcd refuses all writes when it has no space. So this
//! must be reported while there is still time.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use crate::{
    cluster::Cluster,
    facts::{Facts, Space},
    inventory::HostName,
};

/// A filesystem is nearly full with less than a tenth free, unless this much is still free (in KiB).
const PLENTY: u64 = 20 * 1024 * 1024;
/// Any filesystem is nearly full with less than this (in KiB): four files of WAL.
const LEAST: u64 = 64 * 1024;

/// The folders that the cluster writes to, with their names.
const WRITTEN: [(&str, &str); 4] = [
    ("data", "the data directory"),
    ("wal", "the WAL"),
    ("etcd", "etcd's data"),
    ("log", "the logs"),
];

/// A filesystem of a host that the cluster writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub(crate) host: HostName,
    /// Where it is mounted.
    pub(crate) target: String,
    /// What the cluster has on it.
    pub(crate) holds: &'static str,
    pub(crate) used_percent: u64,
    pub(crate) free_mib: u64,
    /// What is scarce, if it is nearly full.
    lack: Option<String>,
}

impl Filesystem {
    /// A sentence about it if it is nearly full.
    pub(crate) fn nearly_full(&self) -> Option<String> {
        let lack = self.lack.as_ref()?;
        Some(format!(
            "{} on {} is nearly full ({lack}); it holds {}",
            self.target, self.host, self.holds
        ))
    }
}

/// The filesystems that hosts have told of, each once; and what a host should have told of and has not.
pub(crate) fn filesystems(
    cluster: &Cluster,
    facts: &BTreeMap<HostName, Facts>,
) -> (Vec<Filesystem>, Vec<String>) {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for node in cluster.nodes.values() {
        let host = &node.name;
        let mut told = BTreeSet::new();
        let spaces = facts.get(host).map(|facts| &facts.needs.space);
        let mut there: Vec<(&Space, &'static str)> = Vec::new();
        for (purpose, called) in WRITTEN {
            let needed = match purpose {
                "data" => node.roles.iter().any(|role| role.keeps_database()),
                "etcd" => node.roles.iter().any(|role| role.keeps_store()),
                // The WAL is with the data, unless somebody has moved it.
                "wal" => false,
                _ => true,
            };
            let space = spaces.and_then(|spaces| spaces.get(purpose));
            match space.filter(|space| space.size > 0) {
                Some(space) => there.push((space, called)),
                None if needed => unknown.push(format!(
                    "df did not say how full the disk with {called} on {host} is"
                )),
                None => {}
            }
        }
        let tablespaces = spaces.into_iter().flatten();
        there.extend(
            tablespaces
                .filter(|(purpose, space)| purpose.starts_with("tablespace-") && space.size > 0)
                .map(|(_, space)| (space, "a tablespace")),
        );
        there.retain(|(space, _)| told.insert(&space.target));
        found.extend(there.into_iter().map(|(space, holds)| Filesystem {
            host: host.clone(),
            target: space.target.clone(),
            holds,
            used_percent: used(space),
            free_mib: space.available / 1024,
            lack: lack(space),
        }));
    }
    (found, unknown)
}

pub(super) fn disk(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Check {
    let (found, mut wrong) = filesystems(cluster, facts);
    wrong.extend(found.iter().filter_map(Filesystem::nearly_full));
    // Of several, the first one.
    let fullest = found.iter().rev().max_by_key(|it| it.used_percent);
    let right = match fullest {
        Some(it) => format!(
            "there is enough space; the fullest filesystem is {} on {}, {} %",
            it.target, it.host, it.used_percent
        ),
        None => String::new(),
    };
    Check::of("disk", wrong, right)
}

/// In percent.
fn used(space: &Space) -> u64 {
    100 - space.available.min(space.size) * 100 / space.size.max(1)
}

fn lack(space: &Space) -> Option<String> {
    let Space {
        size,
        available,
        inodes,
        free_inodes,
        ..
    } = *space;
    if available < LEAST || (available < size / 10 && available < PLENTY) {
        return Some(format!("{} %, {} MiB free", used(space), available / 1024));
    }
    (inodes > 0 && free_inodes < inodes / 20)
        .then(|| format!("{free_inodes} of {inodes} inodes free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::plan::tests::world::{ONE, cluster};

    const GIB: u64 = 1024 * 1024;

    fn space(target: &str, size: u64, available: u64, inodes: (u64, u64)) -> Space {
        Space {
            target: target.into(),
            size,
            available,
            inodes: inodes.0,
            free_inodes: inodes.1,
            ..Space::default()
        }
    }

    /// One host with much space, except where the test says otherwise.
    fn of(facts: Facts) -> Check {
        let facts = BTreeMap::from([(HostName::new("all"), facts)]);
        disk(&cluster("", ONE), &facts)
    }

    fn roomy() -> Facts {
        let mut facts = Facts::default();
        for purpose in ["data", "etcd", "log"] {
            let plenty = space("/", 100 * GIB, 90 * GIB, (1000, 900));
            facts.needs.space.insert(purpose.into(), plenty);
        }
        facts
    }

    fn judged(purpose: &str, size: u64, available: u64, inodes: (u64, u64)) -> Check {
        let mut facts = roomy();
        let space = space("/data", size, available, inodes);
        facts.needs.space.insert(purpose.into(), space);
        of(facts)
    }

    #[test]
    fn what_was_not_measured_is_not_taken_for_enough() {
        assert!(of(roomy()).passed);
        for (purpose, called) in [
            ("data", "the data directory"),
            ("etcd", "etcd's data"),
            ("log", "the logs"),
        ] {
            let mut facts = roomy();
            facts.needs.space.remove(purpose);
            let check = of(facts.clone());
            assert!(
                !check.passed && check.detail.contains(&format!("{called} on all")),
                "{}",
                check.detail
            );
            // A value of `df` that is no number.
            let unread = space("/x", 0, 0, (0, 0));
            facts.needs.space.insert(purpose.into(), unread);
            assert!(!of(facts).passed, "{purpose}");
        }
        assert!(!disk(&cluster("", ONE), &BTreeMap::new()).passed);
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_named_with_what_is_on_it() {
        let plenty = (1000, 900);
        let table = [
            ("data", 100 * GIB, 50 * GIB, plenty, None),
            (
                "data",
                100 * GIB,
                9 * GIB,
                plenty,
                Some("it holds the data directory"),
            ),
            ("wal", 10 * GIB, GIB / 2, plenty, Some("95 %, 512 MiB free")),
            ("etcd", 100 * GIB, 0, plenty, Some("etcd's data")),
            (
                "tablespace-16384",
                100 * GIB,
                GIB,
                plenty,
                Some("it holds a tablespace"),
            ),
            // A tenth of a large filesystem is much.
            ("data", 1000 * GIB, 50 * GIB, plenty, None),
            ("data", GIB / 2, 200 * 1024, plenty, None),
            ("data", GIB / 2, 60 * 1024, plenty, Some("60 MiB free")),
            (
                "data",
                100 * GIB,
                50 * GIB,
                (1000, 10),
                Some("10 of 1000 inodes free"),
            ),
            // btrfs counts no inodes.
            ("data", 100 * GIB, 50 * GIB, (0, 0), None),
        ];
        for (purpose, size, available, inodes, says) in table {
            let check = judged(purpose, size, available, inodes);
            assert_eq!(
                check.passed,
                says.is_none(),
                "{size} {available} {}",
                check.detail
            );
            assert!(
                check
                    .detail
                    .contains(says.unwrap_or("there is enough space")),
                "{}",
                check.detail
            );
        }
    }
}
