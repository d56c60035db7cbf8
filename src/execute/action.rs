//! The steps that speak to the cluster rather than to a host's shell.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Context, Say};
use crate::{
    error::{Error, Result},
    etcd::Etcd,
    event::Stream,
    inventory::{HostName, Role},
    patroni::{self, Patroni},
    plan::Step,
};

/// How long one member may take to restart PostgreSQL and be back where it was.
const RETURN: Duration = Duration::from_secs(120);
/// How long after a change of the configuration all members have surely seen it.
const NOTICE: Duration = Duration::from_secs(12);

/// The member that leads now.
pub(super) async fn leader(context: &Context) -> Result<HostName> {
    let survey = patroni::survey(&context.http, &context.cluster).await;
    patroni::leader_of(&survey)
        .cloned()
        .ok_or_else(|| Error::failed("the cluster has no leader"))
}

pub(super) async fn patch_config(patch: &Value, context: &Context) -> Result<()> {
    let leader = leader(context).await?;
    Patroni::on(&context.http, &leader)
        .patch_config(&context.cluster, patch)
        .await
}

pub(super) async fn release_bootstrap(
    step: &Step,
    revision: &str,
    context: &Context,
) -> Result<()> {
    // If somebody has touched the lock since, a bootstrap is alive after all, and that is as good.
    Etcd::on(&context.http, &step.host)
        .release_initialize(context.cluster.name(), revision)
        .await
        .map(|_| ())
}

/// Restarts PostgreSQL on every member where a parameter waits for it, replicas first.
///
/// Patroni itself holds back a replica whose settings must not fall below the primary's until the
/// primary has restarted, so that what still waits after the first round is restarted in a second.
pub(super) async fn restart_pending(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < NOTICE && waiting(context).await?.is_empty() {
        sleep(Duration::from_millis(250)).await;
    }
    for _round in 0..2 {
        let mut members = waiting(context).await?;
        if members.is_empty() {
            return Ok(());
        }
        let leader = leader(context).await?;
        members.sort_by_key(|member| *member == leader);
        for member in members {
            say(
                Stream::Stdout,
                &format!("restarting PostgreSQL on {member}"),
            );
            restart(&member, step, context).await?;
        }
    }
    match waiting(context).await?.as_slice() {
        [] => Ok(()),
        [host, ..] => Err(Error::failed("a parameter still waits for a restart").on(host)),
    }
}

async fn waiting(context: &Context) -> Result<Vec<HostName>> {
    let survey = patroni::survey(&context.http, &context.cluster).await;
    Ok(survey
        .into_iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(|status| status.pending_restart))
        .map(|(host, _)| host)
        .collect())
}

async fn restart(member: &HostName, step: &Step, context: &Context) -> Result<()> {
    Patroni::on(&context.http, member)
        .restart(&context.cluster)
        .await?;
    let begin = Instant::now();
    loop {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        let back = match patroni::leader_of(&survey) {
            Some(leader) if leader == member => true,
            Some(leader) => survey[leader]
                .as_ref()
                .is_ok_and(|status| status.streams_to(member)),
            None => false,
        };
        if back {
            return Ok(());
        }
        if begin.elapsed() > RETURN.min(step.limit) {
            return Err(Error::failed("it did not come back after its restart").on(member));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Gives the leadership to a replica that streams, if the step's host has it.
pub(super) async fn hand_over(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let survey = patroni::survey(&context.http, &context.cluster).await;
    let Some(leader) = patroni::leader_of(&survey) else {
        return Err(Error::failed("the cluster has no leader"));
    };
    if *leader != step.host {
        return Ok(());
    }
    let status = survey[leader].as_ref().ok();
    let candidate = context
        .cluster
        .with_role(Role::Postgres)
        .map(|node| &node.name)
        .filter(|name| *name != leader)
        .filter(|name| status.is_some_and(|status| status.streams_to(name)))
        .max_by_key(|name| {
            // In synchronous mode only a synchronous standby may take over.
            status.is_some_and(|status| {
                status.replication.iter().any(|replica| {
                    replica.application_name == name.as_str() && replica.sync_state == "sync"
                })
            })
        })
        .ok_or_else(|| Error::failed("no replica streams that could take over").on(leader))?;
    say(
        Stream::Stdout,
        &format!("{leader} hands over to {candidate}"),
    );
    Patroni::on(&context.http, leader)
        .switchover(&context.cluster, leader, candidate)
        .await?;
    let begin = Instant::now();
    while begin.elapsed() < step.limit {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        if patroni::leader_of(&survey) == Some(candidate) {
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
    Err(Error::failed(format!("{candidate} did not become the leader")).on(leader))
}
