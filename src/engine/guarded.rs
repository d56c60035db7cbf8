//! Connections that send nothing to a host before the shared state has it.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::OnceCell};

use crate::{
    error::Result,
    inventory::HostName,
    remote::{Connection, Knock, OnLine, Output, Remote, Script},
    workspace::Shared,
};

/// The connections of a run that may change something.
pub(super) struct Guarded {
    remote: Arc<dyn Remote>,
    shared: Arc<Shared>,
    /// Set when the shared state was seen to be the newest still, with the lease on a host.
    checked: OnceCell<()>,
}

impl Guarded {
    pub(super) fn new(remote: Arc<dyn Remote>, shared: Arc<Shared>) -> Self {
        Self {
            remote,
            shared,
            checked: OnceCell::new(),
        }
    }
}

#[async_trait]
impl Remote for Guarded {
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        timeout: Duration,
        on_line: OnLine<'_>,
    ) -> Result<Output> {
        if !self.checked.initialized() {
            self.remote.connect(host).await?;
        }
        self.ready().await?;
        self.remote.run(host, script, timeout, on_line).await
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        self.ready().await?;
        self.remote.dial(host, port).await
    }

    async fn listen(&self, host: &HostName, there: &Path, here: &Path) -> Result<()> {
        self.ready().await?;
        self.remote.listen(host, there, here).await
    }

    async fn pipe(&self, host: &HostName, command: &str, stream: UnixStream) -> Result<()> {
        self.ready().await?;
        self.remote.pipe(host, command, stream).await
    }

    async fn connect(&self, host: &HostName) -> Result<()> {
        self.remote.connect(host).await
    }

    async fn reach(&self, host: &HostName) -> Result<()> {
        self.remote.reach(host).await
    }

    async fn holds_lease(&self, host: &HostName) -> bool {
        self.remote.holds_lease(host).await
    }

    async fn ready(&self) -> Result<()> {
        // Another run may have ended between this one's beginning and its lease.
        let check = self
            .checked
            .get_or_try_init(|| self.shared.is_still_newest());
        check.await?;
        self.shared.ready().await
    }

    fn settle_lease(&self) -> Result<()> {
        self.remote.settle_lease()
    }

    async fn knock(&self, host: &HostName) -> Knock {
        self.remote.knock(host).await
    }

    async fn refused(&self, host: &HostName, knock: Knock, ports: &[u16]) -> Option<String> {
        self.remote.refused(host, knock, ports).await
    }

    async fn forget(&self, host: &HostName) {
        self.remote.forget(host).await;
    }

    async fn close(&self) {
        self.remote.close().await;
    }

    fn keep_none(&self) {
        self.remote.keep_none();
    }

    fn remove_sockets(&self) {
        self.remote.remove_sockets();
    }
}
