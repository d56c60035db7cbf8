//! What pgherd made on a host, and what is there that it would replace.

use std::collections::{BTreeMap, BTreeSet};

pub(super) const PROBE: &str = include_str!("belongings.sh");

/// The version of the manifest that this pgherd reads and writes.
pub const MANIFEST_VERSION: u32 = 1;

/// The kind of thing at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thing {
    File,
    Link,
    Folder,
    /// A pipe, a socket or a device.
    Special,
}

/// `/var/lib/pgherd/manifest`: what pgherd made or replaced on this host.
///
/// The manifest is written before anything is taken, by the same script. So an interrupted run knows what is
/// its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub version: u32,
    /// The id of the cluster that it belongs to.
    pub cluster: String,
    /// Whether the cluster was there before pgherd: its data is not pgherd's to remove.
    pub adopted: bool,
    /// pgherd's files, written already or not.
    pub files: BTreeSet<String>,
    /// Files that existed and serve pgherd unchanged. They are not pgherd's, and stay.
    pub left: BTreeSet<String>,
    /// Folders that did not exist; folders inside them may come later.
    pub folders: BTreeSet<String>,
    /// Folders that pgherd made as a whole, such as `/opt/patroni`.
    pub trees: BTreeSet<String>,
    /// What `systemctl` said of a unit before pgherd changed it: whether it was enabled and active.
    pub units: BTreeMap<String, (String, String)>,
}

/// A folder that exists and that pgherd would make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub thing: Thing,
    pub entries: usize,
}

/// A cluster that the distribution's own tools made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnCluster {
    pub version: String,
    pub name: String,
    pub port: Option<u16>,
    /// `auto`, `manual` or `disabled`.
    pub start: String,
    pub runs: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Belongings {
    pub manifest: Option<Manifest>,
    /// What is at the paths of pgherd's files.
    pub there: BTreeMap<String, Thing>,
    /// Files with a copy from before pgherd replaced them.
    pub kept: BTreeSet<String>,
    /// Files that are unchanged since their package installed them.
    pub defaults: BTreeSet<String>,
    /// The folders that pgherd would make, by their purpose.
    pub holds: BTreeMap<String, Holding>,
    /// A unit's own file and its drop-ins.
    pub unit_files: BTreeMap<String, Vec<String>>,
    pub clusters: Vec<OwnCluster>,
    /// The held packages among those that pgherd needs, and whether they are installed.
    pub held: BTreeMap<String, bool>,
    /// A run was interrupted before it removed its `policy-rc.d`, or restored the one that was there.
    pub policy_left: bool,
}

impl Belongings {
    /// Reads one line of the probe; returns whether the line was for this.
    pub(super) fn read(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["manifest", rest @ ..] => self.manifest.get_or_insert_default().read(rest),
            ["there", path, kind] => {
                self.there.insert((*path).into(), thing(kind));
            }
            ["kept", path] => {
                self.kept.insert((*path).into());
            }
            ["default", path] => {
                self.defaults.insert((*path).into());
            }
            ["holds", what, kind, entries] => {
                let holding = Holding {
                    thing: thing(kind),
                    entries: entries.trim().parse().unwrap_or_default(),
                };
                self.holds.insert((*what).into(), holding);
            }
            ["unit-file", unit, path] => {
                let files = self.unit_files.entry((*unit).into()).or_default();
                files.push((*path).into());
            }
            ["pg-cluster", version, name, port, start, runs] => self.clusters.push(OwnCluster {
                version: (*version).into(),
                name: (*name).into(),
                port: port.parse().ok(),
                start: (*start).into(),
                runs: *runs == "yes",
            }),
            ["held", package, status] => {
                self.held.insert((*package).into(), *status == "installed");
            }
            ["policy", _] => self.policy_left = true,
            _ => return false,
        }
        true
    }
}

impl Manifest {
    fn read(&mut self, fields: &[&str]) {
        match fields {
            ["pgherd-manifest", version] => self.version = version.parse().unwrap_or(u32::MAX),
            ["cluster", id] => self.cluster = (*id).into(),
            ["adopted"] => self.adopted = true,
            ["file", path] => {
                self.files.insert((*path).into());
            }
            ["left", path] => {
                self.left.insert((*path).into());
            }
            ["folder", path] => {
                self.folders.insert((*path).into());
            }
            ["tree", path] => {
                self.trees.insert((*path).into());
            }
            ["unit", unit, enabled, active] => {
                let states = ((*enabled).into(), (*active).into());
                self.units.insert((*unit).into(), states);
            }
            _ => {}
        }
    }
}

fn thing(kind: &str) -> Thing {
    match kind {
        "file" => Thing::File,
        "link" => Thing::Link,
        "folder" => Thing::Folder,
        _ => Thing::Special,
    }
}

/// The packages that pgherd installed, as `down` will treat them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Nothing else needs them.
    pub go: Vec<String>,
    /// They stay, for this reason.
    pub stay: BTreeMap<String, Vec<String>>,
    /// Why it is unknown what others need.
    pub trouble: Option<String>,
}

impl Removal {
    /// Reads the output of `plan::weigh_packages`.
    pub fn parse(text: &str) -> Self {
        let mut removal = Self::default();
        for line in text.lines() {
            match line.split('\t').collect::<Vec<_>>().as_slice() {
                ["go", package] => removal.go.push((*package).into()),
                ["stays", package, why] => {
                    let stay = removal.stay.entry((*why).into()).or_default();
                    stay.push((*package).into());
                }
                ["trouble", why] => removal.trouble = Some((*why).into()),
                _ => {}
            }
        }
        removal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Belongings {
        let mut belongings = Belongings::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            assert!(belongings.read(&fields), "{line}");
        }
        belongings
    }

    #[test]
    fn a_manifest_is_read_and_what_a_later_version_adds_is_passed_over() {
        let read = read(
            "manifest\tpgherd-manifest\t1\nmanifest\tcluster\t0a1b\nmanifest\tfile\t/etc/patroni.yml\n\
             manifest\tleft\t/etc/apt/sources.list.d/pgdg.list\nmanifest\tfolder\t/data\nmanifest\ttree\t/opt/patroni\n\
             manifest\tunit\thaproxy\tenabled\tactive\nmanifest\tfuture\tthing\n",
        );
        let manifest = read.manifest.unwrap();
        assert_eq!((manifest.version, manifest.cluster.as_str()), (1, "0a1b"));
        assert!(manifest.files.contains("/etc/patroni.yml") && manifest.left.len() == 1);
        assert!(manifest.folders.contains("/data") && manifest.trees.contains("/opt/patroni"));
        assert_eq!(
            manifest.units["haproxy"],
            ("enabled".to_owned(), "active".to_owned())
        );
    }

    #[test]
    fn what_is_there_is_read() {
        let read = read(
            "there\t/etc/patroni.yml\tlink\ndefault\t/etc/default/etcd\nholds\tpatroni\tfolder\t3\n\
             unit-file\tetcd\t/lib/systemd/system/etcd.service\npg-cluster\t15\tmain\t5433\tauto\tyes\n\
             held\thaproxy\tnot-installed\npolicy\tleft\n",
        );
        assert_eq!(read.there["/etc/patroni.yml"], Thing::Link);
        assert!(read.defaults.contains("/etc/default/etcd") && read.policy_left);
        assert_eq!(read.holds["patroni"].entries, 3);
        assert_eq!(read.clusters[0].port, Some(5433));
        assert!(read.clusters[0].runs && !read.held["haproxy"]);
    }

    #[test]
    fn packages_that_stay_are_grouped_by_the_reason() {
        let removal = Removal::parse(
            "go\thaproxy\nstays\tpython3\tneeded by ufw\nstays\tlibexpat1\tneeded by ufw\n",
        );
        assert_eq!(removal.go, ["haproxy"]);
        assert_eq!(removal.stay["needed by ufw"], ["python3", "libexpat1"]);
    }

    #[test]
    fn the_probe_is_a_valid_shell_script() {
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", PROBE])
            .status();
        assert!(status.expect("sh runs").success());
    }
}
