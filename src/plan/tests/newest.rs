//! A store that begins without data: the newest database leads.

use super::world::{FIVE, World, step};
use crate::{facts::DataFact, inventory::HostName, services::etcd::PatroniKeys};

/// The only etcd's disk is lost, and no member accepts writes; node2 led.
fn after_a_power_cut() -> World {
    let mut world = World::settled(FIVE);
    world.made_anew("node4");
    world.found.dcs = None;
    world.found.etcd.clear();
    world.found.stores.clear();
    for (host, timeline, led, position) in [
        ("node1", 1, true, 900),
        ("node2", 2, true, 800),
        ("node3", 2, false, 850),
    ] {
        let facts = world.facts(host);
        facts.in_recovery = None;
        let data = facts.data.get_or_insert_default();
        data.timeline = Some(timeline);
        data.led = led;
        data.position = Some(position);
    }
    world
}

fn after(world: &World, host: &str, name: &str) -> Vec<String> {
    let plan = world.plan();
    let steps = step(&plan, host, name).after.iter();
    steps
        .map(|id| format!("{} {}", plan.steps[*id].host, plan.steps[*id].name))
        .collect()
}

#[test]
fn no_other_member_runs_until_the_newest_database_leads() {
    let world = after_a_power_cut();
    let etcd = after(&world, "node4", "start-etcd");
    for held in ["node1 hold-patroni", "node3 hold-patroni"] {
        assert!(etcd.contains(&held.to_owned()), "{etcd:?}");
    }
    assert!(!etcd.contains(&"node2 hold-patroni".to_owned()));
    for host in ["node1", "node3"] {
        assert!(after(&world, host, "start-patroni").contains(&"node1 await-leader".to_owned()));
    }
    // Stopped by an interrupted run, and etcd runs by now.
    let mut world = after_a_power_cut();
    world.found.dcs = Some(PatroniKeys::default());
    for host in ["node1", "node2", "node3"] {
        world.stop(host, "patroni");
    }
    assert_eq!(
        after(&world, "node1", "await-leader")
            .iter()
            .filter(|step| step.ends_with("start-patroni"))
            .collect::<Vec<_>>(),
        ["node2 start-patroni"]
    );
    assert!(after(&world, "node3", "start-patroni").contains(&"node1 await-leader".to_owned()));
}

#[test]
fn the_newest_is_of_the_highest_timeline_then_who_led_then_the_farthest() {
    let first = |world: &World| {
        let first = super::super::newest::first(&world.cluster, &world.found);
        first.map(HostName::to_string)
    };
    let mut world = after_a_power_cut();
    assert_eq!(first(&world).as_deref(), Some("node2"));
    world.facts("node2").data.as_mut().unwrap().led = false;
    assert_eq!(first(&world).as_deref(), Some("node3"));
    world.facts("node1").data.as_mut().unwrap().timeline = Some(3);
    assert_eq!(first(&world).as_deref(), Some("node1"));
    // A database that is half-made, never ran or is another cluster's is no candidate.
    world.facts("node1").data_marker = Some("ffffffffffff".into());
    world.facts("node3").data = Some(DataFact::default());
    assert_eq!(first(&world), None, "node2's is the only one");
}

#[test]
fn where_somebody_takes_writes_or_the_store_is_known_all_goes_at_once() {
    let mut world = after_a_power_cut();
    world.facts("node2").in_recovery = Some(false);
    assert!(
        world
            .steps()
            .iter()
            .all(|step| !step.contains("hold-patroni"))
    );
    let world = World::settled(FIVE);
    assert!(
        world
            .steps()
            .iter()
            .all(|step| !step.contains("hold-patroni"))
    );
}

#[test]
fn a_database_that_cannot_be_looked_at_may_be_the_newest() {
    let mut world = after_a_power_cut();
    world.found.facts.remove(&HostName::new("node2"));
    insta::assert_snapshot!(world.refusal(), @r"
    etcd has lost its data, no member takes writes, and node2 cannot be reached
      why: its database may be the newest: if another one led, acknowledged writes would be lost
      left: nothing was changed
      hint: bring node2 back, and run this again
    ");
    // If a member accepts writes, nothing can be lost.
    world.facts("node1").in_recovery = Some(false);
    world.plan();
}
