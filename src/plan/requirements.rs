//! What a host must offer before anything is changed there.
//!
//! All of it is part of the first observation. So a run that cannot succeed ends before it has changed
//! anything, with every finding of every host. Only what the run still has to do counts: a running cluster is
//! not refused because a disk has filled up since. An unknown fact is no finding.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, belongings::takes_venv, folders, packages};
use crate::{
    cluster::{Cluster, Node},
    error::{Code, Error},
    facts::{self, Facts, Space},
    inventory::{HostName, memory_in_kib},
    remote,
};

/// How many milliseconds a clock may be off. Certificates become valid an hour before they are issued, and ten
/// minutes of that are a reserve for clock adjustments.
const CLOCK_LIMIT: i64 = 50 * 60 * 1000;

const MIB: u64 = 1024;

/// Everything that hosts lack, by host.
pub(crate) fn findings(cluster: &Cluster, found: &Found) -> Vec<Error> {
    let nodes = cluster.nodes.values();
    let judged = nodes.filter_map(|node| Some((node, found.facts.get(&node.name)?)));
    judged
        .flat_map(|(node, facts)| host(cluster, node, facts))
        .collect()
}

/// Whether this machine's clock agrees with the hosts' clocks well enough for certificates.
pub(crate) fn clocks_agree(facts: &BTreeMap<HostName, Facts>) -> bool {
    let mut ahead = facts.values().filter_map(|facts| facts.needs.clock_ahead);
    ahead.all(|ahead| ahead.abs() <= CLOCK_LIMIT)
}

fn host(cluster: &Cluster, node: &Node, facts: &Facts) -> Vec<Error> {
    let missing = packages::missing(cluster, node, facts);
    let venv = takes_venv(cluster, node) && facts.patroni_stamp.is_none();
    let host = Host {
        cluster,
        node,
        facts,
        missing,
        venv,
    };
    let mut findings = Vec::new();
    findings.extend(host.connection());
    findings.extend(host.sessions());
    findings.extend(host.clock());
    findings.extend(host.system());
    findings.extend(host.architecture());
    findings.extend(host.held());
    findings.extend(host.sources());
    findings.extend(host.filesystems());
    findings.extend(host.room());
    findings.extend(host.way_to_data());
    findings.extend(host.memory());
    findings
        .into_iter()
        .map(|error| error.on(&node.name))
        .collect()
}

struct Host<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    facts: &'a Facts,
    /// Packages will be installed.
    missing: Vec<String>,
    /// Patroni's venv will be made.
    venv: bool,
}

impl Host<'_> {
    fn keeps_database(&self) -> bool {
        self.node.roles.iter().any(|role| role.keeps_database())
    }

    fn keeps_store(&self) -> bool {
        self.node.roles.iter().any(|role| role.keeps_store())
    }

    /// Its database does not exist yet.
    fn has_no_database(&self) -> bool {
        let data = self.facts.data.as_ref();
        self.keeps_database() && data.is_none_or(|data| data.entries == 0)
    }

    fn connection(&self) -> Option<Error> {
        let said = self.facts.needs.no_forwarding.as_deref()?;
        Some(remote::no_forwarding(&self.node.name, said))
    }

    /// The run's lease keeps one session open, and its scripts need another.
    fn sessions(&self) -> Option<Error> {
        let sessions = self.facts.needs.sessions?;
        (sessions < 2).then(|| {
            Error::new(
                Code::SshSessionsRefused,
                "sshd opens only one session on a connection, and two are needed",
            )
            .cause(format!("MaxSessions is {sessions} (sshd -T)"))
            .hint("allow more in sshd_config: MaxSessions 10")
        })
    }

    fn clock(&self) -> Option<Error> {
        let ahead = self.facts.needs.clock_ahead?;
        (ahead.abs() > CLOCK_LIMIT).then(|| {
            Error::new(Code::ClockWrong, format!("its clock is {}", off(ahead)))
                .cause("measured against this machine's clock; certificates that are issued here would not be valid there, or end early")
                .hint("set the clock, there or here, and keep it right: timedatectl status; sudo timedatectl set-ntp true")
        })
    }

    fn system(&self) -> Option<Error> {
        let state = self.facts.needs.system.as_str();
        matches!(state, "stopping" | "maintenance" | "offline").then(|| {
            Error::new(Code::RequirementUnmet, format!("its systemd is {state}"))
                .hint("let it start first: systemctl is-system-running")
        })
    }

    fn architecture(&self) -> Option<Error> {
        let arch = self.facts.os.arch.as_str();
        let known = matches!(arch, "" | "x86_64" | "aarch64");
        (!known && self.venv).then(|| {
            Error::new(Code::RequirementUnmet, format!("Patroni from PyPI is not built for its architecture, {arch}"))
                .hint("use hosts of x86_64 or aarch64, or the distribution's Patroni: 'patroni: { source: distro }'")
        })
    }

    fn held(&self) -> Option<Error> {
        let needs = &self.facts.needs;
        let held: Vec<&str> = self
            .missing
            .iter()
            .map(String::as_str)
            .filter(|package| needs.held.contains(*package))
            .collect();
        (!held.is_empty()).then(|| {
            let list = held.join(" ");
            Error::new(
                Code::PackagesHeld,
                format!("apt cannot install {list}: held (apt-mark hold)"),
            )
            .hint(format!(
                "if the hold is no longer needed: sudo apt-mark unhold {list}"
            ))
        })
    }

    /// No server answers. One of several may be down; whether it was needed shows in the download.
    fn sources(&self) -> Vec<Error> {
        let wanted = [
            ("apt", !self.missing.is_empty(), "package source"),
            ("python", self.venv, "index of Python packages"),
        ];
        wanted
            .into_iter()
            .filter(|(_, needed, _)| *needed)
            .filter_map(|(kind, _, called)| {
                let asked: Vec<_> = self.facts.needs.sources.iter().filter(|it| it.kind == kind).collect();
                if asked.is_empty() || asked.iter().any(|source| source.state == "ok") {
                    return None;
                }
                let mut error = Error::new(Code::PackagesUnreachable, format!("no {called} answers"));
                for source in asked {
                    let why = match source.state.as_str() {
                        "unresolved" => "its name cannot be resolved",
                        _ => "no connection within 5 s",
                    };
                    error = error.cause(format!("{}: {why}", source.uri));
                }
                Some(error.hint("check the host's DNS and routes; behind a proxy, configure it for apt and pip (Acquire::http::Proxy, and https_proxy in /etc/environment)"))
            })
            .collect()
    }

    /// Filesystems on which nothing can be written, run, or kept.
    fn filesystems(&self) -> Vec<Error> {
        let mut findings = Vec::new();
        let space = &self.facts.needs.space;
        let has = |space: &Space, option: &str| space.options.contains(option);
        let installs = !self.missing.is_empty();
        let written = [
            ("etc", true),
            ("usr", installs),
            ("state", installs),
            ("venv", self.venv),
            ("data", self.keeps_database()),
            ("etcd", self.keeps_store()),
        ];
        let mut read_only = BTreeSet::new();
        for (purpose, needed) in written {
            let Some(space) = space.get(purpose).filter(|_| needed) else {
                continue;
            };
            if has(space, "ro") && read_only.insert(&space.target) {
                findings.push(
                    Error::new(Code::RequirementUnmet, format!("{} is mounted read-only", space.target))
                        .cause(format!("{} is to be written", space.path))
                        .hint(format!("a filesystem that had an error goes read-only by itself: dmesg; then: sudo mount -o remount,rw {}", space.target)),
                );
            }
            // Memory that was mounted on the data directory itself is intended. A system that lives in memory
            // would lose the data unnoticed.
            let kept = matches!(purpose, "data" | "etcd");
            let meant = std::iter::once(space.path.as_str())
                .chain(folders::above(&space.path))
                .any(|path| path == space.target);
            if kept && !meant && matches!(space.kind.as_str(), "tmpfs" | "ramfs") {
                findings.push(
                    Error::new(
                        Code::RequirementUnmet,
                        format!(
                            "{} would be in memory: {} is a {}",
                            space.path, space.target, space.kind
                        ),
                    )
                    .cause("all data would be gone at the next boot")
                    .hint("mount a disk there, or choose another postgresql.data_dir"),
                );
            }
        }
        for (purpose, needed, what) in [
            (
                "venv",
                takes_venv(self.cluster, self.node),
                "Patroni runs from there",
            ),
            ("state", installs, "dpkg runs the packages' scripts there"),
        ] {
            if let Some(space) = space.get(purpose).filter(|it| needed && has(it, "noexec")) {
                findings.push(
                    Error::new(
                        Code::RequirementUnmet,
                        format!("{} is mounted noexec", space.target),
                    )
                    .cause(format!("{what} ({})", space.path))
                    .hint(format!(
                        "sudo mount -o remount,exec {}, and the same in /etc/fstab",
                        space.target
                    )),
                );
            }
        }
        findings
    }

    /// The space that will be needed on each filesystem, in MiB and inodes. The sizes are those of Debian 12
    /// and Ubuntu 24.04, rounded up.
    fn room(&self) -> Vec<Error> {
        let mut wanted: Vec<(&str, u64, u64)> = Vec::new();
        if !self.missing.is_empty() {
            let usr = if self.missing.iter().any(|it| it.starts_with("postgresql-")) {
                500
            } else {
                150
            };
            wanted.extend([
                ("usr", usr, 10_000),
                ("cache", 200, 500),
                ("state", 100, 2_000),
                // apt checks signatures there.
                ("tmp", 32, 100),
            ]);
        }
        if self.venv {
            wanted.extend([("venv", 150, 5_000), ("tmp", 64, 2_000)]);
        }
        if self.has_no_database() {
            wanted.push(("data", 256, 2_000));
        }
        if self.keeps_store() && !self.facts.etcd_data {
            wanted.push(("etcd", 256, 100));
        }
        let mut sums: BTreeMap<&str, (&Space, u64, u64, Vec<&str>)> = BTreeMap::new();
        for (purpose, mib, inodes) in wanted {
            if let Some(space) = self.facts.needs.space.get(purpose) {
                let sum = sums
                    .entry(&space.target)
                    .or_insert((space, 0, 0, Vec::new()));
                sum.1 += mib;
                sum.2 += inodes;
                sum.3.push(&space.path);
            }
        }
        let mut findings = Vec::new();
        for (target, (space, mib, inodes, paths)) in sums {
            let paths = format!("to come: {}", paths.join(", "));
            if space.available < mib * MIB {
                findings.push(
                    Error::new(
                        Code::DiskFull,
                        format!(
                            "{target} has {} MiB free, and {mib} MiB are needed",
                            space.available / MIB
                        ),
                    )
                    .cause(paths.clone())
                    .hint(format!(
                        "free space: sudo du -xh --max-depth=2 {target} | sort -h | tail"
                    )),
                );
            }
            if space.inodes > 0 && space.free_inodes < inodes {
                findings.push(
                    Error::new(
                        Code::DiskFull,
                        format!(
                            "{target} has {} inodes free, and {inodes} are needed",
                            space.free_inodes
                        ),
                    )
                    .cause(paths)
                    .hint(format!(
                        "many small files fill it: sudo du --inodes -xd 2 {target} | sort -n | tail"
                    )),
                );
            }
        }
        findings
    }

    /// The folders above the data directory, existing or not.
    fn way_to_data(&self) -> Vec<Error> {
        if !self.keeps_database() {
            return Vec::new();
        }
        let dir = self.cluster.inventory.postgresql.data_dir.as_str();
        let found = &self.facts.needs.folders;
        let mut findings = Vec::new();
        for path in std::iter::once(dir).chain(folders::above(dir)) {
            let Some(folder) = found.get(path) else {
                continue;
            };
            if !folder.is_folder {
                findings.push(
                    Error::new(Code::RequirementUnmet, format!("{path} is not a folder"))
                        .cause(format!("the data directory is to be {dir}"))
                        .left("it was not touched")
                        .hint("move it away, or choose another postgresql.data_dir"),
                );
            } else if path != dir
                && folders::blocks(folder)
                && !folders::is_ours(self.cluster, self.facts)
            {
                let Folder { owner, group, mode } = Folder::of(folder);
                findings.push(
                    Error::new(
                        Code::RequirementUnmet,
                        format!("{path} does not let postgres pass ({owner}:{group} {mode:04o})"),
                    )
                    .cause(format!("the data directory is to be {dir}"))
                    .hint(format!(
                        "sudo chmod o+x {path}, or choose another postgresql.data_dir"
                    )),
                );
            }
        }
        findings
    }

    /// Whether PostgreSQL can start with the inventory's `shared_buffers`.
    fn memory(&self) -> Option<Error> {
        if !self.keeps_database() {
            return None;
        }
        let memory = &self.facts.needs.memory;
        let parameters = &self.cluster.inventory.postgresql.parameters;
        let text = parameters
            .get("shared_buffers")
            .map_or("128MB", String::as_str);
        let wanted = memory_in_kib(text, 8)?;
        let mib = |kib: u64| kib / MIB;
        let error = |what: String| {
            Some(
                Error::new(Code::RequirementUnmet, format!("shared_buffers of {text} does not fit: {what}"))
                    .hint("a quarter of the memory is the usual start: postgresql: { parameters: { shared_buffers: … } }"),
            )
        };
        if let Some(total) = memory.total.filter(|total| wanted > total / 10 * 9) {
            return error(format!("the host has {} MiB of memory", mib(total)));
        }
        // The memory that a running PostgreSQL uses counts as used.
        if self.facts.in_recovery.is_some() {
            return None;
        }
        let huge = parameters
            .get("huge_pages")
            .is_some_and(|it| it.eq_ignore_ascii_case("on"));
        if let (true, Some(pages), Some(size)) = (huge, memory.huge_pages, memory.huge_page_size)
            && pages * size < wanted
        {
            return error(format!(
                "huge_pages is on, and the host has {pages} huge pages of {size} kB (vm.nr_hugepages)"
            ));
        }
        if let (Some(2), Some(limit), Some(committed)) =
            (memory.overcommit, memory.commit_limit, memory.committed)
            && limit.saturating_sub(committed) < wanted
        {
            return error(format!(
                "vm.overcommit_memory is 2, and {} MiB can still be given out",
                mib(limit.saturating_sub(committed))
            ));
        }
        None
    }
}

/// A folder as `ls -l` would show it.
struct Folder<'a> {
    owner: &'a str,
    group: &'a str,
    mode: u32,
}

impl<'a> Folder<'a> {
    fn of(found: &'a facts::Folder) -> Self {
        Self {
            owner: &found.owner,
            group: &found.group,
            mode: found.mode,
        }
    }
}

/// How much a clock is off, in words.
pub(crate) fn off(ahead: i64) -> String {
    let way = if ahead < 0 { "behind" } else { "ahead" };
    let tenths = (ahead.abs() + 50) / 100;
    let nearest = |unit: i64| (tenths + unit / 2) / unit;
    match tenths / 10 {
        0..120 => format!("{}.{} s {way}", tenths / 10, tenths % 10),
        120..7200 => format!("{} min {way}", nearest(600)),
        7200..172_800 => format!("{} h {way}", nearest(36_000)),
        _ => format!("{} days {way}", nearest(864_000)),
    }
}
