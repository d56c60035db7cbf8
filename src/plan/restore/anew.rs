//! A restore of a cluster of which no host has the database: what is different from one in place.

use std::time::Duration;

use super::{HELD, InPlace, MARK, STOPPING, clone, hold};
use crate::{
    cluster::Node,
    inventory::{HostName, Role},
    plan::{
        Action, Change, Found, Plan, Step, StepId,
        waits::{COPYING, await_streaming},
    },
    remote::{Script, quote},
    services::postgres::PATRONI,
};

/// Nobody has used what was restored so far. What this restore did not make is left alone.
const GIVE_UP: &str = r#"systemctl stop pgherd-restore 2>/dev/null || true
if grep -qs "^$ID " "$MARK"; then
  if [ "$KEEP" = yes ] && [ -e "$OLD" ]; then
    rm -rf "$DATA"
    mv "$OLD" "$DATA"
  elif ! grep -qxF "$ID begun" "$MARK" && [ -d "$DATA" ]; then
    find "$DATA" -mindepth 1 -delete
  fi
fi
rm -f "$MARK" "$MARK.json" "$MARK.log" "$MARK.pg""#;

impl InPlace<'_> {
    /// Stops every Patroni that is there already: with an etcd that comes back without data, it would make a new
    /// database.
    pub(crate) fn stop_all(&self, found: &Found) -> Plan {
        let mut plan = Plan::default();
        for node in self.cluster.with_role(Role::Postgres) {
            let facts = found.facts.get(&node.name);
            if facts.is_some_and(|it| it.unit(PATRONI.name).loaded) {
                hold(&mut plan, self.cluster, node, Vec::new(), None);
            }
        }
        plan
    }

    /// Lets the members be started again by whoever starts them: one has the database after all.
    pub(crate) fn let_go(&self, found: &Found) -> Plan {
        let mut plan = Plan::default();
        for node in self.cluster.with_role(Role::Postgres) {
            if !found.facts.contains_key(&node.name) {
                continue;
            }
            plan.push(Step {
                host: node.name.clone(),
                name: "let-go",
                why: "nothing is restored".into(),
                after: Vec::new(),
                changes: vec![Change::Other("Patroni may be started again".into())],
                action: Action::Run(
                    Script::new()
                        .alone("release-member")
                        .line(format!("rm -f {HELD}\nsystemctl daemon-reload")),
                ),
                limit: Duration::from_secs(60),
                units: Vec::new(),
            });
        }
        plan
    }

    /// Removes what was restored so far. The members stay stopped: whichever started first would make a new database.
    pub(crate) fn give_up(&self) -> Plan {
        let mut plan = Plan::default();
        let data = &self.cluster.inventory.postgresql.data_dir;
        let mark = match self.from {
            Some(_) => clone::MARK,
            None => MARK,
        };
        let mut script = Script::new().alone("restore").line(format!(
            "DATA={}\nOLD={}\nKEEP={}\nMARK={mark}\nID={}\n{GIVE_UP}",
            quote(data),
            quote(&super::kept_dir(data)),
            if self.keeps { "yes" } else { "no" },
            quote(self.id)
        ));
        if self.from.is_some() {
            script = script.line(clone::REMOVE);
        }
        plan.push(Step {
            host: self.host.clone(),
            name: "undo-restore",
            why: "you asked for the way back".into(),
            after: Vec::new(),
            changes: vec![Change::Other(
                "what was restored so far is removed; no database was there before".into(),
            )],
            action: Action::Run(script),
            limit: STOPPING,
            units: Vec::new(),
        });
        plan
    }

    /// Has the DCS name the restored database, and end a pause. An empty one learns it from Patroni.
    pub(super) fn adopt(
        &self,
        plan: &mut Plan,
        etcd: &HostName,
        found: &Found,
        after: StepId,
    ) -> StepId {
        let keys = found.dcs.as_ref();
        let (Some(system), true) = (
            self.anew,
            keys.is_some_and(|keys| keys.initialize.is_some()),
        ) else {
            return after;
        };
        plan.push(Step {
            host: etcd.clone(),
            name: "adopt-system",
            why: "the DCS may remember another database, or a pause".into(),
            after: vec![after],
            changes: vec![Change::Other(format!(
                "the DCS names the restored database, {system}"
            ))],
            action: Action::AdoptSystem {
                system: system.to_owned(),
            },
            limit: Duration::from_secs(30),
            units: vec!["etcd"],
        })
    }

    /// Waits until a member has copied the database, of which it has nothing.
    pub(super) fn await_copy(&self, plan: &mut Plan, node: &Node, released: StepId) {
        if self.anew.is_some() {
            await_streaming(plan, &node.name, vec![released], COPYING);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::{
        moment::Moment,
        plan::{
            restore::Wanted,
            tests::world::{FIVE, World, step},
        },
        services::etcd::PatroniKeys,
    };

    fn anew<'a>(world: &'a World, host: &'a HostName) -> InPlace<'a> {
        InPlace {
            cluster: &world.cluster,
            host,
            id: "7",
            wanted: Wanted {
                to: &Moment::Latest,
                set: None,
                timeline: None,
                places: &[],
            },
            keeps: false,
            anew: Some("42"),
            from: None,
        }
    }

    fn steps(plan: &Plan) -> Vec<String> {
        let each = plan.steps.iter();
        each.map(|step| format!("{} {}", step.host, step.name))
            .collect()
    }

    #[test]
    fn the_dcs_names_the_restored_database_and_the_others_copy_it() {
        let mut world = World::settled(FIVE);
        let host = HostName::new("node2");
        let plan = anew(&world, &host).lead(&world.found, false);
        assert_eq!(
            steps(&plan),
            [
                "node4 forget-position",
                "node4 adopt-system",
                "node2 release-member",
                "node2 await-leader",
                "node2 ensure-roles",
            ]
        );
        let system = "42".to_owned();
        let adopts = &step(&plan, "node4", "adopt-system").action;
        assert_eq!(*adopts, Action::AdoptSystem { system });
        assert_eq!(step(&plan, "node2", "release-member").after, [1]);
        // It starts with its files, and is not restarted for them.
        let Action::Run(script) = &step(&plan, "node2", "release-member").action else {
            panic!("a script");
        };
        assert!(script.contains("rm -f /run/pgherd/pending/patroni"));
        // A DCS that knows of no database learns it from Patroni, with its settings.
        world.found.dcs = Some(PatroniKeys::default());
        let plan = anew(&world, &host).lead(&world.found, false);
        assert_eq!(steps(&plan)[1], "node2 release-member");
        // In place, they go back by pg_rewind, which is not waited for here.
        let mut it = anew(&world, &host);
        assert_eq!(
            steps(&it.rejoin()),
            [
                "node1 release-member",
                "node1 await-streaming",
                "node3 release-member",
                "node3 await-streaming",
            ]
        );
        it.anew = None;
        let released = ["node1 release-member", "node3 release-member"];
        assert_eq!(steps(&it.rejoin()), released);
    }

    #[test]
    fn every_patroni_that_is_there_stops_before_an_etcd_comes_back() {
        let mut world = World::settled(FIVE);
        world.made_anew("node1");
        let host = HostName::new("node1");
        let plan = anew(&world, &host).stop_all(&world.found);
        assert_eq!(steps(&plan), ["node2 hold-member", "node3 hold-member"]);
        let plan = anew(&world, &host).let_go(&world.found);
        assert_eq!(plan.steps.len(), 3);
        assert!(!format!("{:?}", plan.steps[0].changes).contains("start "));
    }

    /// Only what this restore has made is removed.
    #[test]
    fn what_was_restored_is_given_up_and_nothing_else() {
        for (mark, old, keep, expected) in [
            ("7 restored", false, "no", ""),
            ("7 aside", false, "no", ""),
            ("7 begun", false, "no", "new"),
            ("6 restored", false, "no", "new"),
            ("", false, "no", "new"),
            ("7 restored", true, "yes", "old"),
            ("7 begun", true, "yes", "old"),
            ("6 restored", true, "yes", "new"),
            // Of an earlier restore.
            ("7 restored", true, "no", ""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("data")).unwrap();
            fs::write(at("data/new"), "").unwrap();
            if old {
                fs::create_dir(at("kept")).unwrap();
                fs::write(at("kept/old"), "").unwrap();
            }
            if !mark.is_empty() {
                fs::write(at("mark"), format!("{mark}\n")).unwrap();
            }
            let script = format!(
                "set -eu\nsystemctl() {{ :; }}\nID=7 DATA=data OLD=kept KEEP={keep} MARK=mark\n{GIVE_UP}"
            );
            let status = Command::new("sh")
                .args(["-c", &script])
                .current_dir(folder.path())
                .status();
            assert!(status.unwrap().success(), "{mark}");
            let left = fs::read_dir(at("data")).unwrap();
            let left: Vec<String> = left
                .map(|it| it.unwrap().file_name().into_string().unwrap())
                .collect();
            assert_eq!(left.join(" "), expected, "{mark}, {old}, {keep}");
            assert!(!at("mark").exists());
        }
    }
}
