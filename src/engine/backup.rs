//! `backup` and `backups`.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Role},
    plan,
    services::backup::{ask, health},
};

pub(crate) use crate::services::backup::{Backup, Repository, health::in_words, in_days};

/// What the cluster's repository holds.
pub(crate) struct Kept {
    pub repository: Repository,
    /// What is wrong with it, a sentence each.
    pub wrong: Vec<String>,
}

impl Kept {
    pub(crate) fn summary(&self) -> String {
        health::summary(&self.repository)
    }

    /// For `--json`.
    pub(crate) fn document(&self) -> Value {
        health::document(&self.repository, &self.wrong)
    }
}

/// The host that keeps the backups.
fn keeper(context: &Context) -> Result<&HostName> {
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
    let repository = ask(&cluster, connected.remote.as_ref())
        .await
        .unwrap_or_else(|| Err(Error::new(Code::InternalError, "no host keeps backups")))?;
    let command = |verb: &str| connected.context.command(verb);
    let wrong = health::wrong(&repository, &command("backup"), &command("logs"));
    Ok(Kept { repository, wrong })
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
    full: bool,
    cancel: &CancellationToken,
) -> Result<Backup> {
    let host = keeper(context)?.clone();
    let taken = Taken::by(context, "backup", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            let work = async |connected: &Connected<'_>| back_up(run, connected, &host, full).await;
            context.on(running, &run.events, work).await
        })
        .await
}

async fn back_up(
    run: &Run<'_>,
    connected: &Connected<'_>,
    host: &HostName,
    full: bool,
) -> Result<Backup> {
    let cluster = connected.look().await?.cluster;
    let plan = plan::backup(&cluster, host, full);
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
