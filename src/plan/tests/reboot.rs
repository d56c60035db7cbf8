//! Hosts that boot again, one at a time.

use super::{
    operate::{Told, host, refused, status, steps},
    world::{ONE, cluster},
};
use crate::{
    inventory::HostName,
    plan::{order, reboot},
};

fn planned(told: &Told, name: &str) -> String {
    let doors = [host("haproxy")];
    let node = &told.cluster.nodes[&host(name)];
    steps(&reboot::plan(&told.seen(), node, "id", &[], &doors).unwrap())
}

#[test]
fn replicas_come_first_and_the_leader_last() {
    let told = Told::new(false);
    let mut hosts: Vec<_> = told.cluster.nodes.keys().cloned().collect();
    order(&told.cluster, Some(&host("node1")), &mut hosts);
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    assert_eq!(names, ["node2", "node3", "node4", "haproxy", "node1"]);
}

#[test]
fn a_replica_is_drained_and_a_leader_hands_over() {
    let told = Told::new(false);
    assert_eq!(
        planned(&told, "node2"),
        "0 haproxy drain-reads []\n1 node2 reboot [0]\n2 node2 await-streaming [1]\n\
         3 haproxy let-reads-in [2]\n"
    );
    assert_eq!(
        planned(&told, "node1"),
        "0 node1 hand-over []\n1 node1 await-streaming [0]\n2 haproxy drain-reads [1]\n\
         3 node1 reboot [2]\n4 node1 await-streaming [3]\n5 haproxy let-reads-in [4]\n"
    );
    assert_eq!(
        planned(&told, "node4"),
        "0 node4 reboot []\n1 node4 await-etcd [0]\n"
    );
    assert_eq!(planned(&told, "haproxy"), "0 haproxy reboot []\n");
}

#[test]
fn a_host_with_everything_waits_for_everything() {
    let mut alone = Told::new(false);
    alone.cluster = cluster("", ONE);
    alone.survey = [status(
        "all",
        serde_json::json!({"state": "running", "role": "primary"}),
    )]
    .into();
    assert_eq!(
        planned(&alone, "all"),
        "0 all reboot []\n1 all await-leader [0]\n2 all await-etcd [0]\n"
    );
}

/// A front door gives up the address that it may hold before it is away.
#[test]
fn the_clusters_address_is_given_up_first() {
    let mut told = Told::new(false);
    told.cluster = cluster("haproxy: { vip: 192.0.2.200 }\n", TWO_DOORS);
    assert_eq!(
        planned(&told, "node4"),
        "0 node4 give-up-address []\n1 node4 reboot [0]\n2 node4 await-etcd [1]\n\
         3 node4 await-keepalived [1]\n"
    );
}

const TWO_DOORS: &str = r"
  node1: { roles: [postgres], address: 192.0.2.1 }
  node2: { roles: [postgres], address: 192.0.2.2 }
  node3: { roles: [postgres], address: 192.0.2.3 }
  node4: { roles: [etcd, haproxy], address: 192.0.2.4 }
  node5: { roles: [haproxy], address: 192.0.2.5 }";

#[test]
fn a_paused_cluster_or_one_without_a_successor_is_left_alone() {
    let paused = Told::new(false).paused();
    let node = &paused.cluster.nodes[&host("node2")];
    refused(
        reboot::plan(&paused.seen(), node, "id", &[], &[]),
        "the cluster is paused",
    );
    let mut alone = Told::new(false);
    alone.survey.extend([status(
        "node1",
        serde_json::json!({"state": "running", "role": "primary"}),
    )]);
    let node = &alone.cluster.nodes[&host("node1")];
    refused(
        reboot::plan(&alone.seen(), node, "id", &[], &[]),
        "no replica that could take over",
    );
}
