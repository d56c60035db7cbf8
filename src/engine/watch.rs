//! The topology as it changes, for `status --watch`.
//!
//! Every host is asked separately, so that a host that does not answer delays no other.
//!
//! This file names three services and does not ask the table. A picture is about what these services form together: who
//! leads, whether etcd answers, and where the front doors lead. The keys of its JSON are part of the command line's
//! contract. A service that takes no part in this has nothing to add to a picture; `status` shows it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::{
    at_work::{self, AtWork},
    connected::Connected,
    context::Context,
    hosts::HostStatus,
};
use crate::{
    cluster::Cluster,
    error::Result,
    event::Events,
    facts,
    holder::Tenant,
    inventory::{HostName, Role},
    services::{
        etcd::Etcd,
        haproxy,
        postgres::patroni::{Patroni, Status},
    },
};

pub(crate) use crate::services::haproxy::{READ, WRITE};

/// The time between two questions.
pub(crate) const PERIOD: Duration = Duration::from_millis(500);
/// The time limit for an answer. The SSH connection to a dead host would hold a question for long.
const ANSWER: Duration = Duration::from_secs(2);
/// The time between two questions for a host's lease. Each question starts a shell there.
const LEASE: Duration = Duration::from_secs(2);
/// How often to look for the addresses of hosts that do not answer.
const SEARCH: Duration = Duration::from_secs(5);

/// What one member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    pub role: String,
    pub state: String,
    pub timeline: Option<u64>,
    /// The end of the leader's WAL, or the position up to which a replica has replayed it, in bytes.
    pub position: Option<u64>,
}

/// The backends that are up, by listener.
pub(crate) type Backends = BTreeMap<String, Vec<String>>;

/// Everything as last seen; `None` means no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Picture {
    pub members: BTreeMap<String, Option<Member>>,
    pub etcd: BTreeMap<String, Option<bool>>,
    /// The backends that are up, by listener; `None` if HAProxy does not answer. With several front doors, this
    /// is the answer of the first one that answers.
    pub backends: Option<Backends>,
    /// The same for each front door, if there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub front_doors: BTreeMap<String, Option<Backends>>,
    /// The run that has the hosts.
    pub at_work: Option<AtWork>,
}

/// Asks all hosts while `show` runs. `show` can read the latest view at any time.
pub(crate) async fn watch(
    context: &Context,
    hosts: &HostStatus,
    show: impl AsyncFnOnce(&Watcher<'_>),
) -> Result<()> {
    let (events, _quiet) = Events::channel();
    let running = hosts.some(context)?;
    context
        .on_some(running, &hosts.stopped, &events, async |connected| {
            let watcher = Watcher {
                connected,
                cluster: connected.look().await?.cluster,
                seen: Mutex::default(),
                tenants: Mutex::default(),
            };
            tokio::select! {
                () = watcher.ask_all() => {}
                () = show(&watcher) => {}
            }
            Ok(())
        })
        .await
}

pub(crate) struct Watcher<'a> {
    connected: &'a Connected<'a>,
    cluster: Arc<Cluster>,
    seen: Mutex<Picture>,
    /// The holder of the lease on each host, if there is one.
    tenants: Mutex<BTreeMap<HostName, Tenant>>,
}

impl Watcher<'_> {
    /// The latest view.
    pub(crate) fn picture(&self) -> Picture {
        self.seen().clone()
    }

    pub(crate) fn cluster(&self) -> &str {
        self.cluster.name()
    }

    fn seen(&self) -> MutexGuard<'_, Picture> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks all hosts, without end.
    async fn ask_all(&self) {
        let http = &self.connected.http;
        let members = self.cluster.with_role(Role::Postgres).map(|node| {
            let host = &node.name;
            self.ask(host, async move || {
                let status = Patroni::on(http, host).status().await;
                let member = status.ok().map(member_of);
                let answered = member.is_some();
                self.seen().members.insert(host.to_string(), member);
                answered
            })
        });
        let etcd = self.cluster.with_role(Role::Etcd).map(|node| {
            let host = &node.name;
            self.ask(host, async move || {
                let healthy = Etcd::on(http, host).healthy().await.ok();
                self.seen().etcd.insert(host.to_string(), healthy);
                healthy.is_some()
            })
        });
        let haproxy = self.cluster.with_role(Role::Haproxy).map(|node| {
            let host = &node.name;
            self.ask(host, async move || {
                let servers = haproxy::servers(http, &self.cluster, host).await.ok();
                let answered = servers.is_some();
                self.leads(host, servers.map(|servers| backends_of(&servers)));
                answered
            })
        });
        let machines = self.connected.machines.iter();
        let leases = machines.map(|machine| self.ask_for_lease(&machine.host));
        tokio::join!(
            join_all(members),
            join_all(etcd),
            join_all(haproxy),
            join_all(leases)
        );
    }

    /// Asks a host for its lease, again and again.
    async fn ask_for_lease(&self, host: &HostName) {
        let silent = |_, _: &str| {};
        let script = facts::lease();
        loop {
            // Whether a host answers is known from the other questions.
            let told = self.connected.remote.run(host, &script, ANSWER, &silent);
            let told = told.await.ok();
            self.holds(host, told.and_then(|output| facts::leased(&output.stdout)));
            sleep(LEASE).await;
        }
    }

    /// Records the holder of a host's lease.
    fn holds(&self, host: &HostName, tenant: Option<Tenant>) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenant {
            Some(tenant) => tenants.insert(host.clone(), tenant),
            None => tenants.remove(host),
        };
        self.seen().at_work = at_work::watched(&tenants);
    }

    /// Repeats a question; `question` returns whether there was an answer.
    async fn ask(&self, host: &HostName, question: impl AsyncFn() -> bool) {
        let mut searched = Instant::now();
        loop {
            let answered = timeout(ANSWER, question()).await;
            if answered != Ok(true) {
                if answered.is_err() {
                    self.silent(host);
                }
                self.connected.remote.forget(host).await;
                if searched.elapsed() > SEARCH {
                    searched = Instant::now();
                    self.search().await;
                }
            }
            sleep(PERIOD).await;
        }
    }

    /// Records where a front door leads.
    fn leads(&self, host: &HostName, backends: Option<Backends>) {
        let several = self.cluster.with_role(Role::Haproxy).nth(1).is_some();
        let mut seen = self.seen();
        if !several {
            seen.backends = backends;
            return;
        }
        seen.front_doors.insert(host.to_string(), backends);
        seen.backends = seen.front_doors.values().flatten().next().cloned();
    }

    /// If a host does not answer in time, nothing is known of its services.
    fn silent(&self, host: &HostName) {
        let mut seen = self.seen();
        let name = host.as_str();
        if let Some(member) = seen.members.get_mut(name) {
            *member = None;
        }
        if let Some(etcd) = seen.etcd.get_mut(name) {
            *etcd = None;
        }
        let is_door = self
            .cluster
            .node(host)
            .is_some_and(|node| node.roles.contains(&Role::Haproxy));
        drop(seen);
        if is_door {
            self.leads(host, None);
        }
    }

    /// Hosts may have moved.
    async fn search(&self) {
        if let Ok(hosts) = self.connected.context.host_status().await {
            // If the file cannot be written now, it is written next time.
            let _ = self
                .connected
                .context
                .workspace
                .write_ssh_config(&hosts.running);
        }
    }
}

fn member_of(status: Status) -> Member {
    let leads = status.is_primary();
    Member {
        role: match status.role.as_str() {
            "primary" | "master" => "leader".to_owned(),
            role => role.to_owned(),
        },
        state: match status.replication_state {
            Some(state) if status.state == "running" => state,
            _ => status.state,
        },
        timeline: status.timeline,
        position: if leads {
            status.xlog.location
        } else {
            status.xlog.replayed_location
        },
    }
}

fn backends_of(servers: &[haproxy::Server]) -> Backends {
    let mut backends = BTreeMap::from([
        (WRITE.to_owned(), Vec::new()),
        (READ.to_owned(), Vec::new()),
    ]);
    for server in servers.iter().filter(|server| server.is_up()) {
        backends
            .entry(server.listener.clone())
            .or_default()
            .push(server.name.clone());
    }
    backends
}

impl Picture {
    /// A replica's lag behind the leader, in bytes.
    pub(crate) fn lag(&self, member: &Member) -> Option<u64> {
        let leader = self
            .members
            .values()
            .flatten()
            .find(|member| member.role == "leader")?;
        (member.role != "leader")
            .then(|| Some(leader.position?.saturating_sub(member.position?)))
            .flatten()
    }

    /// Where each front door's listener leads, with its label. With only one front door, the label has no host
    /// name.
    pub(crate) fn leads_to(&self, listener: &str) -> BTreeMap<String, String> {
        let words = |backends: &Option<Backends>| Self::words(backends.as_ref(), listener);
        match self.front_doors.len() {
            0 => BTreeMap::from([(format!("{listener} port"), words(&self.backends))]),
            _ => self
                .front_doors
                .iter()
                .map(|(host, backends)| (format!("{listener} port of {host}"), words(backends)))
                .collect(),
        }
    }

    fn words(backends: Option<&Backends>, listener: &str) -> String {
        match backends {
            None => "no answer".to_owned(),
            Some(backends) => match backends.get(listener).map(Vec::as_slice) {
                None | Some([]) => "nobody".to_owned(),
                Some(names) => names.join(", "),
            },
        }
    }
}
