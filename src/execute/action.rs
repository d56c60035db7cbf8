//! Steps that talk to the cluster's services and need no shell on a host.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Context, Say};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::{HostName, Role},
    plan::Step,
    poll,
    remote::Script,
    services::{
        etcd::Etcd,
        postgres::patroni::{self, Patroni},
    },
    switchover::{self, Handover},
};

/// How long a member may take to run a loop after it was woken.
const NOTICE: Duration = Duration::from_secs(5);
/// A bootstrap counts as dead if this many looks in a row, this far apart, find it inactive. Between taking the
/// lock and starting `initdb`, only a fraction of a second passes.
const QUIET_LOOKS: usize = 4;
const QUIET_PAUSE: Duration = Duration::from_millis(750);
const QUIET_LIMIT: Duration = Duration::from_secs(10);

/// How long Patroni may take to fill a store that has lost everything: one loop, and the time to notice that a
/// connection is dead.
const REFILLING: Duration = Duration::from_secs(30);

/// How often to look which member leads.
const LOOK: Duration = Duration::from_millis(200);

/// The member that leads now, or within `limit`. An interrupted run may have left the members without a leader,
/// and the next run may start at once.
pub(super) async fn leader(limit: Duration, context: &Context) -> Result<HostName> {
    let found = poll::until(limit, LOOK, || async {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        patroni::leader_of(&survey).cloned().ok_or(())
    });
    found
        .await
        .map_err(|_| Error::new(Code::NoLeader, "the cluster has no leader"))
}

pub(super) async fn patch_config(patch: &Value, step: &Step, context: &Context) -> Result<()> {
    let leader = leader(step.limit, context).await?;
    // In a store that was just made anew, Patroni has nothing to patch before its next loop.
    let limit = step.limit.min(REFILLING);
    let patched = poll::until(limit, LOOK, || async {
        let patroni = Patroni::on(&context.http, &leader);
        match patroni.patch_config(&context.cluster, patch).await {
            Err(error) if error.code() == Code::ServiceRefused => Err(error),
            patched => Ok(patched),
        }
    });
    patched.await.unwrap_or_else(|over| Err(over.last))
}

pub(super) async fn release_bootstrap(
    step: &Step,
    revision: &str,
    context: &Context,
) -> Result<()> {
    // A member may have taken the lock after the hosts were observed, and may not have started its bootstrap
    // yet. If its lock were released now, a second member would take it, and there would be two clusters.
    for _ in 0..QUIET_LOOKS {
        sleep(QUIET_PAUSE).await;
        if bootstrap_at_work(context).await? {
            return Ok(());
        }
    }
    // If the lock has changed since, the bootstrap is alive, which is fine too.
    Etcd::on(&context.http, &step.host)
        .release_initialize(context.cluster.name(), revision)
        .await
        .map(|_| ())
}

/// Whether any member creates a database, copies one, or runs one.
async fn bootstrap_at_work(context: &Context) -> Result<bool> {
    let script = Script::probe(
        "grep -qsxE 'initdb|pg_basebackup|postgres' /proc/[0-9]*/comm && echo busy || echo quiet",
    );
    let looks = context.cluster.with_role(Role::Postgres).map(|node| {
        let script = &script;
        async move {
            let silent = |_, _: &str| {};
            context
                .remote
                .run(&node.name, script, QUIET_LIMIT, &silent)
                .await
        }
    });
    let mut busy = false;
    for look in futures_util::future::join_all(looks).await {
        busy |= look?.stdout.contains("busy");
    }
    Ok(busy)
}

/// Gives the member on the step's host another peer URL, through any etcd that has a quorum.
pub(super) async fn update_etcd_member(
    step: &Step,
    peer_url: &str,
    context: &Context,
) -> Result<()> {
    // Right after its start, a member may not know its leader yet.
    let updated = poll::until(step.limit, Duration::from_millis(300), || async {
        let mut last = Error::new(Code::EtcdUnreachable, "no etcd answers");
        for node in context.cluster.with_role(Role::Etcd) {
            let etcd = Etcd::on(&context.http, &node.name);
            match update_through(&etcd, &step.host, peer_url).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    });
    updated.await.map_err(|over| over.last)
}

/// Deletes the old addresses of the member on the step's host from the DCS.
pub(super) async fn forget_member(step: &Step, context: &Context) -> Result<()> {
    let mut last = Error::new(Code::EtcdUnreachable, "no etcd answers");
    for node in context.cluster.with_role(Role::Etcd) {
        let forgotten = Etcd::on(&context.http, &node.name)
            .forget_patroni_member(context.cluster.name(), step.host.as_str())
            .await;
        match forgotten {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Makes the DCS forget how far the WAL was.
pub(super) async fn forget_position(context: &Context) -> Result<()> {
    let mut last = Error::new(Code::EtcdUnreachable, "no etcd answers");
    for node in context.cluster.with_role(Role::Etcd) {
        let etcd = Etcd::on(&context.http, &node.name);
        match etcd.forget_position(context.cluster.name()).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has the DCS name another database.
pub(super) async fn adopt_system(system: &str, context: &Context) -> Result<()> {
    let mut last = Error::new(Code::EtcdUnreachable, "no etcd answers");
    for node in context.cluster.with_role(Role::Etcd) {
        let etcd = Etcd::on(&context.http, &node.name);
        match etcd.adopt_system(context.cluster.name(), system).await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn update_through(etcd: &Etcd<'_>, host: &HostName, peer_url: &str) -> Result<()> {
    let members = etcd.members().await?;
    let member = members
        .iter()
        .find(|member| member.name == host.as_str())
        .ok_or_else(|| {
            Error::new(
                Code::ClusterNotAsDeclared,
                format!("etcd has no member {host}"),
            )
        })?;
    if member.peer_urls == [peer_url] {
        return Ok(());
    }
    etcd.update_member(&member.id, peer_url).await
}

/// Makes every member run its loop now instead of within `loop_wait`.
///
/// A patch of the configuration does that even if it changes nothing (Patroni 4.1.5, `api.py`,
/// `do_PATCH_config`).
pub(super) async fn wake(context: &Context) {
    let patch = serde_json::json!({"loop_wait": context.cluster.inventory.patroni.loop_wait});
    let woken = context.cluster.with_role(Role::Postgres).map(|node| {
        let patch = &patch;
        async move {
            Patroni::on(&context.http, &node.name)
                .patch_config(&context.cluster, patch)
                .await
        }
    });
    // A member that cannot be woken runs its loop later by itself.
    drop(futures_util::future::join_all(woken).await);
}

/// Makes every member run `loops` loops now, and checks that it did. A loop reads the file first, then notes
/// when it saw the DCS, and at its end takes over what the DCS has.
///
/// A member that does not answer, or does not see the DCS, is not waited for.
pub(super) async fn take_over(context: &Context, loops: usize) {
    let seen = async || -> Vec<(HostName, Option<u64>)> {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        let told = survey.into_iter();
        told.map(|(host, status)| (host, status.ok().and_then(|it| it.dcs_last_seen)))
            .collect()
    };
    let mut before = seen().await;
    for _ in 0..loops {
        let begin = Instant::now();
        // Not `poll::until`: a look right after the wake is too early, and each look needs another wake.
        loop {
            wake(context).await;
            sleep(Duration::from_millis(200)).await;
            let now = seen().await;
            let behind = |(host, now): &(HostName, Option<u64>)| {
                now.is_some() && before.iter().any(|(it, then)| it == host && then >= now)
            };
            if !now.iter().any(behind) || begin.elapsed() > NOTICE {
                before = now;
                break;
            }
        }
    }
}

/// Gives the leadership to the best replica, if the step's host leads.
pub(super) async fn hand_over(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let survey = patroni::survey(&context.http, &context.cluster).await;
    if patroni::leader_of(&survey).is_some_and(|leader| *leader != step.host) {
        return Ok(());
    }
    match Handover::plan(&survey, None)? {
        Some(handover) => switch(&handover, step, context, say).await,
        None => Ok(()),
    }
}

pub(super) async fn switch(
    handover: &Handover,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let Handover { from, to } = handover;
    say(Stream::Stdout, &format!("{from} hands over to {to}"));
    let remote = context.remote.as_ref();
    handover
        .run(&context.http, remote, &context.cluster, step.limit)
        .await
}

/// Shortens the coming stop of a leader by a checkpoint. A leader with problems may not complete it, so the
/// wait is limited to `limit`.
pub(super) async fn checkpoint(leader: &HostName, limit: Duration, context: &Context) {
    let remote = context.remote.as_ref();
    drop(switchover::checkpoint(leader, &context.cluster, remote, limit).await);
}
