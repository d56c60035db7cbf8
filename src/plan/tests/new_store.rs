//! etcd's data is gone, and its databases run.

use super::{
    membership::silent,
    model::before_and_after,
    world::{FIVE, SHARED, World, says},
};
use crate::{
    facts::Thing,
    inventory::{HostName, Role},
    plan::{Plan, StepId},
    services::etcd::{HOLD, PatroniKeys},
};

fn steps(plan: &Plan, name: &str) -> Vec<StepId> {
    let is_it = |id: &StepId| plan.steps[*id].name == name;
    (0..plan.steps.len()).filter(is_it).collect()
}

/// Every etcd lost its data, and none runs.
fn lost(hosts: &str) -> World {
    let mut world = World::settled(hosts);
    silent(&mut world);
    for node in world.cluster.with_role(Role::Etcd) {
        let facts = world.found.facts.get_mut(&node.name).unwrap();
        facts.etcd_data = false;
        facts.units.get_mut("etcd").unwrap().active = "failed".into();
    }
    world
}

#[test]
fn patroni_restarts_alone_because_it_would_not_trust_a_new_store() {
    for hosts in [FIVE, SHARED] {
        let world = lost(hosts);
        let plan = world.plan();
        let notes = steps(&plan, "configure-patroni");
        let alone = steps(&plan, "restart-patroni-alone");
        let started = steps(&plan, "start-etcd");
        assert_eq!((notes.len(), alone.len()), (3, 3), "{hosts}");
        for note in &notes {
            assert!(says(&plan.steps[*note], "echo exchange"));
            assert!(plan.steps[*note].why.contains("trusts no other store"));
            // Cut off anywhere from here on, the next run knows who has not restarted yet.
            for step in alone.iter().chain(&started) {
                assert!(before_and_after(&plan, *step).0.contains(note));
            }
        }
        // The leader first: it leads only while every other member confirms it.
        let first = &plan.steps[alone[0]];
        assert!(
            ["node1", "db1"].contains(&first.host.as_str()),
            "{}",
            first.host
        );
        for start in started {
            assert!(before_and_after(&plan, alone[0]).0.contains(&start));
        }
    }
}

#[test]
fn a_store_that_began_without_a_run_is_found_by_what_it_lacks() {
    let mut world = World::settled(FIVE);
    world.found.dcs = Some(PatroniKeys::default());
    assert_eq!(steps(&world.plan(), "restart-patroni-alone").len(), 3);
    // One has restarted, and its note is gone. The others have theirs.
    world.found.dcs = World::settled(FIVE).found.dcs;
    for host in ["node2", "node3"] {
        let facts = world.found.facts.get_mut(&HostName::new(host)).unwrap();
        facts.pending.insert("patroni".into(), "exchange".into());
    }
    let plan = world.plan();
    let hosts: Vec<&str> = steps(&plan, "restart-patroni-alone")
        .into_iter()
        .map(|id| plan.steps[id].host.as_str())
        .collect();
    assert_eq!(hosts, ["node2", "node3"]);
}

#[test]
fn a_patroni_that_does_not_run_needs_no_restart() {
    let mut world = lost(FIVE);
    for host in ["node1", "node2", "node3"] {
        let facts = world.found.facts.get_mut(&HostName::new(host)).unwrap();
        facts.units.get_mut("patroni").unwrap().active = "inactive".into();
        facts.in_recovery = None;
    }
    let plan = world.plan();
    assert!(steps(&plan, "restart-patroni-alone").is_empty());
}

#[test]
fn a_member_that_was_taken_in_once_may_begin_a_store_again() {
    let mut world = lost(SHARED);
    let facts = world.found.facts.get_mut(&HostName::new("db2")).unwrap();
    facts.belongings.there.insert(HOLD.into(), Thing::File);
    let plan = world.plan();
    for start in steps(&plan, "start-etcd") {
        let step = &plan.steps[start];
        let frees = says(step, &format!("rm -f {HOLD}"));
        assert_eq!(frees, step.host.as_str() == "db2", "{}", step.host);
    }
}
