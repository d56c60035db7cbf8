//! [`Remote`] over OpenSSH: one multiplexed connection for each host.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use openssh::{ControlPersist, ForwardType, KnownHosts, Session, SessionBuilder, Socket};
use tokio::{net::UnixStream, sync::Mutex, time::timeout};

use super::{
    Connection, Keep, Lease, OnLine, Output, Remote, Script, bastion,
    by_hand::by_hand,
    connect_error::{connect_error, full_text, is_final, is_wrong_key, stalled},
    execute::execute,
    forward::{Forwarded, Log},
    host_key_mismatch::host_key_mismatch,
    lease::{Held, Taken},
    no_listening,
    output::{Broken, too_much},
    pipe::pipe,
    runner,
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    poll,
};

/// How many seconds an idle connection lasts if it is not kept for the next run.
const LINGER: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

/// How much longer than its limit an `ssh` that connects may take.
const STALL: Duration = Duration::from_secs(20);

/// A port on which nothing listens.
const NOBODY: u16 = 1;
/// How long ssh may take to record something that it has already been told.
const ANSWERED: Duration = Duration::from_millis(100);
/// How long sshd may take to refuse a port; a port that it opens stays silent.
const OPENED: Duration = Duration::from_secs(2);

/// A pending attempt at a port of a host; `None` if no attempt could be made.
#[derive(Default)]
pub struct Knock(Option<Forwarded>);
/// How long closing a connection may take; the host may be gone.
const FAREWELL: Duration = Duration::from_secs(3);

struct Link {
    session: Arc<Session>,
    /// The name by which the next run finds it, if it is kept.
    name: Option<String>,
    /// The run's lease on the host, if the run takes one.
    held: Mutex<Option<Held>>,
    /// Local sockets that lead to ports of the host.
    forwards: Mutex<HashMap<u16, PathBuf>>,
    /// The host listens for this run: the connection is not left to the next one.
    listens: AtomicBool,
}

impl Link {
    fn of(session: Session, name: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            session: Arc::new(session),
            name,
            held: Mutex::default(),
            forwards: Mutex::default(),
            listens: AtomicBool::new(false),
        })
    }
}

/// A host's connection. The task that opens it holds this lock, so that it is opened once.
type Slot = Arc<Mutex<Option<Arc<Link>>>>;

/// Connections to the hosts in the `ssh_config`.
pub struct SshRemote {
    config: PathBuf,
    /// Whether the file is gone before anybody reads a message about it.
    passes: bool,
    /// Short, private, and removed when this is dropped.
    sockets: tempfile::TempDir,
    /// How long a host may take to accept a login.
    timeout: Duration,
    links: Mutex<HashMap<HostName, Slot>>,
    /// What a run that changes something takes on every host before anything is done there.
    lease: Option<Lease>,
    /// Where connections are left for the next run.
    keep: Option<Keep>,
    keeps_none: AtomicBool,
}

impl SshRemote {
    /// `config` is the workspace's `ssh_config`; `timeout` is how long to try if a host refuses or does not
    /// answer.
    pub fn new(config: &Path, sockets: tempfile::TempDir, timeout: Duration) -> Self {
        Self {
            config: config.to_owned(),
            passes: false,
            sockets,
            timeout,
            links: Mutex::new(HashMap::new()),
            lease: None,
            keep: None,
            keeps_none: AtomicBool::new(false),
        }
    }

    /// Uses connections that earlier runs have left, and leaves its own to the next run.
    #[must_use]
    pub fn keeping(mut self, keep: Option<Keep>) -> Self {
        self.keep = keep;
        self
    }

    fn keep(&self) -> Option<&Keep> {
        let keep = self.keep.as_ref();
        keep.filter(|_| !self.keeps_none.load(Ordering::Relaxed))
    }

    /// Marks the config as one for this run only: no message tells anybody to use it.
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

    /// The connection to `host`, with the lease on it if the run takes one.
    async fn link(&self, host: &HostName) -> Result<Arc<Link>> {
        let link = self.connection(host).await?;
        if let Some(lease) = &self.lease {
            if let Some(error) = lease.given_up() {
                return Err(error);
            }
            let mut held = link.held.lock().await;
            if !held.as_ref().is_some_and(Held::lasts) {
                // What this side has lost must be gone before it is taken again.
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
            // A connection that was idle too long, or whose host restarted, is simply made again.
            if link.session.check().await.is_ok() {
                *slot = Some(link.clone());
                return Ok(link);
            }
        }
        // Its name is made from the settings before it is opened: a later change makes it outdated.
        let name = self.keep().and_then(|keep| keep.name(&self.config, host));
        if let (Some(keep), Some(name)) = (self.keep(), &name)
            && let Some(session) = keep.take(name, self.sockets.path()).await
        {
            return Ok(slot.insert(Link::of(session, Some(name.clone()))).clone());
        }
        let opened = poll::until(self.timeout, Duration::from_millis(150), || async {
            // ssh's own ConnectTimeout ends before this, which only limits a client that hangs.
            let opened = timeout(self.timeout + STALL, self.open(host)).await;
            match opened.unwrap_or_else(|_| Err(stalled())) {
                Err(error) if !self.ends_it(host, &error) => Err(error),
                opened => Ok(opened),
            }
        });
        match opened.await.unwrap_or_else(|over| Err(over.last)) {
            Ok(session) => Ok(slot.insert(Link::of(session, name)).clone()),
            Err(error) => {
                if let Some(said) = bastion::said(&full_text(&error), &self.said(host)) {
                    let config = std::fs::read_to_string(&self.config).unwrap_or_default();
                    let lasting = (!self.passes).then_some(self.config.as_path());
                    return Err(bastion::error(host, &config, lasting, &said));
                }
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

    /// Whether waiting cannot help.
    fn ends_it(&self, host: &HostName, error: &openssh::Error) -> bool {
        let text = full_text(error);
        match bastion::said(&text, &self.said(host)) {
            Some(said) => bastion::ends_it(&said),
            None => is_final(&text),
        }
    }

    /// The file with the messages of the latest attempt to reach a host through others.
    fn said(&self, host: &HostName) -> PathBuf {
        self.sockets.path().join(format!("way-{host}"))
    }

    async fn open(&self, host: &HostName) -> Result<Session, openssh::Error> {
        let kept = self
            .keep()
            .and_then(|keep| usize::try_from(keep.seconds).ok());
        let lasting = kept.and_then(NonZeroUsize::new).unwrap_or(LINGER);
        SessionBuilder::default()
            .config_file(self.telling_config(host))
            .control_directory(self.sockets.path())
            .control_persist(ControlPersist::IdleFor(lasting))
            .known_hosts_check(KnownHosts::Strict)
            .connect_mux(host.as_str())
            .await
    }

    /// The present config, with a log that says why a port could not be reached: messages other than ssh's own
    /// errors appear only there. If the log cannot be created, less is known.
    ///
    /// Written for each connection: a run may move its hosts.
    fn telling_config(&self, host: &HostName) -> PathBuf {
        let path = self.sockets.path().join(format!("config-{host}"));
        let said = self.said(host);
        // It is not there if nothing was said.
        let _ = std::fs::remove_file(&said);
        let told = std::fs::read_to_string(&self.config)
            .map(|text| text.replace("LogLevel ERROR", "LogLevel INFO"))
            .map(|text| bastion::telling(&text, &said))
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

    /// Leaves a connection to the next run in its original state; gives it back if that is not possible.
    async fn leave(&self, link: Link) -> Option<Session> {
        let listens = link.listens.load(Ordering::Relaxed);
        let session = Arc::into_inner(link.session)?;
        if listens {
            return Some(session);
        }
        let (Some(keep), Some(name)) = (self.keep(), link.name) else {
            return Some(session);
        };
        let forwards = link.forwards.into_inner();
        let closed = async {
            for (port, path) in &forwards {
                let (here, there) = ends(path, *port);
                let closed = session.close_port_forward(ForwardType::Local, here, there);
                closed.await?;
            }
            Ok::<_, openssh::Error>(())
        };
        match timeout(FAREWELL, closed).await {
            Ok(Ok(())) => keep.put(&name, session).err(),
            _ => Some(session),
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
                let (here, there) = ends(&path, port);
                let asked = link
                    .session
                    .request_port_forward(ForwardType::Local, here, there);
                let opened = asked.await;
                if let Err(error) = opened {
                    drop(forwards);
                    self.drop_link(host, &link).await;
                    return Err(Error::new(
                        Code::ServiceUnreachable,
                        format!("cannot reach port {port}"),
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
                Err(Error::new(
                    Code::ServiceUnreachable,
                    format!("cannot reach port {port}"),
                )
                .on(host)
                .because(error))
            }
        }
    }
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
        match timeout(limit, execute(&link.session, script, limit, on_line)).await {
            Ok(Ok((code, stdout, stderr))) => runner::output(host, code, stdout, stderr),
            Ok(Err(Broken::Connection(error))) => {
                self.drop_link(host, &link).await;
                Err(Error::new(Code::SshConnectionLost, "the connection broke")
                    .on(host)
                    .because(error))
            }
            Ok(Err(Broken::Crowded(error))) => Err(Error::new(
                Code::SshSessionsRefused,
                "sshd refuses another session on the connection",
            )
            .on(host)
            .because(error)
            .cause(format!("asked again for {} s", limit.as_secs()))
            .hint("allow more in sshd_config: MaxSessions 10")),
            Ok(Err(Broken::TooMuch(stream))) => {
                // The writer ends when nobody reads any more.
                self.drop_link(host, &link).await;
                Err(too_much(host, stream))
            }
            Err(_) => {
                self.drop_link(host, &link).await;
                Err(Error::new(
                    Code::StepTimedOut,
                    format!("not finished after {} s", limit.as_secs()),
                )
                .on(host))
            }
        }
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        Ok(Box::new(self.way(host, port).await?))
    }

    async fn listen(&self, host: &HostName, there: &Path, here: &Path) -> Result<()> {
        let link = self.link(host).await?;
        link.listens.store(true, Ordering::Relaxed);
        let socket = |path: &Path| Socket::UnixSocket {
            path: path.to_owned().into(),
        };
        let asked =
            link.session
                .request_port_forward(ForwardType::Remote, socket(there), socket(here));
        asked
            .await
            .map_err(|error| no_listening(host, &full_text(&error)))
    }

    async fn pipe(&self, host: &HostName, command: &str, stream: UnixStream) -> Result<()> {
        let link = self.link(host).await?;
        pipe(&link.session, host, command, stream).await
    }

    /// Refusals and silence are retried until the timeout: a host that was just started may not be ready yet. A
    /// wrong key or a refused login is final.
    async fn connect(&self, host: &HostName) -> Result<()> {
        self.link(host).await.map(|_| ())
    }

    async fn reach(&self, host: &HostName) -> Result<()> {
        self.connection(host).await.map(|_| ())
    }

    async fn holds_lease(&self, host: &HostName) -> bool {
        if self.lease.is_none() {
            return true;
        }
        let slot = self.links.lock().await.get(host).cloned();
        let Some(slot) = slot else { return false };
        let link = slot.lock().await.clone();
        match link {
            Some(link) => link.held.lock().await.as_ref().is_some_and(Held::lasts),
            None => false,
        }
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
        // It may allow the needed ports and no others.
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
        // The task that holds it is opening a new connection at this moment.
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
            // A connection that is still in use ends with that use.
            if let Some(link) = Arc::into_inner(link)
                && let Some(session) = self.leave(link).await
            {
                // A master that is already gone is what we want.
                let _ = timeout(FAREWELL, session.close()).await;
            }
        });
        join_all(ends).await;
    }

    fn keep_none(&self) {
        self.keeps_none.store(true, Ordering::Relaxed);
    }

    fn remove_sockets(&self) {
        // It ends with this value too, if it has not ended by then.
        let _ = std::fs::remove_dir_all(self.sockets.path());
    }
}

/// The two ends of a way to a port of a host.
fn ends(path: &Path, port: u16) -> (Socket<'_>, Socket<'_>) {
    let here = Socket::UnixSocket { path: path.into() };
    (here, Socket::new("127.0.0.1", port))
}

/// Distinguishes the sockets of one connection from those of its successor.
fn nonce() -> String {
    format!("{:08x}", rand::random::<u32>())
}
