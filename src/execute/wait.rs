//! Waiting until the cluster is seen to be somewhere, and saying what it is doing meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Context, Latest, Say};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    plan::{Condition, Step},
    remote::Script,
    services::{
        etcd::Etcd,
        postgres::patroni::{self, Patroni, Status},
    },
};

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it looks whether the unit keeps dying.
const UNIT_PAUSE: Duration = Duration::from_secs(4);
/// A unit that systemd has started again this often will not come up.
const RESTARTS: u32 = 4;
/// How long a replica may do nothing that looks like progress.
const STALLED: Duration = Duration::from_secs(180);

pub(super) async fn wait(
    condition: &Condition,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let latest = Latest::default();
    let begin = Instant::now();
    let mut unit_looked = Instant::now();
    let mut progress = Instant::now();
    loop {
        let seen = match condition {
            Condition::EtcdHealthy => etcd(&step.host, context).await,
            Condition::Leader => leader(context).await,
            Condition::Streaming => streaming(&step.host, context).await,
            Condition::Registered => registered(&step.host, context).await,
        };
        let state = match seen {
            Seen::Met => return Ok(()),
            Seen::Never(error) => return Err(error),
            Seen::Not(state) => state,
            Seen::Working(state) => {
                progress = Instant::now();
                state
            }
        };
        latest.say(state.clone(), say);
        let given_up = begin.elapsed() > step.limit
            || (*condition == Condition::Streaming && progress.elapsed() > STALLED);
        if given_up {
            let seconds = begin.elapsed().as_secs();
            return Err(Error::new(
                Code::StepTimedOut,
                format!("not after {seconds} s: {state}"),
            )
            .left("nothing was undone; the services go on trying"));
        }
        if unit_looked.elapsed() > UNIT_PAUSE {
            unit_looked = Instant::now();
            dying(step, context).await?;
        }
        sleep(PAUSE).await;
    }
}

enum Seen {
    Met,
    /// Waiting cannot help.
    Never(Error),
    /// Not yet, and this is how it is.
    Not(String),
    /// Not yet, but it is getting there.
    Working(String),
}

async fn etcd(host: &HostName, context: &Context) -> Seen {
    match Etcd::on(&context.http, host).health().await {
        Ok(health) if health.healthy => Seen::Met,
        Ok(_) => Seen::Not(ailing(host, context).await),
        Err(error) if error.code() == Code::SshForwardingRefused => Seen::Never(error),
        Err(error) => Seen::Not(silent("etcd", &error)),
    }
}

/// What an etcd lacks that answers and is not healthy: an alarm makes it so too, and stays.
async fn ailing(host: &HostName, context: &Context) -> String {
    let alarms = Etcd::on(&context.http, host).alarms().await;
    let kinds: Vec<String> = alarms
        .unwrap_or_default()
        .into_iter()
        .map(|alarm| alarm.kind)
        .filter(|kind| !kind.is_empty())
        .collect();
    if kinds.is_empty() {
        return "etcd has no leader yet".into();
    }
    let kinds = kinds.join(", ");
    format!("etcd has an alarm ({kinds}), which stays until it is disarmed: docs/verify.md#alarms")
}

async fn leader(context: &Context) -> Seen {
    let survey = context.survey.get(&context.http, &context.cluster).await;
    let states: Vec<String> = survey
        .iter()
        .map(|(host, status)| format!("{host}: {}", describe(status)))
        .collect();
    let Some(host) = patroni::leader_of(&survey) else {
        return Seen::Not(states.join("; "));
    };
    match Patroni::on(&context.http, host).is_leader().await {
        Ok(true) => Seen::Met,
        _ => Seen::Not(states.join("; ")),
    }
}

async fn streaming(host: &HostName, context: &Context) -> Seen {
    let survey = context.survey.get(&context.http, &context.cluster).await;
    match patroni::leader_of(&survey) {
        Some(leader) if leader == host => return Seen::Met,
        Some(leader) => {
            let streams = survey[leader]
                .as_ref()
                .is_ok_and(|status| status.streams_to(host));
            if streams {
                return Seen::Met;
            }
        }
        None => {}
    }
    let Some(status) = survey.get(host) else {
        return Seen::Not("no such host".into());
    };
    let state = describe(status);
    let working = status
        .as_ref()
        .is_ok_and(|status| status.state.contains("creating replica"));
    if working {
        Seen::Working(state)
    } else {
        Seen::Not(state)
    }
}

/// Whether Patroni answers on `host` and has told the DCS where it is now.
async fn registered(host: &HostName, context: &Context) -> Seen {
    let status = Patroni::on(&context.http, host).status().await;
    let running = status.as_ref().is_ok_and(Status::is_running);
    if !running {
        return Seen::Not(describe(&status));
    }
    let Some(node) = context.cluster.node(host) else {
        return Seen::Not("no such host".into());
    };
    let address = format!("://{}:", node.address);
    for etcd in context.cluster.with_role(Role::Etcd) {
        let keys = Etcd::on(&context.http, &etcd.name)
            .patroni_keys(context.cluster.name())
            .await;
        let Ok(keys) = keys else { continue };
        let told = keys
            .members
            .get(host.as_str())
            .and_then(|member| member["conn_url"].as_str())
            .is_some_and(|url| url.contains(&address));
        if told {
            return Seen::Met;
        }
    }
    Seen::Not("the DCS does not know where it is yet".into())
}

fn describe(status: &Result<Status>) -> String {
    match status {
        Ok(status) if status.state.is_empty() => "Patroni does not say how it is".into(),
        Ok(status) if status.role.is_empty() => status.state.clone(),
        Ok(status) => format!("{}, {}", status.role, status.state),
        Err(error) => silent("Patroni", error),
    }
}

/// That a service does not answer, with the last cause that was seen: that nobody listens yet is one,
/// that a certificate is not valid is another.
fn silent(service: &str, error: &Error) -> String {
    match error.causes().last() {
        Some(cause) => format!("{service} does not answer yet ({cause})"),
        None => format!("{service} does not answer yet ({})", error.what()),
    }
}

/// An error if the step's unit has died so often that waiting on is pointless.
async fn dying(step: &Step, context: &Context) -> Result<()> {
    let Some(unit) = step.units.first() else {
        return Ok(());
    };
    let hosts = hosts(unit, step, &context.cluster);
    let silent = |_, _: &str| {};
    for host in hosts {
        let script = Script::probe(format!("systemctl show -p NRestarts --value {unit}"));
        let output = context
            .remote
            .run(&host, &script, Duration::from_secs(10), &silent)
            .await?;
        let restarts: u32 = output.stdout.trim().parse().unwrap_or(0);
        if restarts >= RESTARTS {
            return Err(Error::new(
                Code::ServiceKeepsDying,
                format!("{unit} dies again and again ({restarts} times)"),
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
