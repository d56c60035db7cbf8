//! SQL sessions through the cluster's front door.
//!
//! Connections go through the HAProxy host's SSH connection to its own ports, so that they take the
//! way that clients take, and no port has to be reachable from here.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_postgres::{
    Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow, config::SslMode, tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    cluster::{Cluster, SUPERUSER},
    error::{Code, Error, Result, Source},
    inventory::HostName,
    remote::{Connection, Remote},
    secret::Secret,
    sql::{SESSION, literal},
};

/// How long a connection or a statement may take.
const ANSWER: Duration = Duration::from_secs(10);

/// What connections of pgherd's call themselves in `pg_stat_activity`.
pub const APPLICATION: &str = "pgherd";

/// The database that pgherd's own sessions are in.
const DATABASE: &str = "postgres";
/// The schema of pgherd's own tables there.
const SCHEMA: &str = "pgherd";

/// Waits until no other session of pgherd's makes anything, up to the end of the transaction, and returns
/// no row: of two that make the same `if not exists` at once, one would fail.
pub const ONE_AT_A_TIME: &str =
    "select 1 where pg_advisory_xact_lock(123636812344932)::text is null";

/// Makes the schema that is pgherd's own, for what is written to try the cluster out, and asks who
/// else has a hand in it. [`refuse_strange`] reads the answer.
///
/// Whoever owns the schema, or may create in it, decides what a name in there means: triggers and views
/// of theirs would run as the superuser. So would the trigger of somebody who may make one on a table of
/// pgherd's, which default privileges of the superuser's can bring about.
pub fn own_schema() -> String {
    let (schema, us) = (literal(SCHEMA), literal(SUPERUSER));
    format!(
        "set client_min_messages = warning; {ONE_AT_A_TIME}; create schema if not exists {SCHEMA}; \
         with schema as (select oid, nspowner, nspacl from pg_namespace where nspname = {schema}), \
         hands (role) as ( \
         select nspowner from schema \
         union select c.relowner from pg_class c join schema on c.relnamespace = schema.oid \
         union select acl.grantee from schema, aclexplode(schema.nspacl) acl where acl.privilege_type = 'CREATE' \
         union select acl.grantee from pg_class c join schema on c.relnamespace = schema.oid, aclexplode(c.relacl) acl \
         where acl.privilege_type = 'TRIGGER' \
         union select f.proowner from pg_trigger t join pg_class c on c.oid = t.tgrelid \
         join schema on c.relnamespace = schema.oid join pg_proc f on f.oid = t.tgfoid where not t.tgisinternal) \
         select case role when 0 then 'public' else pg_get_userbyid(role) end from hands \
         where role is distinct from (select oid from pg_roles where rolname = {us}) limit 1"
    )
}

/// Fails where [`own_schema`] has found somebody else.
pub fn refuse_strange(rows: &[SimpleQueryRow]) -> Result<()> {
    let Some(role) = rows.first().and_then(|row| row.get(0)) else {
        return Ok(());
    };
    Err(Error::new(
        Code::ForeignData,
        format!("the schema {SCHEMA} of the database {DATABASE} does not belong only to pgherd"),
    )
    .cause(format!(
        "the role {role} owns it or a table in it, or may create tables or triggers there"
    ))
    .hint(format!(
        "look at it, and drop it if nobody needs it: drop schema {SCHEMA} cascade"
    ))
    .hint("default privileges of postgres may grant it again: \\ddp in psql shows them"))
}

/// Which of HAProxy's listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Write,
    Read,
}

/// A front door of a cluster: the HAProxy on a host, and the superuser's password.
pub struct FrontDoor<'a> {
    pub cluster: &'a Cluster,
    pub host: &'a HostName,
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
        let host = self.host;
        let haproxy = &self.cluster.inventory.haproxy;
        let port = match door {
            Door::Write => haproxy.write_port,
            Door::Read => haproxy.read_port,
        };
        let failed = |error: Source| {
            Error::new(
                Code::PostgresqlUnreachable,
                format!("no connection to PostgreSQL through port {port}"),
            )
            .on(host)
            .because(error)
        };
        let connect = async {
            let stream = self.remote.dial(host, port).await?;
            let password = &self.cluster.secrets.superuser;
            login(stream, host, password, self.tls.as_deref())
                .await
                .map_err(failed)
        };
        timeout(ANSWER, connect).await.unwrap_or_else(|_| {
            Err(Error::new(
                Code::PostgresqlUnreachable,
                format!(
                    "no connection to PostgreSQL through port {port} in {} s",
                    ANSWER.as_secs()
                ),
            )
            .on(host))
        })
    }
}

/// Logs in as `postgres` over a connection that has been made to `host`, whose certificate must name
/// it where there is TLS.
pub async fn login(
    stream: Box<dyn Connection>,
    host: &HostName,
    password: &Secret,
    tls: Option<&rustls::ClientConfig>,
) -> Result<Sql, Source> {
    login_with(SESSION, stream, host, password, tls).await
}

/// The same with other options of the session than [`SESSION`].
///
/// Without those of [`SESSION`] every relation, function and type of a statement must be named with its
/// schema, and no operator may stand in it.
pub async fn login_with(
    options: &str,
    stream: Box<dyn Connection>,
    host: &HostName,
    password: &Secret,
    tls: Option<&rustls::ClientConfig>,
) -> Result<Sql, Source> {
    let stream = Wire(stream);
    let mut config = Config::new();
    config
        .user(SUPERUSER)
        .dbname(DATABASE)
        .password(password.expose())
        .application_name(APPLICATION)
        .options(options);
    let client = match tls {
        None => {
            let (client, connection) = config.connect_raw(stream, NoTls).await?;
            tokio::spawn(connection);
            client
        }
        Some(tls) => {
            config.ssl_mode(SslMode::Require);
            let mut make = MakeRustlsConnect::new(tls.clone());
            let tls = MakeTlsConnect::<Wire>::make_tls_connect(&mut make, host.as_str())?;
            let (client, connection) = config.connect_raw(stream, tls).await?;
            tokio::spawn(connection);
            client
        }
    };
    Ok(Sql { client })
}

/// A connection without a lifetime in its type: with one the compiler cannot prove that a login may
/// be spawned, since the TLS layer wants its stream to be `'static`.
struct Wire(Box<dyn Connection>);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Sql {
    /// The first field of the first row, however long it takes, with PostgreSQL's own error.
    pub async fn attempt(&self, statement: &str) -> Result<Option<String>, tokio_postgres::Error> {
        let messages = self.client.simple_query(statement).await?;
        Ok(messages.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Runs `statements`; returns the rows of all of them.
    pub async fn query(&self, statements: &str) -> Result<Vec<SimpleQueryRow>> {
        let messages = timeout(ANSWER, self.client.simple_query(statements))
            .await
            .map_err(|_| {
                Error::new(
                    Code::StatementFailed,
                    format!("no answer in {} s", ANSWER.as_secs()),
                )
            })?
            .map_err(|error| {
                Error::new(Code::StatementFailed, "PostgreSQL refused a statement").because(error)
            })?;
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
            .ok_or_else(|| Error::new(Code::StatementFailed, "PostgreSQL sent an empty answer"))
    }
}
