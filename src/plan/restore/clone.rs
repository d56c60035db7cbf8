//! A restore from another cluster's repository: a clone.
//!
//! The clone's host has no way to that repository, and no key or certificate for it. pgherd itself leads pgBackRest there,
//! by a socket on the host that only postgres can use, and only while a run lasts. Before anybody can reach the clone,
//! what was restored is cut off from the other cluster, and the user's SQL runs.

use std::time::Duration;

use serde_json::Value;

use super::{Action, Change, InPlace, Plan, Step, Unit};
use crate::{
    cluster::Node,
    plan::packages,
    remote::{Script, quote},
    sql::SESSION,
};

const CLONE: &str = include_str!("clone.sh");
const SSH: &str = include_str!("ssh.py");

/// What the clone needs on its host while it is made. `down` removes it with the folder around it.
const PLACE: &str = "/var/lib/pgherd/clone";
/// Says how far the clone is.
pub(super) const MARK: &str = "/var/lib/pgherd/clone/mark";
/// The socket that leads to the other cluster's repository.
pub(crate) const SOCKET: &str = "/run/pgherd-clone/socket";

/// Removes all of it.
pub(super) const REMOVE: &str = "rm -rf /var/lib/pgherd/clone /run/pgherd-clone";

/// How many processes restore: each has a session of SSH to the repository's host, where sshd allows ten by default.
const PROCESSES: &str = "4";

/// SQL that is run before anybody can reach the clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statements {
    pub database: String,
    /// The file's name, without a folder.
    pub name: String,
    pub text: String,
}

/// Where a clone comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The name of the other cluster, which is that of its stanza.
    pub stanza: String,
    pub run: Vec<Statements>,
    /// The user as whom pgherd logs in to the clone's host.
    pub login: String,
    /// pgBackRest is not on the clone's host.
    pub installs: bool,
}

/// The relay's socket is made by sshd, as the login's user.
const TAKE_SOCKET: &str = r#"if ! [ -S /run/pgherd-clone/socket ]; then
  echo "sshd does not listen on /run/pgherd-clone/socket" >&2
  exit 1
fi
chown postgres:postgres /run/pgherd-clone/socket
chmod 0600 /run/pgherd-clone/socket
# One that an interrupted run has left has no way to the repository any more.
grep -qsE ' (cut-off|closed|ran)$' /var/lib/pgherd/clone/mark || systemctl stop pgherd-restore 2>/dev/null || true"#;

impl InPlace<'_> {
    /// Puts what the clone needs on its host. `config` is the clone's own configuration in the DCS.
    pub(crate) fn prepare_clone(&self, origin: &Origin, config: &Value) -> Plan {
        let mut plan = Plan::default();
        let Some(node) = self.cluster.nodes.get(self.host) else {
            return plan;
        };
        let after: Vec<_> = match origin.installs {
            true => {
                let packages = vec!["pgbackrest".to_owned()];
                packages::install_beside(&mut plan, self.cluster, node, packages);
                vec![plan.steps.len() - 1]
            }
            false => Vec::new(),
        };
        let mut changes = vec![Change::Other(format!(
            "a way for pgBackRest to the repository of {}, through pgherd, as long as this run lasts",
            origin.stanza
        ))];
        changes.extend(origin.run.iter().map(|it| {
            Change::Other(format!(
                "{}, to run in the database {}",
                it.name, it.database
            ))
        }));
        plan.push(Step {
            host: self.host.clone(),
            name: "prepare-clone",
            why: "the database comes from another cluster's repository".into(),
            after,
            changes,
            action: Action::Run(self.files(origin, config)),
            limit: Duration::from_secs(60),
            units: Vec::new(),
        });
        plan
    }

    fn files(&self, origin: &Origin, config: &Value) -> Script {
        let data = &self.cluster.inventory.postgresql.data_dir;
        let only = [1];
        let keys: Vec<u8> = self.wanted.places.iter().map(|it| it.key()).collect();
        let keys = if keys.is_empty() { &only[..] } else { &keys };
        let repositories = keys
            .iter()
            .map(|key| format!("repo{key}-host=origin\nrepo{key}-host-user=postgres\n"));
        let repositories: String = repositories.collect();
        let pgbackrest = format!(
            "# Written by pgherd, and removed when the clone is complete.\n[global]\n{repositories}\
             cmd-ssh={PLACE}/ssh\nlock-path=/var/spool/pgbackrest/lock\n\
             spool-path=/var/spool/pgbackrest\nlog-level-console=warn\nlog-level-stderr=off\nlog-level-file=off\n\n\
             [{}]\npg1-path={data}\n",
            origin.stanza
        );
        let put = |path: &str, text: &str, mode: &str| {
            format!(
                "printf '%s' {} | put {} postgres:postgres {mode}",
                quote(text),
                quote(&format!("{PLACE}/{path}"))
            )
        };
        let mut script = Script::new()
            .alone("prepare-clone")
            .line(format!(
                "install -d -o postgres -g postgres -m 0700 {PLACE}\nrm -rf {PLACE}/sql /run/pgherd-clone\n\
                 install -d -o {} -m 0711 /run/pgherd-clone",
                quote(&origin.login)
            ))
            .line(put("pgbackrest.conf", &pgbackrest, "0600"))
            .line(put("ssh", SSH, "0700"))
            .line(put("pg_hba.conf", "local all postgres peer\n", "0600"))
            .line(put("pg_ident.conf", "", "0600"))
            .line(put("dcs.json", &config.to_string(), "0600"));
        for (statements, number) in origin.run.iter().zip(1..) {
            script = script
                .line(format!(
                    "install -d -o postgres -g postgres -m 0700 {PLACE}/sql {PLACE}/sql/{number} {PLACE}/sql/{number}/file"
                ))
                .line(put(
                    &format!("sql/{number}/database"),
                    &statements.database,
                    "0600",
                ))
                .line(put(
                    &format!("sql/{number}/file/{}", statements.name),
                    &statements.text,
                    "0600",
                ));
        }
        script
    }

    pub(super) fn script_of_clone(&self, node: &Node, origin: &Origin) -> Script {
        let variables = [
            ("CONFIG", format!("{PLACE}/pgbackrest.conf")),
            ("STANZA", origin.stanza.clone()),
            ("LOG", format!("{MARK}.pg")),
            ("MOST", PROCESSES.to_owned()),
            ("ID", self.id.to_owned()),
            ("MARK", MARK.to_owned()),
            ("PLACE", PLACE.to_owned()),
            ("DATA", self.cluster.inventory.postgresql.data_dir.clone()),
            ("UNTIL", self.wanted.until()),
            self.wanted.repositories(),
            ("OPTIONS", SESSION.to_owned()),
        ];
        let success = format!(
            "[ \"$(cat {MARK} 2>/dev/null)\" = {} ]",
            quote(&format!("{} recovered", self.id))
        );
        let unit = Unit {
            name: "pgherd-restore",
            limits: "",
            success: &success,
            before: TAKE_SOCKET,
        };
        unit.script(
            self.cluster,
            node,
            &variables,
            CLONE,
            &self.wanted.options(),
        )
    }

    /// The file with what was reached, on the host.
    pub(crate) fn reached(&self) -> String {
        let mark = match self.from {
            Some(_) => MARK,
            None => super::MARK,
        };
        format!("{mark}.json")
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
        process::{Command, Stdio},
    };

    use serde_json::json;

    use super::*;
    use crate::{
        inventory::HostName,
        moment::Moment,
        plan::{
            restore::Wanted,
            tests::world::{FIVE, World, step},
        },
    };

    fn origin(installs: bool) -> Origin {
        let statements = |name: &str| Statements {
            database: "my shop".into(),
            name: name.into(),
            text: "select 'it''s';".into(),
        };
        Origin {
            stanza: "prod".into(),
            run: vec![statements("a.sql"), statements("b.sql")],
            login: "ubuntu".into(),
            installs,
        }
    }

    fn clone<'a>(world: &'a World, host: &'a HostName, from: &'a Origin) -> InPlace<'a> {
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
            from: Some(from),
        }
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn what_the_clone_needs_is_there_before_it_is_restored() {
        let world = World::settled(FIVE);
        let host = HostName::new("node1");
        let from = origin(true);
        let plan = clone(&world, &host, &from).prepare_clone(&from, &json!({"ttl": 30}));
        assert_eq!(names(&plan), ["install-packages", "prepare-clone"]);
        assert_eq!(step(&plan, "node1", "prepare-clone").after, [0]);
        let Action::Run(script) = &step(&plan, "node1", "prepare-clone").action else {
            panic!("a script");
        };
        for part in [
            "cmd-ssh=/var/lib/pgherd/clone/ssh",
            "[prod]",
            "/sql/2/file/b.sql",
            "my shop",
            "-o ubuntu -m 0711",
            "{\"ttl\":30}",
        ] {
            assert!(script.contains(part), "{part}");
        }
        let from = origin(false);
        let plan = clone(&world, &host, &from).prepare_clone(&from, &json!({}));
        assert_eq!(names(&plan), ["prepare-clone"]);
    }

    /// It has a repository of its own, or none, and never archives into the other's.
    #[test]
    fn a_clone_knows_the_other_cluster_only_while_it_is_restored() {
        let world = World::settled(FIVE);
        let (host, from) = (HostName::new("node1"), origin(false));
        let work = clone(&world, &host, &from);
        let plan = work.restore();
        let Action::Run(script) = &step(&plan, "node1", "restore").action else {
            panic!("a script");
        };
        assert!(script.contains("--setenv=STANZA=prod"));
        assert!(!script.contains("/etc/pgherd/archive"));
        let plan = work.end();
        assert_eq!(names(&plan), ["forget-restore"]);
        let Action::Run(script) = &plan.steps[0].action else {
            panic!("a script");
        };
        assert!(script.contains(REMOVE));
        let plan = work.give_up();
        let Action::Run(script) = &plan.steps[0].action else {
            panic!("a script");
        };
        assert!(script.contains(REMOVE) && script.contains(MARK));
    }

    fn asks(command: &str) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let program = SSH.replace(SOCKET, socket.to_str().unwrap());
        let mut child = Command::new("python3")
            .args([
                "-c",
                &program,
                "-o",
                "LogLevel=error",
                "postgres@origin",
                command,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let begun = std::time::Instant::now();
        let mut asked = String::new();
        while child.try_wait().unwrap().is_none() && begun.elapsed().as_secs() < 60 {
            let Ok((mut stream, _)) = listener.accept() else {
                std::thread::sleep(std::time::Duration::from_millis(20));
                continue;
            };
            stream.set_nonblocking(false).unwrap();
            stream.write_all(b"greeting").unwrap();
            child.stdin.take().unwrap().write_all(b"request").unwrap();
            stream.read_to_string(&mut asked).unwrap();
        }
        let ended = child.wait_with_output().unwrap();
        let said = [ended.stdout, ended.stderr].concat();
        (asked, String::from_utf8(said).unwrap())
    }

    #[test]
    fn pgbackrest_is_led_through_pgherd_to_what_a_restore_reads() {
        let command = "pgbackrest --exec-id=1-a --pg1-path=/data --process=3 --remote-type=repo --stanza=prod restore:remote";
        let (asked, said) = asks(command);
        assert_eq!(asked, "restore 3\nrequest");
        assert_eq!(said, "greeting");
        let (asked, said) = asks(&command.replace("restore:remote", "archive-push:remote"));
        assert_eq!(asked, "");
        assert!(said.contains("only to what a restore reads"), "{said}");
    }
}
