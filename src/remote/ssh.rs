//! [`Remote`] over OpenSSH: one multiplexed connection a host.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use openssh::{ControlPersist, ForwardType, KnownHosts, Session, SessionBuilder, Socket, Stdio};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{
    Connection, Lease, OnLine, Output, Remote, Script,
    by_hand::by_hand,
    connect_error::{connect_error, full_text, is_final, is_wrong_key, stalled},
    forward::{Forwarded, Log},
    host_key_mismatch::host_key_mismatch,
    lease::{Held, Taken},
    output::{Broken, collect, too_much},
    runner::{self, RUNNER, Told},
};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
    poll,
};

/// How long an idle connection outlives a run that was killed, in seconds.
const LINGER: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

/// How much longer than it was told an `ssh` that connects may take.
const STALL: Duration = Duration::from_secs(20);

/// A port where nobody listens.
const NOBODY: u16 = 1;
/// How long ssh may take to note what it has been told already.
const ANSWERED: Duration = Duration::from_millis(100);
/// How long sshd may take to refuse a port; one that it opens stays silent.
const OPENED: Duration = Duration::from_secs(2);

/// A knock at a host's door that waits for its answer; none where nobody could knock.
#[derive(Default)]
pub struct Knock(Option<Forwarded>);
/// How long the end of a connection may take; the host may be gone.
const FAREWELL: Duration = Duration::from_secs(3);

struct Link {
    session: Arc<Session>,
    /// The run's lease on the host, where it takes one.
    held: Mutex<Option<Held>>,
    /// Local sockets that lead to ports of the host.
    forwards: Mutex<HashMap<u16, PathBuf>>,
}

/// A host's connection, held by whoever makes it, so that it is made once.
type Slot = Arc<Mutex<Option<Arc<Link>>>>;

/// Connections to the hosts that `ssh_config` names.
pub struct SshRemote {
    config: PathBuf,
    /// Whether it is gone before anybody reads what is told of it.
    passes: bool,
    /// Short, private, and gone when this is dropped.
    sockets: tempfile::TempDir,
    /// How long a host may take to let us in.
    timeout: Duration,
    links: Mutex<HashMap<HostName, Slot>>,
    /// What is taken on every host before anything is done there, by a run that changes something.
    lease: Option<Lease>,
}

impl SshRemote {
    /// `config` is the workspace's `ssh_config`; `timeout` is how long a host may refuse or stay
    /// silent before it is given up.
    pub fn new(config: &Path, sockets: tempfile::TempDir, timeout: Duration) -> Self {
        Self {
            config: config.to_owned(),
            passes: false,
            sockets,
            timeout,
            links: Mutex::new(HashMap::new()),
            lease: None,
        }
    }

    /// Takes the config for one that goes with this run: nobody is told to use it.
    #[must_use]
    pub fn with_passing_config(mut self) -> Self {
        self.passes = true;
        self
    }

    /// Takes `lease` on every host that it connects to, before anything else is done there.
    #[must_use]
    pub fn with_lease(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The connection to `host`, with the lease on it where the run takes one.
    async fn link(&self, host: &HostName) -> Result<Arc<Link>> {
        let link = self.connection(host).await?;
        if let Some(lease) = &self.lease {
            if let Some(error) = lease.given_up() {
                return Err(error);
            }
            let mut held = link.held.lock().await;
            if !held.as_ref().is_some_and(Held::lasts) {
                // What this side has lost must be gone before it is taken anew.
                if let Some(lost) = held.take() {
                    lost.end().await;
                }
                match lease.take(host, &link.session).await {
                    Taken::Held(taken) => *held = Some(taken),
                    Taken::Refused(error) => return Err(error),
                    Taken::Unknown => {}
                }
            }
        }
        Ok(link)
    }

    async fn connection(&self, host: &HostName) -> Result<Arc<Link>> {
        let slot = self
            .links
            .lock()
            .await
            .entry(host.clone())
            .or_default()
            .clone();
        let mut slot = slot.lock().await;
        if let Some(link) = slot.take() {
            // A connection that idled too long, or whose host restarted, is simply made again.
            if link.session.check().await.is_ok() {
                *slot = Some(link.clone());
                return Ok(link);
            }
        }
        let opened = poll::until(self.timeout, Duration::from_millis(150), || async {
            // ssh's own ConnectTimeout ends before this; it only bounds a client that hangs.
            let opened = timeout(self.timeout + STALL, self.open(host)).await;
            match opened.unwrap_or_else(|_| Err(stalled())) {
                Err(error) if !is_final(&error) => Err(error),
                opened => Ok(opened),
            }
        });
        match opened.await.unwrap_or_else(|over| Err(over.last)) {
            Ok(session) => {
                let link = Arc::new(Link {
                    session: Arc::new(session),
                    held: Mutex::default(),
                    forwards: Mutex::default(),
                });
                *slot = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                if is_wrong_key(&full_text(&error))
                    && let Some(named) = host_key_mismatch(&self.config, host).await
                {
                    return Err(named);
                }
                {
                    let by_hand = by_hand(&self.config, self.passes, host);
                    Err(connect_error(host, error, self.timeout, by_hand))
                }
            }
        }
    }

    async fn open(&self, host: &HostName) -> Result<Session, openssh::Error> {
        SessionBuilder::default()
            .config_file(self.telling_config(host))
            .control_directory(self.sockets.path())
            .control_persist(ControlPersist::IdleFor(LINGER))
            .known_hosts_check(KnownHosts::Strict)
            .connect_mux(host.as_str())
            .await
    }

    /// The config as it is now, with a log that says why a port could not be reached; what is not an
    /// error of ssh's own is only told there. Should it not come to be, the log says less.
    ///
    /// Made anew for each connection: a run may move its hosts.
    fn telling_config(&self, host: &HostName) -> PathBuf {
        let path = self.sockets.path().join(format!("config-{host}"));
        let told = std::fs::read_to_string(&self.config)
            .map(|text| text.replace("LogLevel ERROR", "LogLevel INFO"))
            .and_then(|text| std::fs::write(&path, text));
        told.map_or_else(|_| self.config.clone(), |()| path)
    }

    /// Forgets a connection that has failed, so that the next use opens a new one.
    async fn drop_link(&self, host: &HostName, broken: &Arc<Link>) {
        let slot = self.links.lock().await.get(host).cloned();
        if let Some(slot) = slot {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|link| Arc::ptr_eq(link, broken)) {
                *slot = None;
            }
        }
    }

    /// Opens a way to a port of a host; whether it leads anywhere shows when it is read.
    async fn way(&self, host: &HostName, port: u16) -> Result<Forwarded> {
        let link = self.link(host).await?;
        let path = {
            let mut forwards = link.forwards.lock().await;
            if let Some(path) = forwards.get(&port) {
                path.clone()
            } else {
                let path =
                    self.sockets
                        .path()
                        .join(format!("{}-{port}-{}", host.as_str(), nonce()));
                let opened = link
                    .session
                    .request_port_forward(
                        ForwardType::Local,
                        Socket::UnixSocket {
                            path: (&path).into(),
                        },
                        Socket::new("127.0.0.1", port),
                    )
                    .await;
                if let Err(error) = opened {
                    drop(forwards);
                    self.drop_link(host, &link).await;
                    return Err(Error::new(
                        Code::ServiceUnreachable,
                        format!("no way to port {port}"),
                    )
                    .on(host)
                    .because(error));
                }
                forwards.insert(port, path.clone());
                path
            }
        };
        let log = Log::beside(link.session.control_socket());
        match UnixStream::connect(&path).await {
            Ok(stream) => Ok(Forwarded::new(stream, log)),
            Err(error) => {
                self.drop_link(host, &link).await;
                Err(
                    Error::new(Code::ServiceUnreachable, format!("no way to port {port}"))
                        .on(host)
                        .because(error),
                )
            }
        }
    }

    async fn execute(
        &self,
        link: &Link,
        script: &Script,
        limit: Duration,
        on_line: OnLine<'_>,
    ) -> Result<(i32, Told, Told), Broken> {
        let begin = Instant::now();
        let mut child = loop {
            let started = link
                .session
                .raw_command(RUNNER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .await;
            match started {
                // Nothing was run. Others of this run's scripts end, and leave room for this one.
                Err(error) if is_crowded(&error) => {
                    if begin.elapsed() + CROWDED > limit {
                        return Err(Broken::Crowded(error));
                    }
                    sleep(CROWDED).await;
                }
                started => break started?,
            }
        };
        let stdin = child.stdin().take();
        let stdout = child.stdout().take();
        let stderr = child.stderr().take();
        let send = async {
            if let Some(mut stdin) = stdin {
                // A host that stops reading tells why on its way out.
                let _ = stdin.write_all(script.expose().as_bytes()).await;
                let _ = stdin.shutdown().await;
            }
            Ok(())
        };
        let ((), stdout, stderr) = tokio::try_join!(
            send,
            collect(stdout, Stream::Stdout, on_line),
            collect(stderr, Stream::Stderr, on_line),
        )?;
        let code = match child.wait().await {
            Ok(status) => status.code().unwrap_or(128),
            // The multiplexer cannot tell a signal from a broken connection; a look at it can.
            Err(openssh::Error::RemoteProcessTerminated) if link.session.check().await.is_ok() => {
                128
            }
            Err(error) => return Err(error.into()),
        };
        Ok((code, stdout, stderr))
    }
}

/// How long to wait before a session that sshd refused is asked for again.
const CROWDED: Duration = Duration::from_millis(250);

/// Whether sshd opens no further session on the connection (`MaxSessions`).
fn is_crowded(error: &openssh::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("open refused by peer") {
            return true;
        }
        cause = error.source();
    }
    false
}

#[async_trait]
impl Remote for SshRemote {
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        limit: Duration,
        on_line: OnLine<'_>,
    ) -> Result<Output> {
        let link = self.link(host).await?;
        match timeout(limit, self.execute(&link, script, limit, on_line)).await {
            Ok(Ok((code, stdout, stderr))) => runner::output(host, code, stdout, stderr),
            Ok(Err(Broken::Connection(error))) => {
                self.drop_link(host, &link).await;
                Err(Error::new(Code::SshConnectionLost, "the connection broke")
                    .on(host)
                    .because(error))
            }
            Ok(Err(Broken::Crowded(error))) => Err(Error::new(
                Code::SshSessionsRefused,
                "sshd opens no further session on the connection",
            )
            .on(host)
            .because(error)
            .cause(format!("asked again for {} s", limit.as_secs()))
            .hint("let it open more in sshd_config: MaxSessions 10")),
            Ok(Err(Broken::TooMuch(stream))) => {
                // What writes there ends once nobody reads any more.
                self.drop_link(host, &link).await;
                Err(too_much(host, stream))
            }
            Err(_) => {
                self.drop_link(host, &link).await;
                Err(Error::new(
                    Code::StepTimedOut,
                    format!("no end after {} s", limit.as_secs()),
                )
                .on(host))
            }
        }
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        Ok(Box::new(self.way(host, port).await?))
    }

    /// Refusals and silence are retried until the timeout: a host that has just been
    /// started is not there yet. A wrong key or a refused login is final.
    async fn connect(&self, host: &HostName) -> Result<()> {
        self.link(host).await.map(|_| ())
    }

    async fn reach(&self, host: &HostName) -> Result<()> {
        self.connection(host).await.map(|_| ())
    }

    fn settle_lease(&self) -> Result<()> {
        if let Some(lease) = &self.lease {
            if let Some(error) = lease.nowhere() {
                return Err(error);
            }
            lease.settle();
        }
        Ok(())
    }

    async fn knock(&self, host: &HostName) -> Knock {
        Knock(self.way(host, NOBODY).await.ok())
    }

    async fn refused(&self, host: &HostName, knock: Knock, ports: &[u16]) -> Option<String> {
        knock.0?.refusal(ANSWERED).await?;
        // It may well allow the ports that are needed and no others.
        for port in ports {
            if let Ok(way) = self.way(host, *port).await
                && let Some(said) = way.refusal(OPENED).await
            {
                return Some(said);
            }
        }
        None
    }

    async fn forget(&self, host: &HostName) {
        let slot = self.links.lock().await.remove(host);
        // Whoever holds it is making a new connection just now.
        if let Some(mut link) = slot.as_ref().and_then(|slot| slot.try_lock().ok()) {
            link.take();
        }
    }

    async fn close(&self) {
        let links: Vec<_> = self.links.lock().await.drain().collect();
        let ends = links.into_iter().map(|(_, slot)| async move {
            let Some(link) = slot.lock().await.take() else {
                return;
            };
            if let Some(held) = link.held.lock().await.take() {
                held.end().await;
            }
            let session = Arc::into_inner(link).and_then(|link| Arc::into_inner(link.session));
            if let Some(session) = session {
                // A master that is already gone is what we want.
                let _ = timeout(FAREWELL, session.close()).await;
            }
        });
        join_all(ends).await;
    }

    fn remove_sockets(&self) {
        // It goes with this value too, if it has not gone by then.
        let _ = std::fs::remove_dir_all(self.sockets.path());
    }
}

/// Tells the sockets of one connection from those of its successor.
fn nonce() -> String {
    format!("{:08x}", rand::random::<u32>())
}
