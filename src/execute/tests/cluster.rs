//! Steps that talk to the cluster, with fake answers of Patroni and etcd.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::hosts::{Answer, Hosts, UNANSWERED, member, script, step, walk};
use crate::{
    event::Outcome::{Changed, Done, Failed},
    inventory::Role,
    plan::{Action, Condition, Step},
    remote::Script,
};

const NOBODY: (u16, Value) = (503, Value::Null);

#[tokio::test]
async fn a_wait_ends_when_etcd_is_healthy() {
    let asked = AtomicUsize::new(0);
    let hosts = Hosts::serving(move |question| match question {
        ("node4", 2379, "GET /health", _) => match asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (503, json!({"health": "false"})),
            _ => (200, json!({"health": "true"})),
        },
        _ => NOBODY,
    });
    let wait = step("node4", Action::Await(Condition::Ready(Role::Etcd)), &[]);
    let walked = walk(hosts, vec![wait]).await;
    assert_eq!(walked.outcomes(), [Done]);
    assert_eq!(walked.said(), ["etcd has no leader yet"], "once a state");
}

/// Patroni reads its config once a loop: whoever goes on before that may see the member elected.
#[tokio::test]
async fn a_member_that_leaves_is_not_electable_once_its_patroni_says_so() {
    let asked = AtomicUsize::new(0);
    let hosts = Hosts::serving(move |question| match question {
        ("node1", 8008, "GET /patroni", _) => match asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => (200, json!({"state": "running", "role": "primary"})),
            _ => (
                200,
                json!({"state": "running", "tags": {"nofailover": true}}),
            ),
        },
        _ => NOBODY,
    });
    let action = Action::ForbidElection(Script::new().line("tag it"));
    let walked = walk(hosts, vec![step("node1", action.clone(), &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert_eq!(
        walked.said(),
        ["its Patroni has not read the tag nofailover yet"],
        "once a state"
    );
    // One that does not answer is stopped next all the same.
    let walked = walk(
        Hosts::serving(|_| (UNANSWERED, Value::Null)),
        vec![step("node1", action, &[])],
    )
    .await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert!(walked.said()[0].starts_with("its Patroni does not answer"));
}

/// A service without a health of its own is ready when its unit runs.
#[tokio::test]
async fn a_service_is_waited_for_by_its_own_health() {
    let asked = AtomicUsize::new(0);
    let hosts = Hosts::serving(move |question| match question {
        ("node4", 8999, "GET /", _) => match asked.fetch_add(1, Ordering::SeqCst) {
            0 => NOBODY,
            _ => (200, Value::Null),
        },
        _ => NOBODY,
    });
    let wait = step(
        "node4",
        Action::Await(Condition::Ready(Role::Exercise)),
        &[],
    );
    let walked = walk(hosts, vec![wait]).await;
    assert_eq!(walked.outcomes(), [Done]);
    assert_eq!(
        walked.said(),
        ["the exercise does not answer yet (the exercise answered 503 Service Unavailable)"]
    );

    let asked = AtomicUsize::new(0);
    let hosts = Hosts::new(move |_, script| {
        assert!(script.contains("systemctl is-active haproxy"), "{script:?}");
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::Breaks,
            1 => Answer::Ends(3, "activating\n", ""),
            _ => Answer::Ends(0, "active\n", ""),
        }
    });
    let wait = step(
        "haproxy",
        Action::Await(Condition::Ready(Role::Haproxy)),
        &[],
    );
    let walked = walk(hosts, vec![wait]).await;
    assert_eq!(walked.outcomes(), [Done]);
    assert_eq!(
        walked.said(),
        [
            "haproxy does not answer yet (the connection broke)",
            "haproxy is activating"
        ]
    );
}

#[tokio::test]
async fn a_wait_that_is_over_says_what_was_there_instead() {
    let hosts = Hosts::serving(|question| match question {
        ("node1", 8008, "GET /patroni", _) => {
            (503, json!({"state": "starting", "role": "replica"}))
        }
        _ => (503, json!({"state": "stopped"})),
    });
    let wait = Step {
        limit: Duration::from_millis(300),
        ..step("node1", Action::Await(Condition::Leader), &[])
    };
    let walked = walk(hosts, vec![wait, script("node2", &[0])]).await;
    let error = walked.error();
    assert!(
        error
            .what()
            .contains("node1: replica, starting; node2: stopped"),
        "{}",
        error.what()
    );
    assert!(error.left_behind().unwrap().contains("keep trying"));
    assert_eq!(walked.outcomes()[0], Failed);
}

/// With paused time, a unit has no chance to start by itself.
#[tokio::test]
async fn a_unit_that_dies_again_and_again_is_not_waited_for() {
    let hosts = Hosts::new(|_, script| {
        if script.contains("NRestarts --value") {
            Answer::Ends(0, "7\n", "")
        } else {
            Answer::Ends(0, "cannot open /etc/patroni.yml\n", "")
        }
    });
    let wait = Step {
        limit: Duration::from_secs(600),
        units: vec!["patroni"],
        ..step("node2", Action::Await(Condition::Streaming), &[])
    };
    let walked = walk(hosts, vec![wait]).await;
    let error = walked.error();
    assert_eq!(error.what(), "patroni keeps crashing (7 times)");
    assert!(error.excerpts()[0].text.contains("cannot open"));
}

/// node2 leads, and streams to both others.
fn node2_leads(question: super::hosts::Asked<'_>) -> (u16, Value) {
    match question {
        ("node2", 8008, "GET /patroni", _) => {
            (200, member(true, &[("node1", "async"), ("node3", "async")]))
        }
        ("node2", 8008, "GET /primary", _) => (200, Value::Null),
        (_, 8008, "GET /patroni", _) => (200, member(false, &[])),
        _ => NOBODY,
    }
}

#[tokio::test]
async fn leader_and_streaming_are_seen() {
    let steps = vec![
        step("node1", Action::Await(Condition::Leader), &[]),
        step("node1", Action::Await(Condition::Streaming), &[0]),
        step("node2", Action::Await(Condition::Streaming), &[0]),
        step("node3", Action::Await(Condition::Streaming), &[0]),
    ];
    let walked = walk(Hosts::serving(node2_leads), steps).await;
    assert_eq!(walked.outcomes(), [Done; 4]);
    walked.result.unwrap();
}

#[tokio::test]
async fn what_needs_the_leader_runs_where_it_is() {
    let run = step("node1", Action::RunOnLeader(Script::probe("true")), &[]);
    let walked = walk(Hosts::serving(node2_leads), vec![run]).await;
    assert_eq!(walked.log, ["node2 begins", "node2 ends"]);
    assert_eq!(walked.outcomes(), [Changed]);
}

#[tokio::test]
async fn without_a_leader_there_is_nowhere_to_run() {
    let mut hosts = Hosts::serving(|_| (200, member(false, &[])));
    hosts.scripts = Box::new(|_, script| {
        assert!(
            script.contains("df -k"),
            "nothing runs but a look at what is free"
        );
        Answer::Ends(0, "", "")
    });
    let mut run = step("node1", Action::RunOnLeader(Script::probe("true")), &[]);
    run.limit = Duration::from_millis(300);
    let walked = walk(hosts, vec![run]).await;
    assert_eq!(walked.error().what(), "the cluster has no leader");
}

#[tokio::test]
async fn a_leader_that_is_still_to_come_is_waited_for() {
    let asked = AtomicUsize::new(0);
    let hosts = Hosts::serving(move |question| {
        // Each look asks three members.
        let early = asked.fetch_add(1, Ordering::SeqCst) < 6;
        match question {
            (host, 8008, "GET /patroni", _) => (200, member(!early && host == "node2", &[])),
            _ => NOBODY,
        }
    });
    let run = step("node1", Action::RunOnLeader(Script::probe("true")), &[]);
    let walked = walk(hosts, vec![run]).await;
    assert_eq!(walked.log, ["node2 begins", "node2 ends"]);
    assert_eq!(walked.outcomes(), [Changed]);
}

#[tokio::test]
async fn a_patch_goes_to_the_leader_and_its_refusal_is_quoted() {
    let hosts = Hosts::serving(|question| match question {
        ("node2", 8008, "PATCH /config", body) if *body == json!({"ttl": 30}) => {
            (412, json!("ttl is out of bounds"))
        }
        other => node2_leads(other),
    });
    let patch = step("node1", Action::PatchConfig(json!({"ttl": 30})), &[]);
    let walked = walk(hosts, vec![patch]).await;
    let error = walked.error();
    assert!(error.what().contains("412"), "{}", error.what());
    assert!(error.what().contains("/config"));
    assert!(error.causes()[0].contains("ttl is out of bounds"));
    assert_eq!(error.host().unwrap().as_str(), "node2");
}

#[tokio::test]
async fn the_lock_of_a_bootstrap_is_released_only_as_it_was_seen() {
    let asked: Arc<Mutex<Value>> = Arc::default();
    let kept = asked.clone();
    let hosts = Hosts::serving(move |question| match question {
        ("node4", 2379, "POST /v3/kv/txn", body) => {
            *kept.lock().unwrap() = body.clone();
            // The lock has changed since: a bootstrap is alive.
            (200, json!({"succeeded": false}))
        }
        _ => NOBODY,
    });
    let release = Action::ReleaseBootstrap {
        revision: "42".into(),
    };
    let walked = walk(hosts, vec![step("node4", release, &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked["compare"][0]["mod_revision"], "42");
    assert_eq!(asked["compare"][0]["target"], "MOD");
}

/// The member may have taken the lock after the hosts were observed.
#[tokio::test]
async fn the_lock_of_a_bootstrap_stays_while_any_member_is_at_work() {
    let mut hosts = Hosts::serving(|question| match question {
        ("node4", 2379, "POST /v3/kv/txn", _) => panic!("it was released"),
        _ => NOBODY,
    });
    hosts.scripts = Box::new(|host, _| match host {
        "node2" => Answer::Ends(0, "busy\n", ""),
        _ => Answer::Ends(0, "quiet\n", ""),
    });
    let release = Action::ReleaseBootstrap {
        revision: "42".into(),
    };
    let walked = walk(hosts, vec![step("node4", release, &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
}

#[tokio::test]
async fn a_leader_hands_over_to_the_synchronous_standby() {
    let switched = Arc::new(AtomicBool::new(false));
    let state = switched.clone();
    let written = Arc::new(AtomicBool::new(false));
    let before = written.clone();
    let asked = AtomicUsize::new(0);
    let mut hosts = Hosts::serving(move |question| {
        let leader = if state.load(Ordering::SeqCst) {
            "node2"
        } else {
            "node1"
        };
        match question {
            ("node1", 8008, "POST /switchover", body) => {
                assert_eq!(*body, json!({"leader": "node1", "candidate": "node2"}));
                assert!(before.load(Ordering::SeqCst), "a checkpoint goes before");
                // PostgreSQL has it as synchronous, and Patroni has not noted that yet.
                if asked.fetch_add(1, Ordering::SeqCst) < 2 {
                    return (
                        412,
                        json!("candidate name does not match with sync_standby"),
                    );
                }
                state.store(true, Ordering::SeqCst);
                (200, json!("Successfully switched over"))
            }
            (host, 8008, "GET /patroni", _) => {
                let replicas = [("node2", "sync"), ("node3", "async")];
                (200, member(host == leader, &replicas))
            }
            _ => NOBODY,
        }
    });
    hosts.scripts = Box::new(move |host, script| {
        if host == "node1" && script.contains("checkpoint") {
            written.store(true, Ordering::SeqCst);
        }
        Answer::Ends(0, "", "")
    });
    let walked = walk(hosts, vec![step("node1", Action::HandOver, &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert!(switched.load(Ordering::SeqCst));
    assert_eq!(walked.said(), ["node1 hands over to node2"]);
}

#[tokio::test]
async fn a_host_that_no_longer_leads_has_nothing_to_hand_over() {
    let walked = walk(
        Hosts::serving(node2_leads),
        vec![step("node1", Action::HandOver, &[])],
    )
    .await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert!(walked.said().is_empty());
}

#[tokio::test]
async fn a_leader_without_a_replica_keeps_its_post() {
    let hosts = Hosts::serving(|question| match question {
        ("node1", 8008, "GET /patroni", _) => (200, member(true, &[])),
        _ => NOBODY,
    });
    let walked = walk(hosts, vec![step("node1", Action::HandOver, &[])]).await;
    let error = walked.error();
    assert!(
        error
            .what()
            .contains("no replica that could take over streams"),
        "{}",
        error.what()
    );
}
