//! Steps of `pause`, `reinit`, `restart` and `failover`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::sleep;

use super::{Context, Latest, Say, action};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
    plan::Step,
    poll,
    services::postgres::patroni::{self, Patroni, Status},
    switchover::CHECKPOINT,
};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a candidate may take to record that it will lead, before the others are woken to read it.
const WAKING: Duration = Duration::from_millis(500);
/// How long a failover waits for the checkpoint of a leader that answers: the leader may be unhealthy.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);

/// Waits until all members that answer know whether the cluster is paused. A member that does not answer reads
/// it from the DCS when it is back.
pub(super) async fn set_pause(
    paused: bool,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let latest = Latest::default();
    let told = AtomicBool::new(false);
    let set = poll::until(step.limit, PAUSE, || async {
        let survey = patroni::survey(&context.http, &context.cluster).await;
        let mut behind = Vec::new();
        let mut refused = None;
        for (host, status) in &survey {
            let Ok(status) = status else { continue };
            if told.load(Ordering::Relaxed) && status.pause == paused {
                continue;
            }
            behind.push(host.as_str());
            // The same patch goes to each member: the first one writes it, and each one wakes its member.
            match Patroni::on(&context.http, host)
                .set_pause(&context.cluster, paused)
                .await
            {
                Ok(()) => told.store(true, Ordering::Relaxed),
                Err(error) => refused = Some(error),
            }
        }
        if told.load(Ordering::Relaxed) && behind.is_empty() {
            return Ok(());
        }
        if !behind.is_empty() {
            latest.say(format!("not yet: {}", behind.join(", ")), say);
        }
        Err(refused.unwrap_or_else(|| {
            let word = if paused { "paused" } else { "resumed" };
            Error::new(
                Code::PatroniUnreachable,
                match behind.as_slice() {
                    [] => "no member answers".to_owned(),
                    behind => format!("not yet {word}: {}", behind.join(", ")),
                },
            )
        }))
    });
    set.await.map_err(|over| over.last)
}

/// Returns when the member is copying the data, or has copied it already.
pub(super) async fn reinitialize(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let patroni = Patroni::on(&context.http, &step.host);
    let before = started(&patroni.status().await);
    patroni.reinitialize(&context.cluster).await?;
    say(Stream::Stdout, "its data is removed and copied again");
    until(step, context, say, |status| {
        status.state.contains("creating replica")
            || (status.is_running() && has_started_since(status, before.as_ref()))
    })
    .await
}

/// Restarts PostgreSQL on the step's host, and returns when it runs again. A PostgreSQL that started after
/// `since` has been restarted already.
pub(super) async fn restart(
    leads: bool,
    since: Option<&String>,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let patroni = Patroni::on(&context.http, &step.host);
    if leads {
        action::checkpoint(&step.host, CHECKPOINT, context).await;
    }
    let asked = poll::until(step.limit, PAUSE, || async {
        let status = patroni.status().await;
        if status
            .as_ref()
            .is_ok_and(|status| since.is_some() && has_started_since(status, since))
        {
            say(Stream::Stdout, "it has restarted already");
            return Ok(Ok(()));
        }
        if !leads && status.as_ref().is_ok_and(Status::is_primary) {
            return Ok(Err(Error::new(
                Code::ClusterChanged,
                format!("{} leads now", step.host),
            )
            .on(&step.host)
            .left("it was not restarted")
            .hint(
                "run the same command again: it restarts the members in another order",
            )));
        }
        let asked = if leads {
            patroni.restart(&context.cluster).await
        } else {
            patroni.restart_replica(&context.cluster).await
        };
        match asked {
            // A shutdown may take longer than the time limit for an answer. It continues anyway.
            Err(error) if error.code() == Code::ServiceTimedOut => Ok(Ok(())),
            // Patroni does one thing at a time.
            Err(error) if is_at_work(&error) => Err(error),
            answer => Ok(answer),
        }
    });
    asked.await.unwrap_or_else(|over| Err(over.last))?;
    until(step, context, say, |status| {
        status.is_running() && (since.is_none() || has_started_since(status, since))
    })
    .await
}

/// Whether Patroni refuses because it is busy with something else.
pub(super) fn is_at_work(error: &Error) -> bool {
    error.code() == Code::PatroniBusy
}

/// Makes the step's host the leader, and returns when it accepts writes.
pub(super) async fn fail_over(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let candidate = Patroni::on(&context.http, &step.host);
    let survey = patroni::survey(&context.http, &context.cluster).await;
    if let Some(leader) = patroni::leader_of(&survey).filter(|leader| **leader != step.host) {
        // A leader that answers is stopped cleanly before another member leads.
        action::checkpoint(leader, LAST_CHECKPOINT, context).await;
    }
    // The present leader would notice it only in its next loop, so it is woken.
    let (asked, ()) = tokio::join!(candidate.failover(&context.cluster, &step.host), async {
        sleep(WAKING).await;
        action::wake(context).await;
    });
    match asked {
        Ok(()) => {}
        // The leader's lock may have to expire first, which takes up to `ttl`.
        Err(error) if is_under_way(&error) => {
            say(Stream::Stdout, &error.causes().join("; "));
        }
        Err(error) => return Err(error),
    }
    let latest = Latest::default();
    let leads = poll::until(step.limit, PAUSE, || async {
        if matches!(candidate.is_leader().await, Ok(true)) {
            return Ok(());
        }
        let state = describe(&candidate.status().await);
        latest.say(state.clone(), say);
        Err(state)
    });
    leads.await.map_err(|over| {
        let (seconds, state) = (over.after.as_secs(), over.last);
        Error::new(
            Code::NotPromoted,
            format!("{} does not lead after {seconds} s: {state}", step.host),
        )
        .on(&step.host)
    })
}

/// Patroni's message for a failover whose outcome it does not know yet.
fn is_under_way(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::ServiceTimedOut | Code::PatroniBusy | Code::FailoverUndecided
    )
}

fn started(status: &Result<Status>) -> Option<String> {
    status
        .as_ref()
        .ok()
        .and_then(|status| status.postmaster_start_time.clone())
}

pub(super) fn has_started_since(status: &Status, before: Option<&String>) -> bool {
    status.postmaster_start_time.is_some() && status.postmaster_start_time.as_ref() != before
}

async fn until(
    step: &Step,
    context: &Context,
    say: Say<'_>,
    reached: impl Fn(&Status) -> bool,
) -> Result<()> {
    let latest = Latest::default();
    let host: &HostName = &step.host;
    let looks = poll::until(step.limit, PAUSE, || async {
        let status = Patroni::on(&context.http, host).status().await;
        if status.as_ref().is_ok_and(&reached) {
            return Ok(());
        }
        let state = describe(&status);
        latest.say(state.clone(), say);
        Err(state)
    });
    looks.await.map_err(|over| {
        let (seconds, state) = (over.after.as_secs(), over.last);
        Error::new(
            Code::StepTimedOut,
            format!("not after {seconds} s: {state}"),
        )
        .on(host)
        .left("nothing was undone; Patroni keeps trying")
    })
}

fn describe(status: &Result<Status>) -> String {
    match status {
        Ok(status) => [status.role.as_str(), status.state.as_str()]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(", "),
        Err(error) => error.what().to_owned(),
    }
}
