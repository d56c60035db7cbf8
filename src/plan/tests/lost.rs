//! A cluster whose database no host has, and whose repository has backups of it.

use std::process::Command;

use super::world::{FIVE, World, step};
use crate::{
    contract::BACKUPS,
    error::Code,
    facts::{DataFact, Folder},
    inventory::HostName,
    plan::lost::{self, Keeps},
    services::etcd::PatroniKeys,
};

fn hosts() -> String {
    format!("{FIVE}  keeper: {{ roles: [backup], address: 192.0.2.6 }}\n")
}

fn kept(ends: &[i64]) -> Keeps {
    let label = |end: &i64| (format!("backup-{end}F"), *end);
    Keeps::Backups(ends.iter().map(label).collect())
}

/// A cluster whose databases are gone with their hosts; others have been made since.
fn lost() -> World {
    let mut world = World::settled(&hosts());
    for host in ["node1", "node2", "node3"] {
        world.made_anew(host);
    }
    world.dcs().leader = None;
    world.dcs().members.clear();
    world.found.repository = Some(kept(&[1000, 2000]));
    world
}

#[test]
fn no_new_database_is_made_while_there_are_backups_of_the_old_one() {
    let mut world = lost();
    insta::assert_snapshot!(world.refusal(), @r"
    no host has the database of pg, and its repository has 2 backups
      why: backup-2000F, of 1970-01-01 00:33:20+00; backup-1000F, of 1970-01-01 00:16:40+00
      why: a member that started now would make a new, empty database under the same name
      left: nothing was changed
      hint: have it back: pgherd restore --to latest
      hint: see what can be restored: pgherd backups
      hint: for a new, empty cluster, choose another name for it; or, if nobody needs the backups: pgherd down --with-backups
    ");
    // An etcd that has lost its data too knows of no database. Without the repository, a new one would be made.
    world.found.dcs = Some(PatroniKeys::default());
    assert_eq!(world.up().unwrap_err().code(), Code::DatabaseLost);
    world.found.repository = Some(Keeps::Unknown("it is locked".into()));
    insta::assert_snapshot!(world.refusal(), @r"
    no host has the database of pg, and its repository may have backups of it
      why: it is locked
      left: nothing was changed
      hint: see what is wrong with it: pgherd backups
    ");
    world.found.repository = Some(kept(&[]));
    step(&world.plan(), "node1", "start-patroni");
}

#[test]
fn what_nobody_has_seen_is_not_lost() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 5] = [
        ("a host is stopped", |world| {
            world.found.facts.remove(&HostName::new("node2"));
        }),
        ("a server answers", |world| {
            world.facts("node2").in_recovery = Some(true);
        }),
        ("a copy is being made", |world| {
            world.facts("node2").data_at_work = true;
        }),
        ("there is a database", |world| {
            let settled = World::settled(&hosts()).facts("node2").clone();
            world.facts("node2").data = settled.data;
        }),
        ("there is a damaged one", |world| {
            world.facts("node2").data = Some(DataFact {
                entries: 9,
                has_run: true,
                ..DataFact::default()
            });
        }),
    ];
    for (what, change) in changes {
        let mut world = lost();
        assert!(lost::is(&world.cluster, &world.found));
        change(&mut world);
        assert!(!lost::is(&world.cluster, &world.found), "{what}");
        if let Err(error) = world.up() {
            assert_ne!(error.code(), Code::DatabaseLost, "{what}");
        }
    }
    // Nothing was ever committed to these.
    for left in [
        DataFact {
            entries: 9,
            bases: 1,
            ..DataFact::default()
        },
        DataFact {
            entries: 23,
            bases: 3,
            control: true,
            never_started: true,
            ..DataFact::default()
        },
    ] {
        let mut world = lost();
        world.facts("node2").data = Some(left);
        assert!(lost::is(&world.cluster, &world.found));
    }
}

#[test]
fn a_repository_that_cannot_be_asked_must_come_back_first() {
    let mut world = lost();
    world.found.repository = None;
    assert!(world.refusal().contains("etcdctl del --prefix"));
    world.found.facts.remove(&HostName::new("keeper"));
    let said = world.refusal();
    assert!(said.contains("bring keeper back first"), "{said}");
    assert!(!said.contains("etcdctl del"), "{said}");
}

/// Then pgherd restores it.
#[test]
fn hosts_are_made_ready_without_a_database_and_then_there_is_nothing_to_do() {
    let mut world = lost();
    world.found.restores = true;
    world.stop("haproxy", "haproxy");
    let plan = world.plan();
    assert!(plan.partial);
    for (host, name) in [
        ("node1", "install-packages"),
        ("node3", "configure-patroni"),
        ("node2", "start-pgherd-archive"),
        ("haproxy", "start-haproxy"),
    ] {
        step(&plan, host, name);
    }
    let database = |name: &str| ["start-patroni", "await-leader", "create-stanza"].contains(&name);
    assert!(!plan.steps.iter().any(|it| database(it.name)));

    let mut world = World::settled(&hosts());
    for host in ["node1", "node2", "node3"] {
        world.stop(host, "patroni");
        world.facts(host).data = Some(DataFact::default());
    }
    world.found.restores = true;
    assert_eq!(world.steps(), [""; 0]);
}

/// Its host is new, so nobody could ask it before there was a plan.
#[test]
fn a_repository_that_is_older_than_its_host_is_asked_before_a_database_is_made() {
    let mut world = World::bare(&hosts());
    assert!(
        world
            .plan()
            .steps
            .iter()
            .all(|it| it.name != "ask-repository")
    );
    let folder = Folder {
        owner: "postgres".into(),
        group: "postgres".into(),
        mode: 0o750,
        is_folder: true,
        passable: None,
    };
    let folders = &mut world.facts("keeper").needs.folders;
    folders.insert(BACKUPS.into(), folder);
    let plan = world.plan();
    let asks = plan.steps.iter().position(|it| it.name == "ask-repository");
    let asks = asks.unwrap();
    let configured = plan.steps[asks].after.iter().map(|id| plan.steps[*id].name);
    assert_eq!(configured.collect::<Vec<_>>(), ["configure-pgherd-backup"]);
    for host in ["node1", "node2", "node3"] {
        assert!(step(&plan, host, "start-patroni").after.contains(&asks));
    }

    let mut world = World::bare(&hosts());
    let bucket = "backup: { s3: { bucket: backups, region: eu-central-1 } }";
    world.wants(bucket, &hosts());
    step(&world.plan(), "keeper", "ask-repository");
}

#[test]
fn a_repository_is_asked_by_what_pgbackrest_says() {
    let backup = r#"[{"backup":[{"label":"20261127-010000F"}],"status":{"code":0}}]"#;
    for (said, code, told) in [
        (
            backup,
            1,
            "has backups of a database of this name: 20261127-010000F",
        ),
        (r#"[{"backup":[],"status":{"code":1}}]"#, 0, ""),
        (r#"[{"backup":[],"status":{"code":2}}]"#, 0, ""),
        ("[]", 0, ""),
        (
            r#"[{"status":{"code":99}}]"#,
            1,
            "cannot read what the repository has",
        ),
    ] {
        let script = format!(
            "set -eu\nsetpriv() {{ printf '%s' {}; }}\nCONFIG=c STANZA=s RESTORE='pgherd restore'\n{}",
            crate::remote::quote(said),
            lost::ASK
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}: {stderr}");
        assert!(stderr.contains(told), "{said}: {stderr}");
    }
}
