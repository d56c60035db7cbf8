//! A bucket that pgherd has begun to make, and that may not have its tags yet.

use super::{Workspace, files};
use crate::error::Result;

pub(super) const MAKING_BUCKET: &str = "making_bucket";

impl Workspace {
    /// Whether a run has begun to make this bucket, and was cut off before it was complete.
    pub fn is_making_bucket(&self, bucket: &str) -> Result<bool> {
        let text = files::read(&self.dir.join(MAKING_BUCKET))?;
        Ok(text.is_some_and(|it| it.trim() == bucket))
    }

    pub fn note_making_bucket(&self, bucket: &str) -> Result<()> {
        let text = format!("{bucket}\n");
        let path = self.dir.join(MAKING_BUCKET);
        files::write(&path, files::PRIVATE, text.as_bytes())
    }

    /// The bucket is complete.
    pub fn end_making_bucket(&self) -> Result<()> {
        files::remove(&self.dir.join(MAKING_BUCKET))
    }
}
