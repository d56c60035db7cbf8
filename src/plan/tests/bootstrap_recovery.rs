//! Interrupted bootstraps and copies.

use serde_json::json;

use super::world::{FIVE, SYSTEM, World, says, step};
use crate::{facts::DataFact, plan::Action, services::etcd::PatroniKeys};

/// An interrupted `initdb`, or an unfinished copy.
fn half_made() -> DataFact {
    DataFact {
        owner: "postgres".into(),
        entries: 11,
        version: Some(16),
        ..DataFact::default()
    }
}

/// A power cut between Patroni's lock and its first database.
fn cut_off() -> World {
    let mut world = World::settled(FIVE);
    for host in ["node1", "node2", "node3"] {
        world.stop(host, "patroni");
        world.facts(host).data = Some(DataFact::default());
    }
    world.found.dcs = Some(PatroniKeys {
        initialize: Some(String::new()),
        initialize_revision: Some("42".into()),
        members: [("node2".to_owned(), json!({"state": "stopped"}))].into(),
        ..PatroniKeys::default()
    });
    world
}

#[test]
fn the_lock_of_a_bootstrap_that_died_is_released_before_patroni_starts() {
    let world = cut_off();
    assert_eq!(
        world.steps(),
        [
            "node4 release-bootstrap []",
            "node1 start-patroni [0]",
            "node2 start-patroni [0]",
            "node3 start-patroni [0]",
            "node1 await-leader [1, 2, 3]",
            "node1 await-streaming [4]",
            "node2 await-streaming [4]",
            "node3 await-streaming [4]",
            "node1 patch-config [5, 6, 7]",
        ]
    );
    let plan = world.plan();
    assert_eq!(
        step(&plan, "node4", "release-bootstrap").action,
        Action::ReleaseBootstrap {
            revision: "42".into()
        }
    );
}

#[test]
fn a_database_that_initdb_never_finished_is_removed_before_another_begins() {
    let mut world = cut_off();
    world.facts("node2").data = Some(half_made());
    let begin = [
        "node2 clear-bootstrap []",
        "node4 release-bootstrap [0]",
        "node1 start-patroni [1]",
    ];
    assert_eq!(world.steps()[..3], begin);
    // initdb had written pg_control, and one of its three databases.
    world.facts("node2").data = Some(DataFact {
        control: true,
        bases: 1,
        system_id: Some("99".into()),
        ..half_made()
    });
    assert_eq!(world.steps()[..3], begin);
    let plan = world.plan();
    let clear = step(&plan, "node2", "clear-bootstrap");
    assert!(clear.why.contains("nothing was ever committed"));
    assert!(says(clear, "find /data/patroni -mindepth 1 -delete"));
}

#[test]
fn a_bootstrap_at_work_is_left_alone() {
    let mut world = cut_off();
    world.facts("node2").data = Some(half_made());
    world.facts("node2").data_at_work = true;
    assert_eq!(world.steps()[0], "node1 start-patroni []");
    assert!(!world.steps().join("\n").contains("release-bootstrap"));
}

#[test]
fn a_whole_database_keeps_its_lock_and_its_data() {
    let whole = DataFact {
        entries: 23,
        version: Some(16),
        control: true,
        bases: 3,
        ..DataFact::default()
    };
    for (what, data) in [
        (
            "its identifier is known",
            DataFact {
                system_id: Some("99".into()),
                ..whole.clone()
            },
        ),
        ("the package that would read its identifier is gone", whole),
    ] {
        let mut world = cut_off();
        world.facts("node2").data = Some(data);
        let steps = world.steps();
        assert_eq!(steps[0], "node1 start-patroni []", "{what}");
        assert!(!steps.join("\n").contains("clear-"), "{what}");
    }
}

#[test]
fn half_made_data_of_somebody_else_is_not_removed() {
    let mut world = cut_off();
    world.facts("node2").data = Some(half_made());
    world.facts("node2").data_marker = None;
    assert!(world.refusal().contains("pgherd did not make it"));
}

#[test]
fn a_copy_that_was_cut_off_is_begun_anew() {
    let mut world = World::settled(FIVE);
    world.facts("node3").data = Some(half_made());
    world.facts("node3").in_recovery = None;
    world.facts("node3").db_roles.clear();
    assert_eq!(
        world.steps(),
        [
            "node3 clear-copy []",
            "node3 start-patroni [0]",
            "node1 await-leader [1]",
            "node3 await-streaming [2]",
        ]
    );
    world.facts("node3").data_at_work = true;
    assert!(world.plan().is_empty(), "a copy at work");
}

#[test]
fn the_leaders_own_data_is_never_removed() {
    let mut world = World::settled(FIVE);
    world.facts("node1").data = Some(half_made());
    assert!(!world.steps().join("\n").contains("clear-"));
    // No leader either, in a cluster that exists.
    let mut world = World::settled(FIVE);
    world.dcs().leader = None;
    world.facts("node3").data = Some(half_made());
    assert_eq!(world.dcs().initialize.as_deref(), Some(SYSTEM));
    assert!(!world.steps().join("\n").contains("clear-"));
}

/// The result of a first bootstrap whose server never came up; Patroni has freed the lock.
fn never_started(world: &mut World, host: &str, system: &str) {
    world.facts(host).data = Some(DataFact {
        entries: 23,
        version: Some(16),
        control: true,
        bases: 3,
        system_id: Some(system.into()),
        never_started: true,
        ..DataFact::default()
    });
}

#[test]
fn databases_on_which_no_server_ever_came_up_make_way_for_the_first_that_does() {
    let mut world = cut_off();
    world.found.dcs = Some(PatroniKeys::default());
    never_started(&mut world, "node1", "98");
    never_started(&mut world, "node3", "99");
    assert_eq!(
        world.steps(),
        [
            "node1 clear-bootstrap []",
            "node3 clear-bootstrap []",
            "node1 start-patroni [0, 1]",
            "node2 start-patroni [0, 1]",
            "node3 start-patroni [0, 1]",
            "node1 await-leader [2, 3, 4]",
            "node1 await-streaming [5]",
            "node2 await-streaming [5]",
            "node3 await-streaming [5]",
            "node1 patch-config [6, 7, 8]",
        ]
    );
    let plan = world.plan();
    let clear = step(&plan, "node1", "clear-bootstrap");
    assert!(clear.why.contains("no server ever came up"));
    assert!(says(clear, "never_started /data/patroni || {"));
    // A crash may have left the lock, with the identifier of one of them.
    for lock in ["", "99"] {
        world.dcs().initialize = Some(lock.into());
        world.dcs().initialize_revision = Some("42".into());
        assert_eq!(
            world.steps()[2],
            "node4 release-bootstrap [0, 1]",
            "{lock:?}"
        );
    }
}

#[test]
fn a_database_that_never_ran_gives_way_to_the_cluster_that_another_member_made() {
    let mut world = World::settled(FIVE);
    never_started(&mut world, "node2", "98");
    world.facts("node2").in_recovery = None;
    world.facts("node2").db_roles.clear();
    let steps = [
        "node2 clear-bootstrap []",
        "node2 start-patroni [0]",
        "node1 await-leader [1]",
        "node2 await-streaming [2]",
    ];
    assert_eq!(world.steps(), steps);
    // Even while there is no leader: that does not make it the cluster's.
    world.dcs().leader = None;
    assert_eq!(world.steps()[..2], steps[..2]);
}

#[test]
fn a_database_that_may_hold_something_is_never_removed() {
    // The one that etcd knows.
    let mut world = World::settled(FIVE);
    never_started(&mut world, "node1", SYSTEM);
    assert!(!world.steps().join("\n").contains("clear-"));
    // Another cluster's.
    let mut world = cut_off();
    never_started(&mut world, "node2", "98");
    world.facts("node2").data_marker = None;
    assert!(world.refusal().contains("pgherd did not make it"));
    // One on which a server ran, whatever etcd has lost.
    let mut world = World::settled(FIVE);
    world.found.dcs = Some(PatroniKeys::default());
    assert!(!world.steps().join("\n").contains("clear-"));
    // A bootstrap that is running.
    let mut world = cut_off();
    never_started(&mut world, "node2", "98");
    world.facts("node1").data_at_work = true;
    assert!(!world.steps().join("\n").contains("clear-"));
}

#[test]
fn members_with_different_databases_are_named_when_etcd_cannot_tell_which_is_right() {
    let mut world = World::settled(FIVE);
    let data = world.facts("node3").data.as_mut().unwrap();
    data.system_id = Some("99".into());
    data.checkpoint = Some("Thu Nov 26 12:58:04 2026".into());
    for dcs in [None, Some(PatroniKeys::default())] {
        world.found.dcs = dcs;
        let said = world.refusal();
        assert!(
            said.contains("the members have different databases"),
            "{said}"
        );
        assert!(
            said.contains("node3 has system 99, its last checkpoint at Thu Nov 26"),
            "{said}"
        );
        assert!(
            said.contains(&format!("node1 has system {SYSTEM}")),
            "{said}"
        );
    }
    // A database that never ran does not count as a rival.
    never_started(&mut world, "node3", "99");
    assert!(world.up().is_ok());
}

#[test]
fn parameters_are_tried_before_the_first_database_is_made_with_them() {
    let mut world = World::bare(FIVE);
    assert!(!says(
        step(&world.plan(), "node1", "start-patroni"),
        "try_parameters"
    ));
    let wants =
        "postgresql: { parameters: { shared_buffers: 900GB, shared_preload_libraries: \"a, b\" } }";
    world.wants(wants, FIVE);
    let plan = world.plan();
    let start = step(&plan, "node1", "start-patroni");
    assert!(says(start, "shared_buffers = '\\''900GB'\\''"));
    assert!(says(start, "LIBRARIES='a b'"));
    // Not beside an existing database.
    let mut world = World::settled(FIVE);
    world.wants(wants, FIVE);
    world.stop("node2", "patroni");
    assert!(!says(
        step(&world.plan(), "node2", "start-patroni"),
        "try_parameters"
    ));
}

/// A run was interrupted between the two steps.
#[test]
fn the_lock_of_a_database_that_was_removed_is_released() {
    let mut world = cut_off();
    world.dcs().initialize = Some("98".into());
    assert_eq!(world.steps()[0], "node4 release-bootstrap []");
    // An unobserved host may have that database.
    world
        .found
        .facts
        .remove(&crate::inventory::HostName::new("node3"));
    assert!(!world.steps().join("\n").contains("release-bootstrap"));
}

#[test]
fn what_only_etcd_can_tell_is_planned_once_it_answers() {
    let mut world = cut_off();
    world.stop("node4", "etcd");
    world.found.dcs = None;
    let until_etcd = ["node4 start-etcd []", "node4 await-etcd [0]"];
    assert!(world.plan().partial);
    assert_eq!(world.steps()[..2], until_etcd);
    assert!(!world.steps().join("\n").contains("patroni"));
    // An etcd that runs and does not answer is waited for.
    world.unit("node4", "etcd").active = "active".into();
    assert_eq!(world.steps(), ["node4 await-etcd []"]);
    // A complete database is evidence enough, and so is an etcd that never had any data.
    let mut world = World::settled(FIVE);
    world.found.dcs = None;
    assert!(!world.plan().partial);
    assert!(!World::bare(FIVE).plan().partial);
}

#[test]
fn nobody_waits_for_a_torn_copy_while_nobody_leads() {
    let mut world = World::settled(FIVE);
    for host in ["node1", "node2", "node3"] {
        world.stop(host, "patroni");
    }
    world.dcs().leader = None;
    world.facts("node3").data = Some(half_made());
    let plan = world.plan();
    let steps = world.steps().join("\n");
    assert!(
        steps.contains("node2 await-streaming") && !steps.contains("node3 await-streaming"),
        "{steps}"
    );
    assert!(
        plan.partial && !steps.contains("clear-"),
        "once a member leads, the copy goes"
    );
}

/// A database that has run and then lost something, to a person or a full disk, is not an interrupted
/// bootstrap.
#[test]
fn a_damaged_database_is_not_removed() {
    let mut world = cut_off();
    let damaged = DataFact {
        bases: 4,
        has_run: true,
        ..half_made()
    };
    world.facts("node1").data = Some(damaged.clone());
    let said = world.refusal();
    assert!(
        said.contains("node1: the database in /data/patroni is damaged"),
        "{said}"
    );
    // The leader has everything.
    let mut world = World::settled(FIVE);
    world.facts("node2").data = Some(damaged);
    assert!(
        world
            .steps()
            .iter()
            .any(|step| step.starts_with("node2 clear-copy"))
    );
    // Even without that sign, an interrupted initdb looks different.
    let mut world = cut_off();
    world.facts("node1").data = Some(DataFact {
        bases: 3,
        ..half_made()
    });
    assert!(
        !world
            .steps()
            .iter()
            .any(|step| step.contains("clear-bootstrap"))
    );
}
