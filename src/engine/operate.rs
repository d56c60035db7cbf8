//! `pause`, `resume`, `reinit`, `restart` and `failover`, each with checks before it and a proof after it.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    observe::Observed,
    operator::{Answer, Question, consent},
    prove::SETTLING,
    run::Run,
    switchover::{self, CREW, LIMITS},
    taken::{Leftovers, Taken},
};
use crate::{
    cluster::Cluster,
    drill::{
        Clients, Load, Standing, narrate,
        record::{Drill, Record},
        watched,
    },
    error::{Code, Error, Result},
    event::Event,
    inventory::{HostName, Role},
    plan::{
        Plan,
        operate::{self, Seen, Which},
    },
    poll,
    quantity::{count, duration},
    services::postgres::patroni::{self, Topology},
    verify::{Check, Proof},
    workspace,
};

/// How long a cluster with unreachable hosts may take to settle.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients may take to connect before a restart is measured.
const GETTING_GOING: Duration = Duration::from_secs(15);

/// The operation.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Pause,
    Resume,
    Reinit(String),
    Restart { host: Option<String>, pending: bool },
    Failover { to: String, force: bool },
}

impl Operation {
    fn verb(&self) -> &'static str {
        match self {
            Operation::Pause => "pause",
            Operation::Resume => "resume",
            Operation::Reinit(_) => "reinit",
            Operation::Restart { .. } => "restart",
            Operation::Failover { .. } => "failover",
        }
    }

    fn host(&self) -> Option<&str> {
        match self {
            Operation::Pause | Operation::Resume => None,
            Operation::Reinit(host) | Operation::Failover { to: host, .. } => Some(host),
            Operation::Restart { host, .. } => host.as_deref(),
        }
    }
}

/// Does it; returns the result as a sentence.
pub(crate) async fn run(
    operation: &Operation,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<String> {
    let host = operation
        .host()
        .map(|name| switchover::member(context, name))
        .transpose()?;
    let taken = Taken::by(context, operation.verb(), Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            context
                .on(running, &run.events, async |connected| {
                    let operation = OperationRun {
                        operation,
                        host: host.as_ref(),
                        connected,
                        run,
                    };
                    operation.carry_out().await
                })
                .await
        })
        .await
}

struct OperationRun<'a> {
    operation: &'a Operation,
    host: Option<&'a HostName>,
    connected: &'a Connected<'a>,
    run: &'a Run<'a>,
}

impl OperationRun<'_> {
    async fn carry_out(&self) -> Result<String> {
        let observed = self.connected.look().await?.not_mixed_up()?;
        observed.members_as_declared()?;
        if !matches!(
            self.operation,
            Operation::Pause | Operation::Resume | Operation::Failover { .. }
        ) {
            self.connected.certificates_valid(&observed)?;
        }
        let cluster = observed.cluster.clone();
        let survey = patroni::survey(&self.connected.http, &cluster).await;
        let topology = patroni::overview(&self.connected.http, &survey).await;
        let seen = Seen {
            cluster: &cluster,
            survey: &survey,
            topology: topology.as_ref(),
        };
        let doors = running_doors(&observed);
        let plan = self.plan(&seen, &doors)?;
        self.connected.announce(&plan);
        if plan.is_empty() {
            return Ok(self.settled(&cluster));
        }
        let question = Question::Operate {
            operation: self.operation,
            host: self.host,
            seen: &seen,
        };
        let operator = self.run.context.operator.as_ref();
        if consent(operator, question).await? == Answer::Yes {
            self.still(&seen, &plan, &doors).await?;
        }
        let mut told = String::new();
        if matches!(self.operation, Operation::Restart { .. }) {
            if let Some(drill) = self.measured(plan, &cluster).await? {
                told = felt(&drill);
            }
        } else {
            self.execute(plan, &cluster).await?;
        }
        if matches!(self.operation, Operation::Pause) {
            return Ok(paused(&seen));
        }
        let topology = self.prove().await?;
        Ok(self.told(&cluster, topology.as_ref(), true, &told))
    }

    fn plan(&self, seen: &Seen<'_>, doors: &[HostName]) -> Result<Plan> {
        match (self.operation, self.host) {
            (Operation::Pause, _) => operate::pause(seen, true),
            (Operation::Resume, _) => operate::pause(seen, false),
            (Operation::Reinit(_), Some(host)) => operate::reinit(seen, host),
            (Operation::Failover { force, .. }, Some(to)) => operate::failover(seen, to, *force),
            (Operation::Restart { pending, .. }, host) => {
                let which = host.map_or(Which::All, Which::One);
                operate::restart(seen, which, *pending, doors)
            }
            (Operation::Reinit(_) | Operation::Failover { .. }, None) => {
                Err(Error::new(Code::InvalidArguments, "no host is named"))
            }
        }
    }

    /// The message if there is nothing to do.
    fn settled(&self, cluster: &Cluster) -> String {
        let name = cluster.name();
        match self.operation {
            Operation::Pause => format!("the cluster {name} is paused already"),
            Operation::Resume => format!("the cluster {name} is not paused"),
            _ => "no parameter waits for a restart".into(),
        }
    }

    /// Observes the cluster again after the user has answered, which may have taken an hour.
    async fn still(&self, seen: &Seen<'_>, plan: &Plan, doors: &[HostName]) -> Result<()> {
        let survey = patroni::survey(&self.connected.http, seen.cluster).await;
        let topology = patroni::overview(&self.connected.http, &survey).await;
        let now = Seen {
            cluster: seen.cluster,
            survey: &survey,
            topology: topology.as_ref(),
        };
        let again = self.plan(&now, doors)?;
        operate::still((seen, plan), (&now, &again), self.host)
    }

    async fn execute(&self, plan: Plan, cluster: &Arc<Cluster>) -> Result<()> {
        self.connected
            .carry_out(plan, cluster, self.run.cancel)
            .await
    }

    /// Executes the plan while clients write and read. Their measurements go into the run's record. `None` if
    /// no client could connect at the beginning.
    async fn measured(&self, plan: Plan, cluster: &Arc<Cluster>) -> Result<Option<Drill>> {
        let load = match self.clients_at_work(cluster).await {
            Ok(load) => load,
            Err(error) => {
                self.run.context.operator.say(&format!(
                    "note: not measured, since no client can connect: {error}"
                ));
                self.execute(plan, cluster).await?;
                return Ok(None);
            }
        };
        let from = load.recorder().now();
        let done = tokio::select! {
            done = self.execute(plan, cluster) => done,
            never = narrate(&load, &self.connected.events) => match never {},
        };
        let drill = watched(load, from, &LIMITS).await;
        done?;
        let drill = drill?;
        let record = Record::of(cluster, self.run.begun, LIMITS, vec![drill.clone()]);
        record.write(&self.run.folder)?;
        record.verdict().map_or(Ok(Some(drill)), Err)
    }

    async fn clients_at_work(&self, cluster: &Arc<Cluster>) -> Result<Load> {
        let clients = Clients::find(
            cluster.clone(),
            self.connected.remote.clone(),
            self.connected.tls.clone(),
            &self.connected.machines,
        )
        .await?;
        let folder = self.run.folder.join("clients");
        workspace::private_folder(&folder)?;
        let load = Load::start(Arc::new(clients), &folder, &CREW, Standing::Leased).await?;
        let served = poll::until(GETTING_GOING, Duration::from_millis(50), || async {
            if load.view().writes < 20 {
                Err(())
            } else {
                Ok(())
            }
        });
        match served.await {
            Ok(()) => Ok(load),
            Err(_) => Err(Error::new(
                Code::ClientsNotServed,
                format!("no write succeeded within {} s", GETTING_GOING.as_secs()),
            )),
        }
    }

    /// Verifies the cluster, as far as its hosts can be reached.
    async fn prove(&self) -> Result<Option<Topology>> {
        let observed = self.connected.look().await?;
        let cluster = observed.cluster.clone();
        let name = cluster.name();
        let absent = self.connected.absent();
        let error = if observed.unreachable.is_empty() && absent.is_empty() {
            self.connected.prove(observed, SETTLING).await?.error(name)
        } else {
            let proof = self.prove_in_part(&observed).await;
            proof.announce(&self.connected.events);
            let mut error = proof.error(name).unwrap_or_else(|| {
                Error::new(
                    Code::ProvenInPart,
                    format!("the cluster {name} is verified only in part"),
                )
            });
            for host in absent {
                error = error.cause(format!("{host} does not run"));
            }
            for unreachable in &observed.unreachable {
                error = error.cause(unreachable.to_string());
            }
            Some(error)
        };
        let survey = patroni::survey(&self.connected.http, &cluster).await;
        let topology = patroni::overview(&self.connected.http, &survey).await;
        match error {
            None => Ok(topology),
            Some(error) => Err(error.left(self.told(&cluster, topology.as_ref(), false, ""))),
        }
    }

    async fn prove_in_part(&self, observed: &Observed) -> Proof {
        let prover = self.connected.prover(observed);
        self.connected.events.emit(Event::VerifyStarted);
        let stands = poll::until(TIMEOUT, Duration::from_millis(500), || async {
            let checks: Vec<Check> = prover.stand().await;
            match checks.iter().all(|check| check.passed) {
                true => Ok(checks),
                false => Err(checks),
            }
        });
        let (passed, checks) = match stands.await {
            Ok(checks) => (true, checks),
            Err(over) => (false, over.last),
        };
        Proof { passed, checks }
    }

    /// The state after the operation, as a sentence.
    fn told(
        &self,
        cluster: &Cluster,
        topology: Option<&Topology>,
        proven: bool,
        felt: &str,
    ) -> String {
        let leads = match topology.and_then(Topology::leader) {
            Some(leader) => format!("{} leads", leader.name),
            None => "no member leads".into(),
        };
        let host = self.host.map(ToString::to_string).unwrap_or_default();
        match self.operation {
            Operation::Pause => String::new(),
            Operation::Resume => {
                format!("the cluster {} fails over again; {leads}", cluster.name())
            }
            Operation::Reinit(_) if proven => {
                format!("{host} has copied its data again, and streams; {leads}")
            }
            Operation::Reinit(_) => format!("the data on {host} was copied again; {leads}"),
            Operation::Failover { .. } => format!("{host} was made the leader; {leads}"),
            Operation::Restart { .. } if felt.is_empty() => leads,
            Operation::Restart { .. } => format!("{leads}; {felt}"),
        }
    }
}

/// The front doors that answer, and whose HAProxy runs.
fn running_doors(observed: &Observed) -> Vec<HostName> {
    let runs = |host: &HostName| {
        let facts = observed.found.facts.get(host);
        facts.is_some_and(|facts| facts.unit(Role::Haproxy.unit()).is_active())
    };
    let doors = observed.cluster.with_role(Role::Haproxy);
    let doors = doors.map(|node| node.name.clone());
    doors.filter(runs).collect()
}

fn felt(drill: &Drill) -> String {
    let measured = &drill.measured;
    format!(
        "no writes for {} at the longest, no reads for {}; {} of {} missing",
        duration(measured.write_outage),
        duration(measured.read_outage),
        measured.missing,
        count(measured.acknowledged, "commit"),
    )
}

fn paused(seen: &Seen<'_>) -> String {
    let mut text = format!(
        "the cluster {} is paused: nothing fails over until `{}`",
        seen.cluster.name(),
        seen.cluster.inventory.command("resume")
    );
    let silent: Vec<&str> = seen
        .survey
        .iter()
        .filter(|(_, status)| status.is_err())
        .map(|(host, _)| host.as_str())
        .collect();
    if !silent.is_empty() {
        text.push_str(&format!(
            "; {} did not answer, and reads it from the DCS once it is back",
            silent.join(", ")
        ));
    }
    text
}
