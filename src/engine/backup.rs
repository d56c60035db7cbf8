//! `backup`, `backups` and `rehearse`.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Inventory, Place, Role},
    plan,
    services::{
        archive::rehearsal::{self, Rehearsals},
        backup::{ask, health},
        postgres::patroni::{self, Status},
    },
};

pub(crate) use crate::{plan::Holds, services::archive::rehearsal::Verdict};

pub(crate) use crate::services::backup::{Backup, Repository, health::in_words, in_days};

/// What the cluster's repositories hold.
pub(crate) struct Kept {
    /// One for each place.
    pub places: Vec<KeptThere>,
    /// What is wrong with them, a sentence each.
    pub wrong: Vec<String>,
    document: Value,
}

/// What is kept in one place.
pub(crate) struct KeptThere {
    pub repository: Repository,
    /// What rehearsals of a restore have shown.
    pub rehearsals: Rehearsals,
}

impl KeptThere {
    pub(crate) fn summary(&self) -> String {
        health::summary_of(&self.repository)
    }

    /// The last verdict if it proves nothing, and what is known to be missing explains that.
    pub(crate) fn explained(&self) -> Option<&Verdict> {
        health::explained(&self.repository, &self.rehearsals)
    }
}

impl Kept {
    /// For `--json`.
    pub(crate) fn document(&self) -> Value {
        self.document.clone()
    }
}

/// The host that keeps the backups.
pub(super) fn keeper(context: &Context) -> Result<&HostName> {
    let mut hosts = context.inventory.with_role(Role::Backup);
    hosts.next().ok_or_else(|| {
        Error::new(
            Code::NotPossibleNow,
            "the cluster has no backups: no host has the role `backup`",
        )
        .hint("give it to a host of its own, or to one with `haproxy`; then: pgherd up")
    })
}

async fn kept(connected: &Connected<'_>) -> Result<Kept> {
    let cluster = connected.look().await?.cluster;
    let remote = connected.remote.as_ref();
    let (asked, rehearsals) = tokio::join!(
        ask(&cluster, remote),
        rehearsal::everywhere(&cluster, remote)
    );
    let repositories =
        asked.unwrap_or_else(|| Err(Error::new(Code::InternalError, "no host keeps backups")))?;
    let inventory = &cluster.inventory;
    let judged = health::judge(&repositories, &rehearsals, inventory);
    let document = health::whole_document(&repositories, &judged, &rehearsals, inventory);
    let places = repositories.into_iter().zip(rehearsals);
    Ok(Kept {
        document,
        wrong: judged.told(),
        places: places
            .map(|(repository, rehearsals)| KeptThere {
                repository,
                rehearsals,
            })
            .collect(),
    })
}

/// The place that the user names, if the backups are there too.
pub(super) fn named(inventory: &Inventory, name: Option<&str>) -> Result<Option<Place>> {
    let Some(name) = name else {
        return Ok(None);
    };
    let places = inventory.backup.places();
    let place = Place::named(name).filter(|it| places.contains(it));
    place.map(Some).ok_or_else(|| {
        let kept: Vec<&str> = places.iter().map(|it| it.inside()).collect();
        Error::new(
            Code::InvalidArguments,
            format!("the backups are not in such a place: {name}"),
        )
        .left("nothing was changed")
        .hint(format!("they are {}", kept.join(" and ")))
    })
}

/// Looks at the repository.
pub(crate) async fn list(context: &Context) -> Result<Kept> {
    keeper(context)?;
    let hosts = context.host_status().await?;
    let (events, _quiet) = Events::channel();
    context.on(hosts.some(context)?, &events, kept).await
}

/// Makes a backup now, in each place, or in one of them; returns what was made, and where.
pub(crate) async fn make(
    context: &Context,
    (holds, only): (Holds, Option<&str>),
    cancel: &CancellationToken,
) -> Result<Vec<(Place, Backup)>> {
    let host = keeper(context)?.clone();
    let only = named(&context.inventory, only)?;
    let taken = Taken::by(context, "backup", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            let work = async |connected: &Connected<'_>| {
                back_up(run, connected, &host, (holds, only)).await
            };
            context.on(running, &run.events, work).await
        })
        .await
}

async fn back_up(
    run: &Run<'_>,
    connected: &Connected<'_>,
    host: &HostName,
    (holds, only): (Holds, Option<Place>),
) -> Result<Vec<(Place, Backup)>> {
    let cluster = connected.look().await?.cluster;
    let only_one = only.filter(|_| cluster.inventory.backup.is_in_both());
    let plan = plan::backup(host, holds, only_one);
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    let places = kept(connected).await?.places;
    let asked = places
        .into_iter()
        .filter(|it| only.is_none_or(|only| only == it.repository.place));
    let made = asked.map(|mut it| {
        let last = it.repository.backups.pop();
        Some((it.repository.place, last?))
    });
    made.collect::<Option<_>>().ok_or_else(|| {
        Error::new(
            Code::ServiceRefused,
            "pgBackRest has made a backup, and lists none",
        )
        .on(host)
    })
}

/// Proves that a moment can be restored: `latest`, `random`, or a time with its zone. Unless a place is named, it is
/// the one whose last proof is older.
pub(crate) async fn rehearse(
    context: &Context,
    (moment, from): (&str, Option<&str>),
    cancel: &CancellationToken,
) -> Result<Verdict> {
    keeper(context)?;
    let from = named(&context.inventory, from)?;
    let taken = Taken::by(context, "rehearse", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            let work = async |connected: &Connected<'_>| {
                restore_once(run, connected, (moment, from)).await
            };
            context.on(running, &run.events, work).await
        })
        .await
}

async fn restore_once(
    run: &Run<'_>,
    connected: &Connected<'_>,
    (moment, from): (&str, Option<Place>),
) -> Result<Verdict> {
    let cluster = connected.look().await?.cluster;
    let remote = connected.remote.as_ref();
    let rehearsals = rehearsal::everywhere(&cluster, remote).await;
    // One that an earlier run began is waited for where it is.
    let (host, from) = match rehearsals.iter().find_map(|it| it.at_work.clone()) {
        Some(host) => (host, from),
        None => (
            place(connected, &cluster).await?,
            from.or_else(|| least_proven(&cluster, &rehearsals)),
        ),
    };
    let from = from.filter(|_| cluster.inventory.backup.is_in_both());
    let plan = plan::rehearse(&host, moment, from);
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    let verdict = rehearsal::last_on(&host, remote).await?;
    let verdict = verdict.ok_or_else(|| {
        Error::new(Code::AnswerUnusable, "the rehearsal has left no verdict").on(&host)
    })?;
    if verdict.is_proof() {
        return Ok(verdict);
    }
    let unproven = Error::new(Code::RestoreUnproven, "the restore is not proven").on(&host);
    let told = verdict.wrong.iter().fold(unproven, Error::cause);
    Err(told
        .left("the cluster is as it was, and the restored instance is gone")
        .hint(format!(
            "see what the repository holds: {}",
            connected.context.command("backups")
        ))
        .hint(format!(
            "a new full backup needs no older WAL: {}",
            connected.context.command("backup --full")
        )))
}

/// The place whose last proof is older.
fn least_proven(cluster: &Cluster, rehearsals: &[Rehearsals]) -> Option<Place> {
    let proven = |it: &Rehearsals| it.proof.as_ref().map(|it| it.ended);
    let places = cluster.inventory.backup.places().iter().zip(rehearsals);
    let oldest = places.min_by_key(|(_, it)| proven(it));
    oldest.map(|(place, _)| *place)
}

/// Where it is rehearsed: on a replica, or on the leader if no replica runs.
pub(super) async fn place(connected: &Connected<'_>, cluster: &Cluster) -> Result<HostName> {
    let survey = patroni::survey(&connected.http, cluster).await;
    let leader = patroni::leader_of(&survey);
    let runs = |it: &Result<Status>| it.as_ref().is_ok_and(Status::is_running);
    let mut replicas = survey.iter().filter(|(host, _)| Some(*host) != leader);
    let replica = replicas.find(|(_, status)| runs(status));
    replica
        .map(|(host, _)| host)
        .or(leader)
        .cloned()
        .ok_or_else(|| {
            Error::new(
                Code::NoLeader,
                "no database runs beside which it could be rehearsed",
            )
            .hint(format!(
                "see how the members are: {}",
                connected.context.command("status")
            ))
        })
}
