//! The way back to the old version, and its end.

use std::time::Duration;

use super::{
    super::{
        Action, Change, Plan, Step,
        held::release,
        packages::{self, LOCKS},
    },
    Gone, InPlace, STOPPING, config,
};
use crate::{remote::Script, render::Files};

pub(super) const UNDO: &str = include_str!("undo.sh");
pub(super) const PUT_BACK: &str = include_str!("put_back.sh");
pub(super) const PACKAGES: &str = include_str!("packages.sh");

/// Stops a member that may run, whoever leads.
const HOLD: &str = r#"install -d -m 0755 "$(dirname "$HELD")"
printf '%s\n' '# The cluster goes back to the old version. A Patroni that starts now would start the new one.' \
  '[Unit]' 'AssertPathExists=/run/pgherd/restored' | put "$HELD" root:root 0644
systemctl daemon-reload
[ "$(version "$DATA")" = "$TO" ] || ! runs || exit 0
systemctl stop patroni
if runs; then
  echo "PostgreSQL still runs, as process $pid, although Patroni has stopped" >&2
  exit 1
fi"#;

impl InPlace<'_> {
    /// Undoes an upgrade whose new version no client has reached. `files` are those of the old version.
    pub(crate) fn undo(&self, system: &str, files: &Files) -> Plan {
        let mut plan = Plan::default();
        let undone = plan.push(Step {
            host: self.host.clone(),
            name: "undo-upgrade",
            why: "you asked for the way back".into(),
            after: Vec::new(),
            changes: vec![Change::Other(format!(
                "the database is one of PostgreSQL {} again",
                self.from
            ))],
            action: Action::Run(self.script("upgrade-database").line(UNDO)),
            limit: STOPPING,
            units: Vec::new(),
        });
        let mut plan = self.lead_with(self.host, system, files, vec![undone], plan);
        let led = plan.steps.len() - 1;
        for node in self.others() {
            release(
                &mut plan,
                &node.name,
                config(files, &node.name),
                "its data is as it was",
                vec![led],
            );
        }
        plan
    }

    /// The old version leads again, on the data that was kept. `files` are those of the old version.
    pub(crate) fn put_back(&self, system: &str, files: &Files) -> Plan {
        let mut plan = Plan::default();
        let mut stopped = Vec::new();
        for node in self.members() {
            let script = self.script("hold-member").line(HOLD);
            stopped.push(plan.push(Step {
                host: node.name.clone(),
                name: "hold-member",
                why: "it runs the new version".into(),
                after: Vec::new(),
                changes: vec![Change::Other(
                    "Patroni and PostgreSQL stop, and are not started by a reboot".into(),
                )],
                action: Action::Run(script),
                limit: STOPPING,
                units: vec!["patroni"],
            }));
        }
        let back = plan.push(Step {
            host: self.keeper.clone(),
            name: "put-back",
            why: "you asked for the way back".into(),
            after: stopped,
            changes: vec![Change::Other(format!(
                "the data that PostgreSQL {} had is back in its place",
                self.from
            ))],
            action: Action::Run(self.script("put-back").line(PUT_BACK)),
            limit: STOPPING,
            units: Vec::new(),
        });
        self.lead_with(self.keeper, system, files, vec![back], plan)
    }

    /// The other members copy the data of the old version's leader.
    pub(crate) fn rejoin(&self, files: &Files) -> Plan {
        let mut plan = Plan::default();
        self.new_stanza(&mut plan);
        for node in self.members().filter(|node| node.name != *self.keeper) {
            self.copy_anew(&mut plan, &node.name, Gone::New, files);
        }
        for node in self.members() {
            let script = self
                .script("forget-upgrade")
                .line("rm -rf \"$NEW\" \"$OLD\"\nrm -f \"$MARK\" \"$MARK\".*");
            plan.push(Step {
                host: node.name.clone(),
                name: "forget-upgrade",
                why: "the old version leads again".into(),
                after: Vec::new(),
                changes: vec![Change::Other("the new version's data goes".into())],
                action: Action::Run(script),
                limit: STOPPING,
                units: Vec::new(),
            });
        }
        plan
    }

    /// Removes what was kept of the old version.
    pub(crate) fn accept(&self) -> Plan {
        let mut plan = Plan::default();
        for node in self.members() {
            let removed = self
                .script("remove-old-data")
                .line("rm -rf \"$OLD\" \"$NEW\"\nrm -f \"$MARK\" \"$MARK\".*");
            let removed = plan.push(Step {
                host: node.name.clone(),
                name: "remove-old-data",
                why: "you have accepted the new version".into(),
                after: Vec::new(),
                changes: vec![Change::Other(format!(
                    "what is left of PostgreSQL {}'s data goes",
                    self.from
                ))],
                action: Action::Run(removed),
                limit: STOPPING,
                units: Vec::new(),
            });
            let script = Script::new()
                .alone(packages::INSTALL)
                .line(format!("FROM={}", self.from))
                .line(LOCKS)
                .line(PACKAGES);
            plan.push(Step {
                host: node.name.clone(),
                name: "remove-old-packages",
                why: "nothing of this cluster needs them".into(),
                after: vec![removed],
                changes: vec![Change::Other(format!(
                    "the packages of PostgreSQL {} are purged, unless something else needs them",
                    self.from
                ))],
                action: Action::Run(script),
                limit: Duration::from_secs(1800),
                units: Vec::new(),
            });
        }
        plan
    }
}
