//! What a host has of what pgherd needs: folders, space, memory, clock, package sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    inventory::{HostName, Inventory},
    services,
};

/// The probe's part that asks for it.
pub(super) const SCRIPT: &str = include_str!("needs.sh");

/// The ports of a host that pgherd itself asks something.
pub(crate) fn dialled_ports(inventory: &Inventory, host: &HostName) -> Vec<u16> {
    let roles = inventory.hosts.get(host).map_or(&[][..], |it| &it.roles);
    let asked = roles.iter().filter_map(|role| role.service().asked());
    asked.map(|port| inventory.port(port.number)).collect()
}

/// The folders that pgherd makes for files on every host, where it makes them; everybody may look into
/// them, and into those of services.
const OWN_FOLDERS: [&str; 2] = ["/etc/pgherd", "/etc/pgherd/tls"];
const OTHER_FOLDERS: [&str; 3] = ["/etc/needrestart", "/etc/needrestart/conf.d", VENV];

/// Where Patroni's venv is.
const VENV: &str = "/opt/patroni";

/// Those of a host that has the files `paths`.
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
    /// By what lies there: `data`, `wal`, `tablespace-…`, `etcd`, `usr`, `state`, `cache`, `log`, `tmp`, `venv`, `etc`.
    pub space: BTreeMap<String, Space>,
    /// How many sessions sshd opens on one connection.
    pub sessions: Option<u32>,
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
            // Of two at one place, the second hides the first.
            ["mount", target, options] => {
                let target = unescaped(target);
                let there = self.space.values_mut().filter(|it| it.target == target);
                there.for_each(|it| it.options = options.split(',').map(str::to_owned).collect());
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

/// A place as the kernel tells it, with blanks and what else would end a field as `\040`.
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
    // In columns; the last, a path, may have blanks of its own.
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
            "mount\t/\trw",
            "mount\t/srv/my\\040data\tro",
            "mount\t/srv/my\\040data\trw,noexec",
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

    /// What a host says of its package sources, which has these files below `/etc/apt` and whose apt lists
    /// `listed`; no name can be resolved there.
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

    /// As Debian's images for clouds have it.
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
