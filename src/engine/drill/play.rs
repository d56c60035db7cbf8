//! Runs drills one after another: the checks before, the proof after each drill, and the record at the end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::runner;
use crate::{
    cluster::Cluster,
    drill::{
        Clients, Crew, Runner, Scenario, can_be_played, other_clients,
        record::{Drill, Limits, Record},
    },
    engine::{
        connected::Connected,
        context::Context,
        operator::{Question, consent},
        run::Run,
        taken::{Leftovers, Taken},
    },
    error::{Code, Error, Result},
    inventory::Role,
    plan::how_to_resume,
    services::{backup, postgres::patroni},
};

/// How long replicas may take to catch up before a drill.
const BOUND: Duration = Duration::from_secs(5);
/// How long the cluster may take to be healthy again after a drill.
const SETTLING: Duration = Duration::from_secs(60);

/// The request of the user.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub scenarios: Vec<Scenario>,
    /// How often each drill runs.
    pub runs: usize,
    pub limits: Limits,
    pub crew: Crew,
    /// How long replication is delayed before a host dies.
    pub lag: Option<Duration>,
    /// Whether clients that are not the drill's own may be disconnected too.
    pub despite_clients: bool,
}

/// The results of all drills that ran, and how the last one ended.
pub(crate) struct Played {
    /// `None` if no drill ran.
    pub record: Option<Record>,
    pub result: Result<()>,
}

/// Runs the requested drills, if these hosts allow any of them.
pub(crate) async fn run(
    mut request: Request,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<Played> {
    let taken = Taken::by(context, "drill", Leftovers::Repair, cancel).await?;
    request.scenarios = possible(context, &request.scenarios)?;
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    let mut played = None;
    let result = taken
        .run(async |run| {
            let mut drills = Vec::new();
            let mut cluster = None;
            let result = context
                .on(machines, &run.events, async |connected| {
                    backed_up(connected, &mut request).await?;
                    let proven = guard(run, connected, &request).await?;
                    cluster = Some(proven.clone());
                    let mut runner = runner(run, connected, proven, request.limits);
                    runner.crew = request.crew;
                    runner.lag = request.lag;
                    play(connected, &runner, &request, &mut drills).await
                })
                .await;
            let Some(cluster) = cluster.filter(|_| !drills.is_empty()) else {
                return result;
            };
            let record = Record::of(&cluster, run.begun, request.limits, drills);
            let written = record.write(&run.folder);
            let result = result
                .and(written)
                .and(record.verdict().map_or(Ok(()), Err));
            played = Some(record);
            result
        })
        .await;
    Ok(Played {
        record: played,
        result,
    })
}

/// Runs every scenario as often as requested. Between two drills, the cluster is verified.
async fn play(
    connected: &Connected<'_>,
    runner: &Runner<'_>,
    request: &Request,
    drills: &mut Vec<Drill>,
) -> Result<()> {
    for scenario in &request.scenarios {
        for run in 1..=request.runs {
            let mut drill = runner.play(*scenario, run, request.runs).await?;
            let observed = connected.look().await?.whole()?;
            let proof = connected.prove(observed, SETTLING).await?;
            let failed = proof.error(&connected.context.inventory.cluster);
            if let Some(error) = &failed {
                drill.failures.extend(error.causes().iter().cloned());
            }
            drills.push(drill);
            if failed.is_some() {
                // The verdict reports this. On a cluster that is not healthy, more drills would show nothing.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The scenarios that the provider supports; an error if the requested one is not supported.
fn possible(context: &Context, scenarios: &[Scenario]) -> Result<Vec<Scenario>> {
    let scenarios = &with_hosts(context, scenarios)?;
    let (cannot, can): (Vec<Scenario>, Vec<Scenario>) = scenarios
        .iter()
        .partition(|scenario| !can_be_played(**scenario, context.provider.as_ref()));
    let names: Vec<&str> = cannot.iter().map(|scenario| scenario.as_str()).collect();
    if can.is_empty() {
        return Err(Error::new(
            Code::Unsupported,
            format!("{} is not possible on these hosts", names.join(", ")),
        )
        .cause("their provider has no realistic way to do that to a host")
        .hint("kill-leader and stop-leader need nothing but SSH"));
    }
    if !cannot.is_empty() {
        context.operator.explain(&format!(
            "note: left out, since it is not possible on these hosts: {}",
            names.join(", ")
        ));
    }
    Ok(can)
}

/// Leaves out what the cluster has no hosts for; an error if nothing else is requested.
fn with_hosts(context: &Context, scenarios: &[Scenario]) -> Result<Vec<Scenario>> {
    let mut others = scenarios.to_vec();
    others.retain(|it| lacks(context, *it).is_none());
    let lack = scenarios.first().and_then(|it| lacks(context, *it));
    match lack {
        Some(error) if others.is_empty() => Err(error),
        _ => Ok(others),
    }
}

/// The hosts that a scenario needs, if the cluster has none.
fn lacks(context: &Context, scenario: Scenario) -> Option<Error> {
    let has = |role: Role, others: usize| context.inventory.with_role(role).nth(others).is_some();
    match scenario {
        Scenario::HaproxyDown if !has(Role::Haproxy, 1) => Some(
            Error::new(
                Code::Unsupported,
                "haproxy-down needs two hosts with the role haproxy",
            )
            .cause("there is one, so that clients would have nowhere to go")
            .hint("see what it costs to restart it: pgherd drill haproxy-restart"),
        ),
        Scenario::ArchiveDown if !has(Role::Backup, 0) => Some(
            Error::new(
                Code::Unsupported,
                "archive-down needs a host with the role backup",
            )
            .cause("the cluster has no backups, so that no WAL is archived"),
        ),
        Scenario::DropTable if !has(Role::Backup, 0) => Some(
            Error::new(
                Code::Unsupported,
                "drop-table needs a host with the role backup",
            )
            .cause("the cluster has no backups, so that nothing can be brought back"),
        ),
        _ => None,
    }
}

/// Leaves out, among others, what needs a backup where there is none yet.
async fn backed_up(connected: &Connected<'_>, request: &mut Request) -> Result<()> {
    let (scenarios, context) = (&mut request.scenarios, connected.context);
    if !scenarios.contains(&Scenario::DropTable) || scenarios.len() == 1 {
        return Ok(());
    }
    let cluster = connected.look().await?.cluster;
    let repositories = backup::ask(&cluster, connected.remote.as_ref()).await;
    let repositories = repositories.transpose()?.unwrap_or_default();
    if repositories.iter().all(|it| it.backups.is_empty()) {
        scenarios.retain(|it| *it != Scenario::DropTable);
        context
            .operator
            .explain("note: left out, since the repository has no backup yet: drop-table");
    }
    Ok(())
}

/// Before a drill: the cluster is verified, and the user is asked.
async fn guard(
    run: &Run<'_>,
    connected: &Connected<'_>,
    request: &Request,
) -> Result<Arc<Cluster>> {
    let observed = connected.look().await?.whole()?;
    observed.members_as_declared()?;
    let cluster = observed.cluster.clone();
    let proof = connected.prove(observed, BOUND).await?;
    if let Some(error) = proof.error(cluster.name()) {
        return Err(
            error.left("nothing was broken: a drill is meaningful only on a healthy cluster")
        );
    }
    let survey = patroni::survey(&connected.http, &cluster).await;
    if survey.values().flatten().any(|status| status.pause) {
        return Err(Error::new(
            Code::ClusterPaused,
            "Patroni is paused, so nothing would fail over",
        )
        .left("nothing was broken")
        .hint(how_to_resume(&cluster.inventory)));
    }
    let clients = Clients::find(
        cluster.clone(),
        connected.remote.clone(),
        connected.tls.clone(),
        &connected.machines,
    )
    .await?;
    let question = Question::Break {
        cluster: &cluster,
        request,
        other_clients: &other_clients(&clients).await?,
    };
    consent(run.context.operator.as_ref(), question).await?;
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::people::Scene;

    #[tokio::test]
    async fn a_front_door_does_not_die_where_clients_have_no_other() {
        let scene = Scene::new();
        let error = possible(&scene.context(), &[Scenario::HaproxyDown]).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported);
        let what = "haproxy-down needs two hosts with the role haproxy";
        assert_eq!(error.what(), what);
        assert!(error.hints()[0].contains("drill haproxy-restart"));
        // Among others it is only left out.
        let both = [Scenario::HaproxyDown, Scenario::KillLeader];
        let played = possible(&scene.context(), &both).unwrap();
        assert_eq!(played, [Scenario::KillLeader]);
    }

    #[tokio::test]
    async fn a_repository_that_is_not_there_cannot_be_cut_off() {
        let scene = Scene::new();
        let error = possible(&scene.context(), &[Scenario::ArchiveDown]).unwrap_err();
        assert_eq!(
            error.what(),
            "archive-down needs a host with the role backup"
        );
        let played = possible(&scene.context(), &Scenario::ALL).unwrap();
        assert!(!played.contains(&Scenario::ArchiveDown), "{played:?}");
        assert!(!played.contains(&Scenario::DropTable), "{played:?}");
        let error = possible(&scene.context(), &[Scenario::DropTable]).unwrap_err();
        assert_eq!(error.what(), "drop-table needs a host with the role backup");
    }
}
