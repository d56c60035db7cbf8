use super::*;
use crate::liberal::mutate::mutations;

const PRIMARY: &str = include_str!("answers/primary.json");
const REPLICA: &str = include_str!("answers/replica.json");
const CLUSTER: &str = include_str!("answers/cluster.json");

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A primary's report with every field that a member may report.
fn full() -> Value {
    let mut full = document(PRIMARY);
    for (key, value) in [
        ("pending_restart", serde_json::json!(true)),
        (
            "pending_restart_reason",
            serde_json::json!({"shared_buffers": {"old_value": "128MB", "new_value": "256MB"}}),
        ),
        ("pause", serde_json::json!(true)),
        ("failsafe_mode_is_active", serde_json::json!(true)),
        ("replication_state", serde_json::json!("streaming")),
    ] {
        full[key] = value;
    }
    full["xlog"] =
        serde_json::json!({"location": 1, "received_location": 2, "replayed_location": 3});
    full
}

#[test]
fn real_answers_are_read() {
    let primary: Status = serde_json::from_str(PRIMARY).unwrap();
    assert!(primary.is_primary() && primary.is_running());
    assert!(primary.streams_to(&HostName::new("node2")));
    assert_eq!(primary.server_version, Some(150_020));
    assert_eq!(primary.patroni_version().as_deref(), Some("4.1.5"));
    let replica: Status = serde_json::from_str(REPLICA).unwrap();
    assert!(replica.is_running() && !replica.is_primary());
    assert_eq!(replica.xlog.replayed_location, Some(67_283_360));
    let topology: Topology = serde_json::from_str(CLUSTER).unwrap();
    assert_eq!(topology.members.len(), 3);
    assert_eq!(topology.leader().unwrap().name, "node1");
    assert_eq!(topology.members[1].lag, Some("unknown".into()));
    assert_eq!(topology.members[1].timeline, None);
}

/// Whatever one field contains, the rest of the answer is read.
#[test]
fn an_answer_is_read_whatever_one_of_its_fields_holds() {
    let mut count = 0;
    for text in [full(), document(PRIMARY), document(REPLICA)] {
        let whole: Status = serde_json::from_value(text.clone()).unwrap();
        for (what, document) in mutations(&text) {
            let read: Status =
                serde_json::from_value(document).unwrap_or_else(|error| panic!("{what}: {error}"));
            let field = |name: &str| what.starts_with(&format!("/{name}"));
            assert!(field("state") || read.state == whole.state, "{what}");
            assert!(field("role") || read.role == whole.role, "{what}");
            assert!(
                field("timeline") || read.timeline == whole.timeline,
                "{what}"
            );
            let streams = read.replication.len() == whole.replication.len();
            assert!(field("replication") || streams, "{what}");
            count += 1;
        }
    }
    for (what, document) in mutations(&document(CLUSTER)) {
        let read: Topology =
            serde_json::from_value(document).unwrap_or_else(|error| panic!("{what}: {error}"));
        let others = read.members.len() >= 2;
        assert!(others || what.starts_with("/members "), "{what}");
        count += 1;
    }
    assert!(count > 800, "{count}");
}

/// A walsender whose role is gone has no name.
#[test]
fn a_replica_without_a_role_still_streams() {
    let mut primary = document(PRIMARY);
    primary["replication"][0]["usename"] = Value::Null;
    let primary: Status = serde_json::from_value(primary).unwrap();
    assert!(primary.streams_to(&HostName::new("node3")));
    assert_eq!(primary.replication[0].usename, "");
}

#[test]
fn an_answer_that_is_no_document_is_none() {
    for text in ["null", "7", "\"running\"", "<html>", ""] {
        assert!(serde_json::from_str::<Status>(text).is_err(), "{text}");
    }
}
