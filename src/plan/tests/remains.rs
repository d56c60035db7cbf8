//! Bootstraps and copies that died with their hosts.

use serde_json::json;

use super::world::{FIVE, SYSTEM, World, says, step};
use crate::{etcd::PatroniKeys, facts::DataFact, plan::Action};

/// `initdb` was cut off somewhere, or a copy before its end.
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
    // initdb had written pg_control, and of its three databases one.
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
    // Nor any, while nobody leads a cluster that was there.
    let mut world = World::settled(FIVE);
    world.dcs().leader = None;
    world.facts("node3").data = Some(half_made());
    assert_eq!(world.dcs().initialize.as_deref(), Some(SYSTEM));
    assert!(!world.steps().join("\n").contains("clear-"));
}
