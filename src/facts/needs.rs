//! What a host has of everything that pgherd needs: folders, space, memory, clock, package sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    inventory::{HostName, Inventory},
    services,
    tuning::Size,
};

/// The part of the probe that asks for it.
pub(super) const SCRIPT: &str = include_str!("needs.sh");

/// The ports of a host at which pgherd itself connects to a service.
pub(crate) fn dialled_ports(inventory: &Inventory, host: &HostName) -> Vec<u16> {
    let roles = inventory.hosts.get(host).map_or(&[][..], |it| &it.roles);
    let asked = roles.iter().filter_map(|role| role.service().asked());
    asked.map(|port| inventory.port(port.number)).collect()
}

/// The folders that pgherd creates for files on every host, if needed. Everybody may enter them, and those of
/// services.
const OWN_FOLDERS: [&str; 2] = ["/etc/pgherd", "/etc/pgherd/tls"];
const OTHER_FOLDERS: [&str; 3] = ["/etc/needrestart", "/etc/needrestart/conf.d", VENV];

/// The folder of Patroni's venv.
const VENV: &str = "/opt/patroni";

/// The folders for the files at `paths`.
pub(crate) fn own_folders(paths: &[&str]) -> Vec<&'static str> {
    let holds = |folder: &str| {
        let inside = |path: &&str| {
            let rest = path.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        folder == VENV || paths.iter().any(inside)
    };
    let roles = services::by_rank().into_iter();
    let of_services = roles.flat_map(|role| role.service().folders);
    OWN_FOLDERS
        .iter()
        .chain(of_services)
        .chain(&OTHER_FOLDERS)
        .copied()
        .filter(|folder| holds(folder))
        .collect()
}

/// A folder as it is on the host, with all its parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folder {
    pub owner: String,
    pub group: String,
    pub mode: u32,
    /// It may be something other than a folder.
    pub is_folder: bool,
    /// Whether `postgres` may enter; `None` if that was not asked, or if there is no such user.
    pub passable: Option<bool>,
}

/// The filesystem of a path that exists or will exist; all sizes in KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Space {
    /// The path that was asked for. It need not exist yet.
    pub path: String,
    pub target: String,
    pub kind: String,
    /// Without the reserve for root.
    pub size: u64,
    pub available: u64,
    /// 0 if the filesystem does not count inodes.
    pub inodes: u64,
    pub free_inodes: u64,
    /// The mount options.
    pub options: BTreeSet<String>,
    /// Whether the disk rotates; `None` if the system does not say.
    pub rotates: Option<bool>,
}

/// The host's memory, in KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: Option<u64>,
    /// Whether `total` is also what others have, because a container without a limit sees its machine's memory.
    pub is_shared: bool,
    pub commit_limit: Option<u64>,
    pub committed: Option<u64>,
    limited: bool,
    /// 2 if the system never promises more memory than it has.
    pub overcommit: Option<u8>,
    pub huge_pages: Option<u64>,
    pub huge_page_size: Option<u64>,
}

/// A package server, and the result of an attempt to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `apt` or `python`.
    pub kind: String,
    pub uri: String,
    /// `ok`, `unresolved` or `silent`.
    pub state: String,
}

/// All unknown, until they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// `running`, `degraded`, `starting`, `maintenance`, `stopping`, …
    pub system: String,
    pub folders: BTreeMap<String, Folder>,
    /// A file of `/opt/patroni` that not everybody may read, or that does not belong to root.
    pub venv_closed: Option<String>,
    /// By purpose: `data`, `wal`, `tablespace-…`, `etcd`, `usr`, `state`, `cache`, `log`, `tmp`, `venv`, `etc`.
    pub space: BTreeMap<String, Space>,
    /// How many sessions sshd allows on one connection.
    pub sessions: Option<u32>,
    pub memory: Memory,
    /// Packages that are held and not installed.
    pub held: BTreeSet<String>,
    pub sources: Vec<Source>,
    /// By how many milliseconds the host's clock is ahead of this machine's; negative if it is behind. A
    /// difference that the round trip may explain is not counted.
    pub clock_ahead: Option<i64>,
    /// ssh's message when sshd refused to forward to a port that pgherd needs.
    pub no_forwarding: Option<String>,
}

impl Needs {
    /// What the host has for its services; `None` if that is not known.
    pub fn size(&self, cores: usize) -> Option<Size> {
        let disk = self.space.get("data")?;
        let memory = self.memory.total.filter(|_| !self.memory.is_shared)?;
        Some(Size {
            memory_mib: memory / 1024,
            cores: u64::try_from(cores).ok().filter(|it| *it > 0)?,
            disk_gib: disk.size / 1024 / 1024,
            rotates: disk.rotates,
        })
    }

    /// Reads one line's fields; returns whether it knew them.
    pub(super) fn read(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["system", state] => self.system = (*state).into(),
            ["folder", path, owner, group, mode, kind] => {
                self.folders.insert(
                    (*path).into(),
                    Folder {
                        owner: (*owner).into(),
                        group: (*group).into(),
                        mode: u32::from_str_radix(mode, 8).unwrap_or_default(),
                        is_folder: *kind == "directory",
                        passable: None,
                    },
                );
            }
            ["passable", path, word] => {
                if let Some(folder) = self.folders.get_mut(*path) {
                    folder.passable = Some(*word == "yes");
                }
            }
            ["venv-closed", path] => {
                self.venv_closed = (!path.is_empty()).then(|| (*path).into());
            }
            ["sessions", most] => self.sessions = most.trim().parse().ok(),
            ["space", purpose, path, columns] => {
                if let Some(space) = space(path, columns) {
                    self.space.insert((*purpose).into(), space);
                }
            }
            // Of two mounts at one place, the second hides the first.
            ["mount", target, options, rotates] => {
                let target = unescaped(target);
                let there = self.space.values_mut().filter(|it| it.target == target);
                there.for_each(|it| {
                    it.options = options.split(',').map(str::to_owned).collect();
                    it.rotates = rotates.parse().ok().map(|it: u8| it != 0);
                });
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

    /// Records the host's clock, read between two moments of this machine's clock; all in milliseconds.
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
                let machine = self.total.unwrap_or(u64::MAX);
                self.limited |= limit < machine;
                self.total = Some(machine.min(limit)).filter(|it| *it != u64::MAX);
            }
            "container" => self.is_shared = !self.limited,
            "CommitLimit" => self.commit_limit = number,
            "Committed_AS" => self.committed = number,
            "overcommit" => self.overcommit = value.parse().ok(),
            "HugePages_Total" => self.huge_pages = number,
            "Hugepagesize" => self.huge_page_size = number,
            _ => {}
        }
    }
}

/// A path as the kernel prints it, with blanks and similar characters as `\040`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..3).map(|code| u8::from_str_radix(code, 8));
        if let Some(Ok(byte)) = byte {
            plain.push(byte);
            plain.extend(&part.as_bytes()[3..]);
        } else {
            plain.push(b'\\');
            plain.extend(part.as_bytes());
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// `columns` is a line of `df`: used, available, inodes, free inodes, type, target.
fn space(path: &str, columns: &str) -> Option<Space> {
    // In columns. The last one is a path, which may contain blanks.
    let mut rest = columns.trim();
    let mut next = || {
        let (field, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        (!field.is_empty()).then(|| field.to_owned())
    };
    let mut number = || next().map(|field| field.parse().unwrap_or_default());
    let (used, available) = (number()?, number()?);
    let (inodes, free_inodes) = (number()?, number()?);
    Some(Space {
        path: path.to_owned(),
        size: used + available,
        available,
        inodes,
        free_inodes,
        kind: next()?,
        target: (!rest.is_empty()).then(|| rest.to_owned())?,
        options: BTreeSet::new(),
        rotates: None,
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
        let needs = read(&[
            "system\tdegraded",
            "folder\t/data\troot\troot\t750\tdirectory",
            "passable\t/data\tno",
            "venv-closed\t",
            "space\tdata\t/data/patroni\t  800   200 65536 60000 ext4 /srv/my data",
            "mount\t/\trw\t1",
            "mount\t/srv/my\\040data\tro\t1",
            "mount\t/srv/my\\040data\trw,noexec\t0",
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
        assert!(data.options.contains("noexec") && !data.options.contains("ro"));
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
    fn a_host_has_a_size_once_all_of_it_is_known_and_its_own() {
        let space = "space\tdata\t/data\t8388608 2097152 9 9 ext4 /";
        let mount = "mount\t/\trw\t0";
        let total = "memory\tMemTotal\t4194304";
        let limit = "memory\tcgroup\t2147483648";
        let inside = "memory\tcontainer\t1";
        let size = |lines: &[&str]| read(lines).size(2);
        let whole = Size {
            memory_mib: 4096,
            cores: 2,
            disk_gib: 10,
            rotates: Some(false),
        };
        assert_eq!(size(&[space, mount, total]), Some(whole));
        let limited = Size {
            memory_mib: 2048,
            ..whole
        };
        assert_eq!(size(&[space, mount, total, limit, inside]), Some(limited));
        let no_limit = "memory\tcgroup\t9223372036854771712";
        assert_eq!(size(&[space, mount, total, no_limit, inside]), None);
        assert_eq!(size(&[mount, total]), None, "the disk is unknown");
        assert_eq!(read(&[space, mount, total]).size(0), None);
        let silent = read(&[space, "mount\t/\trw\t", total]).size(2);
        assert_eq!(silent.unwrap().rotates, None);
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

    /// The answer of a host with these files below `/etc/apt`, and `listed` as apt's own list. The host cannot
    /// resolve any name.
    fn sources(files: &[(&str, &str)], listed: &str, pip: &str) -> Vec<Source> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("apt/sources.list.d")).unwrap();
        for (name, text) in files {
            std::fs::write(at("apt").join(name), text).unwrap();
        }
        std::fs::write(at("listed"), listed).unwrap();
        std::fs::create_dir(at("bin")).unwrap();
        let listed = format!("cat {}", at("listed").display());
        for (name, does) in [
            ("apt-get", listed.as_str()),
            ("apt-config", "exit 0"),
            ("dpkg-query", "exit 1"),
            ("getent", "exit 2"),
        ] {
            let program = at("bin").join(name);
            std::fs::write(&program, format!("#!/bin/sh\n{does}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&program, mode).unwrap();
        }
        let apt = at("apt").display().to_string();
        let script = SCRIPT
            .replace("/etc/apt", &apt)
            .replace("/opt/patroni", "/nonesuch")
            .replace("/etc/pip.conf /root/", "/nonesuch /nonesuch/");
        let before = "fact() { k=$1; shift; printf '%s' \"$k\"; for f in \"$@\"; do printf '\\t%s' \"$f\"; done; printf '\\n'; }\n\
                      b64() { base64 -w0; }\nWANTED=postgresql VENV=yes PACKAGES= FOLDERS= NEEDS_DATA= NEEDS_ETCD=\n";
        let path = std::env::var("PATH").unwrap();
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &format!("{before}{script}")])
            .env("PATH", format!("{}:{path}", at("bin").display()))
            .env("PIP_INDEX_URL", pip)
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .env_remove("PIP_PROXY")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let mut needs = Needs::default();
        for line in text.lines() {
            needs.read(&line.split('\t').collect::<Vec<_>>());
        }
        needs
            .sources
            .sort_by(|one, other| (&one.kind, &one.uri).cmp(&(&other.kind, &other.uri)));
        needs.sources
    }

    fn told(sources: &[Source]) -> Vec<String> {
        let told = |it: &Source| format!("{} {} {}", it.kind, it.uri, it.state);
        sources.iter().map(told).collect()
    }

    #[test]
    fn a_password_in_a_source_stays_on_the_host() {
        let listed = "http://me:s3cret@deb.example/debian/\nhttps://me:s3@cret@deb.example:8443/x@y/\n\
                      ftp://me:s3cret@ftp.example/\nhttp://open.example/a@b/\n";
        assert_eq!(
            told(&sources(
                &[],
                listed,
                "https://me:s3cret@python.example/simple"
            )),
            [
                "apt ftp://ftp.example/ ok",
                "apt http://deb.example/debian/ unresolved",
                "apt http://open.example/a@b/ unresolved",
                "apt https://deb.example:8443/x@y/ unresolved",
                "python https://python.example/simple unresolved",
            ]
        );
    }

    /// apt has no index yet, and lists no source.
    #[test]
    fn a_new_hosts_sources_are_those_of_its_files() {
        let list = "# deb http://comment.example/ x main\ndeb http://one.example/debian bookworm main\n\
                    \tdeb  [arch=amd64 signed-by=/a b]\thttp://me:s3cret@two.example/debian bookworm main\n\
                    deb-src http://src.example/ x main\n";
        let stanzas = "Types: deb\nURIs: http://three.example/ubuntu\n https://four.example/ubuntu\nSuites: noble\n\
                       Signed-By:\n -----BEGIN\n http://key.example/\n\n# off\nEnabled: no\nTypes: deb\nURIs: http://off.example/\n";
        let files = [
            ("sources.list", list),
            ("sources.list.d/ubuntu.sources", stanzas),
            (
                "sources.list.d/more.list",
                "deb http://five.example/ x main",
            ),
            (
                "sources.list.d/more.list.save",
                "deb http://six.example/ x main\n",
            ),
        ];
        assert_eq!(
            told(&sources(&files, "", "")),
            [
                "apt http://five.example/ unresolved",
                "apt http://one.example/debian unresolved",
                "apt http://three.example/ubuntu unresolved",
                "apt http://two.example/debian unresolved",
                "apt https://four.example/ubuntu unresolved",
            ]
        );
        let listed = sources(&files, "http://known.example/\n", "");
        assert_eq!(told(&listed), ["apt http://known.example/ unresolved"]);
    }

    /// As in Debian's cloud images.
    #[test]
    fn a_list_of_mirrors_is_followed() {
        let mirrors = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            mirrors.path(),
            "# mirrors\nhttps://cdn.example/debian\tpriority:1\n",
        )
        .unwrap();
        let list = format!(
            "deb mirror+file://{} bookworm main\n",
            mirrors.path().display()
        );
        assert_eq!(
            told(&sources(&[("sources.list", &list)], "", "")),
            ["apt https://cdn.example/debian unresolved"]
        );
    }
}
