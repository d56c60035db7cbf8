//! Secrets kept out of sight, whatever way they got into a text.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value;

use super::text;
use crate::{
    event::Stamped,
    secret::{MASK, Secret},
};

/// Shorter values would mask half of every line.
const SHORTEST: usize = 4;

/// The values that nobody may see; clones share them.
///
/// Secrets are a type and print as `***` by themselves. This is the second line of defence: for what
/// comes back from hosts, where they are plain text.
#[derive(Clone, Default)]
pub struct Masks(Arc<RwLock<Vec<String>>>);

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masks")
    }
}

impl Masks {
    /// Adds secrets, from now on masked wherever they appear.
    pub fn add<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) {
        let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all: BTreeSet<String> = values.drain(..).collect();
        for secret in secrets {
            all.extend(
                appearances(secret.expose()).filter(|value| value.chars().count() >= SHORTEST),
            );
        }
        values.extend(all);
        // One secret may hold another, and the longer must go as a whole.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Replaces every secret in `text` by `***`, and names every character that would not show as
    /// itself: all that is shown or kept goes through here, whoever wrote it.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let values = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = text::honest(text);
        for value in values.iter() {
            if text.contains(value.as_str()) {
                text = Cow::Owned(text.replace(value.as_str(), MASK));
            }
        }
        text
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

    /// Masks the free text of an event. Host names and identifiers stay as they are: a password
    /// that happens to be a step's name must not make the stream unreadable for scripts.
    pub(super) fn hide_in_event(&self, stamped: &mut Stamped) {
        for text in stamped.event.texts_mut() {
            self.hide_in(text);
        }
    }
}

/// The ways in which a value shows up in text: as it is, and quoted for JSON, SQL and the shell.
///
/// Output comes line by line, so the lines of a key in PEM form count each for itself.
fn appearances(secret: &str) -> impl Iterator<Item = String> {
    let json = Value::from(secret).to_string();
    let quoted = [
        secret.to_owned(),
        json[1..json.len() - 1].to_owned(),
        secret.replace('\'', "''"),
        secret.replace('\'', r"'\''"),
    ];
    let lines: Vec<String> = if secret.trim().contains('\n') {
        secret
            .lines()
            .map(str::trim)
            .filter(|line| line.len() >= 16 && !line.starts_with("-----"))
            .map(str::to_owned)
            .collect()
    } else {
        Vec::new()
    };
    quoted.into_iter().chain(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn masks(secrets: &[&str]) -> Masks {
        let masks = Masks::default();
        let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
        masks.add(&secrets);
        masks
    }

    #[test]
    fn every_occurrence_goes_and_the_longest_first() {
        let masks = masks(&["hunter2", "hunter2-and-more"]);
        assert_eq!(
            masks.hide("a hunter2 b hunter2-and-more c hunter2"),
            "a *** b *** c ***"
        );
    }

    #[test]
    fn too_short_a_secret_would_mask_everything() {
        assert_eq!(masks(&["abc", ""]).hide("abcdef"), "abcdef");
    }

    #[test]
    fn quoted_forms_are_known() {
        let masks = masks(&["it's\"so"]);
        assert_eq!(masks.hide(r#"password 'it''s"so'"#), "password '***'");
        assert_eq!(masks.hide(r#"{"p":"it's\"so"}"#), r#"{"p":"***"}"#);
        assert_eq!(masks.hide(r#"echo 'it'\''s"so'"#), "echo '***'");
    }

    #[test]
    fn a_key_is_masked_line_by_line_without_its_frame() {
        let masks = masks(&[
            "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n",
        ]);
        assert_eq!(masks.hide("> MIGHAgEAMBMGByqGSM49"), "> ***");
        assert_eq!(
            masks.hide("-----BEGIN PRIVATE KEY-----"),
            "-----BEGIN PRIVATE KEY-----"
        );
    }

    #[test]
    fn clones_learn_of_later_secrets() {
        let first = Masks::default();
        let second = first.clone();
        first.add(&[Secret::new("later on")]);
        assert_eq!(second.hide("not later on"), "not ***");
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

    #[test]
    fn debug_output_holds_no_value() {
        assert_eq!(format!("{:?}", masks(&["hunter2"])), "Masks");
    }
}
