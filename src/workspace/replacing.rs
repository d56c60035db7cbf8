//! Which host is being replaced, and is gone already.

use super::{Workspace, files};
use crate::{error::Result, inventory::HostName};

pub(super) const REPLACING: &str = "replacing";

impl Workspace {
    /// The host that is gone, while its successor is not verified yet.
    pub fn replacing(&self) -> Result<Option<HostName>> {
        let text = files::read(&self.dir.join(REPLACING))?;
        Ok(text.map(|text| HostName::new(text.trim())))
    }

    /// Records that a host is gone, and that a new one with its name will come.
    pub fn note_replacing(&self, host: &HostName) -> Result<()> {
        let text = format!("{host}\n");
        files::write(&self.dir.join(REPLACING), files::PRIVATE, text.as_bytes())
    }

    /// Removes the record: every host of the inventory exists and is verified.
    pub fn end_replacing(&self) -> Result<()> {
        files::remove(&self.dir.join(REPLACING))
    }
}
