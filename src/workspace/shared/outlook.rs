//! What `pgherd state` shows.

use super::document::{Document, Written};
use crate::error::Error;

/// The place, and this machine's copy.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub place: String,
    pub recipients: Vec<String>,
    /// The generation that is there.
    pub there: Option<Generation>,
    /// The generation that this machine has.
    pub here: Option<u64>,
    /// The files that were changed here and not written.
    pub unsent: Vec<String>,
    /// Why the two cannot be brought together by themselves.
    pub trouble: Option<Error>,
}

/// A generation, without its content.
#[derive(Debug)]
pub(crate) struct Generation {
    pub number: u64,
    pub at: jiff::Timestamp,
    pub by: String,
    pub verb: String,
    pub cluster_id: Option<String>,
    pub recipients: Vec<String>,
    pub files: usize,
}

impl Generation {
    pub(super) fn of(document: &Document) -> Self {
        let Written { at, by, verb, .. } = document.written.clone();
        Self {
            number: document.generation,
            at,
            by,
            verb,
            cluster_id: document.cluster_id.clone(),
            recipients: document.recipients.clone(),
            files: document.files.len(),
        }
    }
}
