//! `down` on hosts that somebody already had.

use super::world::{FIVE, World, says, step, steps, told};
use crate::{
    error::Result,
    plan::{self, Change, Plan},
};

fn down(world: &World) -> Result<Plan> {
    plan::down(&world.cluster, &world.files, &world.found)
}

fn said(plan: &Plan, host: &str) -> Vec<String> {
    step(plan, host, "clear")
        .changes
        .iter()
        .map(|change| match change {
            Change::Other(what) => what.clone(),
            Change::Unit { unit, verb } => format!("{verb} {unit}"),
            other => panic!("{other:?} is nothing that a removal says"),
        })
        .collect()
}

#[test]
fn hosts_without_the_mark_are_left_alone() {
    let plan = down(&World::bare(FIVE)).unwrap();
    assert!(plan.is_empty());
    assert_eq!(plan.unchanged.len(), 5);
}

#[test]
fn what_up_put_there_goes_on_all_hosts_at_once() {
    let world = World::settled(FIVE);
    let plan = down(&world).unwrap();
    assert_eq!(
        steps(&plan),
        [
            "node1 clear []",
            "node2 clear []",
            "node3 clear []",
            "node4 clear []",
            "haproxy clear []"
        ]
    );
    let node1 = said(&plan, "node1");
    assert_eq!(node1[0], "disable --now patroni");
    assert_eq!(node1[1], "all data in /data/patroni is destroyed");
    assert!(node1.contains(&"/etc/patroni.yml is removed".to_owned()));
    assert!(node1.contains(&"pgherd's lines in /etc/hosts are removed".to_owned()));
    assert!(says(step(&plan, "node1", "clear"), "rm -rf /data/patroni "));
    assert!(!says(step(&plan, "node4", "clear"), "/data/patroni"));
    assert!(says(
        step(&plan, "node4", "clear"),
        "rm -rf /var/lib/etcd/pgherd-pg"
    ));
}

#[test]
fn a_hosts_own_lines_and_data_stay() {
    let mut world = World::settled(FIVE);
    world
        .file("node1", "/etc/hosts")
        .content
        .push_str("10.9.9.9 mine\n");
    world.facts("node1").data_marker = Some("of another cluster".into());
    let plan = down(&world).unwrap();
    let clear = step(&plan, "node1", "clear");
    assert!(says(clear, "10.9.9.9 mine"));
    assert!(says(clear, "127.0.0.1 localhost"));
    assert!(!says(clear, "192.0.2.4"));
    assert!(!says(clear, "/data/patroni"));
    assert!(!said(&plan, "node1").join("\n").contains("destroyed"));
}

#[test]
fn a_host_of_another_cluster_stops_it_for_all() {
    let mut world = World::settled(FIVE);
    world.file("node3", "/etc/pgherd/cluster").content = "pg\nffffffffffff\n".into();
    insta::assert_snapshot!(told(&down(&world).unwrap_err()), @r"
    node3: this host belongs to another cluster
      left: nothing was removed anywhere
    ");
}

/// The mark is what a `down` that was cut off knows its hosts by.
#[test]
fn the_mark_goes_last() {
    let world = World::settled(FIVE);
    let plan = down(&world).unwrap();
    assert!(!says(
        step(&plan, "node1", "clear"),
        "rm -f /etc/pgherd/cluster"
    ));
    assert!(says(
        step(&plan, "node1", "clear"),
        "|| true\nrm -rf /etc/pgherd\n"
    ));
}
