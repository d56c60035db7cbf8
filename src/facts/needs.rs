//! What a host offers of what pgherd needs of one: folders, space, memory, clock, package sources.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    cluster::{ETCD_CLIENT_PORT, PATRONI_PORT},
    inventory::{HostName, Inventory, Role},
};

/// The probe's part that asks for it.
pub(super) const SCRIPT: &str = include_str!("needs.sh");

/// The ports of a host that pgherd itself asks something.
pub(crate) fn dialled_ports(inventory: &Inventory, host: &HostName) -> Vec<u16> {
    let roles = inventory.hosts.get(host).map_or(&[][..], |it| &it.roles);
    let port = |role: &Role| match role {
        Role::Postgres => PATRONI_PORT,
        Role::Etcd => ETCD_CLIENT_PORT,
        Role::Haproxy => inventory.haproxy.stats_port,
    };
    roles.iter().map(port).collect()
}

/// The folders that pgherd makes for files, where it makes them; everybody may look into them.
const OWN_FOLDERS: &[&str] = &[
    "/etc/pgherd",
    "/etc/pgherd/tls",
    "/etc/pgherd/tls/etcd",
    "/etc/pgherd/tls/postgres",
    "/etc/pgherd/tls/haproxy",
    "/etc/needrestart",
    "/etc/needrestart/conf.d",
    "/etc/postgresql-common",
    "/etc/postgresql-common/createcluster.d",
    "/etc/systemd/system/etcd.service.d",
    "/etc/systemd/system/haproxy.service.d",
    "/opt/patroni",
];

/// Those of a host that has the files `paths`.
pub(crate) fn own_folders(paths: &[&str]) -> Vec<&'static str> {
    let holds = |folder: &str| {
        let inside = |path: &&str| {
            let rest = path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        folder == "/opt/patroni" || paths.iter().any(inside)
    };
    OWN_FOLDERS
        .iter()
        .copied()
        .filter(|folder| holds(folder))
        .collect()
}

/// A folder as it is on the host; with it, every folder that it lies in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    pub owner: String,
    pub group: String,
    pub mode: u32,
    /// What is there may be something else.
    pub is_folder: bool,
    /// Whether `postgres` may pass through; `None` where that was not asked, or there is no such user.
    pub passable: Option<bool>,
}

/// The filesystem that something lies on, or would lie on; all sizes in KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// What was asked for, a path that need not be there yet.
    pub path: String,
    pub target: String,
    pub kind: String,
    /// Without what the filesystem keeps for root.
    pub size: u64,
    pub available: u64,
    /// 0 where the filesystem does not count inodes.
    pub inodes: u64,
    pub free_inodes: u64,
    /// The mount options.
    pub options: BTreeSet<String>,
}

/// The host's memory, in KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: Option<u64>,
    pub commit_limit: Option<u64>,
    pub committed: Option<u64>,
    /// 2 where nothing is given out that might not be there.
    pub overcommit: Option<u8>,
    pub huge_pages: Option<u64>,
    pub huge_page_size: Option<u64>,
}

/// A server of packages, and what became of a try to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `apt` or `python`.
    pub kind: String,
    pub uri: String,
    /// `ok`, `unresolved` or `silent`.
    pub state: String,
}

/// Unknown, all of it, until it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// `running`, `degraded`, `starting`, `maintenance`, `stopping`, …
    pub system: String,
    pub folders: BTreeMap<String, Folder>,
    /// A file of `/opt/patroni` that others may not read, or that is not root's.
    pub venv_closed: Option<String>,
    /// By what lies there: `data`, `wal`, `etcd`, `usr`, `state`, `cache`, `log`, `venv`, `etc`.
    pub space: BTreeMap<String, Space>,
    pub memory: Memory,
    /// Packages that are held and not installed.
    pub held: BTreeSet<String>,
    pub sources: Vec<Source>,
    /// By how much the host's clock is ahead of this machine's, in milliseconds; less than 0 where it
    /// is behind. What the round trip may explain is not counted.
    pub clock_ahead: Option<i64>,
    /// What ssh said when sshd refused to lead to a port that pgherd needs.
    pub no_forwarding: Option<String>,
}

impl Needs {
    /// Takes one line's fields; whether it knew them.
    pub(super) fn read(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["system", state] => self.system = (*state).into(),
            ["folder", path, owner, group, mode, kind, passable] => {
                self.folders.insert(
                    (*path).into(),
                    Folder {
                        owner: (*owner).into(),
                        group: (*group).into(),
                        mode: u32::from_str_radix(mode, 8).unwrap_or_default(),
                        is_folder: *kind == "directory",
                        passable: match *passable {
                            "yes" => Some(true),
                            "no" => Some(false),
                            _ => None,
                        },
                    },
                );
            }
            ["venv-closed", path] => {
                self.venv_closed = (!path.is_empty()).then(|| (*path).into());
            }
            ["space", purpose, path, numbers, options] => {
                if let Some(space) = space(path, numbers, options) {
                    self.space.insert((*purpose).into(), space);
                }
            }
            ["memory", what, value] => self.memory.read(what, value),
            ["held", "hold", package, status] if *status != "installed" => {
                self.held.insert((*package).into());
            }
            ["source", kind, uri, state] => self.sources.push(Source {
                kind: (*kind).into(),
                uri: (*uri).into(),
                state: (*state).into(),
            }),
            _ => return false,
        }
        true
    }

    /// Notes what the host's clock said between two moments of this machine's; all in milliseconds.
    pub(crate) fn note_clock(&mut self, host: i64, before: i64, after: i64) {
        self.clock_ahead = Some(if host < before {
            host - before
        } else {
            (host - after).max(0)
        });
    }
}

impl Memory {
    fn read(&mut self, what: &str, value: &str) {
        let number: Option<u64> = value.parse().ok();
        match what {
            "MemTotal" => self.total = self.total.or(Some(u64::MAX)).min(number),
            // Bytes, or `max`.
            "cgroup" => {
                let limit = number.map_or(u64::MAX, |bytes| bytes / 1024);
                self.total =
                    Some(self.total.unwrap_or(u64::MAX).min(limit)).filter(|it| *it != u64::MAX);
            }
            "CommitLimit" => self.commit_limit = number,
            "Committed_AS" => self.committed = number,
            "overcommit" => self.overcommit = value.parse().ok(),
            "HugePages_Total" => self.huge_pages = number,
            "Hugepagesize" => self.huge_page_size = number,
            _ => {}
        }
    }
}

/// `numbers` is a line of `df`, in base64: used, available, inodes, free inodes, type, target.
fn space(path: &str, numbers: &str, options: &str) -> Option<Space> {
    let line = BASE64_STANDARD.decode(numbers).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut fields = line.trim().splitn(6, ' ');
    let mut number = || fields.next().map(|field| field.parse().unwrap_or_default());
    let (used, available) = (number()?, number()?);
    let (inodes, free_inodes) = (number()?, number()?);
    Some(Space {
        path: path.to_owned(),
        size: used + available,
        available,
        inodes,
        free_inodes,
        kind: fields.next()?.to_owned(),
        target: fields.next()?.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Needs {
        let mut needs = Needs::default();
        for line in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            assert!(needs.read(&fields), "{line}");
        }
        needs
    }

    #[test]
    fn a_hosts_offer_is_read() {
        let line = BASE64_STANDARD.encode("800 200 65536 60000 ext4 /srv/my data");
        let needs = read(&[
            "system\tdegraded",
            "folder\t/data\troot\troot\t750\tdirectory\tno",
            "venv-closed\t",
            &format!("space\tdata\t/data/patroni\t{line}\trw,noexec"),
            "memory\tMemTotal\t2048",
            "memory\tcgroup\tmax",
            "held\thold\tpostgresql-15\tnot-installed",
            "source\tapt\thttp://deb.example/debian/\tsilent",
        ]);
        assert_eq!(needs.folders["/data"].mode, 0o750);
        assert_eq!(needs.folders["/data"].passable, Some(false));
        assert_eq!(needs.venv_closed, None);
        let data = &needs.space["data"];
        assert_eq!(
            (data.size, data.available, data.free_inodes),
            (1000, 200, 60000)
        );
        assert_eq!(
            (data.target.as_str(), data.kind.as_str()),
            ("/srv/my data", "ext4")
        );
        assert!(data.options.contains("noexec"));
        assert_eq!(needs.memory.total, Some(2048));
        assert!(needs.held.contains("postgresql-15"));
        assert_eq!(needs.sources[0].state, "silent");
    }

    #[test]
    fn a_limit_of_the_container_is_the_hosts_memory() {
        let needs = read(&["memory\tMemTotal\t2048", "memory\tcgroup\t1048576"]);
        assert_eq!(needs.memory.total, Some(1024));
    }

    #[test]
    fn what_the_round_trip_may_explain_is_no_skew() {
        let ahead = |host, before, after| {
            let mut needs = Needs::default();
            needs.note_clock(host, before, after);
            needs.clock_ahead.unwrap()
        };
        assert_eq!(ahead(1_500, 1_000, 2_000), 0);
        assert_eq!(ahead(9_000, 1_000, 2_000), 7_000);
        assert_eq!(ahead(400, 1_000, 2_000), -600);
    }
}
