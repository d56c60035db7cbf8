//! The shared state as one document: the workspace's files, and who wrote them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use crate::{
    error::{Code, Error, Result},
    secret::{Content, Secret, never_shown},
};

/// The version of the document's form.
const FORM: u64 = 1;

/// How many earlier writes a document names.
const REMEMBERED: usize = 64;

never_shown!(Document);

/// One generation of the shared state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Document {
    pub cluster: String,
    /// `None` after `down`, when there is no cluster.
    #[serde(default)]
    pub cluster_id: Option<String>,
    pub generation: u64,
    pub written: Written,
    /// The earlier writes, the latest first: two documents that do not have each other's write have parted.
    #[serde(default)]
    pub before: Vec<String>,
    /// To whom it is encrypted.
    pub recipients: Vec<String>,
    /// The files of the workspace, by their paths in it.
    pub files: BTreeMap<String, Secret>,
}

/// Who wrote a generation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Written {
    /// Distinguishes this write from all others.
    pub id: String,
    pub at: jiff::Timestamp,
    /// `user@machine`.
    pub by: String,
    pub verb: String,
}

#[derive(Deserialize)]
struct Form {
    form: u64,
}

impl Document {
    /// The writes that this one follows, with itself.
    pub(crate) fn line(&self) -> Vec<String> {
        let mut line = vec![self.written.id.clone()];
        line.extend(self.before.iter().cloned());
        line.truncate(REMEMBERED);
        line
    }

    /// Whether the write with this id, of an earlier generation, is known not to come before this one.
    pub(crate) fn has_parted_from(&self, generation: u64, id: &str) -> bool {
        let steps = usize::try_from(self.generation - generation).unwrap_or(usize::MAX);
        match steps {
            0 => self.written.id != id,
            // A document of that age is not named any more.
            _ if steps > REMEMBERED - 1 => false,
            _ => !self.before.iter().any(|it| it == id),
        }
    }

    /// Its text, which is secret.
    pub(crate) fn text(&self) -> Content {
        let files: serde_json::Map<String, serde_json::Value> = self
            .files
            .iter()
            .map(|(name, text)| (name.clone(), text.expose().into()))
            .collect();
        let Written { id, at, by, verb } = &self.written;
        let document = json!({
            "form": FORM,
            "pgherd": env!("CARGO_PKG_VERSION"),
            "cluster": self.cluster,
            "cluster_id": self.cluster_id,
            "generation": self.generation,
            "written": {"id": id, "at": at, "by": by, "verb": verb},
            "before": self.before,
            "recipients": self.recipients,
            "files": files,
        });
        format!("{document}\n").into()
    }

    /// Reads what [`Self::text`] returned, here or by another version of pgherd.
    pub(crate) fn parse(text: &Content) -> Result<Self> {
        let damaged = || Error::new(Code::StateDamaged, "the shared state cannot be read");
        let form: Form = serde_json::from_str(text).map_err(|_| damaged())?;
        if form.form > FORM {
            return Err(damaged()
                .cause("a newer version of pgherd has written it")
                .hint("use that version of pgherd or a newer one"));
        }
        // The parser's message could contain a password.
        serde_json::from_str(text).map_err(|_| damaged())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn document(generation: u64, id: &str, before: &[&str]) -> Document {
        Document {
            cluster: "pg".into(),
            cluster_id: Some("1234".into()),
            generation,
            written: Written {
                id: id.into(),
                at: jiff::Timestamp::UNIX_EPOCH,
                by: "ann@desk".into(),
                verb: "up".into(),
            },
            before: before.iter().map(|it| (*it).to_owned()).collect(),
            recipients: vec!["age1".into()],
            files: BTreeMap::from([("tls".to_owned(), Secret::new("used\n"))]),
        }
    }

    #[test]
    fn a_document_is_read_back_and_shows_nothing_of_itself() {
        let mut written = document(7, "c", &["b", "a"]);
        let hard = "\"quotes\"\n\\ü {{ }} \u{1f418}\0";
        written
            .files
            .insert("secrets.yaml".into(), Secret::new(hard));
        assert_eq!(Document::parse(&written.text()).unwrap(), written);
        assert!(!format!("{written:?}").contains("quotes"));
        assert_eq!(written.line(), ["c", "b", "a"]);
    }

    #[test]
    fn one_of_a_newer_version_is_refused_and_so_is_damage() {
        let text = document(1, "a", &[]).text();
        let newer = text.replace("\"form\":1", "\"form\":2");
        let error = Document::parse(&newer.into()).unwrap_err();
        assert!(error.causes()[0].contains("newer version"), "{error}");
        let half = text[..text.len() / 2].to_owned();
        let error = Document::parse(&half.into()).unwrap_err();
        assert_eq!(error.code(), Code::StateDamaged);
    }

    #[test]
    fn two_that_were_written_apart_are_told_apart() {
        let now = document(7, "g", &["f", "e"]);
        assert!(!now.has_parted_from(7, "g"));
        assert!(now.has_parted_from(7, "x"));
        assert!(!now.has_parted_from(6, "f"));
        assert!(now.has_parted_from(6, "x"));
        let later = document(700, "z", &["y"]);
        assert!(!later.has_parted_from(7, "g"), "too long ago to be known");
    }
}
