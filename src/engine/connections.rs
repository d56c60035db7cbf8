//! The connections of a run. They hold its lease on the hosts, so they stay open until the run ends.

use std::{
    collections::BTreeMap,
    fmt,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, OnceLock, PoisonError},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{
    guarded::Guarded,
    impatient::{GivenUp, Impatient, PATIENCE},
};
use crate::{
    error::{Code, Error, Result},
    event::Events,
    history::{Ended, Record},
    holder::Holder,
    inventory::HostName,
    machine::Machine,
    remote::{Keep, Lease, Listener, Remote, SshRemote, Story},
    workspace::Shared,
};

/// Whether another run is at work, on this machine or elsewhere, or has been since this one began. It is the same on every
/// host, and so is a shared state that cannot be written.
pub(super) fn is_at_work(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::WorkspaceLocked
            | Code::LeaseHeld
            | Code::LeaseLost
            | Code::StateConflict
            | Code::StateUnreachable
            | Code::StateKeyMissing
            | Code::StateKeyUnusable
    )
}

/// What is needed to connect.
pub(crate) struct Way {
    /// The `ssh_config` that names the hosts.
    pub config: PathBuf,
    /// Whether the file is deleted after this run.
    pub passes: bool,
    pub sockets: TempDir,
    /// How long to try if a host refuses or does not answer.
    pub timeout: Duration,
    /// Where connections are left for the next run.
    pub keep: Option<Keep>,
}

/// Opens connections, and takes the lease if there is one: over SSH, except in tests.
pub(crate) type Dial = Box<dyn Fn(Way, Option<Lease>) -> Arc<dyn Remote> + Send + Sync>;

fn over_ssh(way: Way, lease: Option<Lease>) -> Arc<dyn Remote> {
    let mut remote = SshRemote::new(&way.config, way.sockets, way.timeout).keeping(way.keep);
    if way.passes {
        remote = remote.with_passing_config();
    }
    Arc::new(match lease {
        Some(lease) => remote.with_lease(lease),
        None => remote,
    })
}

/// What is common to all connections of a run.
pub(crate) struct Connections {
    dial: Dial,
    /// The holder of the lease; `None` in verbs that only look.
    holder: OnceLock<Holder>,
    /// The same run, as the hosts' history has it.
    record: OnceLock<Record>,
    /// What must be stored before hosts get it.
    shared: OnceLock<Arc<Shared>>,
    /// The steps that were planned, and how many of them change something.
    planned: std::sync::Mutex<(usize, usize)>,
    /// Receives the news that a lease is waited for.
    listener: Listener,
    kept: Mutex<Option<Kept>>,
    /// The hosts that did not answer a verb that only looks.
    given_up: GivenUp,
    patience: Duration,
}

struct Kept {
    remote: Arc<dyn Remote>,
    story: Arc<Story>,
    /// The address at which each host was last reached.
    at: BTreeMap<HostName, Option<Ipv4Addr>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::new(Box::new(over_ssh))
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

impl Connections {
    pub(super) fn new(dial: Dial) -> Self {
        Self {
            dial,
            holder: OnceLock::new(),
            record: OnceLock::new(),
            shared: OnceLock::new(),
            planned: std::sync::Mutex::default(),
            listener: Listener::default(),
            kept: Mutex::default(),
            given_up: GivenUp::default(),
            patience: PATIENCE,
        }
    }

    /// The same for hosts that answer at once if they do at all.
    #[cfg(test)]
    pub(super) fn impatient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// From now on, connections take the lease on their host and stay open until [`Self::close`].
    pub(super) fn keep(&self, holder: &Holder, record: Record, shared: Option<Arc<Shared>>) {
        // A run has only one holder.
        let _ = self.holder.set(holder.clone());
        let _ = self.record.set(record);
        if let Some(shared) = shared {
            let _ = self.shared.set(shared);
        }
    }

    /// Notes for the history what a plan of this run has.
    pub(super) fn note_plan(&self, steps: usize, changes: usize) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        *planned = (planned.0 + steps, planned.1 + changes);
    }

    /// Gives the hosts the line of their history that says how this run has ended. They write it when the lease is given
    /// back.
    pub(super) async fn conclude(&self, error: Option<&Error>) {
        let kept = self.kept.lock().await;
        let (Some(record), Some(kept)) = (self.record.get(), kept.as_ref()) else {
            return;
        };
        let at = jiff::Timestamp::now();
        let (steps, changes) = *self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = Ended {
            at,
            seconds: (at - record.began)
                .total(jiff::Unit::Second)
                .unwrap_or_default(),
            exit_code: error.map_or(0, |error| error.kind().exit_code()),
            error: error.map(|error| error.code().word().to_owned()),
            steps,
            changes,
        };
        let record = Record {
            ended: Some(ended),
            ..record.clone()
        };
        // It is said once: what comes after it has connections of its own.
        let _ = kept.story.ends.set(record.line());
    }

    /// The run that owns these connections.
    pub(super) fn holder(&self) -> Holder {
        let kept = self.holder.get().cloned();
        kept.unwrap_or_else(|| Holder::now("up"))
    }

    /// From now on, `events` reports what the run waits for.
    pub(super) fn tell(&self, events: &Events) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        *listener = Some(events.clone());
    }

    pub(super) fn are_kept(&self) -> bool {
        self.holder.get().is_some()
    }

    /// Opens a separate connection, which takes no lease and is not kept.
    pub(super) fn apart(&self, way: Way) -> Arc<dyn Remote> {
        (self.dial)(way, None)
    }

    /// The run's connections; if connections are not kept, new ones from `make`.
    pub(super) async fn to(
        &self,
        cluster: &str,
        machines: &[Machine],
        make: impl FnOnce() -> Result<Way>,
    ) -> Result<Arc<dyn Remote>> {
        let Some(holder) = self.holder.get() else {
            let (remote, given_up) = (self.apart(make()?), self.given_up.clone());
            let remote = Impatient::new(remote, machines, given_up, self.patience);
            return Ok(Arc::new(remote));
        };
        let at = machines
            .iter()
            .map(|it| (it.host.clone(), it.ssh_address.or(it.address)));
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_mut() {
            for (host, address) in at {
                let before = kept.at.insert(host.clone(), address);
                // The host has moved. The old connection leads nowhere, but would fail only after some time.
                if before.is_some_and(|before| before != address) {
                    kept.remote.forget(&host).await;
                }
            }
            return Ok(kept.remote.clone());
        }
        let story = Arc::new(Story {
            begins: self.record.get().map(Record::line).unwrap_or_default(),
            ends: OnceLock::new(),
        });
        let lease = Lease::new(cluster, holder.clone(), self.listener.clone());
        let lease = lease.telling(story.clone());
        let mut remote = (self.dial)(make()?, Some(lease));
        if let Some(shared) = self.shared.get() {
            remote = Arc::new(Guarded::new(remote, shared.clone()));
        }
        *kept = Some(Kept {
            remote: remote.clone(),
            story,
            at: at.collect(),
        });
        Ok(remote)
    }

    /// An error if no host holds the lease, although hosts were connected to.
    pub(super) async fn settle(&self) -> Result<()> {
        match self.kept.lock().await.as_ref() {
            Some(kept) => kept.remote.settle_lease(),
            None => Ok(()),
        }
    }

    /// Gives back the lease and closes the connections. After a success, they are left to the next run instead.
    pub(super) async fn close(&self, well: bool) {
        if let Some(kept) = self.kept.lock().await.take() {
            if !well {
                kept.remote.keep_none();
            }
            kept.remote.close().await;
        }
    }
}
