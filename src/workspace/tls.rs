//! The stage of a cluster between plaintext and TLS.
//!
//! | stage | certificates on the hosts | the cluster's own parts speak | clients may speak |
//! |---|---|---|---|
//! | (off) | | plaintext | plaintext |
//! | `offered` | yes | plaintext | both |
//! | `used` | yes | TLS | both |
//! | (required) | yes | TLS | TLS |
//!
//! Every part takes what its neighbours in the table say, so that hosts can change one at a time. Without
//! the file the cluster is as the inventory says, or not yet on its way.

use super::{TLS, Workspace, files};
use crate::{
    cluster::TlsStage,
    error::{Code, Error, Result},
};

/// Those that are not an end.
const STAGES: [TlsStage; 2] = [TlsStage::Offered, TlsStage::Used];

impl Workspace {
    /// The stage that the cluster goes through now, or where the inventory wants it to be.
    pub fn tls(&self) -> Result<TlsStage> {
        Ok(self.tls_stage()?.unwrap_or(TlsStage::of(&self.inventory)))
    }

    /// The stage that the cluster goes through now, if it goes through one.
    pub fn tls_stage(&self) -> Result<Option<TlsStage>> {
        let path = self.dir.join(TLS);
        let Some(text) = files::read(&path)? else {
            return Ok(None);
        };
        let mut stages = STAGES.into_iter();
        stages
            .find(|stage| stage.as_str() == text.trim())
            .map(Some)
            .ok_or_else(|| {
                Error::new(
                    Code::WorkspaceDamaged,
                    format!("{} is damaged", files::origin(&path).display()),
                )
                .cause("it has the stage of the cluster's way to TLS, or from it")
                .hint("restore it from a backup: its text is offered or used")
            })
    }

    /// Notes which stage the cluster goes through; one that an inventory can ask for is its end.
    pub fn note_tls(&self, tls: TlsStage) -> Result<()> {
        let path = self.dir.join(TLS);
        if STAGES.contains(&tls) {
            let text = format!("{}\n", tls.as_str());
            files::write(&path, files::PRIVATE, text.as_bytes())
        } else {
            files::remove(&path)
        }
    }

    /// Whether the cluster has, or once had, an authority of its own.
    pub fn has_authority(&self) -> bool {
        self.ca_path().exists()
    }
}
