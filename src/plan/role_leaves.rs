//! Roles that a host has and the inventory no longer gives it: which of them go, and the step that removes what only
//! they needed.
//!
//! The host stays, with its other roles. Before this, `retire` ends the membership of a database, and `etcd_leaves`
//! that of etcd.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Action, Change, Found, Plan, Step, StepId,
    belongings::{self, alone_with_manifest},
    down::{self, GIVE_BACK, PURGE, REMOVE_TREE},
    has_role::has_role,
    packages,
    retire::Departures,
};
use crate::{
    cluster::{Cluster, Node},
    configs::keepalived_addresses,
    facts::{Facts, etcd_dir},
    inventory::{HostName, Role},
    remote::{PENDING, Script, quote},
    render,
    services::{Data, by_rank, etcd::LEAVES},
};

/// How long dpkg may take, the wait for its lock included.
const LIMIT: Duration = Duration::from_secs(1200);

/// Computes `$GO`: the packages that nothing else on the host needs.
const WEIGHED: &str = r#"said=$(weigh)
trouble=$(printf '%s\n' "$said" | sed -n 's/^trouble\t//p')
[ -z "$trouble" ] || echo "packages stay, since apt cannot say who needs them: $trouble"
GO=$(printf '%s\n' "$said" | sed -n 's/^go\t//p' | tr '\n' ' ')"#;

/// Removes purged packages from the manifest: if somebody installs one again, it is not pgherd's.
const NOT_OURS: &str = r#"for list in brought asked; do
  f=/var/lib/pgherd/packages.$list
  [ -e $f ] || continue
  for p in $GO; do
    dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || printf '%s\n' "$p"
  done >$f.gone
  grep -vxF -f $f.gone $f >$f.new || true
  mv -f $f.new $f
  rm -f $f.gone
done"#;

/// The roles that leave hosts which stay, by host. Services that others need come first.
pub(super) fn leaving<'a>(cluster: &'a Cluster, found: &Found) -> Vec<(&'a Node, Vec<Role>)> {
    let nodes = cluster.nodes.values();
    let of = |node: &'a Node| {
        let facts = found.facts.get(&node.name)?;
        let goes = |role: &Role| goes(cluster, found, node, facts, *role);
        let roles: Vec<Role> = by_rank().into_iter().filter(goes).collect();
        (!roles.is_empty()).then_some((node, roles))
    };
    nodes.filter_map(of).collect()
}

/// Roles that are taken off a host which stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOff {
    pub host: HostName,
    /// Roles that an inventory can name. The user must confirm these.
    pub roles: Vec<Role>,
    /// Whether the host leads.
    pub leads: bool,
}

/// The roles that the user must confirm, since an inventory gave them to the host.
pub(super) fn told(cluster: &Cluster, found: &Found) -> Vec<TakenOff> {
    let leader = found.dcs.as_ref().and_then(|keys| keys.leader.as_deref());
    let told = leaving(cluster, found)
        .into_iter()
        .map(|(node, mut roles)| {
            roles.retain(|role| role.service().follows.is_none());
            TakenOff {
                leads: roles.contains(&Role::Postgres) && leader == Some(node.name.as_str()),
                host: node.name.clone(),
                roles,
            }
        });
    told.filter(|it| !it.roles.is_empty()).collect()
}

fn goes(cluster: &Cluster, found: &Found, node: &Node, facts: &Facts, role: Role) -> bool {
    if node.roles.contains(&role)
        || !belongings::is_ours(cluster, facts)
        || !belongings::is_taken(cluster, facts, role)
    {
        return false;
    }
    let known = found.known.iter().find(|known| known.name == node.name);
    // Until a run ends well, the list has the roles that an earlier run began to take off.
    let begun = known.is_some_and(|known| known.roles.contains(&role));
    let there = || has_role(cluster, found, node, role).is_some();
    match &found.leaving {
        _ if role.service().follows.is_some() => true,
        Departures::Agreed(hosts) if hosts.contains(&node.name) => true,
        Departures::Shown => begun || there(),
        Departures::Agreed(_) | Departures::None => begun && !there(),
    }
}

/// What clients notice when roles go because a key has left the inventory, in words.
pub(super) fn in_words(cluster: &Cluster, found: &Found) -> Vec<String> {
    let leaving = leaving(cluster, found);
    let mut words = Vec::new();
    for role in Role::ALL {
        // If other hosts keep the role, it only moves.
        let Some(follows) = role
            .service()
            .follows
            .as_ref()
            .filter(|it| !cluster.wants(it.when))
        else {
            continue;
        };
        let has = leaving.iter().filter(|(_, roles)| roles.contains(&role));
        let hosts: Vec<&HostName> = has.map(|(node, _)| &node.name).collect();
        if hosts.is_empty() {
            continue;
        }
        let files = hosts
            .iter()
            .filter_map(|host| found.facts[*host].files.get(role.service().config));
        let addresses: BTreeSet<String> = files
            .flat_map(|file| keepalived_addresses(&file.content))
            .collect();
        let addresses = Vec::from_iter(addresses).join(", ");
        let names: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
        words.push(format!(
            "{} is given up, for {} is not in the inventory any more ({})",
            if addresses.is_empty() {
                role.service().title
            } else {
                &addresses
            },
            follows.key,
            names.join(", ")
        ));
        if role == Role::Keepalived {
            words.push(
                "  clients that connect to it are refused: they need the addresses of the front doors"
                    .into(),
            );
        }
        if role == Role::Pgbouncer {
            words.push(
                "  clients that connect to it are refused: HAProxy's ports lead to the same databases"
                    .into(),
            );
        }
    }
    words
}

/// Plans the removal of what only these roles needed on their host. `name` is the step's.
pub(super) fn take_off(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    (node, roles): (&Node, &[Role]),
    name: &'static str,
    after: Vec<StepId>,
) -> Option<StepId> {
    let facts = found.facts.get(&node.name)?;
    let mut removal = Removal {
        cluster,
        node,
        roles,
        facts,
        script: Script::new()
            .alone(name)
            .line(packages::RESTORE_POLICY)
            .line(GIVE_BACK)
            .line(REMOVE_TREE)
            .line("not_started="),
        changes: Vec::new(),
        noted: Vec::new(),
    };
    removal.units();
    removal.data();
    removal.packages();
    removal.files();
    removal.line("systemctl daemon-reload");
    removal.unit_states();
    removal.forget();
    removal.line(down::NOT_STARTED);
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    Some(plan.push(Step {
        host: node.name.clone(),
        name,
        why: format!(
            "the inventory gives it the role {} no more",
            words.join(", ")
        ),
        after,
        changes: removal.changes,
        action: Action::Run(removal.script),
        limit: LIMIT,
        units: Vec::new(),
    }))
}

/// Collects what is removed from a host.
struct Removal<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    /// The roles that go.
    roles: &'a [Role],
    facts: &'a Facts,
    script: Script,
    changes: Vec<Change>,
    /// Lines of the manifest that are no longer true.
    noted: Vec<String>,
}

impl Removal<'_> {
    fn line(&mut self, text: impl AsRef<str>) {
        self.script = std::mem::take(&mut self.script).line(text);
    }

    fn say(&mut self, what: impl Into<String>) {
        self.changes.push(Change::Other(what.into()));
    }

    /// A service goes before those that it needs: keepalived before HAProxy.
    fn units(&mut self) {
        for role in self.roles.iter().rev() {
            let unit = role.unit();
            self.line(format!(
                "systemctl disable --quiet --now {unit} || ! systemctl cat {unit} >/dev/null 2>&1 || systemctl stop {unit}"
            ));
            self.changes.push(Change::Unit {
                unit,
                verb: "disable --now",
            });
        }
    }

    fn data(&mut self) {
        let (cluster, facts) = (self.cluster, self.facts);
        for role in self.roles {
            match role.service().data {
                Data::Database => {
                    if facts.data_marker.as_deref() == Some(cluster.secrets.cluster_id.as_str()) {
                        let dir = &cluster.inventory.postgresql.data_dir;
                        let quoted = quote(dir);
                        self.line(format!("remove_tree {quoted}.failed\nremove_tree {quoted}"));
                        self.line(format!("rm -f {quoted}.pgherd"));
                        self.say(format!("all data in {dir} is deleted"));
                        for folder in &facts.data_outside {
                            self.say(down::outside(folder));
                        }
                    }
                    self.venv();
                }
                Data::Store => {
                    let dir = etcd_dir(cluster.name());
                    let quoted = quote(&dir);
                    self.line(format!(
                        "remove_tree {quoted}\nremove_tree {quoted}.removed"
                    ));
                    self.line(format!(
                        "rm -f {LEAVES}\nrmdir $(dirname {LEAVES}) 2>/dev/null || true"
                    ));
                    self.say(format!("all data in {dir} is deleted"));
                }
                Data::Folder { path, .. } if belongings::made_tree(facts, path) => {
                    self.line(format!("remove_tree {}", quote(path)));
                    self.noted.push(format!("tree\t{path}"));
                    self.say(format!("all data in {path} is deleted"));
                }
                Data::Kept { path, .. } => {
                    self.say(format!("{path} stays, with all that is in it"));
                }
                Data::Folder { .. } | Data::Nothing => {}
            }
        }
    }

    fn venv(&mut self) {
        let venv = belongings::VENV;
        if belongings::owns_venv(self.cluster, self.facts) {
            self.line(format!("rm -rf {venv} {venv}.old"));
            self.noted.push(format!("tree\t{venv}"));
            self.say(format!("{venv} is removed"));
        }
    }

    /// A host with the roles that go.
    fn without_those_that_stay(&self) -> Node {
        let mut nodes = self.cluster.nodes.values();
        Node {
            roles: self.roles.to_vec(),
            postgresql: nodes.find_map(|node| node.postgresql),
            ..self.node.clone()
        }
    }

    fn packages(&mut self) {
        let stay = packages::wanted(self.cluster, self.node);
        self.line(format!("KEEP={}", quote(&stay.join(" "))));
        let going = self.without_those_that_stay();
        self.script = down::weigh(std::mem::take(&mut self.script), self.cluster, &going);
        self.line(packages::LOCKS);
        self.line(WEIGHED);
        self.line(PURGE);
        self.line(NOT_OURS);
        let mut all: Vec<String> = packages::wanted(self.cluster, &going);
        all.retain(|package| !stay.contains(package));
        if !all.is_empty() {
            self.say(format!(
                "packages are purged that came with pgherd, and that nothing else here needs: {}",
                all.join(", ")
            ));
        }
    }

    fn files(&mut self) {
        let facts = self.facts;
        for path in self.roles.iter().flat_map(|role| role.service().writes) {
            self.line(format!("rm -f {}", quote(path)));
        }
        for path in self.paths() {
            self.line(format!("give_back {}", quote(path)));
            self.noted.push(format!("file\t{path}"));
            if facts.belongings.kept.contains(path) {
                self.say(format!("{path} is restored as it was before"));
            }
        }
        self.say("their files are removed");
        let own = belongings::own_folders(self.cluster, facts);
        let theirs = self.roles.iter().flat_map(|role| role.service().folders);
        let mut folders: Vec<&str> = theirs.copied().filter(|it| own.contains(it)).collect();
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
        for folder in folders {
            self.line(format!("rmdir {} 2>/dev/null || true", quote(folder)));
            self.noted.push(format!("folder\t{folder}"));
        }
    }

    /// Files that pgherd made and no role that stays needs.
    fn paths(&self) -> Vec<&'static str> {
        let kept = render::paths(&self.node.roles);
        let sources = belongings::sources(self.cluster, self.node);
        let going = self.without_those_that_stay();
        let mut paths = render::paths(self.roles);
        paths.extend(belongings::sources(self.cluster, &going));
        paths.retain(|path| {
            !kept.contains(path)
                && !sources.contains(path)
                && belongings::is_own(self.cluster, self.facts, path)
        });
        paths
    }

    /// Gives a unit of a package that was there before pgherd its state back: enabled or not, running or not.
    fn unit_states(&mut self) {
        let manifest = self.facts.belongings.manifest.as_ref();
        for role in self.roles {
            let unit = role.unit();
            let Some((enabled, active)) = manifest.and_then(|it| it.units.get(unit)) else {
                continue;
            };
            if let Some(line) = down::as_it_was(unit, enabled, active) {
                self.line(line);
                self.say(format!("{unit} is as it was before: {enabled}, {active}"));
            }
            self.noted
                .push(format!("unit\t{unit}\t{enabled}\t{active}"));
        }
    }

    /// The manifest comes last, since it says what is still to be done.
    fn forget(&mut self) {
        for role in self.roles {
            self.line(format!("rm -f {PENDING}/{}", role.unit()));
        }
        let lines: Vec<String> = self.noted.iter().map(|line| quote(line)).collect();
        let forget = alone_with_manifest(&format!(
            "printf '%s\\n' {} >$m.gone\n\
             grep -vxF -f $m.gone $m >$m.new\n\
             mv -f $m.new $m\n\
             rm -f $m.gone",
            lines.join(" ")
        ));
        self.line(format!(
            "m=/var/lib/pgherd/manifest\nif [ -s $m ]; then\n{forget}\nfi"
        ));
        for path in self.paths() {
            self.line(format!("rm -rf /var/lib/pgherd/kept{}", quote(path)));
        }
    }
}
