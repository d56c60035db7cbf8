//! How each scenario breaks the cluster, and how the fault is repaired.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::Scenario;
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    execute::space,
    http::Http,
    inventory::{HostName, Inventory, Role},
    plan::restore::TAKEN,
    provider::{Machine, Provider},
    quantity::count,
    remote::{Remote, Script},
    services::{keepalived, postgres::patroni},
    switchover::{self, Handover},
};

/// How long a command to a unit may take; none waits for the unit.
const ORDER: Duration = Duration::from_secs(20);
/// How long a unit may take to start: PostgreSQL may have to recover first.
const START: Duration = Duration::from_secs(120);

/// What is needed to break and to repair.
pub struct Tools<'a> {
    pub cluster: Arc<Cluster>,
    pub remote: Arc<dyn Remote>,
    pub http: Http,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub provider: &'a dyn Provider,
}

/// A possible fault: a scenario and its hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub scenario: Scenario,
    pub hosts: Vec<HostName>,
    /// The member that will lead after a switchover; `None` for the best replica.
    pub candidate: Option<HostName>,
    /// How long replication is delayed before a host dies.
    pub lag: Option<Duration>,
}

impl Fault {
    /// Chooses the hosts by the cluster's present state.
    pub async fn aim(scenario: Scenario, tools: &Tools<'_>) -> Result<Self> {
        let with_role = |role| {
            tools
                .cluster
                .with_role(role)
                .map(|node| node.name.clone())
                .collect()
        };
        let hosts = match scenario {
            Scenario::EtcdDown => with_role(Role::Etcd),
            Scenario::ArchiveDown => with_role(Role::Backup),
            Scenario::DropTable => vec![beside(tools).await?],
            Scenario::HaproxyRestart => with_role(Role::Haproxy),
            Scenario::HaproxyDown => {
                let holder = keepalived::holder(&tools.cluster, tools.remote.as_ref()).await;
                let doors: Vec<HostName> = with_role(Role::Haproxy);
                holder.or(doors.into_iter().next()).into_iter().collect()
            }
            Scenario::Watch => Vec::new(),
            Scenario::ReplicaDown => {
                let survey = patroni::survey(&tools.http, &tools.cluster).await;
                // The member that would take over: losing this one costs most.
                let handover = Handover::plan(&survey, None)?;
                handover.into_iter().map(|handover| handover.to).collect()
            }
            Scenario::Switchover
            | Scenario::StopLeader
            | Scenario::KillLeader
            | Scenario::CrashHost
            | Scenario::IsolateLeader => {
                let survey = patroni::survey(&tools.http, &tools.cluster).await;
                let leader = patroni::leader_of(&survey)
                    .ok_or_else(|| Error::new(Code::NoLeader, "the cluster has no leader"))?;
                vec![leader.clone()]
            }
        };
        Ok(Self {
            scenario,
            hosts,
            candidate: None,
            lag: None,
        })
    }

    /// How many seconds the timing settings allow writes to be refused.
    pub fn bound(&self, inventory: &Inventory) -> f64 {
        let bound = self.scenario.bound(inventory);
        match self.lag {
            // Commits wait for a standby that gets no WAL.
            Some(lag) if inventory.patroni.synchronous => bound + lag.as_secs_f64(),
            _ => bound,
        }
    }

    /// What is done before clients notice anything.
    pub async fn prepare(&self, tools: &Tools<'_>) -> Result<()> {
        if self.scenario != Scenario::Switchover {
            return Ok(());
        }
        // A large checkpoint takes long. The hand-over itself writes what has changed since.
        let leader = self.handover(tools).await?.from;
        let remote: &dyn Remote = tools.remote.as_ref();
        let limit = switchover::CHECKPOINT;
        match switchover::checkpoint(&leader, &tools.cluster, remote, limit).await {
            Ok(()) => Ok(()),
            // If PostgreSQL cannot write its output, it ends, and the reason is lost.
            Err(error) => Err(space::tell(error, &[leader].into(), remote, &tools.cluster).await),
        }
    }

    /// Breaks it. `machines` are the hosts as the provider knew them before.
    pub async fn inject(&self, tools: &Tools<'_>, machines: &[Machine]) -> Result<()> {
        match self.scenario {
            // The runner itself drops the table.
            Scenario::Watch | Scenario::DropTable => Ok(()),
            Scenario::Switchover => {
                let handover = self.handover(tools).await?;
                let remote: &dyn Remote = tools.remote.as_ref();
                let (http, cluster) = (&tools.http, &tools.cluster);
                handover
                    .run(http, remote, cluster, switchover::TIMEOUT)
                    .await
            }
            Scenario::StopLeader | Scenario::ReplicaDown => {
                // Not waited for: the time at which clients notice is what matters.
                self.everywhere(tools, "systemctl stop --no-block patroni", ORDER)
                    .await
            }
            Scenario::KillLeader => {
                self.everywhere(tools, "systemctl kill -s KILL patroni", ORDER)
                    .await
            }
            Scenario::EtcdDown => self.everywhere(tools, "systemctl stop etcd", ORDER).await,
            Scenario::ArchiveDown => {
                let stop = format!("systemctl stop {}", Role::Backup.unit());
                self.everywhere(tools, &stop, ORDER).await
            }
            Scenario::HaproxyRestart => {
                self.everywhere(tools, "systemctl restart haproxy", ORDER)
                    .await
            }
            Scenario::HaproxyDown if !tools.provider.can_crash() => {
                // Stopped afterwards, so that systemd does not start them again.
                let kill = of_front_doors(tools, "kill -s KILL");
                let stop = of_front_doors(tools, "stop");
                let line = format!("{kill}; {stop}");
                self.everywhere(tools, &line, ORDER).await
            }
            Scenario::CrashHost | Scenario::HaproxyDown => {
                for machine in self.machines(machines) {
                    tools.provider.crash(machine).await?;
                }
                Ok(())
            }
            Scenario::IsolateLeader => {
                for machine in self.machines(machines) {
                    tools.provider.isolate(machine).await?;
                }
                Ok(())
            }
        }
    }

    /// Repairs it. This may be repeated, and may be called if nothing was broken.
    pub async fn repair(&self, tools: &Tools<'_>, machines: &[Machine]) -> Result<()> {
        match self.scenario {
            Scenario::Watch | Scenario::Switchover => Ok(()),
            Scenario::StopLeader | Scenario::ReplicaDown | Scenario::KillLeader => {
                self.everywhere(tools, "systemctl start patroni", START)
                    .await
            }
            Scenario::EtcdDown => self.everywhere(tools, "systemctl start etcd", START).await,
            Scenario::ArchiveDown => {
                let start = format!("systemctl start {}", Role::Backup.unit());
                self.everywhere(tools, &start, START).await
            }
            Scenario::DropTable => {
                let clearing =
                    format!("systemctl stop pgherd-take-out 2>/dev/null || true; rm -rf {TAKEN}");
                self.everywhere(tools, &clearing, START).await
            }
            Scenario::HaproxyRestart => {
                self.everywhere(tools, "systemctl start haproxy", START)
                    .await
            }
            Scenario::HaproxyDown if !tools.provider.can_crash() => {
                let start = of_front_doors(tools, "start");
                self.everywhere(tools, &start, START).await
            }
            Scenario::CrashHost | Scenario::HaproxyDown | Scenario::IsolateLeader => {
                for machine in self.machines(machines) {
                    if self.scenario == Scenario::IsolateLeader {
                        tools.provider.rejoin(machine).await?;
                    } else {
                        tools.provider.revive(machine).await?;
                    }
                    // SSH still has its connection to the earlier machine.
                    tools.remote.forget(&machine.host).await;
                }
                Ok(())
            }
        }
    }

    async fn handover(&self, tools: &Tools<'_>) -> Result<Handover> {
        let survey = patroni::survey(&tools.http, &tools.cluster).await;
        Handover::plan(&survey, self.candidate.as_ref())?
            .ok_or_else(|| Error::new(Code::DrillAborted, "the candidate leads already"))
    }

    fn machines<'a>(&'a self, machines: &'a [Machine]) -> impl Iterator<Item = &'a Machine> {
        machines
            .iter()
            .filter(|machine| self.hosts.contains(&machine.host))
    }

    async fn everywhere(&self, tools: &Tools<'_>, line: &str, limit: Duration) -> Result<()> {
        let script = Script::new().line(line);
        let told = join_all(self.hosts.iter().map(|host| {
            let script = &script;
            async move {
                let quiet = |_, _: &str| {};
                let output = tools.remote.run(host, script, limit, &quiet).await?;
                if output.success() {
                    return Ok(());
                }
                Err(Error::new(Code::DrillAborted, format!("`{line}` failed"))
                    .on(host)
                    .excerpt("stderr", output.stderr))
            }
        }))
        .await;
        let mut failures: Vec<Error> = told.into_iter().filter_map(Result::err).collect();
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            many => Err(Error::several(
                format!("{} failed", count(many, "host")),
                failures,
            )),
        }
    }
}

/// The member beside which a moment is restored: the first replica that runs, or the leader.
async fn beside(tools: &Tools<'_>) -> Result<HostName> {
    let survey = patroni::survey(&tools.http, &tools.cluster).await;
    let leader = patroni::leader_of(&survey);
    let runs = |host: &&HostName| {
        let status = survey.get(*host);
        status.is_some_and(|it| it.as_ref().is_ok_and(patroni::Status::is_running))
    };
    let mut replicas = survey.keys().filter(|host| Some(*host) != leader);
    let place = replicas.find(runs).or(leader).cloned();
    place.ok_or_else(|| Error::new(Code::NoLeader, "the cluster has no leader"))
}

/// The command by which systemd applies `verb` to all units of a front door.
fn of_front_doors(tools: &Tools<'_>, verb: &str) -> String {
    let has = |role: &Role| tools.cluster.with_role(*role).next().is_some();
    let roles = [Role::Haproxy, Role::Keepalived].into_iter().filter(has);
    let units: Vec<&str> = roles.map(Role::unit).collect();
    format!("systemctl {verb} {}", units.join(" "))
}
