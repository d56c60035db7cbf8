//! Restarts for a parameter, on fake members. Each reports that it waits only after its own loop, and a standby
//! keeps its leader's higher bound until the leader has restarted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::hosts::{Hosts, UNANSWERED, member, step, walk};
use crate::{event::Outcome::Changed, plan::Action};

const NAMES: [&str; 3] = ["node1", "node2", "node3"];

struct Played {
    leader: &'static str,
    /// The values in the DCS.
    wanted: u32,
    /// The values that each member runs with.
    runs: BTreeMap<&'static str, u32>,
    /// How many loops each member has run.
    loops: BTreeMap<&'static str, u32>,
    /// By how many loops a member is slower than the others.
    slow: BTreeMap<&'static str, u32>,
    /// What each standby has replayed of its leader's bounds, and in how many looks it will have the latest.
    replayed: BTreeMap<&'static str, u32>,
    lag: u32,
    /// The loop in which the config is compared.
    compares: u32,
    /// The leader waits from the start, for a value of `ALTER SYSTEM` that Patroni overrules.
    overruled: bool,
    /// Whether its Patroni gives reasons.
    tells: bool,
    /// The member whose Patroni no longer reports that it waits after a restart.
    forgets: Option<&'static str>,
    /// The member whose Patroni does not answer a restart request, and the number of looks until PostgreSQL has
    /// started.
    starting: Option<(&'static str, u32)>,
    /// How often each PostgreSQL has started.
    starts: BTreeMap<&'static str, u32>,
    happened: Vec<String>,
}

impl Played {
    fn new(runs: u32, wanted: u32) -> Self {
        Self {
            leader: "node1",
            wanted,
            runs: NAMES.map(|name| (name, runs)).into(),
            loops: NAMES.map(|name| (name, 0)).into(),
            slow: BTreeMap::new(),
            replayed: NAMES.map(|name| (name, runs)).into(),
            lag: 0,
            compares: 2,
            overruled: false,
            tells: true,
            forgets: None,
            starting: None,
            starts: NAMES.map(|name| (name, 1)).into(),
            happened: Vec::new(),
        }
    }

    /// PostgreSQL starts on `name`, as the leader or as a replica.
    fn start(&mut self, name: &'static str) {
        *self.starts.entry(name).or_default() += 1;
        let bound = if name == self.leader {
            self.lag = 3;
            self.wanted
        } else {
            self.wanted.max(self.replayed[name])
        };
        self.runs.insert(name, bound);
    }

    fn answer(&mut self, host: &str, question: &str, body: &Value) -> (u16, Value) {
        let Some(name) = NAMES.into_iter().find(|name| *name == host) else {
            return (503, Value::Null);
        };
        match question {
            "PATCH /config" => {
                *self.loops.entry(name).or_default() += 1;
                (200, json!({}))
            }
            "POST /restart" => {
                self.happened.push(format!("restart {name}"));
                if self.starting.is_some_and(|(slow, _)| slow == name) {
                    return (UNANSWERED, Value::Null);
                }
                self.start(name);
                (200, json!("restarted successfully"))
            }
            "POST /switchover" => {
                let to = NAMES
                    .into_iter()
                    .find(|name| body["candidate"] == **name)
                    .unwrap();
                self.happened.push(format!("{name} to {to}"));
                self.leader = to;
                self.start(name);
                (200, json!("Successfully switched over"))
            }
            "GET /patroni" => (200, self.status(name)),
            "GET /primary" if name == self.leader => (200, Value::Null),
            _ => (503, Value::Null),
        }
    }

    fn status(&mut self, name: &'static str) -> Value {
        let asked = self.happened.contains(&format!("restart {name}"));
        if let Some((slow, looks)) = self.starting.as_mut().filter(|_| asked)
            && *slow == name
        {
            *looks -= 1;
            if *looks == 0 {
                self.starting = None;
                self.start(name);
                self.happened.push(format!("{name} has started"));
            }
        }
        self.lag = self.lag.saturating_sub(u32::from(name == self.leader));
        if self.lag == 0 {
            let bound = self.runs[self.leader];
            self.replayed = NAMES.map(|name| (name, bound)).into();
        }
        let others: Vec<(&str, &str)> = NAMES
            .into_iter()
            .filter(|it| *it != name)
            .map(|it| (it, "async"))
            .collect();
        let leads = name == self.leader;
        let mut status = member(leads, if leads { &others } else { &[] });
        let loops = self.loops[name].saturating_sub(self.slow.get(name).copied().unwrap_or(0));
        status["dcs_last_seen"] = json!(loops);
        status["postmaster_start_time"] = json!(self.starts[name].to_string());
        status["xlog"] =
            json!({"location": 9, "replayed_location": if self.lag == 0 { 9 } else { 8 }});
        let (runs, wanted) = (self.runs[name], self.wanted);
        let restarted = format!("restart {name}");
        let forgets = self.forgets == Some(name) && self.happened.contains(&restarted);
        if self.overruled && leads && !self.happened.contains(&restarted) {
            status["pending_restart"] = json!(true);
            status["pending_restart_reason"] =
                json!({"max_wal_senders": {"old_value": "10", "new_value": "5"}});
        }
        if loops >= self.compares && runs != wanted && !forgets {
            status["pending_restart"] = json!(true);
            if self.tells {
                status["pending_restart_reason"]["max_connections"] =
                    json!({"old_value": runs.to_string(), "new_value": wanted.to_string()});
            }
        }
        status
    }
}

async fn happened(played: Played) -> Vec<String> {
    let limit = match played.starting {
        Some(_) => Duration::from_millis(500),
        None => Duration::from_secs(120),
    };
    let played = Arc::new(Mutex::new(played));
    let theirs = played.clone();
    let mut hosts = Hosts::serving(move |(host, _, question, body)| {
        theirs.lock().unwrap().answer(host, question, body)
    });
    hosts.change_limit = limit;
    let walked = walk(hosts, vec![step("node3", Action::RestartPending, &[])]).await;
    assert_eq!(walked.outcomes(), [Changed], "{:?}", walked.result);
    let played = played.lock().unwrap();
    let all_have_it = played.runs.values().all(|runs| *runs == played.wanted);
    assert!(all_have_it, "{:?}", played.runs);
    played.happened.clone()
}

/// The leader's Patroni is the first to read its config and to report it.
#[tokio::test]
async fn a_leader_that_is_the_first_to_wait_goes_last() {
    let mut played = Played::new(100, 200);
    played.slow = [("node2", 3), ("node3", 5)].into();
    let happened = happened(played).await;
    assert_eq!(happened[..2], ["restart node2", "restart node3"]);
    assert!(happened[2].starts_with("node1 to "), "{happened:?}");
    assert_eq!(happened.len(), 3, "a replica comes back with the new value");
}

/// `ALTER SYSTEM` has a lower bound than the inventory, and Patroni's command line overrules it. The leader has
/// been waiting since before the run, and nothing is lowered.
#[tokio::test]
async fn a_leader_that_waits_since_long_ago_goes_last_too() {
    let mut played = Played::new(50, 100);
    played.overruled = true;
    played.compares = 3;
    let happened = happened(played).await;
    assert_eq!(happened[..2], ["restart node2", "restart node3"]);
    assert!(happened[2].starts_with("node1 to "), "{happened:?}");
}

#[tokio::test]
async fn a_lowered_bound_is_the_leaders_first_and_nobody_restarts_twice() {
    let lowered = happened(Played::new(200, 100)).await;
    assert_eq!(lowered, ["restart node1", "restart node2", "restart node3"]);
}

#[tokio::test]
async fn a_patroni_that_gives_no_reasons_comes_to_the_same_end() {
    let mut lowered = Played::new(200, 100);
    lowered.tells = false;
    let lowered = happened(lowered).await;
    let expected = [
        "restart node2",
        "restart node3",
        "restart node1",
        "restart node2",
        "restart node3",
    ];
    assert_eq!(lowered, expected);
    let mut raised = Played::new(100, 200);
    raised.tells = false;
    assert_eq!(happened(raised).await.len(), 3);
}

/// A checkpoint or a recovery may take longer than the time limit for an answer. Its leader still reports that
/// it streams to the replica, as before.
#[tokio::test]
async fn a_restart_that_is_not_answered_goes_on_and_is_waited_for() {
    let mut played = Played::new(100, 200);
    played.starting = Some(("node2", 5));
    let happened = happened(played).await;
    let expected = ["restart node2", "node2 has started", "restart node3"];
    assert_eq!(happened[..3], expected);
    assert_eq!(happened.len(), 4, "{happened:?}");
}

#[tokio::test]
async fn nobody_is_restarted_where_nothing_waits() {
    assert!(happened(Played::new(100, 100)).await.is_empty());
}

/// Seen with Patroni 4.1.5: reading a config while PostgreSQL starts clears the mark.
#[tokio::test]
async fn a_replica_that_no_longer_says_that_it_waits_is_restarted_all_the_same() {
    let mut lowered = Played::new(200, 100);
    lowered.tells = false;
    lowered.forgets = Some("node2");
    // `happened` asserts that all members have the new value.
    assert_eq!(happened(lowered).await.len(), 5);
}
