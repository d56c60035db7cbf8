//! Changes of etcd's membership, with fake answers of its members.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::hosts::{Answer, Hosts, step, walk};
use crate::{
    event::Outcome::{Changed, Failed},
    plan::{Action, Step, tests::world::SHARED},
};

/// A store with db1 and db2, to which db3 is added. It refuses what etcd would refuse.
#[derive(Default)]
struct Store {
    /// The list's third entry: `isLearner`.
    third: Option<bool>,
    /// How often etcd still refuses a change, and with which message.
    refusals: Vec<&'static str>,
    /// The member list that db2 still has.
    behind: usize,
    asked: Vec<String>,
}

impl Store {
    fn list(third: Option<bool>) -> Value {
        let entry = |id: &str, name: &str| json!({"ID": id, "name": name, "peerURLs": [format!("https://{name}:2380")], "clientURLs": ["https://192.0.2.1:2379"]});
        let mut members = vec![entry("1", "db1"), entry("2", "db2")];
        if let Some(is_learner) = third {
            let mut third = json!({"ID": "3", "peerURLs": ["https://db3:2380"]});
            third["isLearner"] = is_learner.into();
            members.push(third);
        }
        json!({"header": {"cluster_id": "77", "member_id": "1"}, "members": members})
    }

    fn change(&mut self, to: Option<bool>) -> (u16, Value) {
        if let Some(why) = self.refusals.pop() {
            return (503, json!({"error": why, "message": why, "code": 14}));
        }
        self.third = to;
        (200, json!({"header": {}}))
    }

    fn answer(&mut self, host: &str, path: &str, body: &Value) -> (u16, Value) {
        if !path.ends_with("member/list") && !path.ends_with("/health") {
            self.asked.push(format!("{host} {path} {body}"));
        }
        match path {
            "GET /health" => (200, json!({"health": "true"})),
            "POST /v3/cluster/member/list" if host == "db3" && self.third != Some(false) => (
                503,
                json!({"message": "etcdserver: rpc not supported for learner"}),
            ),
            "POST /v3/cluster/member/list" if host == "db2" && self.behind > 0 => {
                self.behind -= 1;
                (200, Self::list(None))
            }
            "POST /v3/cluster/member/list" => (200, Self::list(self.third)),
            "POST /v3/cluster/member/add" => self.change(Some(true)),
            "POST /v3/cluster/member/promote" => self.change(Some(false)),
            "POST /v3/cluster/member/remove" => self.change(None),
            _ => (404, Value::Null),
        }
    }
}

fn serving(store: &Arc<Mutex<Store>>) -> Hosts {
    let store = store.clone();
    let mut hosts =
        Hosts::serving(move |(host, _, path, body)| store.lock().unwrap().answer(host, path, body));
    hosts.declared = SHARED;
    hosts.scripts = Box::new(|_, _| Answer::Ends(0, "0\n", ""));
    hosts
}

fn add() -> Step {
    let peer_url = "https://db3:2380".into();
    step("db3", Action::AddEtcdMember { peer_url }, &[])
}

/// For some seconds after a change, etcd refuses the next one.
#[tokio::test]
async fn a_learner_is_added_once_etcd_allows_it() {
    let store = Arc::new(Mutex::new(Store {
        refusals: vec!["etcdserver: unhealthy cluster"; 3],
        ..Store::default()
    }));
    let walked = walk(serving(&store), vec![add()]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert_eq!(
        walked.said(),
        ["etcd says: etcdserver: unhealthy cluster"],
        "once a state"
    );
    let asked = store.lock().unwrap().asked.clone();
    assert_eq!(asked.len(), 4, "{asked:#?}");
    assert_eq!(
        asked[3],
        r#"db1 POST /v3/cluster/member/add {"peerURLs":["https://db3:2380"],"isLearner":true}"#
    );
    // A member that an earlier run added is not added twice.
    walk(serving(&store), vec![add()]).await.result.unwrap();
    assert_eq!(store.lock().unwrap().asked.len(), 4);
}

#[tokio::test]
async fn a_learner_is_promoted_once_it_has_caught_up_and_all_agree() {
    let store = Arc::new(Mutex::new(Store {
        third: Some(true),
        refusals: vec![
            "etcdserver: can only promote a learner member which is in sync with leader",
        ],
        behind: 2,
        ..Store::default()
    }));
    let promote = step("db3", Action::PromoteEtcdMember, &[]);
    let walked = walk(serving(&store), vec![promote]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert_eq!(
        walked.said(),
        [
            "etcd says: etcdserver: can only promote a learner member which is in sync with leader",
            "etcd's members do not tell the same list yet"
        ]
    );
    assert_eq!(store.lock().unwrap().behind, 0);
}

#[tokio::test]
async fn a_lost_member_is_removed_by_its_id_alone() {
    let store = Arc::new(Mutex::new(Store {
        third: Some(false),
        ..Store::default()
    }));
    let remove = |id: &str| step("db3", Action::RemoveEtcdMember { id: id.into() }, &[]);
    // Another member has its name now.
    walk(serving(&store), vec![remove("2222")])
        .await
        .result
        .unwrap();
    assert_eq!(store.lock().unwrap().asked, [""; 0]);
    walk(serving(&store), vec![remove("3")])
        .await
        .result
        .unwrap();
    assert_eq!(store.lock().unwrap().third, None);
}

#[tokio::test]
async fn what_etcd_refuses_for_good_is_said() {
    let store = Arc::new(Mutex::new(Store {
        refusals: vec!["etcdserver: unhealthy cluster"; 99],
        ..Store::default()
    }));
    let add = Step {
        limit: Duration::from_millis(500),
        ..add()
    };
    let walked = walk(serving(&store), vec![add]).await;
    assert_eq!(walked.outcomes(), [Failed]);
    let error = walked.error();
    assert!(error.causes()[0].contains("unhealthy cluster"), "{error:?}");
    assert!(error.left_behind().unwrap().contains("continues from here"));
}
