//! A drill with everything around it: the guard before, the proof between, the record after.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::repair;
use crate::{
    cli::{Global, drill::Wish},
    cluster::Cluster,
    drill::{
        Clients, Crew, Guest, Scenario, Stage, Tools, guests,
        record::{Drill, Limits, Record},
    },
    engine::{
        context::{Base, Site},
        run::Session,
    },
    error::{Error, Kind, Result},
    patroni,
    remote::Remote,
    report::{self, Expected, Handle, Terminal},
};

/// How long lag may take to vanish before a drill.
const BOUND: Duration = Duration::from_secs(5);
/// How long the cluster may take to hold again after one.
const SETTLING: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    global: &Global,
    wish: &Wish,
    scenarios: &[Scenario],
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global).await?;
    let _lock = base.lock("drill")?;
    terminal.conceal(base.workspace.secrets()?.values());
    if let Some((broken, note)) = base.workspace.left_broken()? {
        repair::mend(&base, &broken, note, terminal, cancel).await?;
    }
    let scenarios = possible(&base, scenarios, terminal)?;
    let outlook = base.outlook().await?;
    let machines = outlook.complete(&base.inventory)?;
    let session = Session::begin(&base, "drill", terminal.for_people(), base.hosts())?;
    let mut drills = Vec::new();
    let mut cluster = None;
    let result = async {
        let site = base.connect(machines, &session.events).await?;
        let guard = Guard {
            site: &site,
            wish,
            scenarios: &scenarios,
            terminal,
            reporter: &session.reporter,
        };
        let played = async {
            let proven = guard.pass().await?;
            cluster = Some(proven.clone());
            let mut stage = stage(&site, proven, session.folder.clone(), wish.limits(), cancel);
            stage.crew = wish.crew();
            stage.lag = wish.lag();
            play(&site, &stage, &scenarios, wish.runs.into(), &mut drills).await
        }
        .await;
        site.close().await;
        played
    }
    .await;
    let record = cluster.map(|cluster| Record::of(&cluster, session.begun, wish.limits(), drills));
    let result = match &record {
        Some(record) if !record.drills.is_empty() => {
            let written = record.write(&session.folder);
            result
                .and(written)
                .and(record.verdict().map_or(Ok(()), Err))
        }
        _ => result,
    };
    session.end(&result).await;
    if let Some(record) = record.filter(|record| !record.drills.is_empty()) {
        report::print_drills(terminal, &record);
    }
    result
}

/// What one drill after another is played with.
pub(crate) fn stage<'a>(
    site: &'a Site<'_>,
    cluster: Arc<Cluster>,
    folder: PathBuf,
    limits: Limits,
    cancel: &CancellationToken,
) -> Stage<'a> {
    Stage {
        tools: Tools {
            cluster,
            remote: site.remote.clone(),
            http: site.http.clone(),
            tls: site.tls.clone(),
            provider: site.base.provider.as_ref(),
        },
        workspace: &site.base.workspace,
        machines: &site.machines,
        events: site.events.clone(),
        folder,
        limits,
        crew: Crew::default(),
        lag: None,
        cancel: cancel.clone(),
    }
}

/// Plays every scenario as often as it was asked for, with a proven cluster between any two.
async fn play(
    site: &Site<'_>,
    stage: &Stage<'_>,
    scenarios: &[Scenario],
    runs: usize,
    drills: &mut Vec<Drill>,
) -> Result<()> {
    for scenario in scenarios {
        for run in 1..=runs {
            let mut drill = stage.play(*scenario, run, runs).await?;
            let sight = site.look().await?.whole()?;
            let proof = site.prove(sight, SETTLING).await?;
            let failed = proof.error(&site.base.inventory.cluster);
            if let Some(error) = &failed {
                drill.failures.extend(error.causes().iter().cloned());
            }
            drills.push(drill);
            if failed.is_some() {
                // Told by the verdict; on a cluster that does not hold nothing more is to be learnt.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The scenarios that this provider can play; an error when the one that was asked for is not.
fn possible(base: &Base, scenarios: &[Scenario], terminal: &Terminal) -> Result<Vec<Scenario>> {
    let (cannot, can): (Vec<Scenario>, Vec<Scenario>) = scenarios
        .iter()
        .partition(|scenario| !scenario.can_be_played(base.provider.as_ref()));
    let names: Vec<&str> = cannot.iter().map(|scenario| scenario.as_str()).collect();
    if can.is_empty() {
        return Err(Error::input(format!(
            "{} cannot be played on these hosts",
            names.join(", ")
        ))
        .cause("their provider has no honest way to do that to a host")
        .hint("kill-leader and stop-leader need nothing but SSH"));
    }
    if !cannot.is_empty() {
        terminal.explain(&format!(
            "note: left out, since there is no honest way to do it to these hosts: {}",
            names.join(", ")
        ));
    }
    Ok(can)
}

/// What stands before a drill: a proof, and a person's word.
struct Guard<'a> {
    site: &'a Site<'a>,
    wish: &'a Wish,
    scenarios: &'a [Scenario],
    terminal: &'a Terminal,
    reporter: &'a Handle,
}

impl Guard<'_> {
    async fn pass(&self) -> Result<Arc<Cluster>> {
        let sight = self.site.look().await?.whole()?;
        sight.members_as_declared()?;
        let cluster = sight.cluster.clone();
        let proof = self.site.prove(sight, BOUND).await?;
        if let Some(error) = proof.error(cluster.name()) {
            return Err(error
                .left("nothing was broken: a drill shows something only on a cluster that holds"));
        }
        let survey = patroni::survey(&self.site.http, &cluster).await;
        if survey.values().flatten().any(|status| status.pause) {
            return Err(
                Error::failed("Patroni is paused, so that nothing would fail over")
                    .left("nothing was broken")
                    .hint("resume it: pgherd resume"),
            );
        }
        let clients = Clients::find(
            cluster.clone(),
            self.site.remote.clone() as Arc<dyn Remote>,
            self.site.tls.clone(),
            &self.site.machines,
        )
        .await?;
        let guests = guests(&clients).await?;
        self.ask(&cluster, &guests).await?;
        Ok(cluster)
    }

    async fn ask(&self, cluster: &Cluster, guests: &[Guest]) -> Result<()> {
        let list: String = guests.iter().map(|guest| format!("  {guest}\n")).collect();
        if self.wish.yes {
            if guests.is_empty() || self.wish.despite_clients {
                return Ok(());
            }
            return Err(Error::failed("others are connected to the cluster")
                .excerpt("connected", list)
                .left("nothing was broken")
                .hint("with --despite-clients they are broken off too"));
        }
        let agreed = self
            .reporter
            .aside(async {
                self.terminal
                    .explain(&outline(cluster, self.scenarios, self.wish));
                let name = cluster.name();
                let question = format!("Break {name} on purpose?");
                let agreed =
                    report::confirm(self.terminal, &question, Expected::Word(name)).await?;
                if !agreed || guests.is_empty() || self.wish.despite_clients {
                    return Ok(agreed);
                }
                self.terminal.explain(&format!(
                    "Others are connected, and will feel all of this:\n{list}"
                ));
                report::confirm(self.terminal, "Break them off?", Expected::Word("clients")).await
            })
            .await?;
        if agreed {
            Ok(())
        } else {
            Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was broken"))
        }
    }
}

/// What will be broken, and for how long.
fn outline(cluster: &Cluster, scenarios: &[Scenario], wish: &Wish) -> String {
    let patroni = &cluster.inventory.patroni;
    let mut text = format!(
        "This breaks the cluster {} on purpose, while clients of its own write and read:\n",
        cluster.name()
    );
    for scenario in scenarios {
        let bound = scenario.bound(patroni);
        let writes = if bound > 0.0 {
            format!("writes may be refused for up to {bound:.0} s")
        } else {
            "writes should go on".to_owned()
        };
        text.push_str(&format!("  {scenario:<16} {}; {writes}\n", what(*scenario)));
    }
    if wish.runs > 1 {
        text.push_str(&format!("  each {} times\n", wish.runs));
    }
    if let Some(lag) = wish.lag {
        let cost = if patroni.synchronous {
            "no commit is acknowledged meanwhile"
        } else {
            "what is committed meanwhile is lost"
        };
        let lag = report::duration(lag);
        text.push_str(&format!(
            "  before, replication is held up for {lag}: {cost}\n"
        ));
    } else if !patroni.synchronous {
        text.push_str(
            "  patroni.synchronous is off: a leader that dies may take its last commits with it\n",
        );
    }
    text.push_str("  everything is put right again, also after Ctrl-C\n");
    text
}

fn what(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Switchover => "the leader hands over",
        Scenario::HaproxyRestart => "HAProxy is restarted",
        Scenario::ReplicaDown => "a replica is stopped, and started again",
        Scenario::EtcdDown => "etcd is stopped everywhere, and started again",
        Scenario::StopLeader => "the leader is stopped, and started again",
        Scenario::KillLeader => "the leader's processes are killed",
        Scenario::CrashHost => "the leader's host dies, and is started again",
        Scenario::IsolateLeader => "the leader's host is cut off, and connected again",
        Scenario::Watch => "nothing is broken",
    }
}
