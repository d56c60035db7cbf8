//! Connects psql to PostgreSQL through the HAProxy host's SSH connection, so that it works wherever `up`
//! does. With TLS, the cluster's certificate is verified in full.

use std::slice;

use super::{connected::Connected, context::Context, lapse, reach::not_running};
use crate::{
    cluster::TlsStage,
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Role},
    relay::{Encryption, Relay, Target},
    secret::Secret,
};

/// Where psql finds PostgreSQL on this machine, for as long as this lives.
pub(crate) struct Way {
    pub port: u16,
    pub password: Secret,
    relay: Relay,
}

impl Way {
    /// What psql is to take for the host: the folder of a socket.
    pub(crate) fn host(&self) -> &std::path::Path {
        self.relay.host()
    }
}

/// The HAProxy host, connected.
pub(crate) struct Door<'a> {
    connected: Connected<'a>,
    host: HostName,
}

/// Connects to the HAProxy host.
pub(crate) async fn open(context: &Context) -> Result<Door<'_>> {
    lapse::lapsed(context)?.map_or(Ok(()), Err)?;
    let host = context
        .inventory
        .with_role(Role::Haproxy)
        .next()
        .cloned()
        .ok_or_else(|| Error::new(Code::InternalError, "the inventory has no HAProxy"))?;
    let hosts = context.host_status().await?;
    let machine = hosts
        .running
        .iter()
        .find(|machine| machine.host == host)
        .ok_or_else(|| not_running(context, &host))?;
    let (events, _quiet) = Events::channel();
    let connected = context.connect(slice::from_ref(machine), &events).await?;
    connected.remote.connect(&host).await?;
    Ok(Door { connected, host })
}

impl Door<'_> {
    /// Does `work` with a way to the write port, or to the read port, and closes it.
    pub(crate) async fn lead<T>(
        self,
        read: bool,
        work: impl AsyncFnOnce(&Way) -> Result<T>,
    ) -> Result<T> {
        let done = match self.way(read) {
            Ok(way) => work(&way).await,
            Err(error) => Err(error),
        };
        self.connected.remote.close().await;
        self.connected.remote.remove_sockets();
        done
    }

    fn way(&self, read: bool) -> Result<Way> {
        let context = self.connected.context;
        let haproxy = &context.inventory.haproxy;
        let port = if read {
            haproxy.read_port
        } else {
            haproxy.write_port
        };
        let encryption = match (context.workspace.tls()?, &self.connected.tls) {
            (TlsStage::Off, _) | (_, None) => Encryption::None,
            (TlsStage::Required, Some(tls)) => Encryption::Verified(tls.clone()),
            (TlsStage::Used | TlsStage::Offered, Some(tls)) => Encryption::IfOffered(tls.clone()),
        };
        let target = Target {
            remote: self.connected.remote.clone(),
            host: self.host.clone(),
            port,
            encryption,
        };
        Ok(Way {
            relay: Relay::start(context.workspace.control_dir()?, target)?,
            password: context.secrets()?.superuser,
            port,
        })
    }
}
