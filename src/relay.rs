//! A local socket through which `psql` reaches the cluster.
//!
//! `psql` speaks plaintext to a UNIX socket, in a folder that only this user can open. From there, this process
//! goes through the host's SSH connection, speaks TLS with PostgreSQL, and verifies its certificate. When this
//! process ends for any reason, the socket leads nowhere.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    error::{Code, Error, Result, Source},
    inventory::HostName,
    remote::{Connection, Remote},
};

/// How long PostgreSQL may take to answer whether it speaks TLS, and to complete the TLS handshake.
const GREETING: Duration = Duration::from_secs(10);

/// Codes that take the place of a protocol version in the first message of a connection.
///
/// Source: PostgreSQL's documentation, "Message Formats".
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
/// The first byte of the server's messages that ask for authentication, or negotiate the protocol version.
const AUTHENTICATION: u8 = b'R';
const NEGOTIATION: u8 = b'v';
/// The kind of authentication that offers mechanisms, such as SCRAM.
const SASL: u32 = 10;
/// The longest message before authentication; PostgreSQL's own limit for a client's first message is 10,000.
const LONGEST: usize = 30_000;

/// How the connection to PostgreSQL is protected inside SSH.
#[derive(Debug, Clone)]
pub enum Encryption {
    /// By TLS, always, with a certificate that names the host.
    Verified(Arc<rustls::ClientConfig>),
    /// By TLS if PostgreSQL offers it, while the cluster is on its way to TLS or from it.
    IfOffered(Arc<rustls::ClientConfig>),
    /// The cluster has no TLS.
    None,
}

/// Where a relay leads.
pub struct Target {
    pub remote: Arc<dyn Remote>,
    pub host: HostName,
    pub port: u16,
    pub encryption: Encryption,
}

/// A socket that leads to a port of a host. The socket is removed when this is dropped.
#[derive(Debug)]
pub struct Relay {
    folder: TempDir,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens in `folder`, which only this user can use from now on. The socket has the name that PostgreSQL
    /// would use for the target's port.
    pub fn start(folder: TempDir, target: Target) -> Result<Self> {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).map_err(|error| {
            Error::new(
                Code::LocalFileFailed,
                format!("cannot close {} to others", folder.path().display()),
            )
            .because(error)
        })?;
        let socket = folder.path().join(format!(".s.PGSQL.{}", target.port));
        let listener = UnixListener::bind(&socket).map_err(|error| {
            Error::new(
                Code::LocalFileFailed,
                format!("cannot listen on {}", socket.display()),
            )
            .because(error)
        })?;
        let task = tokio::spawn(serve(listener, Arc::new(target)));
        Ok(Self { folder, task })
    }

    /// The value for psql's `host`: the socket's folder.
    pub fn host(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves all clients until the task is aborted, which ends all clients too.
async fn serve(listener: UnixListener, target: Arc<Target>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    clients.spawn(relay(client, target.clone()));
                }
                Err(_) => return,
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn relay(mut client: UnixStream, target: Arc<Target>) {
    let Ok(first) = first_message(&mut client).await else {
        return;
    };
    let opened = async {
        let mut server = target.open().await?;
        server.write_all(&first).await.map_err(lost)?;
        Ok::<_, Error>(server)
    };
    match opened.await {
        Ok(mut server) => {
            if without_binding(&mut server, &mut client).await.is_ok() {
                // The two ends report errors themselves.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            }
        }
        Err(error) => {
            let _ = client.write_all(&refusal(&error.to_string())).await;
        }
    }
}

/// Reads a client's first message. A request for encryption before it is declined, because the socket is
/// private.
async fn first_message(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    loop {
        let mut message = vec![0; 8];
        client.read_exact(&mut message).await?;
        let word = |at: usize| {
            u32::from_be_bytes([
                message[at],
                message[at + 1],
                message[at + 2],
                message[at + 3],
            ])
        };
        let (length, code) = (word(0), word(4));
        if matches!(code, SSL_REQUEST | GSSENC_REQUEST) {
            client.write_all(b"N").await?;
            continue;
        }
        message.resize(bounded(length, 8)?, 0);
        client.read_exact(&mut message[8..]).await?;
        return Ok(message);
    }
}

/// Passes on the server's messages up to its request for authentication.
///
/// Over TLS, the server offers SCRAM with channel binding. A client without TLS cannot use it, and libpq would
/// take the offer for an attack. So the mechanism is removed here; this process has verified the server.
async fn without_binding(
    server: &mut Box<dyn Connection>,
    client: &mut UnixStream,
) -> io::Result<()> {
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; bounded(length, 4)? - 4];
        server.read_exact(&mut body).await?;
        if head[0] == AUTHENTICATION && body.starts_with(&SASL.to_be_bytes()) {
            body = unbound(&body);
        }
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        head[1..].copy_from_slice(&length.to_be_bytes());
        client.write_all(&head).await?;
        client.write_all(&body).await?;
        if head[0] != NEGOTIATION {
            return Ok(());
        }
    }
}

/// The mechanisms of an `AuthenticationSASL` without those with channel binding.
fn unbound(body: &[u8]) -> Vec<u8> {
    let (code, names) = body.split_at(4);
    let kept = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !name.ends_with(b"-PLUS"));
    let mut all = code.to_vec();
    for name in kept {
        all.extend_from_slice(name);
        all.push(0);
    }
    all.push(0);
    all
}

/// The length of a message; an error if no message before authentication can be that long.
fn bounded(length: u32, least: usize) -> io::Result<usize> {
    match usize::try_from(length) {
        Ok(length) if (least..=LONGEST).contains(&length) => Ok(length),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Target {
    /// A connection on which PostgreSQL waits for a client's first message.
    async fn open(&self) -> Result<Box<dyn Connection>> {
        let mut stream = self.remote.dial(&self.host, self.port).await?;
        let (config, is_must) = match &self.encryption {
            Encryption::None => return Ok(stream),
            Encryption::Verified(config) => (config, true),
            Encryption::IfOffered(config) => (config, false),
        };
        let greeted = async {
            let mut request = [0; 8];
            request[..4].copy_from_slice(&8_u32.to_be_bytes());
            request[4..].copy_from_slice(&SSL_REQUEST.to_be_bytes());
            stream.write_all(&request).await?;
            stream.read_u8().await
        };
        let answer = timeout(GREETING, greeted).await;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(b'S') => {}
            Ok(_) if is_must => {
                return Err(
                    Error::new(Code::TlsFailed, "PostgreSQL does not speak TLS").on(&self.host)
                );
            }
            Ok(_) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::new(
                    Code::ClientsNotServed,
                    format!(
                        "HAProxy closed the connection to its port {}: it has no server for it now",
                        self.port
                    ),
                )
                .on(&self.host));
            }
            Err(error) => return Err(lost(error).on(&self.host)),
        }
        let unverified = |error: Source| {
            Error::new(
                Code::TlsFailed,
                "PostgreSQL's certificate cannot be verified",
            )
            .on(&self.host)
            .because(error)
        };
        let name = ServerName::try_from(self.host.to_string())
            .map_err(|error| unverified(error.into()))?;
        let connecting = TlsConnector::from(config.clone()).connect(name, stream);
        match timeout(GREETING, connecting).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(unverified(error.into())),
            Err(_) => Err(lost(io::ErrorKind::TimedOut.into()).on(&self.host)),
        }
    }
}

fn lost(error: io::Error) -> Error {
    Error::new(
        Code::PostgresqlUnreachable,
        "the connection to PostgreSQL was lost",
    )
    .because(error)
}

/// An error in PostgreSQL's own format, so that the client prints it.
fn refusal(text: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, value) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', "08006"),
        (b'M', text),
    ] {
        fields.push(kind);
        fields.extend(value.bytes().filter(|byte| *byte != 0));
        fields.push(0);
    }
    fields.push(0);
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX);
    let mut message = vec![b'E'];
    message.extend(length.to_be_bytes());
    message.extend(fields);
    message
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::remote::{OnLine, Output, Script};

    /// Passes the other end of each connection to the test.
    #[derive(Default)]
    struct Dialled(Mutex<Vec<DuplexStream>>);

    #[async_trait]
    impl Remote for Dialled {
        async fn run(
            &self,
            _: &HostName,
            _: &Script,
            _: Duration,
            _: OnLine<'_>,
        ) -> Result<Output> {
            unreachable!("a relay runs nothing")
        }

        async fn dial(&self, _: &HostName, _: u16) -> Result<Box<dyn Connection>> {
            let (near, far) = duplex(1024);
            self.0.lock().unwrap().push(far);
            Ok(Box::new(near))
        }
    }

    /// Has no trusted authority.
    fn trust() -> Arc<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(
            builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        )
    }

    async fn relayed(encryption: Encryption) -> (Relay, Arc<Dialled>, UnixStream) {
        let remote = Arc::new(Dialled::default());
        let folder = tempfile::tempdir().unwrap();
        let target = Target {
            remote: remote.clone(),
            host: HostName::new("node5"),
            port: 5000,
            encryption,
        };
        let relay = Relay::start(folder, target).unwrap();
        let client = UnixStream::connect(relay.host().join(".s.PGSQL.5000"))
            .await
            .unwrap();
        (relay, remote, client)
    }

    async fn server(remote: &Dialled) -> DuplexStream {
        loop {
            if let Some(server) = remote.0.lock().unwrap().pop() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    const STARTUP: &[u8] = b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0";
    /// The message that libpq sends, on a separate connection, when a user types Ctrl-C.
    const CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";

    #[tokio::test]
    async fn a_server_without_tls_is_told_nothing_where_tls_is_a_must() {
        let (_relay, remote, mut client) = relayed(Encryption::Verified(trust())).await;
        client.write_all(STARTUP).await.unwrap();
        let mut server = server(&remote).await;
        let mut asked = [0; 8];
        server.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, [0, 0, 0, 8, 4, 210, 22, 47], "an SSLRequest");
        server.write_all(b"N").await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with('E'), "{said}");
        assert!(
            said.contains("node5: PostgreSQL does not speak TLS"),
            "{said}"
        );
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"", "no user, no database, no password");
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_verified_is_told_nothing() {
        let (_relay, remote, mut client) = relayed(Encryption::Verified(trust())).await;
        client.write_all(STARTUP).await.unwrap();
        let mut server = server(&remote).await;
        let mut asked = [0; 8];
        server.read_exact(&mut asked).await.unwrap();
        server
            .write_all(b"S\x15\x03\x03\0\x02\x02\x28")
            .await
            .unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("certificate cannot be verified"), "{said}");
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        assert!(!rest.windows(8).any(|it| it == b"postgres"), "{rest:?}");
    }

    #[tokio::test]
    async fn what_both_say_goes_through_and_a_cancel_too() {
        for encryption in [Encryption::None, Encryption::IfOffered(trust())] {
            let asks = matches!(encryption, Encryption::IfOffered(_));
            for first in [STARTUP, CANCEL] {
                let (_relay, remote, mut client) = relayed(encryption.clone()).await;
                client.write_all(first).await.unwrap();
                let mut server = server(&remote).await;
                if asks {
                    let mut asked = [0; 8];
                    server.read_exact(&mut asked).await.unwrap();
                    server.write_all(b"N").await.unwrap();
                }
                let mut heard = vec![0; first.len()];
                server.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, first);
                let answer = b"R\0\0\0\x08\0\0\0\0and more";
                server.write_all(answer).await.unwrap();
                drop(server);
                let mut said = Vec::new();
                client.read_to_end(&mut said).await.unwrap();
                assert_eq!(said, answer);
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_asks_for_encryption_is_told_that_the_socket_has_none() {
        let (_relay, remote, mut client) = relayed(Encryption::None).await;
        client
            .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
            .await
            .unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'N');
        client.write_all(STARTUP).await.unwrap();
        let mut heard = vec![0; STARTUP.len()];
        server(&remote).await.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, STARTUP);
    }

    #[tokio::test]
    async fn a_login_that_is_bound_to_tls_is_not_offered_to_a_client_without() {
        let (_relay, remote, mut client) = relayed(Encryption::None).await;
        client.write_all(STARTUP).await.unwrap();
        let mut server = server(&remote).await;
        let negotiation = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0";
        server.write_all(negotiation).await.unwrap();
        let offer = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        server.write_all(offer).await.unwrap();
        drop(server);
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        let mut expected = negotiation.to_vec();
        expected.extend(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_relay() {
        let (relay, remote, mut client) = relayed(Encryption::None).await;
        client.write_all(STARTUP).await.unwrap();
        let mut server = server(&remote).await;
        let folder = relay.host().to_owned();
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        drop(relay);
        assert!(!folder.exists());
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, STARTUP);
    }
}
