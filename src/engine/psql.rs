//! Connects psql to PostgreSQL through the HAProxy host's SSH connection, so that it works wherever `up`
//! does. With TLS, the cluster's certificate is verified in full.

use std::slice;

use super::{connected::Connected, context::Context, lapse, reach::not_running};
use crate::{
    cluster::TlsStage,
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Role},
    provider::Machine,
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

/// The host of an HAProxy, connected.
pub(crate) struct Door<'a> {
    connected: Connected<'a>,
    host: HostName,
}

/// Connects to the first HAProxy host that answers.
pub(crate) async fn open(context: &Context) -> Result<Door<'_>> {
    lapse::lapsed(context)?.map_or(Ok(()), Err)?;
    let hosts = context.host_status().await?;
    let mut failed = None;
    for host in context.inventory.with_role(Role::Haproxy) {
        let running = hosts.running.iter();
        let machine = running.into_iter().find(|machine| machine.host == *host);
        let opened = match machine {
            Some(machine) => enter(context, host, machine).await,
            None => Err(not_running(context, host)),
        };
        match opened {
            Ok(door) => return Ok(door),
            // What is wrong with the first is told if no other answers.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::new(Code::InternalError, "the inventory has no HAProxy")))
}

async fn enter<'a>(context: &'a Context, host: &HostName, machine: &Machine) -> Result<Door<'a>> {
    let (events, _quiet) = Events::channel();
    let connected = context.connect(slice::from_ref(machine), &events).await?;
    connected.remote.connect(host).await?;
    Ok(Door {
        connected,
        host: host.clone(),
    })
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
