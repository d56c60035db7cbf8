//! The part of the configuration that is in the DCS.

use serde_json::{Map, Value};

use super::Change;

/// What must be merged into `found` to get `desired`, and each setting that this changes.
///
/// Every key of `desired` is pgherd's. Under `postgresql.parameters`, all keys are, so that a parameter that
/// left the inventory leaves the cluster too. Elsewhere, keys that `desired` does not name stay as they are.
pub fn config_patch(found: Option<&Value>, desired: &Value) -> (Value, Vec<Change>) {
    let mut changes = Vec::new();
    let empty = Value::Object(Map::new());
    let patch = patch(found.unwrap_or(&empty), desired, "", &mut changes);
    (patch.unwrap_or(empty), changes)
}

fn patch(found: &Value, desired: &Value, path: &str, changes: &mut Vec<Change>) -> Option<Value> {
    let Value::Object(wanted) = desired else {
        if found == desired {
            return None;
        }
        changes.push(Change::Setting {
            key: path.to_owned(),
            from: (!found.is_null()).then(|| found.clone()),
            to: Some(desired.clone()),
        });
        return Some(desired.clone());
    };
    let none = Map::new();
    let have = found.as_object().unwrap_or(&none);
    let mut merged = Map::new();
    for (key, value) in wanted {
        let below = join(path, key);
        if let Some(part) = patch(
            have.get(key).unwrap_or(&Value::Null),
            value,
            &below,
            changes,
        ) {
            merged.insert(key.clone(), part);
        }
    }
    if path == "postgresql.parameters" {
        for (key, value) in have.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            changes.push(Change::Setting {
                key: join(path, key),
                from: Some(value.clone()),
                to: None,
            });
            merged.insert(key.clone(), Value::Null);
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_patched() {
        let found = json!({"ttl": 30, "loop_wait": 1, "foreign": {"kept": true},
            "postgresql": {"use_slots": true, "parameters": {"max_connections": 200, "wal_level": "logical"}}});
        let desired = json!({"ttl": 30, "loop_wait": 10,
            "postgresql": {"use_slots": true, "parameters": {"max_connections": 100}}});
        let (patch, changes) = config_patch(Some(&found), &desired);
        assert_eq!(
            patch,
            json!({"loop_wait": 10, "postgresql": {"parameters": {"max_connections": 100, "wal_level": null}}})
        );
        assert_eq!(changes.len(), 3);
    }

    #[test]
    fn what_is_right_needs_no_patch() {
        let config = json!({"ttl": 30, "postgresql": {"parameters": {}}});
        let (patch, changes) = config_patch(Some(&config), &config);
        assert_eq!((patch, changes.len()), (json!({}), 0));
    }
}
