//! Services that restart while the cluster keeps working.

use super::{
    drift::check,
    world::{FIVE, ONE, SHARED, World, says, step},
};

#[test]
fn replicas_are_restarted_one_at_a_time_and_the_leader_last() {
    fn outdated(world: &mut World, leader: &str) {
        world.dcs().leader = Some(leader.into());
        for host in ["node1", "node2", "node3"] {
            world.facts(host).in_recovery = Some(host != leader);
            world
                .file(host, "/etc/systemd/system/patroni.service")
                .content = "old\n".into();
        }
    }
    check(
        FIVE,
        &[
            (
                "node1 leads",
                |world| outdated(world, "node1"),
                &[
                    "node1 configure-patroni []",
                    "node2 configure-patroni []",
                    "node3 configure-patroni []",
                    "node2 restart-patroni [1]",
                    "node2 await-streaming [3]",
                    "node3 restart-patroni [2, 4]",
                    "node3 await-streaming [5]",
                    "node1 hand-over [0, 6]",
                    "node1 restart-patroni [0, 7]",
                    "node1 await-streaming [8]",
                ],
            ),
            (
                "node2 leads",
                |world| outdated(world, "node2"),
                &[
                    "node1 configure-patroni []",
                    "node2 configure-patroni []",
                    "node3 configure-patroni []",
                    "node1 restart-patroni [0]",
                    "node1 await-streaming [3]",
                    "node3 restart-patroni [2, 4]",
                    "node3 await-streaming [5]",
                    "node2 hand-over [1, 6]",
                    "node2 restart-patroni [1, 7]",
                    "node2 await-streaming [8]",
                ],
            ),
            (
                "node3 leads, as its database says: etcd is away",
                |world| {
                    outdated(world, "node3");
                    world.stop("node4", "etcd");
                    world.found.dcs = None;
                },
                &[
                    "node1 configure-patroni []",
                    "node2 configure-patroni []",
                    "node3 configure-patroni []",
                    "node4 start-etcd []",
                    "node4 await-etcd [3]",
                    "node1 await-leader [4]",
                    "node1 await-streaming [5]",
                    "node2 await-streaming [5]",
                    "node3 await-streaming [5]",
                    "node1 restart-patroni [0, 6, 7, 8]",
                    "node1 await-streaming [9]",
                    "node2 restart-patroni [1, 10]",
                    "node2 await-streaming [11]",
                    "node3 hand-over [2, 12]",
                    "node3 restart-patroni [2, 13]",
                    "node3 await-streaming [14]",
                    "node1 patch-config [15]",
                    "node1 restart-pending [16]",
                ],
            ),
        ],
    );
}

#[test]
fn a_single_database_is_restarted_without_anybody_to_hand_over_to() {
    let mut world = World::settled(ONE);
    world.facts("all").patroni_stamp = None;
    assert_eq!(
        world.steps(),
        [
            "all install-patroni []",
            "all restart-patroni [0]",
            "all await-leader [1]"
        ]
    );
}

#[test]
fn etcd_keeps_its_quorum() {
    fn outdated(world: &mut World, hosts: &[&str]) {
        for host in hosts {
            world.file(host, "/etc/default/etcd").content = "old\n".into();
        }
    }
    check(
        SHARED,
        &[
            (
                "all three must be restarted: one at a time",
                |world| outdated(world, &["db1", "db2", "db3"]),
                &[
                    "db1 configure-etcd []",
                    "db2 configure-etcd []",
                    "db3 configure-etcd []",
                    "db1 restart-etcd [0]",
                    "db1 await-etcd [3]",
                    "db2 restart-etcd [1, 4]",
                    "db2 await-etcd [5]",
                    "db3 restart-etcd [2, 6]",
                    "db3 await-etcd [7]",
                ],
            ),
            (
                "one is away: it comes back before another goes",
                |world| {
                    outdated(world, &["db1", "db2"]);
                    world.stop("db3", "etcd");
                },
                &[
                    "db1 configure-etcd []",
                    "db2 configure-etcd []",
                    "db3 start-etcd []",
                    "db3 await-etcd [2]",
                    "db1 restart-etcd [0, 3]",
                    "db1 await-etcd [4]",
                    "db2 restart-etcd [1, 5]",
                    "db2 await-etcd [6]",
                ],
            ),
        ],
    );
}

/// Two of three are away. The running one cannot be healthy before they are, nor they, perhaps, before it has
/// its config.
#[test]
fn without_a_quorum_no_member_waits_for_another() {
    let mut world = World::settled(SHARED);
    world.stop("db1", "etcd");
    world.stop("db2", "etcd");
    world.file("db3", "/etc/default/etcd").content = "old\n".into();
    world.found.dcs = None;
    assert_eq!(
        world.steps()[..7],
        [
            "db3 configure-etcd []",
            "db1 start-etcd []",
            "db1 await-etcd [1]",
            "db2 start-etcd []",
            "db2 await-etcd [3]",
            "db3 restart-etcd [0]",
            "db3 await-etcd [5]",
        ]
    );
}

/// A start would not change an etcd that runs, waits for a quorum, and has loaded old files.
#[test]
fn an_etcd_that_waits_for_the_others_is_restarted_when_its_files_change() {
    let mut world = World::settled(SHARED);
    let host = world.hosts()[0].to_string();
    world.unit(&host, "etcd").active = "activating".into();
    world.found.dcs = None;
    world.found.stores.clear();
    let start = |world: &World| {
        let plan = world.plan();
        let start = step(&plan, &host, "start-etcd").clone();
        (
            says(&start, "systemctl restart --no-block etcd"),
            says(&start, "systemctl start --no-block etcd"),
        )
    };
    assert_eq!(start(&world), (false, true), "its files are right");
    world.file(&host, "/etc/pgherd/tls/etcd/ca.crt").content = "another\n".into();
    assert_eq!(start(&world), (true, false));
    world.unit(&host, "etcd").active = "inactive".into();
    assert_eq!(start(&world), (false, true), "it does not run");
}
