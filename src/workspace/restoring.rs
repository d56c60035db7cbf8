//! A restore of the cluster that has begun and is not complete.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Workspace, files};
use crate::{error::Result, inventory::Place, moment::Moment};

pub(super) const RESTORING: &str = "restoring.json";

/// What the user has agreed to, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restoring {
    /// Names this restore on the hosts.
    pub id: String,
    pub since: jiff::Timestamp,
    /// The member whose data is restored.
    pub host: String,
    pub to: Moment,
    /// The label of the backup; without it, pgBackRest chooses.
    pub set: Option<String>,
    /// The timeline to follow; without it, the newest.
    pub timeline: Option<u32>,
    /// Of two places of backups, that of this one first, then others from which WAL comes too. Empty if there is only one.
    #[serde(default)]
    pub places: Vec<Place>,
    /// Whether the old data is kept beside the restored.
    pub keeps: bool,
    /// No host had a database: the identifier of the one that is restored.
    #[serde(default)]
    pub anew: Option<String>,
    /// It is a clone: another cluster's repository is restored.
    #[serde(default)]
    pub from: Option<Origin>,
    pub stage: RestoreStage,
}

/// Where a clone comes from, and what runs in it before it opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Origin {
    /// The name of the other cluster, and its id.
    pub cluster: String,
    pub id: String,
    /// Its inventory.
    pub inventory: PathBuf,
    pub run: Vec<Sql>,
}

/// A file of SQL, and the database that it runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sql {
    pub database: String,
    pub file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RestoreStage {
    /// No host has the database: its hosts are made, and made ready.
    Prepares,
    /// No client has reached restored data yet: there is a way back.
    Restores,
    /// The data from before is put back.
    GoesBack,
    /// The restored member leads, or is about to.
    Leads,
}

impl Workspace {
    /// The restore that is not complete.
    pub(crate) fn restoring(&self) -> Result<Option<Restoring>> {
        let hint = "it says how far a restore of the cluster is: restore the file from a backup";
        files::read_note(&self.dir.join(RESTORING), hint)
    }

    pub(crate) fn note_restoring(&self, restoring: &Restoring) -> Result<()> {
        files::write_note(&self.dir.join(RESTORING), restoring)
    }

    /// The restore is complete, or taken back.
    pub(crate) fn end_restoring(&self) -> Result<()> {
        files::remove(&self.dir.join(RESTORING))
    }
}
