//! Masks events and errors.

use std::borrow::Cow;

use serde_json::Value;

use super::text;
use crate::event::Stamped;
pub use crate::mask::Masks;

impl Masks {
    /// Replaces every secret in `text` by `***`, and names every character that would not be visible as itself.
    /// Everything that is shown or kept goes through here, whatever its source.
    pub(super) fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.replace(text::honest(text))
    }

    fn hide_in(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.hide(text) {
            *text = hidden;
        }
    }

    /// Masks all strings of a JSON value, but not the keys of its objects.
    pub(super) fn hide_in_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.hide_in(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_in_json(item)),
            Value::Object(fields) => fields
                .values_mut()
                .for_each(|value| self.hide_in_json(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Masks the free text of an event. Host names and identifiers are not masked: a password that equals a
    /// step's name must not make the stream unreadable for scripts.
    pub(super) fn hide_in_event(&self, stamped: &mut Stamped) {
        for text in stamped.event.texts_mut() {
            self.hide_in(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, secret::Secret};

    fn masks(secrets: &[&str]) -> Masks {
        let masks = Masks::default();
        let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
        masks.add(&secrets);
        masks
    }

    #[test]
    fn json_is_masked_in_values_not_in_keys() {
        let mut value = serde_json::json!({"password": ["password", {"x": "my password"}]});
        masks(&["password"]).hide_in_json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({"password": ["***", {"x": "my ***"}]})
        );
    }

    #[test]
    fn what_a_host_says_of_itself_cannot_turn_the_text_around() {
        let mut stamped = Stamped {
            t: 0.0,
            event: Event::Software {
                host: crate::inventory::HostName::new("node1"),
                os: "Debian \u{202e}21".into(),
                packages: [("etcd-server".to_owned(), "3\u{9b}2J".to_owned())].into(),
            },
        };
        masks(&[]).hide_in_event(&mut stamped);
        let line = serde_json::to_string(&stamped).unwrap();
        assert!(line.contains("Debian <U+202E>21"), "{line}");
        assert!(line.contains("3<U+009B>2J"), "{line}");
    }
}
