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
    provider::{Machine, Provider},
    quantity::count,
    remote::{Remote, Script},
    services::{keepalived, postgres::patroni},
    switchover::{self, Handover},
};

/// How long a unit may take to be told; none is waited for.
const ORDER: Duration = Duration::from_secs(20);
/// How long a unit may take to start: PostgreSQL may have to recover first.
const START: Duration = Duration::from_secs(120);

/// What breaking and repairing work with.
pub struct Tools<'a> {
    pub cluster: Arc<Cluster>,
    pub remote: Arc<dyn Remote>,
    pub http: Http,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub provider: &'a dyn Provider,
}

/// A fault that can be made: a scenario and the hosts that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub scenario: Scenario,
    pub hosts: Vec<HostName>,
    /// Who is to lead after a switchover; the best replica where nobody is named.
    pub candidate: Option<HostName>,
    /// How long replication is held up before a host dies.
    pub lag: Option<Duration>,
}

impl Fault {
    /// Chooses the hosts by what the cluster is at this moment.
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
            Scenario::HaproxyRestart => with_role(Role::Haproxy),
            Scenario::HaproxyDown => {
                let holder = keepalived::holder(&tools.cluster, tools.remote.as_ref()).await;
                let doors: Vec<HostName> = with_role(Role::Haproxy);
                holder.or(doors.into_iter().next()).into_iter().collect()
            }
            Scenario::Watch => Vec::new(),
            Scenario::ReplicaDown => {
                let survey = patroni::survey(&tools.http, &tools.cluster).await;
                // The same as who would take over: losing that one costs most.
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

    /// Seconds that writes may be refused by what the timing settings say.
    pub fn bound(&self, inventory: &Inventory) -> f64 {
        let bound = self.scenario.bound(inventory);
        match self.lag {
            // Commits wait for a standby that hears nothing.
            Some(lag) if inventory.patroni.synchronous => bound + lag.as_secs_f64(),
            _ => bound,
        }
    }

    /// What is done before clients are to feel anything.
    pub async fn prepare(&self, tools: &Tools<'_>) -> Result<()> {
        if self.scenario != Scenario::Switchover {
            return Ok(());
        }
        // A large one takes its time; what has come since is written once more by the hand-over itself.
        let leader = self.handover(tools).await?.from;
        let remote: &dyn Remote = tools.remote.as_ref();
        let limit = switchover::CHECKPOINT;
        match switchover::checkpoint(&leader, &tools.cluster, remote, limit).await {
            Ok(()) => Ok(()),
            // A PostgreSQL that cannot write ends, and takes the reason along.
            Err(error) => Err(space::tell(error, &[leader].into(), remote, &tools.cluster).await),
        }
    }

    /// Breaks it. `machines` are the hosts as the provider knew them before.
    pub async fn inject(&self, tools: &Tools<'_>, machines: &[Machine]) -> Result<()> {
        match self.scenario {
            Scenario::Watch => Ok(()),
            Scenario::Switchover => {
                let handover = self.handover(tools).await?;
                let remote: &dyn Remote = tools.remote.as_ref();
                let (http, cluster) = (&tools.http, &tools.cluster);
                handover
                    .run(http, remote, cluster, switchover::TIMEOUT)
                    .await
            }
            Scenario::StopLeader | Scenario::ReplicaDown => {
                // It is not waited for: what counts is when clients notice.
                self.everywhere(tools, "systemctl stop --no-block patroni", ORDER)
                    .await
            }
            Scenario::KillLeader => {
                self.everywhere(tools, "systemctl kill -s KILL patroni", ORDER)
                    .await
            }
            Scenario::EtcdDown => self.everywhere(tools, "systemctl stop etcd", ORDER).await,
            Scenario::HaproxyRestart => {
                self.everywhere(tools, "systemctl restart haproxy", ORDER)
                    .await
            }
            Scenario::HaproxyDown if !tools.provider.can_crash() => {
                // Stopped after that, so that systemd does not start them again.
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

    /// Puts it right. Safe to call again, and when nothing was broken after all.
    pub async fn repair(&self, tools: &Tools<'_>, machines: &[Machine]) -> Result<()> {
        match self.scenario {
            Scenario::Watch | Scenario::Switchover => Ok(()),
            Scenario::StopLeader | Scenario::ReplicaDown | Scenario::KillLeader => {
                self.everywhere(tools, "systemctl start patroni", START)
                    .await
            }
            Scenario::EtcdDown => self.everywhere(tools, "systemctl start etcd", START).await,
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
                    // SSH still has its connection to what was there before.
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

/// The command that tells systemd `verb` about all units of a front door.
fn of_front_doors(tools: &Tools<'_>, verb: &str) -> String {
    let has = |role: &Role| tools.cluster.with_role(*role).next().is_some();
    let roles = [Role::Haproxy, Role::Keepalived].into_iter().filter(has);
    let units: Vec<&str> = roles.map(Role::unit).collect();
    format!("systemctl {verb} {}", units.join(" "))
}
