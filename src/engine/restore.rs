//! `restore`: the cluster in place, to a moment.
//!
//! What the user has agreed to is noted in the workspace before anything stops, and until the restored cluster is
//! proven. A run that was cut off goes on from there; while nobody has used the restored data, there is a way back.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    backup,
    connected::Connected,
    context::Context,
    operator::{Question, consent},
    run::Run,
    settle::{self, Consent, Verb},
    taken::{Leftovers, Taken},
};
use crate::{
    cluster::Cluster,
    contract::kept_dir,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    moment::Moment,
    plan::{
        self, operate,
        restore::{InPlace, Wanted},
    },
    poll,
    quantity::bytes,
    remote::Script,
    services::{archive::ground, postgres::patroni},
    workspace::{RestoreStage, Restoring},
};

mod anew;
pub(crate) mod clone;
mod outlook;
mod relay;
pub(super) mod under_way;

pub(crate) use outlook::Outlook;
use outlook::outlook;
pub(super) use outlook::{look, source};

/// How long replicas may take to join the restored leader before they copy it anew. They go back to where the
/// histories part by `pg_rewind`.
const REWINDING: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(500);
/// How long a host may take to answer a short question.
const ANSWER: Duration = Duration::from_secs(20);

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// `None` goes on with a restore that was cut off.
    pub to: Option<Moment>,
    pub set: Option<String>,
    pub timeline: Option<u32>,
    pub host: Option<String>,
    /// The place of the backup: `disk` or `bucket`.
    pub from: Option<String>,
}

/// A restore that is complete.
#[derive(Debug, Clone)]
pub(crate) struct Restored {
    pub to: Moment,
    pub host: String,
    /// The label of the backup.
    pub backup: String,
    /// The time of the newest heartbeat that is there, in seconds since 1970.
    pub newest: Option<i64>,
    pub seconds: i64,
    /// The folder in which the data from before is kept.
    pub kept_dir: Option<String>,
}

/// What a restore would do, without a change.
pub(crate) async fn preview(context: &Context, wish: &Wish) -> Result<Outlook> {
    backup::keeper(context)?;
    let hosts = context.host_status().await?;
    let (events, _quiet) = crate::event::Events::channel();
    if let Some(outlook) = anew::outlook(context, &hosts, &events, wish).await? {
        return Ok(outlook);
    }
    let work = async |connected: &Connected<'_>| {
        let observed = connected.look().await?.whole()?;
        outlook(connected, &observed, wish).await
    };
    context.on(hosts.complete(context)?, &events, work).await
}

/// Restores the cluster, or goes on with a restore that was cut off.
pub(crate) async fn run(
    context: &Context,
    wish: &Wish,
    cancel: &CancellationToken,
) -> Result<Restored> {
    backup::keeper(context)?;
    let taken = Taken::by(context, "restore", Leftovers::Offer, cancel).await?;
    taken
        .run(async |run| {
            let machines = anew::made_ready(run, wish).await?;
            let work = async |connected: &Connected<'_>| restore(run, connected, wish).await;
            context.on(&machines, &run.events, work).await
        })
        .await
}

/// Puts the data from before a restore back, if nobody has used the restored.
pub(crate) async fn back(context: &Context, cancel: &CancellationToken) -> Result<String> {
    let taken = Taken::by(context, "restore", Leftovers::Offer, cancel).await?;
    let Some(mut restoring) = context.workspace.restoring()? else {
        return Err(Error::new(Code::NotPossibleNow, "no restore is under way")
            .left("nothing was changed")
            .hint(again(context)));
    };
    if let Some(origin) = &restoring.from {
        return clone::back(context, &taken, &restoring, origin).await;
    }
    if restoring.stage == RestoreStage::Leads {
        return Err(Error::new(
            Code::NotPossibleNow,
            "the restored member may have served clients already",
        )
        .left("nothing was changed")
        .hint(format!("complete it: {}", context.command("restore")))
        .hint(again(context)));
    }
    if restoring.anew.is_some() {
        taken
            .run(async |run| anew::give_up(run, &restoring).await)
            .await?;
        return Ok(format!(
            "what was restored so far is removed, and the members stay stopped; restore another moment: {}",
            context.command("restore --to latest")
        ));
    }
    let hosts = context.host_status().await?;
    let running = hosts.complete(context)?;
    restoring.stage = RestoreStage::GoesBack;
    context.workspace.note_restoring(&restoring)?;
    let work = async |run: &Run<'_>| {
        let work = async |connected: &Connected<'_>| {
            let observed = connected.look().await?.whole()?;
            let host = HostName::new(&restoring.host);
            let plan = in_place(&observed.cluster, &host, &restoring).back();
            connected.announce(&plan);
            connected
                .carry_out(plan, &observed.cluster, run.cancel)
                .await?;
            context.workspace.end_restoring()?;
            settle::settle(Verb::Up, connected, Consent::Given, run.cancel).await?;
            Ok(())
        };
        context.on(running, &run.events, work).await
    };
    taken.run(work).await?;
    Ok(format!(
        "the cluster {} is as it was before the restore",
        context.inventory.cluster
    ))
}

fn again(context: &Context) -> String {
    format!(
        "the history that was left is in the repository: {}",
        context.command("restore --to latest --timeline N")
    )
}

/// Removes the data that restores have kept; returns what was removed, a line each.
pub(crate) async fn discard(context: &Context, cancel: &CancellationToken) -> Result<Vec<String>> {
    let taken = Taken::by(context, "restore", Leftovers::Offer, cancel).await?;
    if context.workspace.restoring()?.is_some() {
        return Err(Error::new(
            Code::NotPossibleNow,
            "a restore is under way, and this data is the way back",
        )
        .left("nothing was removed")
        .hint(format!("complete it: {}", context.command("restore"))));
    }
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    let dir = kept_dir(&context.inventory.postgresql.data_dir);
    let work = async |run: &Run<'_>| {
        let work = async |connected: &Connected<'_>| {
            let cluster = connected.look().await?.cluster;
            let mut removed = Vec::new();
            for node in cluster.with_role(Role::Postgres) {
                let host = &node.name;
                let seen = ground::look(&cluster, host, &Moment::Latest, connected.remote.as_ref());
                let Some(kept) = seen.await?.kept else {
                    continue;
                };
                let plan = plan::restore::discard(&cluster, host);
                connected.carry_out(plan, &cluster, run.cancel).await?;
                removed.push(format!("{dir} on {host}, {}", bytes(kept * 1024)));
            }
            Ok(removed)
        };
        context.on(running, &run.events, work).await
    };
    taken.run(work).await
}

async fn restore(run: &Run<'_>, connected: &Connected<'_>, wish: &Wish) -> Result<Restored> {
    let context = run.context;
    let observed = connected.look().await?.whole()?;
    let cluster = observed.cluster.clone();
    let mut restoring = match context.workspace.restoring()? {
        Some(begun) => begun,
        None => {
            let outlook = outlook(connected, &observed, wish).await?;
            agreed(context, wish, &outlook).await?
        }
    };
    let host = HostName::new(&restoring.host);
    if restoring.stage == RestoreStage::Restores {
        let plan = in_place(&cluster, &host, &restoring).restore();
        connected.announce(&plan);
        let restored = connected.carry_out(plan, &cluster, run.cancel).await;
        restored.map_err(|error| way_out(context, error))?;
        restoring.stage = RestoreStage::Leads;
        context.workspace.note_restoring(&restoring)?;
    }
    let in_place = in_place(&cluster, &host, &restoring);
    let reached = reached(connected, &in_place).await?;
    let survey = patroni::survey(&connected.http, &cluster).await;
    let leads = patroni::leader_of(&survey) == Some(&host);
    let plan = in_place.lead(&observed.found, leads);
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    let plan = in_place.rejoin();
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    rejoined(run, connected, &cluster).await?;
    let settled = settle::settle(Verb::Up, connected, Consent::Given, run.cancel).await;
    // A place of backups that is away does not keep the restore from its end.
    let is_one_away = restoring.places.len() == 1;
    let settled = match settled {
        Err(error) if is_one_away && error.code() == Code::ClusterBroken => Err(error),
        settled => Ok(settled?),
    };
    let plan = in_place.end();
    connected.carry_out(plan, &cluster, run.cancel).await?;
    context.workspace.end_restoring()?;
    settled.map_err(|error| error.left("the restore itself is complete"))?;
    let kept = restoring
        .keeps
        .then(|| kept_dir(&context.inventory.postgresql.data_dir));
    Ok(Restored {
        to: restoring.to,
        host: restoring.host,
        backup: reached.backup,
        newest: reached.newest,
        seconds: jiff::Timestamp::now().as_second() - restoring.since.as_second(),
        kept_dir: kept,
    })
}

/// The restore that was cut off, if there is one. It must be the one that the user wants.
fn begun(context: &Context, wish: &Wish) -> Result<Option<Restoring>> {
    let Some(begun) = context.workspace.restoring()? else {
        return Ok(None);
    };
    if begun.from.is_some() {
        return Err(under_way::refused(context, &begun));
    }
    is_the_same(context, &begun, wish)?;
    if begun.stage == RestoreStage::GoesBack {
        return Err(under_way::refused(context, &begun));
    }
    context.operator.say(&format!(
        "note: going on with the restore to {}, begun {}",
        begun.to, begun.since
    ));
    Ok(Some(begun))
}

fn is_the_same(context: &Context, begun: &Restoring, wish: &Wish) -> Result<()> {
    let same = wish.to.as_ref().is_none_or(|to| *to == begun.to)
        && wish
            .set
            .as_ref()
            .is_none_or(|set| Some(set) == begun.set.as_ref())
        && wish.timeline.is_none_or(|it| Some(it) == begun.timeline)
        && backup::named(&context.inventory, wish.from.as_deref())?
            .is_none_or(|it| begun.places.first().is_none_or(|first| *first == it))
        && wish.host.as_ref().is_none_or(|host| *host == begun.host);
    if same {
        return Ok(());
    }
    Err(Error::new(
        Code::NotPossibleNow,
        format!(
            "another restore is under way: to {}, on {}",
            begun.to, begun.host
        ),
    )
    .left("nothing was changed")
    .hint(format!("complete it: {}", context.command("restore")))
    .hint(format!(
        "or go back, and begin anew: {}",
        context.command("restore --back")
    )))
}

/// Asks the user, and notes what is restored.
async fn agreed(context: &Context, wish: &Wish, outlook: &Outlook) -> Result<Restoring> {
    let question = Question::Restore {
        cluster: &context.inventory.cluster,
        outlook,
    };
    consent(context.operator.as_ref(), question).await?;
    let since = jiff::Timestamp::now();
    let restoring = Restoring {
        id: since.as_millisecond().to_string(),
        since,
        host: outlook.host.to_string(),
        to: outlook.to.clone(),
        set: wish.set.clone(),
        timeline: wish.timeline,
        places: outlook.places.clone(),
        keeps: outlook.kept_dir.is_some(),
        anew: (outlook.anew.is_some()).then(|| outlook.source.system.clone()),
        from: None,
        stage: match outlook.anew {
            Some(_) => RestoreStage::Prepares,
            None => RestoreStage::Restores,
        },
    };
    context.workspace.note_restoring(&restoring)?;
    Ok(restoring)
}

fn in_place<'a>(cluster: &'a Cluster, host: &'a HostName, restoring: &'a Restoring) -> InPlace<'a> {
    InPlace {
        cluster,
        host,
        id: &restoring.id,
        wanted: Wanted {
            to: &restoring.to,
            set: restoring.set.as_deref(),
            timeline: restoring.timeline,
            places: &restoring.places,
        },
        keeps: restoring.keeps,
        anew: restoring.anew.as_deref(),
        from: None,
    }
}

/// An error's ways out, while nobody has used the restored data.
fn way_out(context: &Context, error: Error) -> Error {
    error
        .left("the members are stopped, and nobody has used what was restored")
        .hint(format!("go on: {}", context.command("restore")))
        .hint(format!("or go back: {}", context.command("restore --back")))
}

/// What was reached, as the host has noted it.
#[derive(serde::Deserialize)]
struct Reached {
    newest: Option<i64>,
    backup: String,
}

async fn reached(connected: &Connected<'_>, in_place: &InPlace<'_>) -> Result<Reached> {
    let (host, path) = (in_place.host, in_place.reached());
    // A run that was cut off at its very end has removed it.
    let unknown = r#"{"newest": null, "backup": "a backup"}"#;
    let script = Script::probe(format!("cat {path} 2>/dev/null || echo '{unknown}'"));
    let quiet = |_, _: &str| {};
    let said = connected
        .remote
        .run(host, &script, ANSWER, &quiet)
        .await?
        .stdout;
    serde_json::from_str(&said).map_err(|error| {
        Error::new(Code::AnswerUnusable, format!("{path} cannot be read"))
            .on(host)
            .because(error)
    })
}

/// Returns when the leader streams to all other members. Those that do not join by themselves copy its data anew.
async fn rejoined(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &std::sync::Arc<Cluster>,
) -> Result<()> {
    let waiting = || async {
        let survey = patroni::survey(&connected.http, cluster).await;
        let leader = patroni::leader_of(&survey).and_then(|host| survey[host].as_ref().ok());
        let streams =
            |host: &HostName| leader.is_some_and(|it| it.is_primary() && it.streams_to(host));
        let members = cluster
            .with_role(Role::Postgres)
            .map(|node| node.name.clone());
        let behind: Vec<HostName> = members
            .filter(|host| patroni::leader_of(&survey) != Some(host) && !streams(host))
            .collect();
        match behind.is_empty() {
            true => Ok(()),
            false => Err(behind),
        }
    };
    let Err(over) = poll::until(REWINDING, LOOK, waiting).await else {
        return Ok(());
    };
    for host in over.last {
        let survey = patroni::survey(&connected.http, cluster).await;
        let topology = patroni::overview(&connected.http, &survey).await;
        let seen = operate::Seen {
            cluster,
            survey: &survey,
            topology: topology.as_ref(),
        };
        let plan = operate::reinit(&seen, &host)?;
        connected.announce(&plan);
        connected.carry_out(plan, cluster, run.cancel).await?;
    }
    Ok(())
}
