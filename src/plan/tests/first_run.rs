//! Bare hosts, and interrupted first runs.

use serde_json::json;

use super::world::{FIVE, ONE, SHARED, World, says, step};
use crate::{inventory::Role, plan::Change, scram};

#[test]
fn bare_hosts_need_everything_and_nobody_waits_for_more_than_it_needs() {
    let world = World::bare(FIVE);
    assert_eq!(
        world.steps(),
        [
            "node1 prepare []",
            "node1 install-packages [0]",
            "node1 install-patroni [1]",
            "node1 configure-patroni [2]",
            "node2 prepare []",
            "node2 install-packages [4]",
            "node2 install-patroni [5]",
            "node2 configure-patroni [6]",
            "node3 prepare []",
            "node3 install-packages [8]",
            "node3 install-patroni [9]",
            "node3 configure-patroni [10]",
            "node4 prepare []",
            "node4 install-packages [12]",
            "node4 configure-etcd [13]",
            "haproxy prepare []",
            "haproxy install-packages [15]",
            "haproxy configure-haproxy [16]",
            "haproxy start-haproxy [17]",
            "node4 start-etcd [14]",
            "node4 await-etcd [19]",
            "node1 start-patroni [3, 20]",
            "node2 start-patroni [7, 20]",
            "node3 start-patroni [11, 20]",
            "node1 await-leader [21, 22, 23]",
            "node1 await-streaming [24]",
            "node2 await-streaming [24]",
            "node3 await-streaming [24]",
            "node1 patch-config [25, 26, 27]",
        ]
    );
}

#[test]
fn the_short_loop_under_which_a_cluster_forms_is_all_that_is_patched_at_first() {
    let plan = World::bare(FIVE).plan();
    let changes = &step(&plan, "node1", "patch-config").changes;
    assert_eq!(
        *changes,
        [Change::Setting {
            key: "loop_wait".into(),
            from: None,
            to: Some(json!(10))
        }]
    );
}

#[test]
fn three_members_of_etcd_start_at_once_since_none_is_ready_without_another() {
    let steps = World::bare(SHARED).steps();
    let started: Vec<&String> = steps
        .iter()
        .filter(|step| step.contains(" start-etcd "))
        .collect();
    // Each waits for its own host's configure-etcd alone.
    assert_eq!(
        started,
        [
            "db1 start-etcd [4]",
            "db2 start-etcd [9]",
            "db3 start-etcd [14]"
        ]
    );
}

#[test]
fn one_host_for_everything_has_no_replica_to_wait_for() {
    assert_eq!(
        World::bare(ONE).steps(),
        [
            "all prepare []",
            "all install-packages [0]",
            "all install-patroni [1]",
            "all configure-patroni [2]",
            "all configure-etcd [1]",
            "all configure-haproxy [1]",
            "all start-haproxy [5]",
            "all start-etcd [4]",
            "all await-etcd [7]",
            "all start-patroni [3, 8]",
            "all await-leader [9]",
            "all patch-config [10]",
        ]
    );
}

#[test]
fn secrets_go_into_scripts_and_never_into_what_is_shown() {
    let world = World::bare(FIVE);
    let plan = world.plan();
    let step = step(&plan, "node1", "configure-patroni");
    for secret in world.cluster.secrets.values() {
        assert!(!format!("{plan:?}").contains(secret.expose()));
    }
    assert!(says(step, world.cluster.secrets.replication.expose()));
    assert!(!format!("{plan:?}").contains("the key of"));
}

/// Patroni makes its roles right after `initdb`, and never again.
#[test]
fn databases_that_were_found_asleep_may_lack_their_roles() {
    let mut world = World::settled(FIVE);
    for host in ["node1", "node2", "node3"] {
        world.stop(host, "patroni");
    }
    world.dcs().leader = None;
    assert_eq!(
        world.steps(),
        [
            "node1 start-patroni []",
            "node2 start-patroni []",
            "node3 start-patroni []",
            "node1 await-leader [0, 1, 2]",
            "node1 ensure-roles [3]",
            "node1 await-streaming [4]",
            "node2 await-streaming [4]",
            "node3 await-streaming [4]",
        ]
    );
}

#[test]
fn the_roles_are_made_with_the_clusters_own_passwords() {
    let mut world = World::settled(FIVE);
    for host in ["node1", "node2", "node3"] {
        world.facts(host).db_roles.remove("replicator");
    }
    let plan = world.plan();
    let step = step(&plan, "node1", "ensure-roles");
    assert!(
        step.why.contains("node1 has no role replicator"),
        "{}",
        step.why
    );
    let secrets = &world.cluster.secrets;
    for (role, password) in [
        ("postgres", &secrets.superuser),
        ("replicator", &secrets.replication),
        ("rewind", &secrets.rewind),
    ] {
        let context = format!("{} {role}", secrets.cluster_id);
        let verifier = scram::verifier(password, &context);
        assert!(says(step, &verifier), "{role}");
        assert!(!says(step, password.expose()), "{role}");
    }
    assert!(says(
        step,
        "alter role replicator with replication login password E"
    ));
    assert!(says(step, "log_statement = "));
}

#[test]
fn what_is_right_already_is_said_with_a_reason() {
    let plan = World::settled(FIVE).plan();
    assert!(plan.is_empty());
    let world = World::settled(FIVE);
    for node in world.cluster.nodes.values() {
        let said: Vec<&str> = plan
            .unchanged
            .iter()
            .filter(|right| right.host == node.name)
            .map(|right| right.name)
            .collect();
        assert!(said.contains(&"prepare"), "{}: {said:?}", node.name);
        assert!(
            said.contains(&"install-packages"),
            "{}: {said:?}",
            node.name
        );
        let patroni = node.roles.contains(&Role::Postgres);
        assert_eq!(patroni, said.contains(&"install-patroni"), "{}", node.name);
    }
    assert!(plan.unchanged.iter().all(|right| !right.reason.is_empty()));
}
