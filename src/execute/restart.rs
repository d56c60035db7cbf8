//! Restarts PostgreSQL on members with a parameter that waits for it: replicas first, the leader last.
//!
//! The order is decided again before each restart, from what the members say at that time.
//!
//! - Replicas go first, one at a time; each one starts only after the one before streams again. Then the leader
//!   hands over to one of them, and comes back as a replica, which is its restart.
//! - Five parameters limit what a standby can replay (`max_connections` and others). If one is raised, it must
//!   be raised on standbys first. If one is lowered, a standby keeps the old value until its primary has
//!   restarted as a primary. A hand-over would not help then, so the leader restarts in place, and the replicas
//!   after it (PostgreSQL, "Administrator's overview" of hot standby; Patroni 4.1.5, `postgresql/config.py`,
//!   `effective_configuration`).
//! - If there is no member to hand over to, the leader also restarts in place.

use std::{collections::BTreeMap, sync::OnceLock, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Context, Say, action, operate};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
    liberal,
    plan::Step,
    poll,
    services::postgres::patroni::{self, Patroni, Status},
    switchover::{CHECKPOINT, Handover},
};

/// How long to wait until a standby is synchronous, or a leader exists.
const TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);
/// The parameters of which a standby cannot have less than its primary, with Patroni's defaults for
/// PostgreSQL's command line.
const BOUND: [(&str, &str); 5] = [
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
];

/// Why a leader restarts although others could take over.
const LOWERED: &str = "a parameter is lowered that its replicas cannot have less of";

type Survey = BTreeMap<HostName, Result<Status>>;

/// The next action.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Move {
    /// No member waits for a restart.
    None,
    Restart(HostName),
    /// The leader, although it accepts writes.
    InPlace {
        leader: HostName,
        why: &'static str,
    },
    HandOver {
        from: HostName,
        to: HostName,
    },
    /// The missing condition may become true by itself.
    Wait(&'static str),
    /// A restart did not help.
    Stuck(HostName),
}

/// Restarts PostgreSQL on every member with a parameter that waits for it.
pub(super) async fn restart_pending(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let mut done: BTreeMap<HostName, usize> = BTreeMap::new();
    let mut waited: Option<Instant> = None;
    // A member reports that it waits only after its loop has read the config *and* compared it. When the second
    // loop has run, the first one is complete.
    action::take_over(context, 2).await;
    let mut is_sure = false;
    // Not `poll::until`: each round may restart a member, and the time to wait for one begins anew.
    loop {
        let mut survey = patroni::survey(&context.http, &context.cluster).await;
        let inventory = &context.cluster.inventory;
        drop_overruled(&mut survey, &context.cluster.dcs_parameters());
        let mut next = next(&survey, &done, inventory.patroni.synchronous);
        // Two cases need another loop. The leader may have been waiting for something else for a long time,
        // while the replicas have not compared the new values yet: they would not be restarted before the
        // leader. Or the leader, which must go first if a bound is lowered, has not compared yet.
        let is_doubtful = match &next {
            Move::InPlace { .. } | Move::HandOver { .. } => true,
            Move::Restart(host) => done.is_empty() && only_lowered(&survey, host) == Some(true),
            Move::None | Move::Wait(_) | Move::Stuck(_) => false,
        };
        if !is_sure && is_doubtful {
            is_sure = true;
            action::take_over(context, 1).await;
            continue;
        }
        if let Move::Wait(what) = next {
            if waited.get_or_insert_with(Instant::now).elapsed() < TIMEOUT {
                sleep(PAUSE).await;
                continue;
            }
            next = match patroni::leader_of(&survey) {
                Some(leader) => Move::InPlace {
                    leader: leader.clone(),
                    why: what,
                },
                None => return Err(Error::new(Code::NoLeader, "the cluster has no leader")),
            };
        }
        waited = None;
        match next {
            Move::None => {
                action::take_over(context, 1).await;
                let survey = patroni::survey(&context.http, &context.cluster).await;
                if waiting(&survey).is_empty() {
                    return Ok(());
                }
            }
            Move::Restart(host) => {
                say(Stream::Stdout, &format!("restarting PostgreSQL on {host}"));
                restart(&host, step, context).await?;
                *done.entry(host).or_default() += 1;
            }
            Move::InPlace { leader, why } => {
                let said = format!("restarting PostgreSQL on {leader}, which leads: {why}");
                say(Stream::Stdout, &said);
                action::checkpoint(&leader, CHECKPOINT, context).await;
                restart(&leader, step, context).await?;
                caught_up(&leader, step, context).await;
                // Patroni forgets that a replica waits if it reads its config while PostgreSQL starts.
                for host in owed(&survey, &leader, &done, why) {
                    say(Stream::Stdout, &format!("restarting PostgreSQL on {host}"));
                    restart(&host, step, context).await?;
                    *done.entry(host).or_default() += 1;
                }
                *done.entry(leader).or_default() += 1;
            }
            Move::HandOver { from, to } => {
                let said = format!(
                    "restarting PostgreSQL on {from}, the old leader, which is a replica now"
                );
                let handover = Handover {
                    from: from.clone(),
                    to,
                };
                action::switch(&handover, step, context, say).await?;
                say(Stream::Stdout, &said);
                comes_back(&from, None, step, context).await?;
                *done.entry(from).or_default() += 1;
            }
            Move::Stuck(host) => {
                return Err(Error::new(
                    Code::ClusterNotAsDeclared,
                    "a parameter still waits for a restart",
                )
                .on(&host));
            }
            Move::Wait(_) => {}
        }
    }
}

fn waiting(survey: &Survey) -> Vec<&HostName> {
    survey
        .iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(|status| status.pending_restart))
        .map(|(host, _)| host)
        .collect()
}

/// What to do next. `done` says how often each member has been restarted.
fn next(survey: &Survey, done: &BTreeMap<HostName, usize>, synchronous: bool) -> Move {
    let waiting = waiting(survey);
    if waiting.is_empty() {
        return Move::None;
    }
    let Some(leader) = patroni::leader_of(survey) else {
        return Move::Wait("the cluster has no leader");
    };
    let restarts = |host: &HostName| done.get(host).copied().unwrap_or_default();
    let leader_waits = waiting.contains(&leader);
    for host in waiting.iter().filter(|host| **host != leader) {
        let helps = if leader_waits {
            // A member that has compared only some values so far gives no reason; its leader's reason is known.
            let lowered = only_lowered(survey, host).or(some_lowered(survey, leader));
            restarts(host) == 0 && lowered != Some(true)
        } else {
            // One more restart than before: the leader may have been the reason why it still waits.
            restarts(host) < 2
        };
        if helps {
            return Move::Restart((*host).clone());
        }
    }
    if !leader_waits {
        return Move::Stuck(waiting[0].clone());
    }
    if restarts(leader) > 0 {
        return Move::Stuck(leader.clone());
    }
    // Without reasons (before Patroni 3.3): a replica that still waits after a restart keeps a value of its
    // leader.
    let held_back = || {
        waiting
            .iter()
            .any(|host| *host != leader && restarts(host) > 0)
    };
    if some_lowered(survey, leader).unwrap_or_else(held_back) {
        return Move::InPlace {
            leader: leader.clone(),
            why: LOWERED,
        };
    }
    let fit: Vec<&HostName> = survey
        .keys()
        .filter(|host| *host != leader && !waiting.contains(host))
        .filter(|host| told(survey, leader).is_some_and(|status| status.streams_to(host)))
        .collect();
    let is_synchronous = |host: &HostName| {
        told(survey, leader).is_some_and(|status| {
            status.replication.iter().any(|replica| {
                replica.application_name == host.as_str()
                    && matches!(replica.sync_state.as_str(), "sync" | "quorum")
            })
        })
    };
    let best = fit.iter().max_by_key(|host| is_synchronous(host));
    match best {
        Some(to) if !synchronous || is_synchronous(to) => Move::HandOver {
            from: leader.clone(),
            to: (*to).clone(),
        },
        Some(_) => Move::Wait("no synchronous standby could take over"),
        None if survey.len() == 1 => Move::InPlace {
            leader: leader.clone(),
            why: "there is no other member",
        },
        // A replica that has just restarted may not stream yet.
        None => Move::Wait("no replica that could take over streams"),
    }
}

/// The replicas that kept the leader's old bounds. They need another restart when the leader has lower ones.
fn owed(
    survey: &Survey,
    leader: &HostName,
    done: &BTreeMap<HostName, usize>,
    why: &str,
) -> Vec<HostName> {
    let waiting = waiting(survey);
    survey
        .iter()
        .filter(|(host, status)| why == LOWERED && *host != leader && status.is_ok())
        .filter(|(host, _)| waiting.contains(host) || done.contains_key(*host))
        .map(|(host, _)| host.clone())
        .collect()
}

fn told<'a>(survey: &'a Survey, host: &HostName) -> Option<&'a Status> {
    survey.get(host).and_then(|status| status.as_ref().ok())
}

/// Whether a member waits only for bounds that are lowered; `None` if it gives no reason.
fn only_lowered(survey: &Survey, host: &HostName) -> Option<bool> {
    let reasons = &told(survey, host)?.pending_restart_reason;
    (!reasons.is_empty()).then(|| reasons.iter().all(|(name, change)| lowers(name, change)))
}

/// Whether a bound is one of those that are lowered.
fn some_lowered(survey: &Survey, host: &HostName) -> Option<bool> {
    let reasons = &told(survey, host)?.pending_restart_reason;
    (!reasons.is_empty()).then(|| reasons.iter().any(|(name, change)| lowers(name, change)))
}

fn number(change: &Value, key: &str) -> Option<f64> {
    liberal::as_text(&change[key])?.trim().parse().ok()
}

/// Drops reasons to wait that a restart does not resolve: `ALTER SYSTEM` sets a bound, but Patroni passes
/// another value on the command line, which wins. `wanted` is Patroni's value.
fn drop_overruled(survey: &mut Survey, wanted: &BTreeMap<String, String>) {
    for status in survey
        .values_mut()
        .filter_map(|status| status.as_mut().ok())
    {
        status.pending_restart_reason.retain(|name, change| {
            let bound = BOUND.iter().find(|(bound, _)| bound == name);
            let Some((_, its_own)) = bound else {
                return true;
            };
            let comes = wanted.get(name).map_or(*its_own, String::as_str);
            let comes = comes.trim().parse::<f64>();
            match (comes, number(change, "new_value")) {
                (Ok(comes), Some(new)) => (comes - new).abs() < 0.5,
                _ => true,
            }
        });
    }
}

fn lowers(name: &str, change: &Value) -> bool {
    let number = |key: &str| number(change, key);
    BOUND.iter().any(|(bound, _)| *bound == name)
        && match (number("old_value"), number("new_value")) {
            (Some(old), Some(new)) => new < old,
            _ => false,
        }
}

const THE_REST: &str = "the members that come after it were not restarted";

async fn restart(member: &HostName, step: &Step, context: &Context) -> Result<()> {
    let patroni = Patroni::on(&context.http, member);
    let before = patroni.status().await.ok();
    let before = before.and_then(|status| status.postmaster_start_time);
    // Patroni does one thing at a time.
    let asked = poll::until(step.limit, PAUSE, || async {
        match patroni.restart(&context.cluster).await {
            Err(error) if operate::is_at_work(&error) => Err(error),
            answer => Ok(answer),
        }
    });
    match asked.await.unwrap_or_else(|over| Err(over.last)) {
        Ok(()) => comes_back(member, None, step, context).await,
        // A stop or a start may take longer than the time limit for an answer. It continues anyway.
        Err(error) if error.code() == Code::ServiceTimedOut => {
            comes_back(member, before.as_ref(), step, context).await
        }
        Err(error) => Err(error.left(THE_REST)),
    }
}

/// Waits until a member leads, or streams from the leader. With `since`, its PostgreSQL must also have started
/// after that.
async fn comes_back(
    member: &HostName,
    since: Option<&String>,
    step: &Step,
    context: &Context,
) -> Result<()> {
    let back = poll::until(step.limit, PAUSE, || async {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        let anew = since.is_none()
            || told(&survey, member)
                .is_some_and(|status| operate::has_started_since(status, since));
        let back = match patroni::leader_of(&survey) {
            Some(leader) if leader == member => true,
            Some(leader) => told(&survey, leader).is_some_and(|status| status.streams_to(member)),
            None => false,
        };
        if back && anew { Ok(()) } else { Err(survey) }
    });
    back.await.map_err(|over| {
        let seconds = over.after.as_secs();
        let what = format!("it did not come back within {seconds} s after its restart");
        let error = Error::new(Code::StepTimedOut, what)
            .on(member)
            .left(THE_REST);
        match over.last.get(member) {
            Some(Ok(status)) => error.cause(format!("its PostgreSQL: {}", status.state)),
            Some(Err(silent)) => error.cause(silent.to_string()),
            None => error,
        }
    })
}

/// Waits until every replica has replayed what its leader wrote at its start. Before that, a replica would keep
/// the leader's old bounds.
///
/// If a replica does not get there, its own restart reports it.
async fn caught_up(leader: &HostName, step: &Step, context: &Context) {
    let goal = OnceLock::new();
    let replayed = poll::until(TIMEOUT.min(step.limit), PAUSE, || async {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        let status = told(&survey, leader);
        if let Some(location) = status.and_then(|status| status.xlog.location) {
            goal.get_or_init(|| location);
        }
        let goal = goal.get().copied();
        let behind = survey.iter().any(|(host, replica)| {
            let replica = replica.as_ref().ok().filter(|_| host != leader);
            replica.is_some_and(|replica| {
                let streams = status.is_some_and(|status| status.streams_to(host));
                !streams || replica.xlog.replayed_location < goal
            })
        });
        if behind { Err(()) } else { Ok(()) }
    });
    drop(replayed.await);
}

#[cfg(test)]
mod tests;
