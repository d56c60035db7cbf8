//! Bare hosts, and interrupted first runs.

use serde_json::json;

use super::world::{FIVE, ONE, SHARED, World, says, step};
use crate::{
    inventory::{Docker, HostName, Provider, Role},
    plan::{self, Action, Change},
    scram,
};

#[test]
fn bare_hosts_need_everything_and_nobody_waits_for_more_than_it_needs() {
    let world = World::bare(FIVE);
    assert_eq!(
        world.steps(),
        [
            "node1 prepare []",
            "node1 install-python [0]",
            "node1 install-packages [1]",
            "node1 install-patroni [1]",
            "node1 configure-patroni [2, 3]",
            "node2 prepare []",
            "node2 install-python [5]",
            "node2 install-packages [6]",
            "node2 install-patroni [6]",
            "node2 configure-patroni [7, 8]",
            "node3 prepare []",
            "node3 install-python [10]",
            "node3 install-packages [11]",
            "node3 install-patroni [11]",
            "node3 configure-patroni [12, 13]",
            "node4 prepare []",
            "node4 install-packages [15]",
            "node4 configure-etcd [16]",
            "haproxy prepare []",
            "haproxy install-packages [18]",
            "haproxy configure-haproxy [19]",
            "haproxy start-haproxy [20]",
            "node4 start-etcd [17]",
            "node4 await-etcd [22]",
            "node1 start-patroni [4, 23]",
            "node2 start-patroni [9, 23]",
            "node3 start-patroni [14, 23]",
            "node1 await-leader [24, 25, 26]",
            "node1 await-streaming [27]",
            "node2 await-streaming [27]",
            "node3 await-streaming [27]",
            "node1 patch-config [28, 29, 30]",
        ]
    );
}

/// The venv is made while PostgreSQL is installed, if there is a core for each.
#[test]
fn the_venv_waits_for_no_more_packages_than_it_is_made_from() {
    let first_steps = |world: &World| -> Vec<String> {
        let steps = world.steps().into_iter();
        steps
            .filter(|it| it.starts_with("node1 "))
            .take(5)
            .collect()
    };
    let mut world = World::bare(FIVE);
    let plan = world.plan();
    let packages = |name| step(&plan, "node1", name).changes.clone();
    let named = |names: &[&str]| -> Vec<Change> {
        let names = names.iter();
        names.map(|it| Change::Package((*it).into())).collect()
    };
    assert_eq!(
        packages("install-python"),
        named(&[
            "python3",
            "python3-pip-whl",
            "python3-setuptools-whl",
            "python3-wheel-whl"
        ])
    );
    assert_eq!(
        packages("install-packages"),
        named(&["postgresql-16", "etcd-client"])
    );

    // Python and its wheels are there already, as in some images.
    for name in [
        "python3",
        "python3-pip-whl",
        "python3-setuptools-whl",
        "python3-wheel-whl",
    ] {
        let facts = world.facts("node1");
        facts.packages.insert(name.into(), "1".into());
    }
    assert_eq!(
        first_steps(&world)[1..4],
        [
            "node1 install-packages [0]",
            "node1 install-patroni [0]",
            "node1 configure-patroni [1, 2]",
        ]
    );

    // One core does one thing after the other.
    let mut world = World::bare(FIVE);
    world.facts("node1").cores = 1;
    assert_eq!(
        first_steps(&world)[..4],
        [
            "node1 prepare []",
            "node1 install-packages [0]",
            "node1 install-patroni [1]",
            "node1 configure-patroni [2]",
        ]
    );
}

/// Containers share the processors of their machine.
#[test]
fn hosts_of_one_machine_count_its_cores_together() {
    let shared = |cores: usize| {
        let mut world = World::bare(FIVE);
        world.cluster.inventory.provider = Provider::Docker(Docker::default());
        for host in world.hosts() {
            world.facts(host.as_str()).cores = cores;
        }
        world.plan()
    };
    for (cores, at_once, beside) in [
        (2, Some(3), false),
        (9, Some(10), false),
        (10, Some(11), true),
    ] {
        let plan = shared(cores);
        assert_eq!(plan.at_once, at_once);
        let python = plan.steps.iter().any(|it| it.name == "install-python");
        assert_eq!(python, beside, "{cores}");
    }
    assert_eq!(World::bare(FIVE).plan().at_once, None);
}

/// What a new host gets before the others answer is the same as in the plan for all of them.
#[test]
fn what_a_host_needs_alone_is_a_part_of_the_whole_plan() {
    for hosts in [FIVE, SHARED, ONE] {
        let world = World::bare(hosts);
        let whole = world.plan();
        for host in world.hosts() {
            let mut found = world.found.clone();
            found.facts.retain(|it, _| *it == host);
            let ahead = plan::ahead(&world.cluster, &world.files, &found, &host).unwrap();
            assert_eq!(ahead.steps[0].name, "prepare");
            for step in &ahead.steps {
                assert_eq!(step.host, host);
                let mut same = whole.steps.iter().filter(|it| it.host == host);
                let same = same.find(|it| it.name == step.name).unwrap();
                assert!(same.action == step.action, "{host} {}", step.name);
                assert!(!matches!(step.action, Action::Await(_)));
            }
            let names = ahead.steps.iter().map(|it| it.name);
            let service = |name: &str| name.starts_with("configure") || name.starts_with("start");
            assert!(names.clone().all(|name| !service(name)), "no service");
            assert!(names.clone().any(|name| name == "install-packages"));
        }
    }
}

#[test]
fn a_host_that_cannot_be_taken_over_gets_nothing_ahead_of_the_others() {
    let mut world = World::bare(FIVE);
    world.facts("node1").systemd = false;
    for (host, is_refused) in [("node1", true), ("node2", false)] {
        let host = HostName::new(host);
        let mut found = world.found.clone();
        found.facts.retain(|it, _| *it == host);
        let ahead = plan::ahead(&world.cluster, &world.files, &found, &host);
        assert_eq!(ahead.is_err(), is_refused, "{host}");
    }
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
    // Each waits only for its own host's configure-etcd.
    assert_eq!(
        started,
        [
            "db1 start-etcd [5]",
            "db2 start-etcd [11]",
            "db3 start-etcd [17]"
        ]
    );
}

#[test]
fn one_host_for_everything_has_no_replica_to_wait_for() {
    assert_eq!(
        World::bare(ONE).steps(),
        [
            "all prepare []",
            "all install-python [0]",
            "all install-packages [1]",
            "all install-patroni [1]",
            "all configure-patroni [2, 3]",
            "all configure-etcd [2]",
            "all configure-haproxy [2]",
            "all start-haproxy [6]",
            "all start-etcd [5]",
            "all await-etcd [8]",
            "all start-patroni [4, 9]",
            "all await-leader [10]",
            "all patch-config [11]",
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

/// Patroni creates its roles right after `initdb`, and never again.
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
