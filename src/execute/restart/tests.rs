use serde_json::json;

use super::*;
use crate::services::postgres::patroni::Replication;

/// node1 leads and streams to the others; `waits` are the members with a parameter that waits for a restart.
fn survey(hosts: &[&str], waits: &[&str]) -> Survey {
    let mut survey = Survey::new();
    for host in hosts {
        let leads = *host == "node1";
        let replicas = hosts.iter().filter(|it| leads && **it != "node1");
        let status = Status {
            state: "running".into(),
            role: if leads { "primary" } else { "replica" }.into(),
            pending_restart: waits.contains(host),
            replication: replicas
                .map(|name| Replication {
                    application_name: (*name).into(),
                    state: "streaming".into(),
                    sync_state: "async".into(),
                    ..Replication::default()
                })
                .collect(),
            ..Status::default()
        };
        survey.insert(HostName::new(*host), Ok(status));
    }
    survey
}

fn three(waits: &[&str]) -> Survey {
    survey(&["node1", "node2", "node3"], waits)
}

fn because(survey: &mut Survey, host: &str, parameter: &str, old: &str, new: &str) {
    let status = survey.get_mut(&HostName::new(host)).unwrap();
    let change = json!({"old_value": old, "new_value": new});
    let reasons = &mut status.as_mut().unwrap().pending_restart_reason;
    reasons.insert(parameter.into(), change);
}

fn after(restarted: &[(&str, usize)]) -> BTreeMap<HostName, usize> {
    let counts = restarted.iter();
    counts
        .map(|(host, count)| (HostName::new(*host), *count))
        .collect()
}

fn restart_of(host: &str) -> Move {
    Move::Restart(HostName::new(host))
}

fn hand_over(to: &str) -> Move {
    Move::HandOver {
        from: HostName::new("node1"),
        to: HostName::new(to),
    }
}

fn is_in_place(what: &Move) -> bool {
    matches!(what, Move::InPlace { leader, .. } if leader.as_str() == "node1")
}

#[test]
fn replicas_go_first_one_at_a_time_and_the_leader_hands_over() {
    let none = after(&[]);
    let all = three(&["node1", "node2", "node3"]);
    assert_eq!(next(&all, &none, false), restart_of("node2"));
    let two = three(&["node1", "node3"]);
    assert_eq!(
        next(&two, &after(&[("node2", 1)]), false),
        restart_of("node3")
    );
    let leader = three(&["node1"]);
    let done = after(&[("node2", 1), ("node3", 1)]);
    assert!(matches!(next(&leader, &done, false), Move::HandOver { .. }));
    assert_eq!(next(&three(&[]), &done, false), Move::None);
}

#[test]
fn only_who_has_the_new_value_may_take_over() {
    let mut leader = three(&["node1", "node2"]);
    // node2 has been restarted and still waits. Without a reason, its leader may be the cause.
    assert!(is_in_place(&next(&leader, &after(&[("node2", 1)]), false)));
    because(&mut leader, "node1", "shared_buffers", "128MB", "256MB");
    assert_eq!(
        next(&leader, &after(&[("node2", 1)]), false),
        hand_over("node3")
    );
}

#[test]
fn a_bound_that_is_lowered_is_the_leaders_first() {
    let mut all = three(&["node1", "node2", "node3"]);
    for host in ["node1", "node2", "node3"] {
        because(&mut all, host, "max_connections", "200", "100");
    }
    assert!(is_in_place(&next(&all, &after(&[]), false)));
    let mut replicas = three(&["node2", "node3"]);
    for host in ["node2", "node3"] {
        because(&mut replicas, host, "max_connections", "200", "100");
    }
    let done = after(&[("node1", 1)]);
    assert_eq!(next(&replicas, &done, false), restart_of("node2"));
    // Raised: like any other parameter.
    let mut raised = three(&["node1", "node2", "node3"]);
    for host in ["node1", "node2", "node3"] {
        because(&mut raised, host, "max_connections", "100", "200");
    }
    assert_eq!(next(&raised, &after(&[]), false), restart_of("node2"));
}

/// A raised bound must be raised on the replicas before the leader. A replica reports that it waits before it
/// reports why.
#[test]
fn a_replica_without_a_reason_waits_for_a_leader_that_has_one() {
    let mut survey = three(&["node1", "node2"]);
    because(&mut survey, "node1", "max_connections", "150", "120");
    assert!(is_in_place(&next(&survey, &after(&[]), false)));
    because(&mut survey, "node2", "shared_buffers", "128MB", "144MB");
    assert_eq!(next(&survey, &after(&[]), false), restart_of("node2"));
}

#[test]
fn one_lowered_and_one_raised_go_to_the_replicas_the_leader_and_the_replicas() {
    let mut all = three(&["node1", "node2", "node3"]);
    for host in ["node1", "node2", "node3"] {
        because(&mut all, host, "max_connections", "200", "100");
        because(&mut all, host, "max_worker_processes", "8", "16");
    }
    assert_eq!(next(&all, &after(&[]), false), restart_of("node2"));
    let mut held = three(&["node1", "node2", "node3"]);
    for host in ["node2", "node3"] {
        because(&mut held, host, "max_connections", "200", "100");
    }
    because(&mut held, "node1", "max_connections", "200", "100");
    because(&mut held, "node1", "max_worker_processes", "8", "16");
    let done = after(&[("node2", 1), ("node3", 1)]);
    assert!(is_in_place(&next(&held, &done, false)));
}

#[test]
fn without_reasons_replicas_that_wait_on_are_held_back_by_their_leader() {
    let all = three(&["node1", "node2", "node3"]);
    let done = after(&[("node2", 1), ("node3", 1)]);
    assert!(is_in_place(&next(&all, &done, false)));
    let replicas = three(&["node2", "node3"]);
    let done = after(&[("node1", 1), ("node2", 1), ("node3", 1)]);
    assert_eq!(next(&replicas, &done, false), restart_of("node2"));
    let done = after(&[("node1", 1), ("node2", 2), ("node3", 2)]);
    assert_eq!(
        next(&replicas, &done, false),
        Move::Stuck(HostName::new("node2"))
    );
}

#[test]
fn a_leader_without_others_restarts_in_its_place() {
    let alone = survey(&["node1"], &["node1"]);
    assert!(is_in_place(&next(&alone, &after(&[]), false)));
    assert_eq!(
        next(&alone, &after(&[("node1", 1)]), false),
        Move::Stuck(HostName::new("node1"))
    );
    // The others are missing only for now.
    let mut deserted = three(&["node1"]);
    for host in ["node2", "node3"] {
        deserted.insert(
            HostName::new(host),
            Err(Error::new(Code::ServiceUnreachable, "no answer")),
        );
    }
    let leader = deserted.get_mut(&HostName::new("node1")).unwrap();
    leader.as_mut().unwrap().replication.clear();
    assert!(matches!(next(&deserted, &after(&[]), false), Move::Wait(_)));
}

#[test]
fn in_synchronous_mode_a_synchronous_standby_takes_over() {
    let mut leader = three(&["node1"]);
    assert!(matches!(next(&leader, &after(&[]), true), Move::Wait(_)));
    let status = leader.get_mut(&HostName::new("node1")).unwrap();
    status.as_mut().unwrap().replication[1].sync_state = "sync".into();
    assert_eq!(next(&leader, &after(&[]), true), hand_over("node3"));
}

#[test]
fn without_a_leader_nobody_is_restarted() {
    let mut nobody = three(&["node2"]);
    nobody.remove(&HostName::new("node1"));
    assert!(matches!(next(&nobody, &after(&[]), false), Move::Wait(_)));
}
