//! Unexpected answers for tests: real answers in which one field has another value.

use serde_json::{Value, json};

/// Values that a field may have and should not.
fn strange() -> [Value; 9] {
    [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!("unknown"),
        json!(""),
        json!([null, 1, "x", {}]),
        json!({"a": null}),
    ]
}

/// Every document that differs from `document` in one place below its top: the field is missing, or has a
/// strange value. Each comes with the name of the place.
pub(crate) fn mutations(document: &Value) -> Vec<(String, Value)> {
    let mut places = Vec::new();
    below("", document, &mut places);
    let mut all = Vec::new();
    for place in places {
        for value in strange() {
            let mut copy = document.clone();
            if let Some(field) = copy.pointer_mut(&place) {
                *field = value.clone();
            }
            all.push((format!("{place} = {value}"), copy));
        }
        let mut copy = document.clone();
        if let Some((parent, key)) = place.rsplit_once('/')
            && let Some(parent) = copy.pointer_mut(parent)
        {
            match parent {
                Value::Object(fields) => drop(fields.remove(key)),
                Value::Array(list) => drop(key.parse().map(|at: usize| list.remove(at))),
                _ => {}
            }
        }
        all.push((format!("{place} is gone"), copy));
    }
    all
}

fn below(path: &str, value: &Value, places: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, it)| (key.clone(), it)).collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(at, it)| (at.to_string(), it))
            .collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        let place = format!("{path}/{key}");
        places.push(place.clone());
        below(&place, child, places);
    }
}
