//! A running cluster on its way to TLS and back: what a stage changes, and in which order.

use super::world::{FIVE, SHARED, World};
use crate::cluster::TlsStage::{self, Off, Offered, Required, Used};

/// What happens to the units from one stage to the next.
fn steps(from: TlsStage, to: TlsStage, hosts: &str) -> Vec<String> {
    let mut world = World::settled_at(from, hosts);
    world.speaks(to);
    world.steps_taken()
}

#[test]
fn the_stages_lead_to_the_end_and_back() {
    let mut way = vec![Off];
    while *way.last().unwrap() != Required {
        way.push(way.last().unwrap().towards(Required));
    }
    assert_eq!(way, [Off, Offered, Used, Required]);
    while *way.last().unwrap() != Off {
        way.push(way.last().unwrap().towards(Off));
    }
    assert_eq!(way[4..], [Used, Offered, Off]);
    assert_eq!(Off.towards(Off), Off);
}

#[test]
fn no_stage_restarts_a_postgresql() {
    for (from, to) in [(Off, Offered), (Offered, Used), (Used, Required)] {
        for (from, to) in [(from, to), (to, from)] {
            for hosts in [FIVE, SHARED] {
                let steps = steps(from, to, hosts);
                assert!(!steps.is_empty());
                for heavy in ["restart-patroni", "hand-over", "patch-config"] {
                    let found = steps.iter().any(|step| step.ends_with(heavy));
                    assert!(!found, "{from:?} to {to:?}: {steps:?}");
                }
            }
        }
    }
}

/// etcd accepts only one way to connect, so for a moment no Patroni can reach it. The leader goes first, while
/// the others confirm it.
#[test]
fn the_leader_follows_etcd_at_once() {
    for (from, to) in [(Offered, Used), (Used, Offered)] {
        let steps = steps(from, to, FIVE);
        let exchanges: Vec<&String> = steps
            .iter()
            .filter(|step| step.ends_with("restart-patroni-alone"))
            .collect();
        assert_eq!(exchanges.len(), 3);
        assert_eq!(exchanges[0], "node1 restart-patroni-alone", "{steps:?}");
        let at = |step: &str| steps.iter().position(|it| it == step).unwrap();
        assert!(at("node4 restart-etcd") < at("node1 restart-patroni-alone"));
        assert!(at("haproxy hold-haproxy") < at("node1 restart-patroni-alone"));
    }
}

#[test]
fn members_of_etcd_change_one_at_a_time_after_their_peers_were_told() {
    let steps = steps(Offered, Used, SHARED);
    let etcd: Vec<&String> = steps.iter().filter(|step| step.contains("etcd")).collect();
    let wanted: Vec<String> = ["db1", "db2", "db3"]
        .iter()
        .flat_map(|host| {
            ["update-etcd-member", "restart-etcd", "await-etcd"].map(|it| format!("{host} {it}"))
        })
        .collect();
    assert_eq!(etcd, wanted.iter().collect::<Vec<_>>());
}

/// Connections stay open: HAProxy checks each member in both ways meanwhile.
#[test]
fn haproxy_asks_in_both_ways_while_members_change() {
    for (stage, twice) in [
        (Off, false),
        (Offered, true),
        (Used, true),
        (Required, false),
    ] {
        let world = World::settled_at(stage, FIVE);
        let host = world.hosts().pop().unwrap();
        let files = &world.files[&host];
        let config = files
            .iter()
            .find(|it| it.path == "/etc/haproxy/haproxy.cfg");
        let config = &config.unwrap().content;
        assert_eq!(config.contains("server node1_tls "), twice);
        assert_eq!(config.contains("on-marked-down"), !twice);
    }
}
