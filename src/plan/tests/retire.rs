//! Databases that leave: in which order, and what is refused with its arithmetic.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::{FIVE, SHARED, World, says, step, steps, told};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Place, Role},
    plan::{
        Action, Plan, membership,
        retire::{self, Becomes, Departures, LET_GO, Leaver, ShrinkingCluster},
        tests::model::before_and_after,
    },
    services::postgres::patroni::Status,
};

type Survey = BTreeMap<HostName, Result<Status>>;

/// node1 leads, and streams to the others.
fn healthy(names: &[&str]) -> Survey {
    let (leader, replicas) = names.split_first().unwrap();
    let streams: Vec<Value> = replicas
        .iter()
        .map(|name| json!({"application_name": name, "state": "streaming", "sync_state": "async"}))
        .collect();
    let says = |said: Value| Ok(serde_json::from_value(said).unwrap());
    let mut survey: Survey = replicas
        .iter()
        .map(|name| {
            let said = json!({"state": "running", "role": "replica"});
            (HostName::new(*name), says(said))
        })
        .collect();
    let said = json!({"state": "running", "role": "primary", "replication": streams});
    survey.insert(HostName::new(*leader), says(said));
    survey
}

fn dies(survey: &mut Survey, host: &str) {
    let silent = Error::new(Code::PatroniUnreachable, "no answer");
    survey.insert(HostName::new(host), Err(silent));
    for status in survey.values_mut().flatten() {
        status.replication.retain(|it| it.application_name != host);
    }
}

fn leaver(world: &World, host: &str) -> Leaver {
    let host = HostName::new(host);
    Leaver {
        roles: world.cluster.nodes[&host].roles.clone(),
        answers: world.found.facts.contains_key(&host),
        becomes: Becomes::Gone,
        host,
    }
}

fn plan(world: &World, survey: &Survey, leaving: &[Leaver]) -> Result<Plan> {
    retire::plan(&ShrinkingCluster {
        cluster: &world.cluster,
        found: &world.found,
        survey,
        leaving,
    })
}

fn refused(world: &World, survey: &Survey, leaving: &[Leaver]) -> String {
    let error = plan(world, survey, leaving).unwrap_err();
    assert_eq!(error.left_behind(), Some("nothing was changed"), "{error}");
    told(&error)
}

const DATABASES: [&str; 3] = ["node1", "node2", "node3"];

fn synchronous() -> World {
    let mut world = World::settled(FIVE);
    world.wants("patroni: { synchronous: true }", FIVE);
    world
}

#[test]
fn a_replica_stops_is_forgotten_and_its_slot_goes() {
    let world = World::settled(FIVE);
    let plan = plan(&world, &healthy(&DATABASES), &[leaver(&world, "node3")]).unwrap();
    assert_eq!(
        steps(&plan),
        [
            "node3 forbid-election []",
            "node3 retire-patroni [0]",
            "node3 forget-member [1]",
            "node3 drop-slot [2]"
        ]
    );
    let Action::ForbidElection(script) = &plan.steps[0].action else {
        panic!("another action");
    };
    assert!(script.contains("nofailover=True"));
    assert!(script.contains("systemctl reload patroni"));
    assert!(says(
        step(&plan, "node3", "retire-patroni"),
        "systemctl disable --quiet --now patroni"
    ));
    let on = ["node1", "node2"].map(HostName::new).to_vec();
    let ttl = Value::Null;
    assert_eq!(plan.steps[3].action, Action::DropSlot { on, ttl });
}

/// While Patroni lets slots of absent members go, it lets go of all of them.
#[test]
fn no_slot_is_dropped_while_another_member_is_away() {
    let mut world = World::settled(FIVE);
    world.found.facts.remove(&HostName::new("node3"));
    let mut survey = healthy(&DATABASES);
    dies(&mut survey, "node3");
    dies(&mut survey, "node2");
    let plan = plan(&world, &survey, &[leaver(&world, "node3")]).unwrap();
    assert_eq!(steps(&plan), ["node3 forget-member []"]);
    let kept = &plan.unchanged[0];
    assert_eq!(kept.name, "drop-slot");
    assert!(kept.reason.starts_with("node2 would lose"), "{kept:?}");
}

#[test]
fn the_leader_hands_over_last() {
    let world = World::settled(FIVE);
    let leaving = ["node1", "node2"].map(|host| leaver(&world, host));
    let plan = plan(&world, &healthy(&DATABASES), &leaving).unwrap();
    let names: Vec<String> = plan
        .steps
        .iter()
        .map(|step| format!("{} {}", step.host, step.name))
        .collect();
    let at = |name: &str| names.iter().position(|it| it == name).unwrap();
    assert!(at("node2 drop-slot") < at("node1 hand-over"), "{names:?}");
    assert!(
        at("node1 hand-over") < at("node1 retire-patroni"),
        "{names:?}"
    );
    // From before its hand-over until it has stopped it would be elected again, should the new leader die.
    let first = ["node2 forbid-election", "node1 forbid-election"];
    assert_eq!(names[..2], first);
    let before = before_and_after(&plan, at("node1 hand-over")).0;
    assert!(before.contains(&0) && before.contains(&1), "{before:?}");
    let leaving = ["node2", "node1"].map(HostName::new).to_vec();
    assert_eq!(
        step(&plan, "node1", "hand-over").action,
        Action::LeadElsewhere { leaving }
    );
}

#[test]
fn one_that_is_dead_is_only_forgotten() {
    let mut world = World::settled(FIVE);
    world.found.facts.remove(&HostName::new("node3"));
    let mut survey = healthy(&DATABASES);
    dies(&mut survey, "node3");
    let plan = plan(&world, &survey, &[leaver(&world, "node3")]).unwrap();
    assert_eq!(
        steps(&plan),
        ["node3 forget-member []", "node3 drop-slot [0]"]
    );
    // Nor does anybody look for its journal.
    assert!(plan.steps.iter().all(|step| step.units.is_empty()));
}

#[test]
fn one_whose_name_is_taken_again_keeps_its_slot() {
    let world = World::settled(FIVE);
    let mut leaver = leaver(&world, "node3");
    leaver.becomes = Becomes::New;
    let plan = plan(&world, &healthy(&DATABASES), &[leaver]).unwrap();
    assert_eq!(
        steps(&plan),
        [
            "node3 forbid-election []",
            "node3 retire-patroni [0]",
            "node3 forget-member [1]"
        ]
    );
}

#[test]
fn what_a_run_that_was_cut_off_has_set_is_not_kept() {
    let survey = healthy(&DATABASES);
    for (found, kept) in [
        (json!(LET_GO), Value::Null),
        (json!("2h"), json!("2h")),
        (json!(0), json!(0)),
    ] {
        let mut world = World::settled(FIVE);
        let mut config = world.dcs().config.clone().unwrap();
        config["member_slots_ttl"] = found;
        world.dcs().config = Some(config);
        let plan = plan(&world, &survey, &[leaver(&world, "node3")]).unwrap();
        let Action::DropSlot { ttl, .. } = &step(&plan, "node3", "drop-slot").action else {
            panic!("another action");
        };
        assert_eq!(*ttl, kept);
    }
}

#[test]
fn a_synchronous_leader_is_not_left_without_a_standby() {
    let world = synchronous();
    let leaving = ["node2", "node3"].map(|host| leaver(&world, host));
    insta::assert_snapshot!(refused(&world, &healthy(&DATABASES), &leaving), @r"
    the inventory wants `synchronous: true`, and no standby would be left for the leader
      why: of 3 databases 2 would leave (node2, node3) and 1 would stay (node1); of those, 1 is healthy now (node1)
      why: a synchronous cluster needs 2 databases: the leader and a standby that has every commit
      left: nothing was changed
      hint: add another database first, and run `pgherd up`
      hint: or set patroni: { synchronous: false }, and accept that a failover may lose commits
    ");
    assert!(plan(&world, &healthy(&DATABASES), &leaving[..1]).is_ok());
    // Two stay, one of which is ill.
    let mut survey = healthy(&DATABASES);
    dies(&mut survey, "node2");
    let said = refused(&world, &survey, &leaving[1..]);
    assert!(said.contains("no healthy standby would be left"), "{said}");
    assert!(
        said.contains("of those, 1 is healthy now (node1)"),
        "{said}"
    );
    // The one that is ill may go.
    assert!(plan(&world, &survey, &leaving[..1]).is_ok());
    // Without it, commits do not wait for anybody.
    let world = World::settled(FIVE);
    let leaving = ["node2", "node3"].map(|host| leaver(&world, host));
    assert!(plan(&world, &healthy(&DATABASES), &leaving).is_ok());
}

#[test]
fn the_only_copy_does_not_leave() {
    let world = World::settled(FIVE);
    let mut survey = healthy(&DATABASES);
    dies(&mut survey, "node2");
    dies(&mut survey, "node3");
    insta::assert_snapshot!(refused(&world, &survey, &[leaver(&world, "node1")]), @r"
    node1 leads, and streams to no database that stays: its copy of the data is the only one that is up to date
      why: of 3 databases 1 would leave (node1) and 2 would stay (node2, node3); of those, none is healthy now
      left: nothing was changed
      hint: see what is wrong with the replicas: pgherd status
      hint: a replica that can no longer follow is copied anew: pgherd reinit HOST
    ");
    let all = DATABASES.map(|host| leaver(&world, host));
    let said = refused(&world, &healthy(&DATABASES), &all);
    assert!(said.contains("nobody would be left to lead"), "{said}");
    // The only replica that is well, while another that stays is ill.
    let mut survey = healthy(&DATABASES);
    dies(&mut survey, "node2");
    let said = refused(&world, &survey, &[leaver(&world, "node3")]);
    assert!(said.contains("no other that stays is healthy"), "{said}");
    // Nobody leads.
    dies(&mut survey, "node1");
    let said = refused(&world, &survey, &[leaver(&world, "node3")]);
    assert!(said.contains("no member leads now"), "{said}");
}

#[test]
fn a_member_of_etcd_is_made_anew_while_the_others_are_a_majority() {
    let world = World::settled(SHARED);
    let survey = healthy(&["db1", "db2", "db3"]);
    let mut leaver = leaver(&world, "db3");
    // For good, it leaves by the plan for those that stay.
    assert!(plan(&world, &survey, std::slice::from_ref(&leaver)).is_ok());
    leaver.becomes = Becomes::New;
    assert!(plan(&world, &survey, std::slice::from_ref(&leaver)).is_ok());
    let mut world = world;
    world.found.stores.remove(&HostName::new("db1"));
    let said = refused(&world, &survey, std::slice::from_ref(&leaver));
    assert!(said.contains("without db3, 1 would answer"), "{said}");
    // The only one may come again: Patroni fills it.
    let world = World::settled(FIVE);
    let only = Leaver {
        host: HostName::new("node4"),
        roles: vec![Role::Etcd],
        answers: true,
        becomes: Becomes::New,
    };
    assert!(
        plan(&world, &healthy(&DATABASES), &[only])
            .unwrap()
            .is_empty()
    );
}

/// It gives up another role, and has its database still.
#[test]
fn whoever_keeps_its_database_is_counted() {
    let world = synchronous();
    let mut door = leaver(&world, "node2");
    door.roles = vec![Role::Haproxy];
    door.becomes = Becomes::Less;
    let leaving = [leaver(&world, "node3"), door];
    let plan = plan(&world, &healthy(&DATABASES), &leaving).unwrap();
    let on = ["node1", "node2"].map(HostName::new).to_vec();
    let Action::DropSlot { on: holders, .. } = &step(&plan, "node3", "drop-slot").action else {
        panic!("another action");
    };
    assert_eq!(*holders, on);
    assert!(plan.steps.iter().all(|step| step.host.as_str() == "node3"));
}

#[test]
fn only_who_is_named_may_be_missing_from_the_inventory() {
    let mut world = World::settled(FIVE);
    let hosts: String = FIVE
        .lines()
        .filter(|line| !line.contains("node3:"))
        .map(|line| format!("{line}\n"))
        .collect();
    world.wants("", &hosts);
    let refusal = world.refusal();
    assert!(refusal.contains("pgherd up --remove node3;"), "{refusal}");
    let agreed = |host: &str| Departures::Agreed([HostName::new(host)].into());
    world.found.leaving = agreed("node2");
    assert!(world.up().is_err());
    world.found.leaving = Departures::Shown;
    assert!(world.up().is_ok());
    world.found.leaving = agreed("node3");
    let plan = world.plan();
    assert!(plan.steps.iter().all(|step| step.host.as_str() != "node3"));
    let left = membership::left(&world.cluster.inventory, &world.found, &[]);
    assert!(left.iter().any(|left| left.name.as_str() == "node3"));
}

#[test]
fn what_becomes_of_backups_depends_on_who_made_the_machine() {
    let lost = |goes, places: &[Place]| {
        let data = retire::Data::IsDeleted("/data/patroni");
        retire::lost(&[Role::Backup], &[], data, false, goes, places).join("\n")
    };
    assert_eq!(
        lost(true, &[Place::Disk]),
        "all backups of the cluster are deleted, and the WAL between them"
    );
    assert!(lost(false, &[Place::Disk]).contains("its backups stay in /var/lib/pgherd-backups"));
    let both = [Place::Disk, Place::Bucket];
    assert!(
        lost(true, &both).contains("those on its disk are deleted, and those in the bucket stay")
    );
    assert!(lost(true, &both[1..]).contains("those that are there stay in the bucket"));
}
