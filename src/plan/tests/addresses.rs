//! Hosts with changed addresses: which services are told, and in which order.

use super::world::{FIVE, SHARED, World, step};
use crate::plan::{Action, Step};

#[test]
fn a_replica_is_told_of_by_reloads_alone() {
    let mut world = World::settled(FIVE);
    world.moves(&[("node2", "192.0.2.20")]);
    assert_eq!(
        world.steps_taken(),
        [
            "haproxy reload-haproxy",
            "node1 reload-patroni",
            "node2 reload-patroni",
            "node3 reload-patroni",
            "node2 wake-members",
            "node2 free-slots",
            "node2 reconnect-replica",
            "node1 take-over",
        ]
    );
    let plan = world.plan();
    let before = |step: &Step| -> Vec<&str> {
        let names = step.after.iter().map(|id| plan.steps[*id].name);
        names.collect()
    };
    let woken = step(&plan, "node2", "wake-members");
    assert_eq!(before(woken), ["reload-patroni"; 3]);
    let freed = step(&plan, "node2", "free-slots");
    assert_eq!(
        before(freed),
        ["wake-members"],
        "everybody knows it by then"
    );
    let Action::RunOnLeader(script) = &freed.action else {
        panic!("{:?}", freed.action)
    };
    assert!(script.contains("192.0.2.20"), "others' replication goes on");
}

#[test]
fn a_leader_stays_the_leader() {
    let mut world = World::settled(FIVE);
    world.moves(&[("node1", "192.0.2.10")]);
    assert_eq!(
        world.steps_taken(),
        [
            "haproxy reload-haproxy",
            "node1 reload-patroni",
            "node2 reload-patroni",
            "node3 reload-patroni",
            "node1 free-slots",
            "node1 wake-members",
            "node1 reconnect-replica",
            "node1 take-over",
        ]
    );
    let plan = world.plan();
    let Action::RunOnLeader(script) = &step(&plan, "node1", "free-slots").action else {
        panic!("it runs on the leader")
    };
    assert!(
        script.contains("where true"),
        "every replica has lost its leader, wherever it is itself"
    );
}

#[test]
fn haproxy_alone_concerns_nobody_elses_service() {
    let mut world = World::settled(FIVE);
    world.moves(&[("haproxy", "192.0.2.50")]);
    let restarts: Vec<String> = world
        .steps_taken()
        .into_iter()
        .filter(|step| !step.contains(" reload-") && !step.ends_with("take-over"))
        .collect();
    assert_eq!(restarts, [""; 0]);
}

/// While none of the etcd addresses that it knows is right, the leader goes on only because all members confirm
/// it. It must have its lock again before any of them is away.
#[test]
fn the_only_etcd_is_found_again_by_the_leader_first() {
    for (leader, others) in [("node1", ["node2", "node3"]), ("node3", ["node1", "node2"])] {
        let mut world = World::settled(FIVE);
        world.dcs().leader = Some(leader.into());
        world.moves(&[("node4", "192.0.2.40")]);
        assert_eq!(
            world.steps_taken(),
            [
                "node4 restart-etcd".to_owned(),
                "node4 await-etcd".into(),
                "haproxy hold-haproxy".into(),
                format!("{leader} restart-patroni-alone"),
                format!("{leader} await-member"),
                "haproxy release-haproxy".into(),
                format!("{} restart-patroni-alone", others[0]),
                format!("{} await-member", others[0]),
                format!("{} restart-patroni-alone", others[1]),
                format!("{} await-member", others[1]),
            ]
        );
        let plan = world.plan();
        for pair in plan.steps.windows(2) {
            if pair[1].name == "restart-patroni-alone" && pair[1].host.as_str() != leader {
                let before = plan.steps.iter().position(|it| it == &pair[0]).unwrap();
                assert!(pair[1].after.contains(&before), "one at a time");
            }
        }
    }
}

/// Without a hold, the front door would disconnect the clients of a leader that still leads.
#[test]
fn every_front_door_keeps_the_leader() {
    let mut world = World::settled(&format!(
        "{FIVE}  door2: {{ roles: [haproxy], address: 192.0.2.6 }}\n"
    ));
    world.moves(&[("node4", "192.0.2.40")]);
    let plan = world.plan();
    let at = |host: &str, name: &str| {
        let mut steps = plan.steps.iter();
        let found = steps.position(|it| it.host.as_str() == host && it.name == name);
        found.unwrap_or_else(|| panic!("no {host} {name}"))
    };
    let restart = &plan.steps[at("node1", "restart-patroni-alone")];
    let next = &plan.steps[at("node2", "restart-patroni-alone")];
    for door in ["haproxy", "door2"] {
        assert!(restart.after.contains(&at(door, "hold-haproxy")), "{door}");
        assert!(next.after.contains(&at(door, "release-haproxy")), "{door}");
    }
}

#[test]
fn one_of_three_etcd_members_restarts_and_the_leader_comes_last() {
    let mut world = World::settled(SHARED);
    world.moves(&[("db2", "192.0.2.20")]);
    let steps = world.steps_taken();
    let at = |step: &str| {
        let found = steps.iter().position(|it| it == step);
        found.unwrap_or_else(|| panic!("no {step} in {steps:?}"))
    };
    let told = |step: &String| step.ends_with("update-etcd-member");
    assert!(!steps.iter().any(told), "its name is the same: {steps:?}");
    let restarts = steps.iter().filter(|step| step.ends_with("restart-etcd"));
    assert_eq!(restarts.count(), 1, "{steps:?}");
    assert!(at("db2 await-member") < at("db1 restart-patroni-alone"));
    assert!(at("db3 await-member") < at("db1 restart-patroni-alone"));
    assert!(at("db2 restart-etcd") < at("db2 restart-patroni-alone"));
}

/// They find each other by name, so telling them needs no majority.
#[test]
fn all_of_three_etcd_members_at_once_wait_for_the_names_alone() {
    let mut world = World::settled(SHARED);
    world.moves(&[
        ("db1", "192.0.2.10"),
        ("db2", "192.0.2.20"),
        ("db3", "192.0.2.30"),
    ]);
    // They do not find each other: none answers.
    world.found.etcd.clear();
    let plan = world.plan();
    let named: Vec<usize> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == "prepare" && plan.steps[*id].host.as_str() != "door")
        .collect();
    assert_eq!(named.len(), 3);
    let first = plan.steps.iter().find(|it| it.name == "restart-etcd");
    assert!(named.iter().all(|id| first.unwrap().after.contains(id)));
}

#[test]
fn all_five_at_once_is_one_plan() {
    let mut world = World::settled(FIVE);
    world.moves(&[
        ("node1", "192.0.2.10"),
        ("node2", "192.0.2.20"),
        ("node3", "192.0.2.30"),
        ("node4", "192.0.2.40"),
        ("haproxy", "192.0.2.50"),
    ]);
    let steps = world.steps_taken();
    for step in [
        "restart-patroni",
        "hand-over",
        "restart-pending",
        "patch-config",
    ] {
        assert!(
            steps.iter().all(|it| !it.ends_with(step)),
            "{step} is not needed: {steps:?}"
        );
    }
    assert_eq!(steps.last().unwrap(), "node3 reconnect-replica");
}

/// The successor would first ask at the old address and wait for an answer.
#[test]
fn where_a_member_was_is_forgotten_before_its_patroni_starts() {
    let mut world = World::settled(FIVE);
    let url = serde_json::json!({"conn_url": "postgres://192.0.2.2:5432/postgres"});
    world.dcs().members.insert("node2".into(), url);
    world.moves(&[("node2", "192.0.2.20"), ("node4", "192.0.2.40")]);
    let steps = world.steps_taken();
    let forgotten: Vec<usize> = (0..steps.len())
        .filter(|at| steps[*at].ends_with("forget-member"))
        .collect();
    assert_eq!(forgotten.len(), 1, "{steps:?}");
    assert_eq!(steps[forgotten[0]], "node2 forget-member");
    assert_eq!(steps[forgotten[0] + 1], "node2 restart-patroni-alone");
}

#[test]
fn hosts_that_swapped_their_addresses_are_told_apart_by_their_names() {
    let mut world = World::settled(FIVE);
    world.moves(&[("node2", "192.0.2.3"), ("node3", "192.0.2.2")]);
    let plan = world.plan();
    let freed = plan.steps.iter().find(|step| step.name == "free-slots");
    let Action::RunOnLeader(script) = &freed.unwrap().action else {
        panic!("it runs on the leader")
    };
    assert!(script.contains("application_name"));
}

/// An interrupted run wrote the files, and no service has loaded them.
#[test]
fn what_an_earlier_run_has_not_got_to_is_done() {
    let mut world = World::settled(FIVE);
    for host in ["node1", "node2", "node3"] {
        let facts = world.facts(host);
        facts.pending.insert("patroni".into(), "exchange".into());
    }
    world.found.etcd[0].peer_urls = vec!["https://192.0.2.99:2380".into()];
    let steps = world.steps_taken();
    assert_eq!(steps[0], "node4 update-etcd-member");
    assert_eq!(
        steps[1..4],
        [
            "haproxy hold-haproxy",
            "node1 restart-patroni-alone",
            "node1 await-member"
        ],
        "the leader first, since nothing tells which etcd its Patroni knows"
    );
}

/// A run was killed while etcd restarted.
#[test]
fn what_an_etcd_that_does_not_answer_remembers_is_put_right_once_it_does() {
    let mut world = World::settled(FIVE);
    world.stop("node4", "etcd");
    world.found.dcs = None;
    world.found.etcd.clear();
    let steps = world.steps_taken();
    assert_eq!(
        steps[..3],
        [
            "node4 start-etcd",
            "node4 await-etcd",
            "node4 update-etcd-member"
        ]
    );
}

#[test]
fn a_host_that_cannot_be_looked_at_has_no_step() {
    let mut world = World::settled(FIVE);
    world.moves(&[("node4", "192.0.2.40")]);
    world
        .found
        .facts
        .remove(&crate::inventory::HostName::new("node2"));
    let plan = world.plan();
    assert!(plan.steps.iter().all(|step| step.host.as_str() != "node2"));
    assert!(plan.steps.iter().any(|step| step.host.as_str() == "node3"));
}
