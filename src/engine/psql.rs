//! Connects psql to PostgreSQL through the SSH connection of an HAProxy host, so that it works wherever `up`
//! does. With TLS, the cluster's certificate is verified in full.

use std::{slice, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

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

/// The place where psql finds PostgreSQL on this machine, as long as this value lives.
pub(crate) struct Way {
    pub port: u16,
    pub password: Secret,
    relay: Relay,
}

impl Way {
    /// The value for psql's `host`: the folder of a socket.
    pub(crate) fn host(&self) -> &std::path::Path {
        self.relay.host()
    }
}

/// An HAProxy host with an open connection.
pub(crate) struct Door<'a> {
    connected: Connected<'a>,
    host: HostName,
}

/// How long HAProxy may take to connect to a server before the next front door is tried.
const ANSWER: Duration = Duration::from_secs(3);
/// Asks a PostgreSQL server whether it speaks TLS. Every server answers with one byte.
///
/// Source: PostgreSQL's documentation, 54.7, "`SSLRequest`".
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Connects to the first HAProxy host whose HAProxy leads to a server.
pub(crate) async fn open(context: &Context, read: bool) -> Result<Door<'_>> {
    lapse::lapsed(context)?.map_or(Ok(()), Err)?;
    let hosts = context.host_status().await?;
    let doors: Vec<&HostName> = context.inventory.with_role(Role::Haproxy).collect();
    let mut failed = None;
    for host in &doors {
        let running = hosts.running.iter();
        let machine = running.into_iter().find(|machine| machine.host == **host);
        let opened = match machine {
            Some(machine) => enter(context, host, machine).await,
            None => Err(not_running(context, host)),
        };
        // If no front door works, the error is that of the first one.
        match opened {
            // With only one front door, psql itself reports what is wrong.
            Ok(door) if doors.len() == 1 => return Ok(door),
            Ok(door) => match door.answers(read).await {
                Ok(()) => return Ok(door),
                Err(error) => {
                    door.close().await;
                    failed = failed.or(Some(error));
                }
            },
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
    /// Calls `work` with a way to the write port or the read port, and closes it afterwards.
    pub(crate) async fn lead<T>(
        self,
        read: bool,
        work: impl AsyncFnOnce(&Way) -> Result<T>,
    ) -> Result<T> {
        let done = match self.way(read) {
            Ok(way) => work(&way).await,
            Err(error) => Err(error),
        };
        self.close().await;
        done
    }

    async fn close(self) {
        self.connected.remote.close().await;
        self.connected.remote.remove_sockets();
    }

    /// Whether a PostgreSQL server is behind the port.
    async fn answers(&self, read: bool) -> Result<()> {
        let port = self.port(read);
        let ask = async {
            let mut stream = self.connected.remote.dial(&self.host, port).await?;
            let mut answer = [0];
            let asked = async {
                stream.write_all(&SSL_REQUEST).await?;
                stream.read_exact(&mut answer).await
            };
            let failed = |error| self.silent(port).because(error);
            asked.await.map(|_| ()).map_err(failed)
        };
        let timed = timeout(ANSWER, ask).await;
        timed.unwrap_or_else(|_| Err(self.silent(port)))
    }

    fn silent(&self, port: u16) -> Error {
        let what = format!("HAProxy's port {port} leads to no server");
        Error::new(Code::PostgresqlUnreachable, what).on(&self.host)
    }

    fn port(&self, read: bool) -> u16 {
        let haproxy = &self.connected.context.inventory.haproxy;
        match read {
            true => haproxy.read_port,
            false => haproxy.write_port,
        }
    }

    fn way(&self, read: bool) -> Result<Way> {
        let context = self.connected.context;
        let port = self.port(read);
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
