//! Waits until the cluster is in a certain state, and reports the state meanwhile.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Context, Latest, Say};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    plan::{Condition, Step},
    poll,
    remote::Script,
    services::{
        health::{self, Seen, Ways},
        postgres,
    },
};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(100);
/// How often to check whether the unit keeps crashing.
const UNIT_PAUSE: Duration = Duration::from_secs(4);
/// A unit that systemd has restarted this often will not recover.
const RESTARTS: u32 = 4;
/// How long a replica may make no visible progress.
const STALLED: Duration = Duration::from_secs(180);

pub(super) async fn wait(
    condition: &Condition,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let ways = Ways {
        cluster: &context.cluster,
        remote: &*context.remote,
        http: &context.http,
        survey: &context.survey,
    };
    let latest = Latest::default();
    let begin = Instant::now();
    let unit = UnitWatch::new();
    let progress = Mutex::new(begin);
    let progress = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    let late = |after: Duration, state: &str| {
        let seconds = after.as_secs();
        Error::new(
            Code::StepTimedOut,
            format!("not after {seconds} s: {state}"),
        )
        .left("nothing was undone; the services keep trying")
    };
    let met = poll::until(step.limit, PAUSE, || async {
        let seen = match condition {
            Condition::Ready(role) => health::of(*role).ready(&step.host, &ways).await,
            Condition::Leader => postgres::health::leader(&ways).await,
            Condition::Streaming => postgres::health::streaming(&step.host, &ways).await,
        };
        let state = match seen {
            Seen::Met => return Ok(Ok(())),
            Seen::Never(error) => return Ok(Err(error)),
            Seen::Not(state) => state,
            Seen::Working(state) => {
                *progress() = Instant::now();
                state
            }
        };
        latest.say(state.clone(), say);
        if *condition == Condition::Streaming && progress().elapsed() > STALLED {
            return Ok(Err(late(begin.elapsed(), &state)));
        }
        match unit.look(step, context).await {
            Ok(()) => Err(state),
            Err(error) => Ok(Err(error)),
        }
    });
    met.await
        .unwrap_or_else(|over| Err(late(over.after, &over.last)))
}

/// Checks from time to time whether a step's unit keeps crashing.
pub(super) struct UnitWatch(Mutex<Instant>);

impl UnitWatch {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// An error if waiting for the unit is pointless.
    pub(super) async fn look(&self, step: &Step, context: &Context) -> Result<()> {
        {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() <= UNIT_PAUSE {
                return Ok(());
            }
            *last = Instant::now();
        }
        dying(step, context).await
    }
}

/// An error if the step's unit has crashed so often that waiting is pointless.
async fn dying(step: &Step, context: &Context) -> Result<()> {
    let Some(unit) = step.units.first() else {
        return Ok(());
    };
    let hosts = hosts(unit, step, &context.cluster);
    let silent = |_, _: &str| {};
    for host in hosts {
        let script = Script::probe(format!("systemctl show -p NRestarts --value {unit}"));
        let limit = Duration::from_secs(10);
        let output = match context.remote.run(&host, &script, limit, &silent).await {
            Ok(output) => output,
            // A host that is slow to answer says nothing about its unit.
            Err(error) if matches!(error.code(), Code::StepTimedOut | Code::SshConnectionLost) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let restarts: u32 = output.stdout.trim().parse().unwrap_or(0);
        if restarts >= RESTARTS {
            return Err(Error::new(
                Code::ServiceKeepsDying,
                format!("{unit} keeps crashing ({restarts} times)"),
            )
            .on(&host));
        }
    }
    Ok(())
}

fn hosts(unit: &str, step: &Step, cluster: &Cluster) -> Vec<HostName> {
    match (&step.action, unit) {
        (crate::plan::Action::Await(Condition::Leader), "patroni") => cluster
            .with_role(Role::Postgres)
            .map(|node| node.name.clone())
            .collect(),
        _ => vec![step.host.clone()],
    }
}
