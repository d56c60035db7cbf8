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
    inventory::{HostName, Role},
    plan,
    services::{
        archive::rehearsal::{self, Rehearsals},
        backup::{ask, health},
        postgres::patroni::{self, Status},
    },
};

pub(crate) use crate::{plan::Holds, services::archive::rehearsal::Verdict};

pub(crate) use crate::services::backup::{Backup, Repository, health::in_words, in_days};

/// What the cluster's repository holds.
pub(crate) struct Kept {
    pub repository: Repository,
    /// What is wrong with it, a sentence each.
    pub wrong: Vec<String>,
    /// What rehearsals of a restore have shown.
    pub rehearsals: Rehearsals,
    document: Value,
}

impl Kept {
    pub(crate) fn summary(&self) -> String {
        health::summary(&self.repository)
    }

    /// The last verdict if it proves nothing, and what is known to be missing explains that.
    pub(crate) fn explained(&self) -> Option<&Verdict> {
        health::explained(&self.repository, &self.rehearsals)
    }

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
    let repository =
        asked.unwrap_or_else(|| Err(Error::new(Code::InternalError, "no host keeps backups")))?;
    let inventory = &cluster.inventory;
    let wrong = health::all_wrong(&repository, &rehearsals, inventory);
    Ok(Kept {
        document: health::whole_document(&repository, &wrong, &rehearsals, inventory),
        repository,
        wrong,
        rehearsals,
    })
}

/// Looks at the repository.
pub(crate) async fn list(context: &Context) -> Result<Kept> {
    keeper(context)?;
    let hosts = context.host_status().await?;
    let (events, _quiet) = Events::channel();
    context.on(hosts.some(context)?, &events, kept).await
}

/// Makes a backup now.
pub(crate) async fn make(
    context: &Context,
    holds: Holds,
    cancel: &CancellationToken,
) -> Result<Backup> {
    let host = keeper(context)?.clone();
    let taken = Taken::by(context, "backup", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            let work =
                async |connected: &Connected<'_>| back_up(run, connected, &host, holds).await;
            context.on(running, &run.events, work).await
        })
        .await
}

async fn back_up(
    run: &Run<'_>,
    connected: &Connected<'_>,
    host: &HostName,
    holds: Holds,
) -> Result<Backup> {
    let cluster = connected.look().await?.cluster;
    let plan = plan::backup(host, holds);
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    let last = kept(connected).await?.repository.backups.pop();
    last.ok_or_else(|| {
        Error::new(
            Code::ServiceRefused,
            "pgBackRest has made a backup, and lists none",
        )
        .on(host)
    })
}

/// Proves that a moment can be restored: `latest`, `random`, or a time with its zone.
pub(crate) async fn rehearse(
    context: &Context,
    moment: &str,
    cancel: &CancellationToken,
) -> Result<Verdict> {
    keeper(context)?;
    let taken = Taken::by(context, "rehearse", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            let work = async |connected: &Connected<'_>| restore_once(run, connected, moment).await;
            context.on(running, &run.events, work).await
        })
        .await
}

async fn restore_once(run: &Run<'_>, connected: &Connected<'_>, moment: &str) -> Result<Verdict> {
    let cluster = connected.look().await?.cluster;
    let remote = connected.remote.as_ref();
    // One that an earlier run began is waited for where it is.
    let host = match rehearsal::everywhere(&cluster, remote).await.at_work {
        Some(host) => host,
        None => place(connected, &cluster).await?,
    };
    let plan = plan::rehearse(&host, moment);
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    let verdict = rehearsal::on(&host, remote).await?.last;
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
