//! Finds keys of the DCS that are not the inventory's.
//!
//! `up` leaves keys that it does not know, for example from `patronictl edit-config`. But they too change what
//! Patroni does.

use serde_json::{Map, Value, json};

/// Keys that do not change the cluster's behaviour, or that are reported elsewhere. Slots are for applications.
const OTHERS: [&str; 5] = [
    "pause",
    "slots",
    "ignore_slots",
    "member_slots_ttl",
    "max_timelines_history",
];

/// Patroni 4.1.5's behaviour without the key (`config.py`, `global_config.py`).
fn by_itself(key: &str) -> Option<Value> {
    Some(match key {
        "check_timeline" | "nostream" | "synchronous_mode_strict" => json!(false),
        "primary_start_timeout" | "master_start_timeout" => json!(300),
        "primary_stop_timeout" | "master_stop_timeout" => json!(0),
        "maximum_lag_on_syncnode" => json!(-1),
        "synchronous_node_count" => json!(1),
        _ => return None,
    })
}

/// Every key of the DCS that is not pgherd's and has an effect. A key of pgherd's with another value is in the
/// plan.
pub(super) fn differences(found: Option<&Value>, desired: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let none = Map::new();
    let map = |value: Option<&Value>| value.and_then(Value::as_object).unwrap_or(&none).clone();
    let known = map(Some(desired));
    for (key, value) in map(found) {
        if !known.contains_key(&key) && !OTHERS.contains(&key.as_str()) {
            wrong.extend(told(&key, &value));
        }
    }
    let known = map(desired.get("postgresql"));
    for (key, value) in map(found.and_then(|found| found.get("postgresql"))) {
        if !known.contains_key(&key) && key != "parameters" {
            wrong.extend(told(&format!("postgresql.{key}"), &value));
        }
    }
    wrong
}

fn told(key: &str, value: &Value) -> Option<String> {
    let is_empty = value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(Map::is_empty);
    if is_empty || by_itself(key).as_ref() == Some(value) {
        return None;
    }
    // Nested values may contain a password.
    let value = if value.is_object() || value.is_array() {
        String::new()
    } else {
        format!(" ({value})")
    };
    Some(format!(
        "the DCS has {key}{value}, which the inventory does not; undo it on a database host: \
         patronictl edit-config --force -s {key}=null"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_by_hand_is_told_with_the_way_back() {
        let desired = json!({"ttl": 30, "postgresql": {"use_slots": true, "parameters": {}}});
        let found = json!({"ttl": 20, "primary_start_timeout": 0, "check_timeline": false, "pause": true,
            "slots": {"app": {"type": "logical"}}, "standby_cluster": {"host": "elsewhere"}, "nostream": null,
            "postgresql": {"use_slots": true, "parameters": {"work_mem": "1MB"}, "recovery_conf": {"a": "b"}}});
        let told = differences(Some(&found), &desired);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("primary_start_timeout (0)"), "{told:?}");
        assert!(
            told[0].contains("-s primary_start_timeout=null"),
            "{told:?}"
        );
        assert!(
            told[1].starts_with("the DCS has standby_cluster, "),
            "{told:?}"
        );
        assert!(told[2].contains("postgresql.recovery_conf"), "{told:?}");
        assert!(differences(Some(&desired), &desired).is_empty());
        assert!(differences(None, &desired).is_empty());
    }
}
