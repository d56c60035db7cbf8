//! SQL through the cluster's front door.
//!
//! Connections go through the HAProxy host's SSH connection to its own ports, so that they take the
//! way that clients take, and no port has to be reachable from here.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow, config::SslMode, tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    cluster::{Cluster, SUPERUSER},
    error::{Error, Result},
    inventory::{HostName, Role},
    remote::{Connection, Remote},
};

/// How long a connection or a statement may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Which of HAProxy's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Write,
    Read,
}

/// The front door of a cluster: its HAProxy, and the superuser's password.
pub struct FrontDoor<'a> {
    pub cluster: &'a Cluster,
    pub remote: Arc<dyn Remote>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// One connection as `postgres`.
///
/// Its driver runs by itself, and says goodbye to the server once this is dropped.
pub struct Sql {
    client: Client,
}

impl FrontDoor<'_> {
    pub async fn open(&self, door: Door) -> Result<Sql> {
        let host = self.host()?;
        let haproxy = &self.cluster.inventory.haproxy;
        let port = match door {
            Door::Write => haproxy.write_port,
            Door::Read => haproxy.read_port,
        };
        let failed = |error: &dyn std::error::Error| {
            Error::failed(format!("no connection to PostgreSQL through port {port}"))
                .on(host)
                .because(error)
        };
        let connect = async {
            let stream = self.remote.dial(host, port).await?;
            let mut config = Config::new();
            config
                .user(SUPERUSER)
                .dbname("postgres")
                .password(self.cluster.secrets.superuser.expose())
                .application_name("pgherd");
            match &self.tls {
                None => {
                    let (client, connection) = config
                        .connect_raw(stream, NoTls)
                        .await
                        .map_err(|error| failed(&error))?;
                    tokio::spawn(connection);
                    Ok(Sql { client })
                }
                Some(tls) => {
                    config.ssl_mode(SslMode::Require);
                    let mut make = MakeRustlsConnect::new((**tls).clone());
                    let tls = MakeTlsConnect::<Box<dyn Connection>>::make_tls_connect(
                        &mut make,
                        host.as_str(),
                    )
                    .map_err(|error| failed(&error))?;
                    let (client, connection) = config
                        .connect_raw(stream, tls)
                        .await
                        .map_err(|error| failed(&error))?;
                    tokio::spawn(connection);
                    Ok(Sql { client })
                }
            }
        };
        timeout(ANSWER, connect).await.unwrap_or_else(|_| {
            Err(Error::failed(format!(
                "no connection to PostgreSQL through port {port} in {} s",
                ANSWER.as_secs()
            ))
            .on(host))
        })
    }

    fn host(&self) -> Result<&HostName> {
        self.cluster
            .with_role(Role::Haproxy)
            .map(|node| &node.name)
            .next()
            .ok_or_else(|| Error::failed("the inventory has no HAProxy"))
    }
}

impl Sql {
    /// Runs `statements`; returns the rows of all of them.
    pub async fn query(&self, statements: &str) -> Result<Vec<SimpleQueryRow>> {
        let messages = timeout(ANSWER, self.client.simple_query(statements))
            .await
            .map_err(|_| Error::failed(format!("no answer in {} s", ANSWER.as_secs())))?
            .map_err(|error| Error::failed("PostgreSQL refused a statement").because(error))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect())
    }

    /// The only field of the only row, as text.
    pub async fn value(&self, statement: &str) -> Result<String> {
        let rows = self.query(statement).await?;
        rows.first()
            .and_then(|row| row.get(0))
            .map(str::to_owned)
            .ok_or_else(|| Error::failed("PostgreSQL answered with nothing"))
    }
}
