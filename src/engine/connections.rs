//! The connections of a run that changes something: they hold its lease, so they stay from the first
//! look to the run's end.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use tokio::sync::Mutex;

use crate::{
    error::Result,
    holder::Holder,
    inventory::HostName,
    provider::Machine,
    remote::{Lease, SshRemote},
};

/// What a run's sites share.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Who takes the lease; nobody in verbs that only look.
    holder: OnceLock<Holder>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    remote: Arc<SshRemote>,
    /// Where each host was reached last.
    at: BTreeMap<HostName, Option<Ipv4Addr>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("at", &self.at).finish()
    }
}

impl Connections {
    /// From now on, connections take the lease on the hosts and are kept until [`Self::close`].
    pub(crate) fn keep(&self, holder: &Holder) {
        // A run has one holder.
        let _ = self.holder.set(holder.clone());
    }

    pub(crate) fn are_kept(&self) -> bool {
        self.holder.get().is_some()
    }

    /// The run's connections, or what `make` gives where nothing is kept.
    pub(crate) async fn to(
        &self,
        cluster: &str,
        machines: &[Machine],
        make: impl FnOnce() -> Result<SshRemote>,
    ) -> Result<Arc<SshRemote>> {
        let Some(holder) = self.holder.get() else {
            return Ok(Arc::new(make()?));
        };
        let at = machines
            .iter()
            .map(|it| (it.host.clone(), it.ssh_address.or(it.address)));
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_mut() {
            for (host, address) in at {
                let before = kept.at.insert(host.clone(), address);
                // It has moved: the old connection leads nowhere, and would say so only after a while.
                if before.is_some_and(|before| before != address) {
                    kept.remote.forget(&host).await;
                }
            }
            return Ok(kept.remote.clone());
        }
        let remote = Arc::new(make()?.with_lease(Lease::new(cluster, holder.clone())));
        *kept = Some(Kept {
            remote: remote.clone(),
            at: at.collect(),
        });
        Ok(remote)
    }

    /// Gives the lease back and ends the connections.
    pub(crate) async fn close(&self) {
        if let Some(kept) = self.kept.lock().await.take() {
            kept.remote.close().await;
        }
    }
}
