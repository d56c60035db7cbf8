//! A reboot of several hosts that has begun and is not complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Workspace, files};
use crate::error::Result;

pub(super) const REBOOTING: &str = "rebooting.json";

/// Which hosts are rebooted, and what each ran when the user agreed to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rebooting {
    pub since: jiff::Timestamp,
    /// The mark of the system that ran on each host then. A host with another one has booted since.
    pub hosts: BTreeMap<String, String>,
}

impl Workspace {
    /// The reboot that is not complete.
    pub(crate) fn rebooting(&self) -> Result<Option<Rebooting>> {
        let hint =
            "it says which hosts were being rebooted; without it, all are rebooted anew: remove it";
        files::read_note(&self.dir.join(REBOOTING), hint)
    }

    pub(crate) fn note_rebooting(&self, rebooting: &Rebooting) -> Result<()> {
        files::write_note(&self.dir.join(REBOOTING), rebooting)
    }

    /// All hosts have been rebooted.
    pub(crate) fn end_rebooting(&self) -> Result<()> {
        files::remove(&self.dir.join(REBOOTING))
    }
}
