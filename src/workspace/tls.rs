//! The stage of a cluster between plaintext and TLS.
//!
//! | stage | certificates on the hosts | the cluster's own parts speak | clients may speak |
//! |---|---|---|---|
//! | (off) | | plaintext | plaintext |
//! | `offered` | yes | plaintext | both |
//! | `used` | yes | TLS | both |
//! | (required) | yes | TLS | TLS |
//!
//! Hosts in neighbouring stages of the table accept each other's connections, so hosts can change one at a
//! time. Without the file, the cluster is as the inventory says, or has not begun to change.

use super::{TLS, Workspace, files};
use crate::{cluster::TlsStage, error::Result};

/// The stages between the two ends.
const STAGES: [TlsStage; 2] = [TlsStage::Offered, TlsStage::Used];

impl Workspace {
    /// The cluster's present stage, or the stage that the inventory asks for.
    pub fn tls(&self) -> Result<TlsStage> {
        Ok(self.tls_stage()?.unwrap_or(TlsStage::of(&self.inventory)))
    }

    /// The stage that the cluster goes through now, if it goes through one.
    pub fn tls_stage(&self) -> Result<Option<TlsStage>> {
        let path = self.dir.join(TLS);
        let about = "the stage of the TLS migration";
        files::read_word(&path, &STAGES, TlsStage::as_str, about)
    }

    /// Records the cluster's stage; a stage that an inventory can ask for ends the change.
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
