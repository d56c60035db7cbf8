//! The hosts of a run, with a connection to each that is opened at first use.

use std::{
    path::Path,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    connections::{Way, is_at_work},
    context::Context,
    headway::Headway,
};
use crate::{
    cluster::{Cluster, TlsStage},
    error::{Code, Error, Result},
    event::{Event, Events},
    execute,
    http::Http,
    inventory::HostName,
    machine::Machine,
    plan::Plan,
    remote::{self, Keep, Output, Remote, Script},
    services::postgres::SharedSurvey,
};

/// Hosts with a connection that is open, or is opened when needed.
pub(crate) struct Connected<'a> {
    pub context: &'a Context,
    pub machines: Vec<Machine>,
    /// Hosts that do not run; only their addresses matter.
    pub resting: Vec<Machine>,
    pub remote: Arc<dyn Remote>,
    pub http: Http,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub events: Events,
    /// Whether the hosts have been connected to before: it is reported only once.
    pub(super) looked: AtomicBool,
    /// The steps that were begun on hosts before all hosts answered.
    pub(super) headway: OnceLock<Arc<Headway>>,
}

impl Context {
    /// Calls `work` with connections to the hosts. Afterwards the connections are closed, in case of an error
    /// too, unless they are kept for the whole run.
    pub(super) async fn on<T>(
        &self,
        machines: &[Machine],
        events: &Events,
        work: impl AsyncFnOnce(&Connected<'_>) -> Result<T>,
    ) -> Result<T> {
        self.on_some(machines, &[], events, work).await
    }

    /// The same if other hosts of the cluster do not run (`resting`).
    pub(super) async fn on_some<T>(
        &self,
        machines: &[Machine],
        resting: &[Machine],
        events: &Events,
        work: impl AsyncFnOnce(&Connected<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut connected = self.connect(machines, events).await?;
        connected.resting = resting.to_vec();
        let done = work(&connected).await;
        if done.is_err() {
            // The plan may have corrected sshd's settings, which apply only to new connections.
            connected.remote.keep_none();
        }
        if !self.connections.are_kept() {
            connected.remote.close().await;
        }
        done
    }

    /// Writes the hosts to `ssh_config` and returns a way to connect to them.
    ///
    /// The caller must close the connections. [`Context::on`] does.
    pub(super) async fn connect(
        &self,
        machines: &[Machine],
        events: &Events,
    ) -> Result<Connected<'_>> {
        self.workspace.pin_host_keys(machines)?;
        let config = self.workspace.write_ssh_config(machines)?;
        let remote = self
            .connections
            .to(&self.inventory.cluster, machines, || self.way(&config))
            .await?;
        let spoken = self.workspace.tls()?;
        let (trust, lenient) = if spoken.is_offered() || self.workspace.has_authority() {
            let pki = self.workspace.pki()?;
            let lenient = pki.lenient_client_config()?;
            (Some(pki.rustls_client_config()?), Some(lenient))
        } else {
            (None, None)
        };
        let http = Http::new(remote.clone(), lenient);
        if spoken != TlsStage::Required {
            http.allow_plaintext();
        }
        Ok(Connected {
            context: self,
            machines: machines.to_vec(),
            resting: Vec::new(),
            remote,
            http,
            tls: trust.filter(|_| spoken.is_offered()),
            events: events.clone(),
            looked: AtomicBool::new(false),
            headway: OnceLock::new(),
        })
    }

    /// Runs a script that only looks on each of `machines`, without any secret of the cluster. The run's lease is
    /// taken first, if it takes one.
    ///
    /// # Errors
    /// Another run is at work on the cluster.
    pub(super) async fn each(
        &self,
        machines: &[Machine],
        script: &Script,
        limit: Duration,
    ) -> Result<Vec<Result<Output>>> {
        let config = self.workspace.write_ssh_config(machines)?;
        let cluster = &self.inventory.cluster;
        let remote = self
            .connections
            .to(cluster, machines, || self.way(&config))
            .await?;
        let asked = machines.iter().map(|machine| {
            let (host, remote) = (&machine.host, remote.as_ref());
            async move {
                let silent = |_, _: &str| {};
                // The lease has its own time limit.
                match timeout(limit, remote.reach(host)).await {
                    Ok(reached) => reached?,
                    Err(_) => return Err(silence(host, limit)),
                }
                remote.connect(host).await?;
                remote.run(host, script, limit, &silent).await
            }
        });
        let answers = join_all(asked).await;
        if !self.connections.are_kept() {
            remote.close().await;
        }
        let mut all = Vec::new();
        for answer in answers {
            match answer {
                Err(error) if is_at_work(&error) => return Err(error),
                answer => all.push(answer),
            }
        }
        Ok(all)
    }

    /// How SSH reaches the hosts, by an `ssh_config`.
    pub(super) fn way(&self, config: &Path) -> Result<Way> {
        let sockets = self.workspace.control_dir()?;
        Ok(Way {
            config: config.to_owned(),
            passes: self.workspace.is_preview(),
            keep: self.keep(sockets.path())?,
            sockets,
            timeout: Duration::from_secs(self.inventory.ssh.connect_timeout.into()),
        })
    }

    /// How a run keeps its connections for the next run. Their sockets are in that folder.
    fn keep(&self, sockets: &Path) -> Result<Option<Keep>> {
        let seconds = self.inventory.ssh.keep_alive;
        if seconds == 0 {
            return Ok(None);
        }
        let Some(folder) = self.workspace.kept_dir(sockets)? else {
            return Ok(None);
        };
        Ok(Some(Keep {
            folder,
            seconds,
            known_hosts: self.workspace.known_hosts_path(),
            identity: self.workspace.identity_path()?,
            settings: self.inventory.ssh.config.clone(),
        }))
    }

    /// Closes the connections that are kept for the next run; returns how many there were.
    pub(crate) async fn close_kept(&self) -> Result<usize> {
        let beside = self.workspace.control_dir()?;
        Ok(match self.workspace.kept_dir(beside.path())? {
            Some(folder) => remote::close_kept(&folder).await,
            None => 0,
        })
    }
}

fn silence(host: &HostName, limit: Duration) -> Error {
    let what = format!("no answer within {} s", limit.as_secs());
    Error::new(Code::SshUnreachable, what).on(host)
}

impl Connected<'_> {
    /// The inventory's hosts that are not among the machines.
    pub(crate) fn absent(&self) -> Vec<HostName> {
        let there = |host: &HostName| self.machines.iter().any(|machine| machine.host == *host);
        let hosts = self.context.inventory.hosts.keys();
        hosts.filter(|host| !there(host)).cloned().collect()
    }

    /// Executes a plan. Steps that have begun already are not repeated.
    pub(super) async fn carry_out(
        &self,
        plan: Plan,
        cluster: &Arc<Cluster>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let context = self.execution(cluster, cancel);
        match self.headway.get().and_then(|it| it.take_walk()) {
            Some(walk) => {
                walk.add(plan, &context);
                walk.end().await
            }
            None => execute::execute(plan, &context).await,
        }
    }

    /// What the execution of a plan needs.
    pub(super) fn execution(
        &self,
        cluster: &Arc<Cluster>,
        cancel: &CancellationToken,
    ) -> execute::Context {
        execute::Context {
            cluster: cluster.clone(),
            remote: self.remote.clone(),
            http: self.http.clone(),
            events: self.events.clone(),
            survey: SharedSurvey::default(),
            cancel: cancel.clone(),
        }
    }

    /// Reports how many steps there are.
    pub(super) fn announce(&self, plan: &Plan) {
        let (steps, changes) = (plan.steps.len(), plan.changes());
        self.context.connections.note_plan(steps, changes);
        self.events.emit(Event::Planned {
            steps: plan.steps.len(),
            changes: plan.changes(),
        });
    }
}
