//! Hosts that do not exist yet, or cannot be reached yet, beside running hosts.

use super::world::{FIVE, World, bare};
use crate::inventory::HostName;

/// The hosts on which something would be changed.
fn changed(world: &World) -> Vec<String> {
    let plan = world.plan();
    let mut hosts: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| step.changes_something())
        .map(|step| step.host.to_string())
        .collect();
    hosts.dedup();
    hosts
}

fn forget(world: &mut World, hosts: &[&str]) {
    for host in hosts {
        world.found.facts.remove(&HostName::new(*host));
    }
}

#[test]
fn a_host_that_will_be_new_is_all_that_changes() {
    let mut world = World::settled(FIVE);
    world.found.facts.insert(HostName::new("node3"), bare());
    assert_eq!(changed(&world), ["node3"]);
    assert!(
        world
            .steps()
            .iter()
            .any(|it| it.starts_with("node3 start-patroni"))
    );
}

#[test]
fn nothing_is_planned_for_a_host_that_is_not_seen() {
    let mut world = World::settled(FIVE);
    forget(&mut world, &["node3", "haproxy"]);
    assert_eq!(world.steps(), [""; 0]);
    world.stop("node2", "patroni");
    assert_eq!(changed(&world), ["node2"]);
}

#[test]
fn what_only_an_unseen_etcd_knows_is_not_guessed() {
    let mut world = World::settled(FIVE);
    world.found.dcs = None;
    forget(&mut world, &["node4"]);
    assert_eq!(changed(&world), [""; 0]);
    // A new host has certainly forgotten it.
    world.found.facts.insert(HostName::new("node4"), bare());
    let steps = world.steps().join("\n");
    assert!(steps.contains("patch-config"), "{steps}");
}

#[test]
fn databases_that_are_not_seen_are_not_taken_for_lost() {
    let mut world = World::settled(FIVE);
    forget(&mut world, &["node1", "node2", "node3"]);
    assert_eq!(world.steps(), [""; 0]);
    for host in ["node1", "node2", "node3"] {
        world.found.facts.insert(HostName::new(host), bare());
    }
    assert!(world.refusal().contains("a cluster that no host has"));
}
