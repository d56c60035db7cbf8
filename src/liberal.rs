//! Reads answers of other programs, whatever a field contains.
//!
//! A field that is null, absent, or of an unexpected type must not make the rest of an answer unreadable. Such
//! a field counts as unknown. The functions are for `#[serde(deserialize_with)]`; a field that may be absent
//! also needs `#[serde(default)]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::quantity;

/// Text. A number or a boolean becomes its text; any other type becomes an empty text.
pub(crate) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(as_text(&Value::deserialize(from)?).unwrap_or_default())
}

/// The same for fields where absent and empty differ.
pub(crate) fn maybe_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(as_text(&Value::deserialize(from)?))
}

/// A number, also if it is written as text.
pub(crate) fn number<'de, D, N>(from: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    let number = match Value::deserialize(from)? {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    Ok(number.and_then(|number| N::try_from(number).ok()))
}

/// A boolean; anything unknown is false.
pub(crate) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(is_yes(&Value::deserialize(from)?))
}

/// A list. Any other type becomes an empty list, and unreadable entries are left out.
pub(crate) fn list<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    Ok(match Value::deserialize(from)? {
        Value::Array(entries) => entries
            .into_iter()
            .filter_map(|entry| serde_json::from_value(entry).ok())
            .collect(),
        _ => Vec::new(),
    })
}

/// A map. Any other type becomes an empty map.
pub(crate) fn map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Value>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Object(entries) => entries.into_iter().collect(),
        _ => BTreeMap::new(),
    })
}

/// A struct. Any other type becomes the struct's default.
pub(crate) fn part<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

/// Whether a value means yes, in any of the usual notations.
pub(crate) fn is_yes(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => {
            let text = text.trim().to_ascii_lowercase();
            matches!(text.as_str(), "true" | "on" | "yes" | "1" | "t" | "y")
        }
        _ => false,
    }
}

pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn whole(number: f64) -> Option<u64> {
    // Above this, a float does not hold every whole number. No number that is read here is that large.
    const MOST: f64 = 9_007_199_254_740_992.0;
    (0.0..=MOST)
        .contains(&number)
        .then_some(quantity::whole(number))
}

#[cfg(test)]
pub(crate) mod mutate;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Numbers {
        #[serde(default, deserialize_with = "number")]
        it: Option<u32>,
    }

    #[test]
    fn a_number_is_one_in_every_spelling_and_unknown_otherwise() {
        for (value, expected) in [
            (json!(7), Some(7)),
            (json!("7"), Some(7)),
            (json!(7.0), Some(7)),
            (json!(-7), None),
            (json!(1e12), None),
            (json!(null), None),
            (json!("unknown"), None),
            (json!([7]), None),
        ] {
            let read: Numbers = serde_json::from_value(json!({"it": value})).unwrap();
            assert_eq!(read.it, expected, "{value}");
        }
    }

    #[test]
    fn yes_is_said_in_many_ways_and_silence_is_no() {
        for yes in [
            json!(true),
            json!("true"),
            json!("On"),
            json!(1),
            json!("1"),
        ] {
            assert!(is_yes(&yes), "{yes}");
        }
        for no in [
            json!(false),
            json!("false"),
            json!(0),
            json!(null),
            json!({}),
            json!("?"),
        ] {
            assert!(!is_yes(&no), "{no}");
        }
    }
}
