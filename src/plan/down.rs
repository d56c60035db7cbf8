//! The plan of `down` on existing hosts: removes what `up` installed, and restores what was there before.

use std::{collections::BTreeSet, time::Duration};

use super::{Action, Change, Found, Plan, Step, belongings, packages};
use crate::{
    cluster::{Cluster, Node},
    contract::{MARKER, new_version_dir, old_version_dir},
    error::{Code, Error, Result},
    facts::{self, Facts, Removal},
    inventory::Role,
    remote::{Script, quote},
    render::{self, Files, Kind},
    services::Data,
};

const WEIGH: &str = include_str!("weigh.sh");

/// Removes those packages of `$GO` that nothing needs even now: the user may have taken long to answer.
pub(super) const PURGE: &str = r#"if [ -n "$GO" ]; then
  if [ -n "$(dpkg --audit 2>/dev/null)" ]; then
    with_locks dpkg --configure -a || echo 'dpkg cannot configure every package that is there (see above); going on'
  fi
  said=$(weigh)
  go=
  for p in $GO; do
    if printf '%s\n' "$said" | grep -qxF "$(printf 'go\t%s' "$p")"; then go="$go $p"; fi
  done
  if [ -n "$go" ]; then
    with_locks env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 purge $go || failed=yes
    # apt fails for any package that it cannot configure, also for one of somebody else's.
    for p in $go; do
      if [ -n "${failed:-}" ] && dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed; then exit 1; fi
    done
  fi
fi"#;

/// Removes a file and its unfinished new versions, and restores what was in its place.
pub(super) const GIVE_BACK: &str = r#"give_back() {
  rm -f "$1".pgherd.?????? "$1.pgherd-candidate"
  if [ -e "/var/lib/pgherd/kept$1" ] || [ -L "/var/lib/pgherd/kept$1" ]; then
    rm -rf "$1.pgherd-kept"
    cp -a -- "/var/lib/pgherd/kept$1" "$1.pgherd-kept"
    mv -fT -- "$1.pgherd-kept" "$1"
  else
    rm -f -- "$1"
  fi
}"#;

/// Waits for the scripts of an interrupted run that still run on the host. Otherwise they would add something
/// after everything was removed.
pub(super) const OTHER_STEPS: &str = r#"for lock in /run/pgherd/*.lock; do
  case $lock in */clear.lock) continue ;; esac
  [ -e "$lock" ] || continue
  flock -n "$lock" true || {
    echo "waiting for a step of an earlier run to end: $lock"
    flock -w 600 "$lock" true || { echo "it did not end within 600 s: look for it with: sudo sh -c 'ls -l /proc/[0-9]*/fd/* | grep $lock'" >&2; exit 75; }
  }
done"#;

/// Removes a folder. If it was replaced by a link or is a mount point, only its content is removed.
pub(super) const REMOVE_TREE: &str = r#"remove_tree() {
  if [ -d "$1" ]; then
    find -H "$1" -mindepth 1 -delete 2>/dev/null || true
    rest=$(find -H "$1" -mindepth 1 ! -type d | head -n 3)
    if [ -n "$rest" ]; then
      echo "cannot be removed: $rest" >&2
      exit 1
    fi
  fi
  [ -L "$1" ] || rmdir "$1" 2>/dev/null || true
}"#;

/// The files that show what is pgherd's are removed last, and the manifest at the very end. So an interrupted
/// `down` can be continued.
const FORGET: &str = "rm -rf /run/pgherd /run/pgherd-clone\n\
     if [ -d /var/lib/pgherd ]; then\n\
     \x20 find /var/lib/pgherd -mindepth 1 ! -name manifest -delete\n\
     \x20 rm -f /var/lib/pgherd/manifest\n\
     \x20 rmdir /var/lib/pgherd\n\
     fi";

/// Everything has been removed by now. What is left needs a person.
pub(super) const NOT_STARTED: &str = r#"if [ -n "$not_started" ]; then
  echo "what pgherd put here is removed, but a unit that ran before does not start:$not_started" >&2
  exit 1
fi"#;

/// The script that finds the packages that pgherd installed and that nothing else needs.
pub fn weigh_packages(cluster: &Cluster, node: &Node, facts: &Facts) -> Script {
    let node = as_taken(cluster, node, facts);
    weigh(Script::probe(""), cluster, &node).line("weigh")
}

/// The host with the roles that pgherd has given it, whatever the inventory says now. A role that was taken off
/// is still there. What a role would need, but never got there, may belong to somebody else.
fn as_taken(cluster: &Cluster, node: &Node, facts: &Facts) -> Node {
    let mut node = node.clone();
    if facts.belongings.manifest.is_some() {
        let taken = |role: &Role| belongings::is_taken(cluster, facts, *role);
        node.roles = Role::ALL.into_iter().filter(taken).collect();
    }
    node
}

pub(super) fn weigh(script: Script, cluster: &Cluster, node: &Node) -> Script {
    let wanted = packages::wanted(cluster, node).join(" ");
    let etcd = facts::etcd_dir(cluster.name());
    script
        .line(format!("WANTED={}", quote(&wanted)))
        .line(format!("ETCD_DIR={}", quote(&etcd)))
        .line(WEIGH)
}

/// Plans the removal on every host that is this cluster's. Other hosts are left alone.
pub fn down(cluster: &Cluster, files: &Files, found: &Found) -> Result<Plan> {
    let mut plan = Plan::default();
    for node in cluster.nodes.values() {
        let Some(facts) = found.facts.get(&node.name) else {
            continue;
        };
        if belongings::is_ours(cluster, facts) {
            let step = clear(cluster, node, facts, files, found.without_backups)?;
            plan.push(step);
            continue;
        }
        match facts.files.get(MARKER) {
            None => plan.skip(&node.name, "clear", "pgherd has nothing here"),
            Some(marker) => {
                return Err(Error::new(
                    Code::HostOfAnotherCluster,
                    "this host belongs to another cluster",
                )
                .on(&node.name)
                .excerpt(MARKER, marker.content.as_str())
                .left("nothing was removed anywhere"));
            }
        }
    }
    Ok(plan)
}

fn clear(
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    files: &Files,
    with_backups: bool,
) -> Result<Step> {
    if let Some(trouble) = &facts.removal.trouble {
        return Err(Error::new(
            Code::RequirementUnmet,
            "apt cannot say which packages are needed by others here",
        )
        .on(&node.name)
        .excerpt("apt-get", trouble.clone())
        .left("nothing was removed anywhere")
        .hint("repair the packages first: dpkg --configure -a; apt-get --fix-broken install"));
    }
    let node = &as_taken(cluster, node, facts);
    let mut clearing = Clearing {
        cluster,
        node,
        facts,
        with_backups,
        script: Script::new().alone("clear"),
        changes: Vec::new(),
    };
    // A host of an earlier version gets its manifest now, so that an interrupted removal can be continued.
    if facts.belongings.manifest.is_none() {
        clearing.script = belongings::claim(clearing.script, cluster, node, facts);
    }
    clearing.script = clearing
        .script
        .line(OTHER_STEPS)
        .line(packages::RESTORE_POLICY)
        .line(GIVE_BACK)
        .line(REMOVE_TREE)
        .line("not_started=");
    clearing.units();
    clearing.data();
    clearing.venv();
    clearing.packages(&facts.removal);
    let block = files.get(&node.name).into_iter().flatten();
    clearing.blocks(block.filter(|file| file.kind == Kind::Block))?;
    clearing.files();
    clearing.script = clearing.script.line("systemctl daemon-reload");
    clearing.unit_states();
    clearing.folders();
    clearing.script = clearing.script.line(FORGET).line(NOT_STARTED);
    Ok(Step {
        host: node.name.clone(),
        name: "clear",
        why: "pgherd made it".into(),
        after: Vec::new(),
        changes: clearing.changes,
        action: Action::Run(clearing.script),
        // An earlier run may take ten minutes of this, and a process that holds dpkg's lock another ten.
        limit: Duration::from_secs(1800),
        units: Vec::new(),
    })
}

/// The removal from one host, while it is planned.
struct Clearing<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    facts: &'a Facts,
    /// Whether the backups go too.
    with_backups: bool,
    script: Script,
    changes: Vec<Change>,
}

impl Clearing<'_> {
    fn line(&mut self, text: impl AsRef<str>) {
        self.script = std::mem::take(&mut self.script).line(text);
    }

    fn say(&mut self, what: impl Into<String>) {
        self.changes.push(Change::Other(what.into()));
    }

    /// The roles that pgherd has taken on the host. Another unit of the same name is not pgherd's.
    fn roles(&self) -> impl Iterator<Item = Role> + use<> {
        let taken = |role: &Role| belongings::is_taken(self.cluster, self.facts, *role);
        let roles: Vec<Role> = self.node.roles.iter().copied().filter(taken).collect();
        roles.into_iter()
    }

    fn units(&mut self) {
        for role in self.roles() {
            let unit = role.unit();
            if self.facts.unit(unit).loaded {
                self.line(format!(
                    "systemctl disable --quiet --now {unit} || ! systemctl cat {unit} >/dev/null 2>&1 || systemctl stop {unit}"
                ));
                self.changes.push(Change::Unit {
                    unit,
                    verb: "disable --now",
                });
            }
        }
    }

    fn data(&mut self) {
        let (cluster, facts) = (self.cluster, self.facts);
        for role in self.roles() {
            match role.service().data {
                Data::Database
                    if facts.data_marker.as_deref()
                        == Some(cluster.secrets.cluster_id.as_str()) =>
                {
                    let dir = &cluster.inventory.postgresql.data_dir;
                    let quoted = quote(dir);
                    self.line(format!("remove_tree {quoted}.failed\nremove_tree {quoted}"));
                    for left in [old_version_dir(dir), new_version_dir(dir)] {
                        self.line(format!("remove_tree {}", quote(&left)));
                    }
                    self.line(format!("rm -f {quoted}.pgherd"));
                    self.say(format!("all data in {dir} is deleted"));
                    for folder in &facts.data_outside {
                        self.say(outside(folder));
                    }
                }
                Data::Store => {
                    let dir = facts::etcd_dir(cluster.name());
                    let quoted = quote(&dir);
                    self.line(format!(
                        "remove_tree {quoted}\nremove_tree {quoted}.removed"
                    ));
                    if facts.etcd_data {
                        self.say(format!("all data in {dir} is deleted"));
                    }
                }
                Data::Folder { path, .. } if belongings::made_tree(facts, path) => {
                    self.line(format!("remove_tree {}", quote(path)));
                    self.say(format!("all data in {path} is deleted"));
                }
                Data::Kept { path, .. } if facts.needs.folders.contains_key(path) => {
                    if !self.with_backups {
                        self.say(format!("{path} stays, with all backups in it"));
                    } else if belongings::made_tree(facts, path) {
                        self.line(format!(
                            "systemctl stop '{}@*' 2>/dev/null || true",
                            role.unit()
                        ));
                        self.line(format!("remove_tree {}", quote(path)));
                        self.say(format!("all backups in {path} are deleted"));
                    } else {
                        self.say(format!("{path} stays: it was there before"));
                    }
                }
                Data::Database | Data::Folder { .. } | Data::Kept { .. } | Data::Nothing => {}
            }
        }
    }

    fn venv(&mut self) {
        let venv = belongings::VENV;
        if belongings::owns_venv(self.cluster, self.facts) {
            self.line(format!("rm -rf {venv} {venv}.old"));
            self.say(format!("{venv} is removed"));
        } else if self.facts.belongings.holds.contains_key("patroni") {
            self.say(format!("{venv} stays: it was there before"));
        }
    }

    fn packages(&mut self, removal: &Removal) {
        let go = removal.go.join(" ");
        self.script = weigh(std::mem::take(&mut self.script), self.cluster, self.node);
        self.line(format!("GO={}", quote(&go)));
        self.line(packages::LOCKS);
        self.line(PURGE);
        if !removal.go.is_empty() {
            self.say(format!("packages are purged: {}", removal.go.join(", ")));
        }
        for words in packages_stay(removal) {
            let words = format!("packages stay: {words}");
            self.line(format!("echo {}", quote(&words)));
            self.say(words);
        }
    }

    /// Removes pgherd's lines from files of the host.
    fn blocks<'f>(&mut self, files: impl Iterator<Item = &'f render::File>) -> Result<()> {
        for file in files {
            let Some(here) = self.facts.files.get(&file.path) else {
                continue;
            };
            let name = &self.node.name;
            let rest = render::remove_block(&here.content, self.cluster.name())
                .map_err(|error| error.on(name).cause(format!("it is in {}", file.path)))?;
            if rest == *here.content {
                continue;
            }
            let file = render::File {
                content: rest.into(),
                mode: here.mode,
                ..file.clone()
            };
            self.script = std::mem::take(&mut self.script).put(&file);
            self.say(format!("pgherd's lines in {} are removed", file.path));
        }
        Ok(())
    }

    fn files(&mut self) {
        let facts = self.facts;
        let belongings = &facts.belongings;
        let taken = Role::ALL.into_iter();
        let taken = taken.filter(|role| belongings::is_taken(self.cluster, facts, *role));
        for path in taken.flat_map(|role| role.service().writes) {
            self.line(format!("rm -f {path}"));
        }
        for path in belongings::own_files(self.cluster, facts) {
            if path == MARKER {
                continue;
            }
            self.line(format!("give_back {}", quote(path)));
            if belongings.kept.contains(path) {
                self.say(format!("{path} is restored as it was before"));
            } else if belongings.there.contains_key(path) || facts.files.contains_key(path) {
                self.say(format!("{path} is removed"));
            }
        }
    }

    /// A unit whose package was there before is enabled, and runs, if it did so before.
    fn unit_states(&mut self) {
        let manifest = self.facts.belongings.manifest.as_ref();
        for (unit, (enabled, active)) in manifest.into_iter().flat_map(|it| &it.units) {
            let Some(line) = as_it_was(unit, enabled, active) else {
                continue;
            };
            self.line(line);
            self.say(format!("{unit} is as it was before: {enabled}, {active}"));
        }
    }

    fn folders(&mut self) {
        let mut folders: BTreeSet<&str> = BTreeSet::new();
        folders.extend(belongings::own_folders(self.cluster, self.facts));
        let mut folders: Vec<&str> = folders.into_iter().collect();
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
        self.line(format!("rm -f {MARKER}"));
        for folder in folders {
            self.line(format!("rmdir {} 2>/dev/null || true", quote(folder)));
        }
    }
}

/// The lines that enable and start a unit again, if it was so before pgherd came; `not_started` collects those that
/// do not start.
pub(super) fn as_it_was(unit: &str, enabled: &str, active: &str) -> Option<String> {
    let verbs = [
        ("enable", enabled == "enabled"),
        ("start", active == "active"),
    ];
    let lines: Vec<String> = verbs
        .into_iter()
        .filter(|(_, was)| *was)
        .map(|(verb, _)| {
            format!(
                "if systemctl cat {unit} >/dev/null 2>&1; then systemctl {verb} --quiet {unit} || \
                 not_started=\"$not_started {unit}\"; fi"
            )
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What stays on a host: packages that others need, and folders outside the data directory.
pub fn stays(facts: &Facts) -> Vec<String> {
    let folders = facts.data_outside.iter();
    let folders = folders.map(|folder| outside(folder));
    packages_stay(&facts.removal).chain(folders).collect()
}

fn packages_stay(removal: &Removal) -> impl Iterator<Item = String> {
    let words =
        |(why, packages): (&String, &Vec<String>)| format!("{} ({why})", packages.join(", "));
    removal.stay.iter().map(words)
}

pub(super) fn outside(folder: &str) -> String {
    format!("{folder} stays, with the database's files in it (a tablespace, or its WAL)")
}
