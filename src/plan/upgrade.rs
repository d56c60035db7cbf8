//! Plans an upgrade to another major version of PostgreSQL, in place, and the way back.
//!
//! While the old version serves, the new one's packages are installed, and it is tried whether the new version can take
//! the database over. Then the cluster is paused, so that nobody is promoted, and all members stop: the leader first, so
//! that the others have everything that it had. One member's data is upgraded by hard links, the DCS takes the new
//! database's identifier, and that member leads. The others copy its data. One of them keeps the old version's data
//! beside: whoever starts the new version on hard links can never start the old one on them again.

use std::time::Duration;

use super::{
    Action, Change, Plan, Step, StepId,
    held::release,
    local_sql::local_psql,
    packages,
    waits::{await_leader, await_streaming},
};
use crate::{
    cluster::{Cluster, Node},
    contract::{BACKUP_CONFIG, new_version_dir, old_version_dir},
    inventory::{HostName, Role},
    remote::{Script, quote},
    render::{File, Files, PATRONI_CONFIG},
    services::postgres::HELD,
};

mod back;
pub(crate) mod preflight;
#[cfg(test)]
mod tests;

use preflight::Terms;

const COMMON: &str = include_str!("upgrade/common.sh");
const CHECK: &str = include_str!("upgrade/check.sh");
const STOP: &str = include_str!("upgrade/stop.sh");
const UPGRADE: &str = include_str!("upgrade/upgrade.sh");
const EMPTY: &str = include_str!("upgrade/empty.sh");
const EXTENSIONS: &str = include_str!("upgrade/extensions.sh");

/// Says how far an upgrade is, on the host whose data is upgraded.
pub(crate) const MARK: &str = "/var/lib/pgherd/upgrade";

/// How long PostgreSQL may take to stop, or a folder to go.
const STOPPING: Duration = Duration::from_secs(3700);
/// How long a large schema may take.
const UPGRADING: Duration = Duration::from_secs(24 * 3600);
/// How long a member may take to copy all data, and the leader to count what it has.
const COPYING: Duration = Duration::from_secs(24 * 3600);
/// How long a member may take to lead.
const LEADING: Duration = Duration::from_secs(180);

/// An upgrade of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct InPlace<'a> {
    pub cluster: &'a Cluster,
    /// Names this upgrade on the hosts.
    pub id: &'a str,
    pub from: u16,
    pub to: u16,
    /// The member whose data is upgraded.
    pub host: &'a HostName,
    /// The member that keeps the old version's data; the same one where there is no other.
    pub keeper: &'a HostName,
}

/// Which of the two versions a member is left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Old,
    New,
}

impl InPlace<'_> {
    /// Installs the new version beside the old one.
    pub(crate) fn install(&self, terms: &Terms) -> Plan {
        let mut plan = Plan::default();
        for node in self.members() {
            match terms.packages.get(&node.name) {
                Some(packages) if !packages.is_empty() => {
                    packages::install_beside(&mut plan, self.cluster, node, packages.clone());
                }
                _ => plan.skip(
                    &node.name,
                    packages::INSTALL,
                    format!("PostgreSQL {} is installed", self.to),
                ),
            }
        }
        plan
    }

    /// Tries, while the old version serves, whether the new one can take the database over.
    pub(crate) fn check(&self, terms: &Terms) -> Plan {
        let mut plan = Plan::default();
        plan.push(Step {
            host: self.host.clone(),
            name: "check-upgrade",
            why: "what the new version refuses must be known before anything stops".into(),
            after: Vec::new(),
            changes: vec![Change::Other(format!(
                "an empty database of PostgreSQL {} in {}",
                self.to,
                self.new_dir()
            ))],
            action: Action::Run(self.initialising("check-upgrade", terms).line(CHECK)),
            limit: UPGRADING,
            units: Vec::new(),
        });
        plan
    }

    /// Stops all members, the leader first.
    pub(crate) fn stop(&self, paused: bool) -> Plan {
        let mut plan = Plan::default();
        let pause = (!paused).then(|| {
            let loop_wait = u64::from(self.cluster.inventory.patroni.loop_wait);
            plan.push(Step {
                host: self.host.clone(),
                name: "pause",
                why: "no other member may lead while the leader stops".into(),
                after: Vec::new(),
                changes: vec![Change::Other("nothing fails over any more".into())],
                action: Action::SetPause(true),
                limit: Duration::from_secs(loop_wait + 20),
                units: vec!["patroni"],
            })
        });
        let leader = self.stop_member(&mut plan, self.host, pause.into_iter().collect());
        for node in self.others() {
            self.stop_member(&mut plan, &node.name, vec![leader]);
        }
        plan
    }

    fn stop_member(&self, plan: &mut Plan, host: &HostName, after: Vec<StepId>) -> StepId {
        plan.push(Step {
            host: host.clone(),
            name: "stop-member",
            why: match host == self.host {
                true => "its data is upgraded",
                false => "it must have what the leader had in the end, and nothing more",
            }
            .into(),
            after,
            changes: vec![Change::Other(
                "PostgreSQL and Patroni stop, and are not started by a reboot".into(),
            )],
            action: Action::Run(self.script("stop-member").line(STOP)),
            limit: STOPPING,
            units: vec!["patroni"],
        })
    }

    /// Upgrades the stopped database. Nobody uses it yet.
    pub(crate) fn upgrade(&self, terms: &Terms) -> Plan {
        let mut plan = Plan::default();
        plan.push(Step {
            host: self.host.clone(),
            name: "upgrade-database",
            why: format!("you asked for PostgreSQL {}", self.to),
            after: Vec::new(),
            changes: vec![Change::Other(format!(
                "the database of PostgreSQL {} becomes one of PostgreSQL {}",
                self.from, self.to
            ))],
            action: Action::Run(self.initialising("upgrade-database", terms).line(UPGRADE)),
            limit: UPGRADING,
            units: Vec::new(),
        });
        plan
    }

    /// Lets the upgraded member lead. `files` are those of the new version.
    pub(crate) fn lead(&self, system: &str, files: &Files) -> Plan {
        self.lead_with(self.host, system, files, Vec::new(), Plan::default())
    }

    fn lead_with(
        &self,
        host: &HostName,
        system: &str,
        files: &Files,
        after: Vec<StepId>,
        mut plan: Plan,
    ) -> Plan {
        let Some(etcd) = self.cluster.with_role(Role::Etcd).next() else {
            return plan;
        };
        let adopted = plan.push(Step {
            host: etcd.name.clone(),
            name: "adopt-system",
            why: "Patroni starts no database but the one that the DCS names".into(),
            after,
            changes: vec![Change::Other(format!(
                "the DCS names the database {system}, and the pause ends"
            ))],
            action: Action::AdoptSystem {
                system: system.to_owned(),
            },
            limit: Duration::from_secs(30),
            units: vec!["etcd"],
        });
        let started = release(
            &mut plan,
            host,
            config(files, host),
            "it has the database that the DCS names",
            vec![adopted],
        );
        await_leader(&mut plan, host, vec![started], LEADING);
        plan
    }

    /// The other members copy the new leader's data; statistics and extensions are brought up to date.
    pub(crate) fn join(&self, files: &Files) -> Plan {
        let mut plan = Plan::default();
        self.new_stanza(&mut plan);
        for node in self.others() {
            self.copy_anew(&mut plan, &node.name, Gone::Old, files);
        }
        let script = self
            .script("update-extensions")
            .line(local_psql())
            .line(EXTENSIONS);
        let updated = plan.push(Step {
            host: self.host.clone(),
            name: "update-extensions",
            why: "the new version has brought newer ones".into(),
            after: Vec::new(),
            changes: vec![Change::Other(
                "extensions get the versions of the new PostgreSQL".into(),
            )],
            action: Action::RunOnLeader(script),
            limit: UPGRADING,
            units: vec!["patroni"],
        });
        // From 18 on, pg_upgrade carries most statistics over.
        let missing = if self.to >= 18 {
            "--missing-stats-only"
        } else {
            ""
        };
        let script = self.script("analyze").line(format!(
            "as_postgres \"$bin/vacuumdb\" -h /var/run/postgresql -p \"$PORT\" -U postgres --all --analyze-in-stages {missing} --jobs=2"
        ));
        plan.push(Step {
            host: self.host.clone(),
            name: "analyze",
            why: "without statistics, the planner knows nothing of the data".into(),
            after: vec![updated],
            changes: vec![Change::Other(
                "statistics are collected, the coarse ones first".into(),
            )],
            action: Action::RunOnLeader(script),
            limit: COPYING,
            units: vec!["patroni"],
        });
        plan
    }

    /// The repository takes the WAL of this database from now on, and makes a full backup.
    fn new_stanza(&self, plan: &mut Plan) -> Option<StepId> {
        let node = self.cluster.with_role(Role::Backup).next()?;
        let script = Script::new()
            .alone("upgrade-stanza")
            .line(format!(
                "cd /\nCONFIG={BACKUP_CONFIG}\nSTANZA={}",
                quote(self.cluster.name())
            ))
            .line(STANZA);
        Some(plan.push(Step {
            host: node.name.clone(),
            name: "upgrade-stanza",
            why: "the repository refuses WAL of a database that it does not know".into(),
            after: Vec::new(),
            changes: vec![
                Change::Other("the repository takes the WAL of this database".into()),
                Change::Other("a full backup begins; it is not waited for".into()),
            ],
            action: Action::Run(script),
            limit: Duration::from_secs(300),
            units: vec![Role::Backup.unit()],
        }))
    }

    /// What has served. Where there is a keeper, the hard links on the upgraded member are of no use any more.
    pub(crate) fn end(&self) -> Plan {
        let mut plan = Plan::default();
        let links = match self.keeper == self.host {
            true => "",
            false => "rm -rf \"$OLD\"\n",
        };
        let script = self
            .script("forget-upgrade")
            .line(format!("{links}rm -rf \"$NEW\"\nrm -f \"$MARK.log\""));
        plan.push(Step {
            host: self.host.clone(),
            name: "forget-upgrade",
            why: "the cluster is complete on the new version".into(),
            after: Vec::new(),
            changes: vec![Change::Other(
                "the hard links to the old version's data go".into(),
            )],
            action: Action::Run(script),
            limit: STOPPING,
            units: Vec::new(),
        });
        plan
    }

    fn empty(&self, plan: &mut Plan, host: &HostName, gone: Gone, after: Vec<StepId>) -> StepId {
        let keeps = gone == Gone::Old && host == self.keeper;
        let version = match gone {
            Gone::Old => self.from,
            Gone::New => self.to,
        };
        let what = match keeps {
            true => format!(
                "PostgreSQL {version}'s data is kept in {}",
                old_version_dir(&self.cluster.inventory.postgresql.data_dir)
            ),
            false => format!("PostgreSQL {version}'s data is removed"),
        };
        let script = self
            .script("empty-member")
            .line(format!(
                "GONE={version}\nKEEP={}",
                if keeps { "yes" } else { "no" }
            ))
            .line(EMPTY);
        plan.push(Step {
            host: host.clone(),
            name: match keeps {
                true => "keep-old-data",
                false => "empty-member",
            },
            why: "another version's data cannot follow the leader".into(),
            after,
            changes: vec![Change::Other(what)],
            action: Action::Run(script),
            limit: STOPPING,
            units: Vec::new(),
        })
    }

    /// A member without the data of the version that has `gone` copies the leader's.
    fn copy_anew(&self, plan: &mut Plan, host: &HostName, gone: Gone, files: &Files) {
        let why = match gone {
            Gone::Old => "its data is copied from the new version's leader",
            Gone::New => "its data is copied from the old version's leader",
        };
        let emptied = self.empty(plan, host, gone, Vec::new());
        let started = release(plan, host, config(files, host), why, vec![emptied]);
        await_streaming(plan, host, vec![started], COPYING);
    }

    fn members(&self) -> impl Iterator<Item = &Node> {
        self.cluster.with_role(Role::Postgres)
    }

    fn others(&self) -> impl Iterator<Item = &Node> {
        self.members().filter(|node| node.name != *self.host)
    }

    fn new_dir(&self) -> String {
        new_version_dir(&self.cluster.inventory.postgresql.data_dir)
    }

    fn script(&self, name: &str) -> Script {
        let data = &self.cluster.inventory.postgresql.data_dir;
        let data = data.trim_end_matches('/');
        Script::new()
            .alone(name)
            .line(format!(
                "ID={}\nFROM={}\nTO={}\nPORT={}\nDATA={}\nNEW={}\nOLD={}\nMARK={MARK}\nHELD={HELD}",
                quote(self.id),
                self.from,
                self.to,
                self.cluster.inventory.postgresql.port,
                quote(data),
                quote(&self.new_dir()),
                quote(&old_version_dir(data)),
            ))
            .line(COMMON)
    }

    /// A script that can make an empty database of the new version.
    fn initialising(&self, name: &str, terms: &Terms) -> Script {
        let options: Vec<String> = terms.initdb.iter().map(|it| quote(it)).collect();
        // Without another member, the old data stays usable only if it is copied.
        let link = match self.keeper == self.host {
            true => "",
            false => "--link",
        };
        self.script(name).line(format!(
            "LINK={link}\nSERVER_OPTIONS={}\ninitdb_as_before() {{ as_postgres \"$bin/initdb\" -D \"$NEW\" {}; }}",
            quote(&terms.server_options),
            options.join(" ")
        ))
    }
}

/// Patroni's configuration on a host, which names the version.
fn config<'a>(files: &'a Files, host: &HostName) -> Option<&'a File> {
    let own = files.get(host)?;
    own.iter().find(|file| file.path == PATRONI_CONFIG)
}

const STANZA: &str = r#"as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups pgbackrest --config="$CONFIG" --stanza="$STANZA" --log-level-console=warn --log-level-stderr=off "$@"; }
as_postgres stanza-upgrade
as_postgres --archive-timeout=120 check
systemctl is-active --quiet pgherd-backup@full || systemctl start --no-block pgherd-backup@full"#;
