//! `pgherd pause`, `resume`, `reinit`, `restart` and `failover`: what is done to a running cluster by hand elsewhere,
//! with a guard before and a proof after.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    apply::SETTLING,
    context::{self, Base, Sight, Site},
    drill::repair,
    run::Session,
    switchover::{self, CREW},
};
use crate::{
    cli::Global,
    cluster::Cluster,
    drill::{
        Clients, Load, narrate,
        record::{Drill, Limits, Record},
        watched,
    },
    error::{Error, Kind, Result},
    event::Event,
    execute::{self, Context, SharedSurvey},
    inventory::HostName,
    patroni::{self, Topology},
    plan::{
        Plan,
        operate::{self, Seen, Which},
    },
    remote::Remote,
    report::{self, Expected, Summary, Terminal},
    verify::{Check, Proof},
    workspace,
};

/// How long a cluster of which not every host can be reached may take to be as good as it gets.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long clients may take to get going before a restart is measured.
const GETTING_GOING: Duration = Duration::from_secs(15);
/// No acknowledged commit may be missing afterwards.
const LIMITS: Limits = Limits {
    max_outage: None,
    max_lost: 0,
};

/// What is to be done.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Pause,
    Resume,
    Reinit(String),
    Restart { host: Option<String>, pending: bool },
    Failover { to: String, force: bool },
}

impl Deed {
    fn verb(&self) -> &'static str {
        match self {
            Deed::Pause => "pause",
            Deed::Resume => "resume",
            Deed::Reinit(_) => "reinit",
            Deed::Restart { .. } => "restart",
            Deed::Failover { .. } => "failover",
        }
    }

    fn host(&self) -> Option<&str> {
        match self {
            Deed::Pause | Deed::Resume => None,
            Deed::Reinit(host) | Deed::Failover { to: host, .. } => Some(host),
            Deed::Restart { host, .. } => host.as_deref(),
        }
    }
}

pub(crate) async fn run(
    deed: Deed,
    global: &Global,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global).await?;
    let host = deed
        .host()
        .map(|name| switchover::known(&base, name))
        .transpose()?;
    let _lock = base.lock(deed.verb())?;
    terminal.conceal(base.workspace.secrets()?.values());
    repair::offer(&base, yes, terminal, cancel).await?;
    let outlook = base.outlook().await?;
    if outlook.running.is_empty() {
        return Err(context::no_hosts(&base.inventory));
    }
    let session = Session::begin(&base, deed.verb(), terminal.clone(), base.hosts())?;
    let result = async {
        let site = base.connect(&outlook.running, &session.events).await?;
        let job = Job {
            deed: &deed,
            host: host.as_ref(),
            site: &site,
            session: &session,
            terminal,
            yes,
            cancel,
        };
        let done = job.run().await;
        site.close().await;
        done
    }
    .await;
    let run = session.end(&result).await;
    let told = result.as_ref().map_or("", String::as_str);
    let untouched =
        matches!(&result, Err(error) if run.nothing_changed() && error.kind() != Kind::Interrupted);
    if !untouched {
        let summary = Summary {
            settled: told,
            endpoints: &[],
        };
        report::print_summary(terminal, &run, &summary);
        if result.is_ok() && !run.nothing_changed() {
            terminal.explain(told);
        }
    }
    result.map(|_| ())
}

struct Job<'a> {
    deed: &'a Deed,
    host: Option<&'a HostName>,
    site: &'a Site<'a>,
    session: &'a Session,
    terminal: &'a Terminal,
    yes: bool,
    cancel: &'a CancellationToken,
}

impl Job<'_> {
    /// Does it; returns in a sentence what there is now.
    async fn run(&self) -> Result<String> {
        let sight = self.site.look().await?.not_mixed_up()?;
        sight.members_as_declared()?;
        if !matches!(
            self.deed,
            Deed::Pause | Deed::Resume | Deed::Failover { .. }
        ) {
            self.site.certificates_valid(&sight)?;
        }
        let cluster = sight.cluster.clone();
        let survey = patroni::survey(&self.site.http, &cluster).await;
        let topology = patroni::overview(&self.site.http, &survey).await;
        let seen = Seen {
            cluster: &cluster,
            survey: &survey,
            topology: topology.as_ref(),
        };
        let plan = self.plan(&seen)?;
        self.site.events.emit(Event::Planned {
            steps: plan.steps.len(),
            changes: plan.changes(),
        });
        if plan.is_empty() {
            return Ok(self.settled(&cluster));
        }
        if !self.yes {
            self.ask(&seen).await?;
            self.still(&seen, &plan).await?;
        }
        let mut told = String::new();
        if matches!(self.deed, Deed::Restart { .. }) {
            if let Some(drill) = self.measured(plan, &cluster).await? {
                told = felt(&drill);
            }
        } else {
            self.execute(plan, &cluster).await?;
        }
        if matches!(self.deed, Deed::Pause) {
            return Ok(paused(&seen));
        }
        let topology = self.prove().await?;
        Ok(self.told(&cluster, topology.as_ref(), true, &told))
    }

    fn plan(&self, seen: &Seen<'_>) -> Result<Plan> {
        match (self.deed, self.host) {
            (Deed::Pause, _) => operate::pause(seen, true),
            (Deed::Resume, _) => operate::pause(seen, false),
            (Deed::Reinit(_), Some(host)) => operate::reinit(seen, host),
            (Deed::Failover { force, .. }, Some(to)) => operate::failover(seen, to, *force),
            (Deed::Restart { pending, .. }, host) => {
                let which = host.map_or(Which::All, Which::One);
                operate::restart(seen, which, *pending)
            }
            (Deed::Reinit(_) | Deed::Failover { .. }, None) => {
                Err(Error::input("no host is named"))
            }
        }
    }

    /// What is said where there is nothing to do.
    fn settled(&self, cluster: &Cluster) -> String {
        let name = cluster.name();
        match self.deed {
            Deed::Pause => format!("the cluster {name} is paused already"),
            Deed::Resume => format!("the cluster {name} is not paused"),
            _ => "no parameter waits for a restart".into(),
        }
    }

    /// Looks again once somebody has answered, which may have taken him an hour.
    async fn still(&self, seen: &Seen<'_>, plan: &Plan) -> Result<()> {
        let survey = patroni::survey(&self.site.http, seen.cluster).await;
        let topology = patroni::overview(&self.site.http, &survey).await;
        let now = Seen {
            cluster: seen.cluster,
            survey: &survey,
            topology: topology.as_ref(),
        };
        let again = self.plan(&now)?;
        operate::still((seen, plan), (&now, &again), self.host)
    }

    async fn ask(&self, seen: &Seen<'_>) -> Result<()> {
        let text = self.outline(seen);
        let (question, expected) = match (self.deed, self.host) {
            (Deed::Reinit(_), Some(host)) => (
                format!("Remove the data on {host}, and copy it anew?"),
                Expected::Word(host.as_str()),
            ),
            _ => ("Do this?".to_owned(), Expected::Yes),
        };
        let agreed = self
            .session
            .reporter
            .aside(async {
                self.terminal.explain(&text);
                report::confirm(self.terminal, &question, expected).await
            })
            .await?;
        if agreed {
            Ok(())
        } else {
            Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was changed"))
        }
    }

    /// What it means, before somebody agrees to it.
    fn outline(&self, seen: &Seen<'_>) -> String {
        let name = seen.cluster.name();
        match (self.deed, self.host) {
            (Deed::Pause, _) => format!(
                "In the cluster {name} nothing fails over while it is paused: a leader that dies stays dead until \
                 somebody resumes it, or fails over by hand."
            ),
            (Deed::Resume, _) => format!(
                "In the cluster {name} Patroni looks after PostgreSQL again: where no member leads, one is chosen at \
                 once, and a member that does not run is started."
            ),
            (Deed::Reinit(_), Some(host)) => reinit_outline(seen, host),
            (Deed::Failover { .. }, Some(to)) => failover_outline(seen, to),
            (Deed::Restart { .. }, host) => restart_outline(seen, host),
            (Deed::Reinit(_) | Deed::Failover { .. }, None) => String::new(),
        }
    }

    async fn execute(&self, plan: Plan, cluster: &Arc<Cluster>) -> Result<()> {
        let context = Context {
            cluster: cluster.clone(),
            remote: self.site.remote.clone() as Arc<dyn Remote>,
            http: self.site.http.clone(),
            events: self.site.events.clone(),
            survey: SharedSurvey::default(),
            cancel: self.cancel.clone(),
        };
        execute::execute(Arc::new(plan), &context).await.map(|_| ())
    }

    /// Executes while clients write and read; what they felt goes into the run's record. None where no client came
    /// through in the first place.
    async fn measured(&self, plan: Plan, cluster: &Arc<Cluster>) -> Result<Option<Drill>> {
        let load = match self.clients_at_work(cluster).await {
            Ok(load) => load,
            Err(error) => {
                self.terminal.say(&format!(
                    "note: not measured, since no client comes through: {error}"
                ));
                self.execute(plan, cluster).await?;
                return Ok(None);
            }
        };
        let from = load.tape().now();
        let done = tokio::select! {
            done = self.execute(plan, cluster) => done,
            never = narrate(&load, &self.site.events) => match never {},
        };
        let drill = watched(load, from, &LIMITS).await;
        done?;
        let drill = drill?;
        let record = Record::of(cluster, self.session.begun, LIMITS, vec![drill.clone()]);
        record.write(&self.session.folder)?;
        record.verdict().map_or(Ok(Some(drill)), Err)
    }

    async fn clients_at_work(&self, cluster: &Arc<Cluster>) -> Result<Load> {
        let clients = Clients::find(
            cluster.clone(),
            self.site.remote.clone() as Arc<dyn Remote>,
            self.site.tls.clone(),
            &self.site.machines,
        )
        .await?;
        let folder = self.session.folder.join("clients");
        workspace::private_folder(&folder)?;
        let load = Load::start(Arc::new(clients), &folder, &CREW).await?;
        let begin = Instant::now();
        while load.view().writes < 20 {
            if begin.elapsed() > GETTING_GOING {
                let seconds = GETTING_GOING.as_secs();
                return Err(Error::failed(format!(
                    "no write came through in {seconds} s"
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(load)
    }

    /// Proves that the cluster holds, as far as its hosts can be reached.
    async fn prove(&self) -> Result<Option<Topology>> {
        let sight = self.site.look().await?;
        let cluster = sight.cluster.clone();
        let name = cluster.name();
        let absent = self.site.absent();
        let error = if sight.dark.is_empty() && absent.is_empty() {
            self.site.prove(sight, SETTLING).await?.error(name)
        } else {
            let proof = self.prove_in_part(&sight).await;
            proof.announce(&self.site.events);
            let mut error = proof.error(name).unwrap_or_else(|| {
                Error::new(
                    Kind::Broken,
                    format!("the cluster {name} is proven in part only"),
                )
            });
            for host in absent {
                error = error.cause(format!("{host} does not run"));
            }
            for dark in &sight.dark {
                error = error.cause(dark.to_string());
            }
            Some(error)
        };
        let survey = patroni::survey(&self.site.http, &cluster).await;
        let topology = patroni::overview(&self.site.http, &survey).await;
        match error {
            None => Ok(topology),
            Some(error) => Err(error.left(self.told(&cluster, topology.as_ref(), false, ""))),
        }
    }

    async fn prove_in_part(&self, sight: &Sight) -> Proof {
        let prover = self.site.prover(sight);
        self.site.events.emit(Event::VerifyStarted);
        let begin = Instant::now();
        loop {
            let checks: Vec<Check> = prover.stand().await;
            let passed = checks.iter().all(|check| check.passed);
            if passed || begin.elapsed() > PATIENCE {
                return Proof { passed, checks };
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// What there is now, in a sentence.
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
        match self.deed {
            Deed::Pause => String::new(),
            Deed::Resume => format!("the cluster {} fails over again; {leads}", cluster.name()),
            Deed::Reinit(_) if proven => {
                format!("{host} has copied its data anew, and streams; {leads}")
            }
            Deed::Reinit(_) => format!("the data on {host} was copied anew; {leads}"),
            Deed::Failover { .. } => format!("{host} was made the leader; {leads}"),
            Deed::Restart { .. } if felt.is_empty() => leads,
            Deed::Restart { .. } => format!("{leads}; {felt}"),
        }
    }
}

fn felt(drill: &Drill) -> String {
    let measured = &drill.measured;
    format!(
        "no writes for {} at the longest, no reads for {}; {} of {} commits missing",
        report::duration(measured.write_outage),
        report::duration(measured.read_outage),
        measured.missing,
        measured.acknowledged,
    )
}

fn paused(seen: &Seen<'_>) -> String {
    let mut text = format!(
        "the cluster {} is paused: nothing fails over until `pgherd resume`",
        seen.cluster.name()
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

fn reinit_outline(seen: &Seen<'_>, host: &HostName) -> String {
    let leader = seen.leader().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "In the cluster {} all data on {host} is removed and copied anew from {leader}; until then {host} serves no \
         reads and cannot take over.",
        seen.cluster.name()
    );
    if seen.is_synchronous(host) {
        text.push_str(&format!(
            " {host} is a synchronous standby: commits wait until another takes its place."
        ));
    } else if seen.waits_for_standbys() {
        text.push_str(
            " Commits go on waiting for the synchronous standby, which is another member.",
        );
    }
    text
}

fn restart_outline(seen: &Seen<'_>, host: Option<&HostName>) -> String {
    let name = seen.cluster.name();
    let leader = seen.leader();
    match host {
        Some(host) if Some(host) != leader => format!(
            "In the cluster {name} PostgreSQL restarts on {host}: its clients are broken off; writes go on."
        ),
        Some(host) => format!(
            "In the cluster {name} {host} hands over to another member and then restarts: clients are broken off, and \
             writes are refused for about 2 s."
        ),
        None => format!(
            "In the cluster {name} PostgreSQL restarts on every member that is meant, one at a time, the leader last \
             and after it has handed over: clients are broken off, and writes are refused for about 2 s."
        ),
    }
}

fn failover_outline(seen: &Seen<'_>, to: &HostName) -> String {
    let mut text = match seen.leader() {
        Some(leader) => format!(
            "In the cluster {} {to} takes the leadership from {leader}, which answers. If it is well, \
             `pgherd switchover --to {to}` does the same and loses nothing.\n",
            seen.cluster.name()
        ),
        None => format!(
            "In the cluster {} no member leads; {to} is to.\n",
            seen.cluster.name()
        ),
    };
    text.push_str(&match (seen.is_synchronous(to), seen.lag(to)) {
        (true, _) => format!("{to} is a synchronous standby: it has every commit that was acknowledged."),
        (false, Some(0)) => format!(
            "{to} has all that the leader had told the DCS of; commits of the leader's last seconds may be lost."
        ),
        (false, Some(lag)) => format!(
            "{to} is {lag} bytes behind what the leader had told the DCS of: acknowledged commits in them are lost, \
             and those of its last seconds may be."
        ),
        (false, None) => {
            format!("How far {to} is behind is not known: acknowledged commits may be lost.")
        }
    });
    text
}
