//! Connects psql to PostgreSQL through the SSH connection of an HAProxy host, so that it works wherever `up`
//! does. With TLS, the cluster's certificate is verified in full.

use std::{collections::BTreeMap, slice, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{connected::Connected, context::Context, lapse, reach::not_running};
use crate::{
    cluster::{SUPERUSER, TlsStage},
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Inventory, Role},
    provider::Machine,
    relay::{Encryption, Relay, Target},
    secret::Secret,
    services::{Number, Setting},
};

/// The place where psql finds PostgreSQL on this machine, as long as this value lives.
pub(crate) struct Way {
    pub port: u16,
    pub user: String,
    pub database: String,
    /// Of whom pgherd knows the password, so that `psql -U NAME` asks for none.
    pub passwords: BTreeMap<String, Secret>,
    relay: Relay,
}

impl Way {
    /// The value for psql's `host`: the folder of a socket.
    pub(crate) fn host(&self) -> &std::path::Path {
        self.relay.host()
    }
}

/// What psql connects to on a front door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// HAProxy's write port or its read port, as the superuser.
    Haproxy { read: bool },
    /// PgBouncer, as one of the inventory's users.
    Pooler { user: String, read: bool },
}

/// Who logs in, and to which database.
struct Caller {
    user: String,
    password: Secret,
    database: String,
}

impl Entrance {
    /// The pooler if there is a user for it.
    pub(crate) fn of(pooled: Option<String>, read: bool) -> Self {
        match pooled {
            None => Self::Haproxy { read },
            Some(user) => Self::Pooler { user, read },
        }
    }

    fn port(&self, inventory: &Inventory) -> u16 {
        match self {
            Self::Haproxy { read: true } => inventory.haproxy.read_port,
            Self::Haproxy { read: false } => inventory.haproxy.write_port,
            Self::Pooler { .. } => inventory.port(Number::Set(Setting::Pgbouncer)),
        }
    }

    /// An error if nobody can log in there with a password of the workspace.
    fn caller(&self, context: &Context) -> Result<Caller> {
        let secrets = context.secrets()?;
        let (user, read) = match self {
            Self::Haproxy { .. } => {
                return Ok(Caller {
                    user: SUPERUSER.to_owned(),
                    password: secrets.superuser,
                    database: "postgres".to_owned(),
                });
            }
            Self::Pooler { user, read } => (user, read),
        };
        let inventory = &context.inventory;
        let refused = |what: String| Error::new(Code::InvalidArguments, what);
        if inventory.pgbouncer.is_none() {
            return Err(refused(format!("{} has no pooler", inventory.cluster))
                .hint("`pgbouncer: {}` in the inventory and `up` make one"));
        }
        let Some(password) = secrets.users.get(user) else {
            let users: Vec<&str> = secrets.users.keys().map(String::as_str).collect();
            return Err(refused(format!("{user} is not one of `postgresql.users`"))
                .cause(format!("the users are: {}", users.join(", ")))
                .hint("a superuser does not get through the pooler"));
        };
        let mut database = match inventory.postgresql.databases.contains_key(user) {
            true => user.clone(),
            false => "postgres".to_owned(),
        };
        if *read {
            database.push_str("_read");
        }
        Ok(Caller {
            user: user.clone(),
            password: password.clone(),
            database,
        })
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

/// How long a front door is tried alone. A dead one must not delay those that work.
const HEAD_START: Duration = Duration::from_secs(2);

/// Connects to the first HAProxy host whose HAProxy leads to a server.
pub(crate) async fn open<'a>(context: &'a Context, entrance: &Entrance) -> Result<Door<'a>> {
    lapse::lapsed(context)?.map_or(Ok(()), Err)?;
    entrance.caller(context)?;
    let running = context.host_status().await?.running;
    let doors: Vec<&HostName> = context.inventory.with_role(Role::Haproxy).collect();
    // With only one front door, psql itself reports what is wrong.
    let asks = doors.len() > 1;
    let mut tried = FuturesUnordered::new();
    let mut failed = BTreeMap::new();
    for (n, host) in doors.iter().copied().enumerate() {
        let machine = running.iter().find(|machine| machine.host == *host);
        tried.push(async move { (n, enter(context, host, machine, entrance, asks).await) });
        let is_last = n + 1 == doors.len();
        loop {
            let ended = match is_last {
                true => tried.next().await,
                false => timeout(HEAD_START, tried.next()).await.unwrap_or(None),
            };
            match ended {
                Some((_, Ok(door))) => return Ok(door),
                Some((n, Err(error))) => {
                    failed.insert(n, error);
                }
                // The time is over, or all have failed.
                None => break,
            }
            if !is_last {
                break;
            }
        }
    }
    // If no front door works, the error is that of the first one.
    let first = failed.into_values().next();
    Err(first.unwrap_or_else(|| Error::new(Code::InternalError, "the inventory has no HAProxy")))
}

/// Connects to a front door; with `asks`, only if it leads to a server.
async fn enter<'a>(
    context: &'a Context,
    host: &HostName,
    machine: Option<&Machine>,
    entrance: &Entrance,
    asks: bool,
) -> Result<Door<'a>> {
    let machine = machine.ok_or_else(|| not_running(context, host))?;
    let (events, _quiet) = Events::channel();
    let connected = context.connect(slice::from_ref(machine), &events).await?;
    connected.remote.connect(host).await?;
    let door = Door {
        connected,
        host: host.clone(),
    };
    if asks && let Err(error) = door.answers(entrance).await {
        door.close().await;
        return Err(error);
    }
    Ok(door)
}

impl Door<'_> {
    /// Calls `work` with a way through the entrance, and closes it afterwards.
    pub(crate) async fn lead<T>(
        self,
        entrance: &Entrance,
        work: impl AsyncFnOnce(&Way) -> Result<T>,
    ) -> Result<T> {
        let done = match self.way(entrance) {
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
    async fn answers(&self, entrance: &Entrance) -> Result<()> {
        let port = entrance.port(&self.connected.context.inventory);
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
        let what = format!("port {port} leads to no server");
        Error::new(Code::PostgresqlUnreachable, what).on(&self.host)
    }

    fn way(&self, entrance: &Entrance) -> Result<Way> {
        let context = self.connected.context;
        let port = entrance.port(&context.inventory);
        let caller = entrance.caller(context)?;
        let mut passwords = context.secrets()?.users;
        passwords.insert(caller.user.clone(), caller.password);
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
            user: caller.user,
            database: caller.database,
            passwords,
            port,
        })
    }
}
