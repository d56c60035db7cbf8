//! What a person does to a running cluster, with fake answers of Patroni.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::hosts::{Hosts, member, step, walk};
use crate::{
    event::Outcome::{Changed, Done},
    plan::{Action, Condition, Step},
};

const NOBODY: (u16, Value) = (503, Value::Null);

#[tokio::test]
async fn a_pause_is_over_once_every_member_that_answers_says_so() {
    let paused: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let asked: Arc<AtomicUsize> = Arc::default();
    let (state, count) = (paused.clone(), asked.clone());
    let hosts = Hosts::serving(move |question| match question {
        ("node3", ..) => NOBODY,
        (host, 8008, "PATCH /config", body) => {
            assert_eq!(*body, json!({"pause": true}));
            // Each member takes it over in its own loop.
            if count.fetch_add(1, Ordering::SeqCst) >= 2 {
                state.lock().unwrap().insert(host.to_owned());
            }
            (200, json!({}))
        }
        (host, 8008, "GET /patroni", _) => {
            let mut status = member(host == "node1", &[("node2", "async")]);
            status["pause"] = json!(state.lock().unwrap().contains(host));
            (200, status)
        }
        _ => NOBODY,
    });
    let walked = walk(hosts, vec![step("node1", Action::SetPause(true), &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert_eq!(walked.said()[0], "not yet: node1, node2");
    assert_eq!(paused.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_pause_that_is_refused_is_an_error_with_patronis_words() {
    let hosts = Hosts::serving(|question| match question {
        (_, 8008, "PATCH /config", _) => (403, json!("Access is denied")),
        (_, 8008, "GET /patroni", _) => (200, member(false, &[])),
        _ => NOBODY,
    });
    let pause = Step {
        limit: Duration::from_millis(300),
        ..step("node1", Action::SetPause(true), &[])
    };
    let walked = walk(hosts, vec![pause]).await;
    assert!(walked.error().causes()[0].contains("Access is denied"));
}

/// Before the copy begins, the leader still streams to the data that is about to be removed.
#[tokio::test]
async fn a_copy_has_begun_before_it_is_waited_for() {
    let looks: Arc<AtomicUsize> = Arc::default();
    let seen = looks.clone();
    let hosts = Hosts::serving(move |question| match question {
        ("node3", 8008, "POST /reinitialize", body) => {
            assert_eq!(*body, json!({"force": true}));
            seen.store(1, Ordering::SeqCst);
            (200, json!("reinitialize started"))
        }
        ("node3", 8008, "GET /patroni", _) => {
            let mut status = member(false, &[]);
            status["postmaster_start_time"] = json!("yesterday");
            match seen.load(Ordering::SeqCst) {
                0 => {}
                1 | 2 => {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                _ => status = json!({"state": "creating replica", "role": "replica"}),
            }
            (200, status)
        }
        ("node1", 8008, "GET /patroni", _) => (200, member(true, &[("node3", "async")])),
        _ => NOBODY,
    });
    let walked = walk(
        hosts,
        vec![
            step("node3", Action::Reinitialize, &[]),
            step("node3", Action::Await(Condition::Streaming), &[0]),
        ],
    )
    .await;
    assert_eq!(walked.outcomes(), [Changed, Done]);
    assert!(
        looks.load(Ordering::SeqCst) > 2,
        "it looked until it had begun"
    );
}

#[tokio::test]
async fn a_replica_that_leads_by_now_is_not_restarted() {
    let hosts = Hosts::serving(|question| match question {
        ("node2", 8008, "GET /patroni", _) => (200, member(true, &[])),
        (_, 8008, "POST /restart", _) => panic!("it was restarted"),
        _ => NOBODY,
    });
    let restart = Action::RestartPostgres {
        leads: false,
        since: Some("yesterday".into()),
    };
    let walked = walk(hosts, vec![step("node2", restart, &[])]).await;
    assert!(walked.error().what().contains("node2 leads now"));
}

/// How many restarts are requested until node2, whose PostgreSQL started yesterday, has started again.
async fn restarts(already: bool) -> usize {
    let asked: Arc<AtomicUsize> = Arc::default();
    let looks: Arc<AtomicUsize> = Arc::default();
    let (count, seen) = (asked.clone(), looks.clone());
    let hosts = Hosts::serving(move |question| match question {
        ("node2", 8008, "POST /restart", body) => {
            assert_eq!(*body, json!({"role": "replica"}));
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => (503, json!("switchover: demote already in progress")),
                _ => (200, json!("restarted successfully")),
            }
        }
        ("node2", 8008, "GET /patroni", _) => {
            let mut status = member(false, &[]);
            let new = already || seen.fetch_add(1, Ordering::SeqCst) > 3;
            status["postmaster_start_time"] = json!(if new { "today" } else { "yesterday" });
            (200, status)
        }
        _ => NOBODY,
    });
    let restart = Action::RestartPostgres {
        leads: false,
        since: Some("yesterday".into()),
    };
    let walked = walk(hosts, vec![step("node2", restart, &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    asked.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_restart_is_over_when_postgresql_has_started_anew() {
    assert_eq!(
        restarts(false).await,
        2,
        "once more while Patroni is at work"
    );
    assert_eq!(restarts(true).await, 0, "a hand-over has done it");
}

#[tokio::test]
async fn a_failover_whose_end_patroni_does_not_know_yet_is_waited_for() {
    let looks: Arc<AtomicUsize> = Arc::default();
    let hosts = Hosts::serving(move |question| match question {
        ("node3", 8008, "POST /failover", body) => {
            assert_eq!(*body, json!({"candidate": "node3"}));
            (503, json!("Failover status unknown"))
        }
        ("node3", 8008, "GET /primary", _) => match looks.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => NOBODY,
            _ => (200, Value::Null),
        },
        ("node3", 8008, "GET /patroni", _) => (200, member(false, &[])),
        _ => NOBODY,
    });
    let walked = walk(hosts, vec![step("node3", Action::FailOver, &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
}

#[tokio::test]
async fn a_failover_that_patroni_refuses_is_an_error_with_its_words() {
    let hosts = Hosts::serving(|question| match question {
        ("node3", 8008, "POST /failover", _) => (
            412,
            json!("failover is not possible: no good candidates have been found"),
        ),
        _ => NOBODY,
    });
    let walked = walk(hosts, vec![step("node3", Action::FailOver, &[])]).await;
    assert!(walked.error().causes()[0].contains("no good candidates"));
}
