//! SQL sessions through the cluster's front door.
//!
//! Connections go through the HAProxy host's SSH connection to HAProxy's own ports. So they use the same way as
//! clients, and no port has to be reachable from this machine.

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

/// The name of pgherd's connections in `pg_stat_activity`.
pub const APPLICATION: &str = "pgherd";

/// The database of pgherd's own sessions.
const DATABASE: &str = "postgres";
/// The schema of pgherd's own tables there.
const SCHEMA: &str = "pgherd";

/// Waits until no other session of pgherd's creates anything, up to the end of the transaction, and returns no
/// row. Of two sessions that create the same object with `if not exists` at once, one would fail.
pub const ONE_AT_A_TIME: &str =
    "select 1 where pg_advisory_xact_lock(123636812344932)::text is null";

/// Creates pgherd's own schema, for rows that test the cluster, and asks who else could interfere with it.
/// [`refuse_strange`] reads the answer.
///
/// Whoever owns the schema, or may create objects in it, decides what a name in it means: their triggers and
/// views would run as the superuser. The same is true for a trigger on one of pgherd's tables, which default
/// privileges of the superuser may allow others to create.
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

/// Fails if [`own_schema`] has found somebody else.
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

/// HAProxy's listener.
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
/// Its driver runs in a task of its own, and closes the connection properly when this is dropped.
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

/// Who logs in, and to which database.
pub struct Login<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub password: &'a Secret,
    /// Options of the session; without those of [`SESSION`], a statement must name every relation, function and
    /// type with its schema, and must not use operators.
    pub options: Option<&'a str>,
}

/// Logs in as `postgres` over an open connection to `host`. With TLS, the certificate must name that host.
pub async fn login(
    stream: Box<dyn Connection>,
    host: &HostName,
    password: &Secret,
    tls: Option<&rustls::ClientConfig>,
) -> Result<Sql, Source> {
    login_with(SESSION, stream, host, password, tls).await
}

/// The same with other session options than [`SESSION`]; see [`Login::options`].
pub async fn login_with(
    options: &str,
    stream: Box<dyn Connection>,
    host: &HostName,
    password: &Secret,
    tls: Option<&rustls::ClientConfig>,
) -> Result<Sql, Source> {
    let login = Login {
        user: SUPERUSER,
        database: DATABASE,
        password,
        options: Some(options),
    };
    login_as(&login, stream, host, tls).await
}

/// The same as anybody, to any database.
pub async fn login_as(
    login: &Login<'_>,
    stream: Box<dyn Connection>,
    host: &HostName,
    tls: Option<&rustls::ClientConfig>,
) -> Result<Sql, Source> {
    let stream = Wire(stream);
    let mut config = Config::new();
    config
        .user(login.user)
        .dbname(login.database)
        .password(login.password.expose())
        .application_name(APPLICATION);
    if let Some(options) = login.options {
        config.options(options);
    }
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

/// A connection without a lifetime in its type. With a lifetime, the compiler could not prove that a login may
/// be spawned, because the TLS layer needs a `'static` stream.
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
    /// The first field of the first row, without a time limit, or PostgreSQL's own error.
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
