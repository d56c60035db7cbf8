//! An upgrade to another major version of PostgreSQL that has begun and is not accepted.

use serde::{Deserialize, Serialize};

use super::{Workspace, files};
use crate::error::Result;

pub(super) const UPGRADING: &str = "upgrading.json";

/// What the user has agreed to, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upgrading {
    /// Names this upgrade on the hosts.
    pub id: String,
    pub since: jiff::Timestamp,
    /// The major versions.
    pub from: u16,
    pub to: u16,
    /// The member whose data is upgraded.
    pub host: String,
    /// The member that keeps the old version's data.
    pub keeper: String,
    /// The old version's system identifier.
    pub system: String,
    /// How the new version's database is made, and its server started meanwhile.
    pub initdb: Vec<String>,
    pub server_options: String,
    pub stage: UpgradeStage,
}

/// Until `Leads`, the way back loses nothing. Until `Accepts`, there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UpgradeStage {
    /// The members stop, and the data of one is upgraded. No client has reached the new version.
    Upgrades,
    /// The way back from there.
    Undoes,
    /// The new version leads, or is about to.
    Leads,
    /// The cluster is complete on the new version, and the old version's data is kept.
    Kept,
    /// The way back from there: the old version leads again, or is about to.
    Returns,
    /// The old version's data is being removed.
    Accepts,
}

impl Upgrading {
    /// Whether other verbs can work: the cluster is complete, on the new version.
    pub(crate) fn is_kept(&self) -> bool {
        self.stage == UpgradeStage::Kept
    }

    /// Whether it is on its way back to the old version.
    pub(crate) fn goes_back(&self) -> bool {
        matches!(self.stage, UpgradeStage::Undoes | UpgradeStage::Returns)
    }
}

impl Workspace {
    /// The upgrade that is not accepted.
    pub(crate) fn upgrading(&self) -> Result<Option<Upgrading>> {
        let hint = "it says how far an upgrade of PostgreSQL is: restore the file from a backup";
        files::read_note(&self.dir.join(UPGRADING), hint)
    }

    pub(crate) fn note_upgrading(&self, upgrading: &Upgrading) -> Result<()> {
        files::write_note(&self.dir.join(UPGRADING), upgrading)
    }

    /// The upgrade is accepted, or taken back.
    pub(crate) fn end_upgrading(&self) -> Result<()> {
        files::remove(&self.dir.join(UPGRADING))
    }
}
