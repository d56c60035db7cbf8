//! Connections of a verb that only looks: a host that does not answer is waited for once, and not for long.
//!
//! A dead host makes no mistake that could be reported at once: every question to it waits until its time is over. So it
//! is asked once. Whatever else would be asked of it has the same answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    net::UnixStream,
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    machine::Machine,
    quantity::duration,
    remote::{Connection, Knock, OnLine, Output, Remote, Script},
};

/// How long to wait for a host after the latest answer of another one, if that was not slow itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// The hosts that did not answer, and why; the same for all connections of a command.
#[derive(Clone, Default)]
pub(super) struct GivenUp(Arc<Mutex<BTreeMap<HostName, Error>>>);

impl GivenUp {
    fn why(&self, host: &HostName) -> Option<Error> {
        locked(&self.0).get(host).map(Error::again)
    }

    fn note(&self, host: &HostName, error: &Error) {
        locked(&self.0).insert(host.clone(), error.again());
    }

    fn forget(&self, host: &HostName) {
        locked(&self.0).remove(host);
    }
}

pub(super) struct Impatient {
    remote: Arc<dyn Remote>,
    /// The hosts that run; the others are not asked.
    running: Mutex<BTreeSet<HostName>>,
    reached: Mutex<BTreeSet<HostName>>,
    given_up: GivenUp,
    patience: Duration,
    answered: watch::Sender<Option<Answered>>,
}

/// The first answers of hosts.
#[derive(Clone, Copy)]
struct Answered {
    last: Instant,
    /// How long the slowest host took: on a busy machine, or over a long way, another one may take as long again.
    slowest: Duration,
}

impl Impatient {
    /// `machines` are those that run.
    pub(super) fn new(
        remote: Arc<dyn Remote>,
        machines: &[Machine],
        given_up: GivenUp,
        patience: Duration,
    ) -> Self {
        let running = machines.iter().map(|machine| machine.host.clone());
        Self {
            remote,
            running: Mutex::new(running.collect()),
            reached: Mutex::default(),
            given_up,
            patience,
            answered: watch::Sender::new(None),
        }
    }

    /// Returns at once, except for the first question to a host.
    async fn first(&self, host: &HostName) -> Result<()> {
        if locked(&self.reached).contains(host) {
            return Ok(());
        }
        if !locked(&self.running).contains(host) {
            return Err(Error::new(Code::HostNotRunning, "the host does not run").on(host));
        }
        if let Some(error) = self.given_up.why(host) {
            return Err(error);
        }
        let asked = Instant::now();
        let reached = tokio::select! {
            reached = self.remote.reach(host) => reached,
            waited = self.too_late(asked) => Err(late(host, waited)),
        };
        match &reached {
            Ok(()) => {
                locked(&self.reached).insert(host.clone());
                self.note_answer(asked.elapsed());
            }
            Err(error) => self.given_up.note(host, error),
        }
        reached
    }

    fn note_answer(&self, took: Duration) {
        self.answered.send_modify(|answered| {
            let slowest = answered.map_or(took, |it| it.slowest.max(took));
            *answered = Some(Answered {
                last: Instant::now(),
                slowest,
            });
        });
    }

    /// Returns when a host that was `asked` has taken much longer than the others: how long it was waited for alone. If
    /// none answers, the connection's own limit ends the wait.
    async fn too_late(&self, asked: Instant) -> Duration {
        let mut answered = self.answered.subscribe();
        loop {
            let last = *answered.borrow_and_update();
            let late = async {
                match last {
                    Some(Answered { last, slowest }) => {
                        let patience = self.patience.max(slowest * 2);
                        sleep_until(last.max(asked) + patience).await;
                        patience
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                waited = late => return waited,
                // The other end is in `self`.
                _ = answered.changed() => {}
            }
        }
    }
}

fn late(host: &HostName, waited: Duration) -> Error {
    let waited = duration(waited.as_secs_f64());
    Error::new(Code::SshUnreachable, "cannot connect over SSH")
        .on(host)
        .cause(format!(
            "no answer for {waited} after other hosts had answered"
        ))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Remote for Impatient {
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        timeout: Duration,
        on_line: OnLine<'_>,
    ) -> Result<Output> {
        self.first(host).await?;
        self.remote.run(host, script, timeout, on_line).await
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        self.first(host).await?;
        self.remote.dial(host, port).await
    }

    async fn listen(&self, host: &HostName, there: &Path, here: &Path) -> Result<()> {
        self.first(host).await?;
        self.remote.listen(host, there, here).await
    }

    async fn pipe(&self, host: &HostName, command: &str, stream: UnixStream) -> Result<()> {
        self.first(host).await?;
        self.remote.pipe(host, command, stream).await
    }

    async fn connect(&self, host: &HostName) -> Result<()> {
        self.first(host).await?;
        self.remote.connect(host).await
    }

    async fn reach(&self, host: &HostName) -> Result<()> {
        self.first(host).await
    }

    async fn holds_lease(&self, host: &HostName) -> bool {
        self.remote.holds_lease(host).await
    }

    async fn ready(&self) -> Result<()> {
        self.remote.ready().await
    }

    fn settle_lease(&self) -> Result<()> {
        self.remote.settle_lease()
    }

    async fn knock(&self, host: &HostName) -> Knock {
        match self.first(host).await {
            Ok(()) => self.remote.knock(host).await,
            Err(_) => Knock::default(),
        }
    }

    async fn refused(&self, host: &HostName, knock: Knock, ports: &[u16]) -> Option<String> {
        self.first(host).await.ok()?;
        self.remote.refused(host, knock, ports).await
    }

    /// Whoever forgets a connection wants a new one: the host is asked again, also one that did not run before.
    async fn forget(&self, host: &HostName) {
        locked(&self.running).insert(host.clone());
        locked(&self.reached).remove(host);
        self.given_up.forget(host);
        self.remote.forget(host).await;
    }

    async fn close(&self) {
        self.remote.close().await;
    }

    fn keep_none(&self) {
        self.remote.keep_none();
    }

    fn remove_sockets(&self) {
        self.remote.remove_sockets();
    }
}
