//! Which host is being replaced, and is gone already.

use super::{Workspace, files};
use crate::{error::Result, inventory::HostName};

const REPLACING: &str = "replacing";

impl Workspace {
    /// The host that is gone, and whose successor is not proven yet.
    pub fn replacing(&self) -> Result<Option<HostName>> {
        let text = files::read(&self.dir.join(REPLACING))?;
        Ok(text.map(|text| HostName::new(text.trim())))
    }

    /// Notes that a host is gone, and that another one of its name is to come.
    pub fn note_replacing(&self, host: &HostName) -> Result<()> {
        let text = format!("{host}\n");
        files::write(&self.dir.join(REPLACING), files::PRIVATE, text.as_bytes())
    }

    /// Forgets it: every host of the inventory is there, and proven.
    pub fn end_replacing(&self) -> Result<()> {
        files::remove(&self.dir.join(REPLACING))
    }
}
