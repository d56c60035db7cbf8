//! `reboot`: hosts boot again, one at a time, while the cluster serves.
//!
//! Which hosts the user has agreed to, and what each ran then, is noted in the workspace before the first of them goes
//! down, and until the last is proven. A run that was cut off goes on with those that have not booted since.

use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    observe::Observed,
    operator::{Question, consent},
    prove::SETTLING,
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    facts::{Depth, Upkeep},
    inventory::{HostName, Role},
    plan::{self, operate::Seen},
    quantity::count,
    services::postgres::patroni,
    workspace::Rebooting,
};

/// Checks that a reboot itself puts right: an old program runs, or a parameter waits for a start.
const PUT_RIGHT: [&str; 2] = ["versions", "pending-restart"];

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// Empty for all hosts, or to go on with a reboot that was cut off.
    pub hosts: Vec<String>,
    /// Only hosts for which a kernel or a library waits.
    pub needed: bool,
}

/// A host that will boot again.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub host: HostName,
    pub roles: Vec<Role>,
    pub leads: bool,
    /// Why it should; empty if nothing waits for it.
    pub reasons: Vec<String>,
    /// Seconds since its last boot.
    pub up: u64,
}

/// What a reboot means, before it begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outlook {
    /// In the order of their turns.
    pub due: Vec<Due>,
    /// Hosts of the same piece of work that have booted already, and when it began.
    pub done: Option<(jiff::Timestamp, Vec<String>)>,
    /// What clients will notice, one sentence each.
    pub felt: Vec<String>,
}

/// What a reboot would do, without a change.
pub(crate) async fn preview(context: &Context, wish: &Wish) -> Result<Outlook> {
    let named = named(context, wish)?;
    let hosts = context.host_status().await?;
    let (events, _quiet) = crate::event::Events::channel();
    let work = async |connected: &Connected<'_>| {
        let observed = connected.look().await?.whole()?;
        let upkeep = connected.upkeep(&observed.cluster, Depth::Running).await?;
        let begun = begun(context, &named)?;
        Ok(outlook(
            connected,
            &observed.cluster,
            &upkeep,
            (wish, &named),
            begun.as_ref(),
        )
        .await)
    };
    context.on(hosts.complete(context)?, &events, work).await
}

/// Reboots the hosts; returns the result as a sentence.
pub(crate) async fn run(
    context: &Context,
    wish: &Wish,
    cancel: &CancellationToken,
) -> Result<String> {
    let named = named(context, wish)?;
    let taken = Taken::by(context, "reboot", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.complete(context)?;
    taken
        .run(async |run| {
            let work = async |connected: &Connected<'_>| reboot(run, connected, wish, &named).await;
            context.on(running, &run.events, work).await
        })
        .await
}

/// The hosts that the user names.
fn named(context: &Context, wish: &Wish) -> Result<Vec<HostName>> {
    let known = |name: &String| {
        let host = HostName::new(name);
        match context.inventory.hosts.contains_key(&host) {
            true => Ok(host),
            false => Err(Error::new(
                Code::HostUnknown,
                format!("no host is called {name}"),
            )),
        }
    };
    wish.hosts.iter().map(known).collect()
}

/// The reboot that was cut off, if it is the one that the user wants.
fn begun(context: &Context, named: &[HostName]) -> Result<Option<Rebooting>> {
    let begun = context.workspace.rebooting()?;
    Ok(begun.filter(|begun| {
        let same = named.len() == begun.hosts.len()
            && named.iter().all(|it| begun.hosts.contains_key(it.as_str()));
        named.is_empty() || same
    }))
}

async fn reboot(
    run: &Run<'_>,
    connected: &Connected<'_>,
    wish: &Wish,
    named: &[HostName],
) -> Result<String> {
    let context = run.context;
    let observed = connected.look().await?.whole()?;
    observed.members_as_declared()?;
    connected.certificates_valid(&observed)?;
    let cluster = observed.cluster.clone();
    let upkeep = connected.upkeep(&cluster, Depth::Running).await?;
    let begun = begun(context, named)?;
    let outlook = outlook(connected, &cluster, &upkeep, (wish, named), begun.as_ref()).await;
    if let Some((since, done)) = &outlook.done {
        let names = if done.is_empty() {
            "none".to_owned()
        } else {
            done.join(", ")
        };
        context.operator.say(&format!(
            "note: going on with the reboot that was begun {since}; done: {names}"
        ));
    }
    if outlook.due.is_empty() && begun.is_none() {
        return Ok("no host waits for a reboot".into());
    }
    healthy(connected, observed, "no host was rebooted").await?;
    if !outlook.due.is_empty() {
        let question = Question::Reboot {
            cluster: cluster.name(),
            outlook: &outlook,
        };
        consent(context.operator.as_ref(), question).await?;
    }
    let rebooting = begun.unwrap_or_else(|| Rebooting {
        since: jiff::Timestamp::now(),
        hosts: outlook
            .due
            .iter()
            .map(|it| (it.host.to_string(), upkeep[&it.host].boot.clone()))
            .collect(),
    });
    context.workspace.note_rebooting(&rebooting)?;
    let mut left: Vec<HostName> = outlook.due.iter().map(|it| it.host.clone()).collect();
    let all = left.len();
    while !left.is_empty() {
        let host = one(run, connected, &cluster, (&mut left, &upkeep, &rebooting)).await;
        host.map_err(|error| error.hint(format!("go on: {}", context.command("reboot"))))?;
    }
    context.workspace.end_rebooting()?;
    Ok(format!(
        "{} of {} booted again, and the cluster is healthy",
        count(all, "host"),
        cluster.name()
    ))
}

/// The next host boots again, and the cluster is proven.
async fn one(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &Arc<Cluster>,
    (left, upkeep, rebooting): (&mut Vec<HostName>, &BTreeMap<HostName, Upkeep>, &Rebooting),
) -> Result<()> {
    if run.cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    let survey = patroni::survey(&connected.http, cluster).await;
    let topology = patroni::overview(&connected.http, &survey).await;
    let seen = Seen {
        cluster,
        survey: &survey,
        topology: topology.as_ref(),
    };
    plan::order(cluster, seen.leader(), left);
    let host = left.remove(0);
    let mark = &rebooting.hosts[host.as_str()];
    let reasons = upkeep[&host].reboot_reasons();
    let doors = doors(cluster);
    let plan = plan::reboot::plan(&seen, &cluster.nodes[&host], mark, &reasons, &doors)?;
    connected.announce(&plan);
    connected.carry_out(plan, cluster, run.cancel).await?;
    let observed = connected.look().await?.whole()?;
    healthy(connected, observed, "no other host was rebooted after it").await
}

/// The front doors. All of them run, or the cluster is not healthy.
pub(super) fn doors(cluster: &Cluster) -> Vec<HostName> {
    let doors = cluster.with_role(Role::Haproxy);
    doors.map(|node| node.name.clone()).collect()
}

/// Fails unless the cluster is proven, but for what a restart puts right.
pub(super) async fn healthy(
    connected: &Connected<'_>,
    observed: Observed,
    left: &str,
) -> Result<()> {
    let name = observed.cluster.name().to_owned();
    let proof = connected.prove(observed, SETTLING).await?;
    match proof.without(&PUT_RIGHT).error(&name) {
        None => Ok(()),
        Some(error) => Err(error.left(left)),
    }
}

async fn outlook(
    connected: &Connected<'_>,
    cluster: &Cluster,
    upkeep: &BTreeMap<HostName, Upkeep>,
    (wish, named): (&Wish, &[HostName]),
    begun: Option<&Rebooting>,
) -> Outlook {
    let survey = patroni::survey(&connected.http, cluster).await;
    let leader = patroni::leader_of(&survey);
    let mut hosts: Vec<HostName> = match begun {
        Some(begun) => {
            let waits = |host: &&HostName| {
                let then = begun.hosts.get(host.as_str());
                then.is_some_and(|mark| *mark == upkeep[*host].boot)
            };
            cluster.nodes.keys().filter(waits).cloned().collect()
        }
        None => {
            let wanted = |host: &&HostName| named.is_empty() || named.contains(host);
            let needs =
                |host: &&HostName| !wish.needed || !upkeep[*host].reboot_reasons().is_empty();
            let hosts = cluster.nodes.keys().filter(wanted).filter(needs);
            hosts.cloned().collect()
        }
    };
    plan::order(cluster, leader, &mut hosts);
    let due: Vec<Due> = hosts
        .iter()
        .map(|host| Due {
            host: host.clone(),
            roles: cluster.nodes[host].roles.clone(),
            leads: leader == Some(host),
            reasons: upkeep[host].reboot_reasons(),
            up: upkeep[host].up,
        })
        .collect();
    let done = begun.map(|begun| {
        let waits = |name: &&String| hosts.iter().any(|it| it.as_str() == name.as_str());
        let done = begun.hosts.keys().filter(|name| !waits(name));
        (begun.since, done.cloned().collect())
    });
    Outlook {
        felt: felt(cluster, &hosts, leader),
        due,
        done,
    }
}

/// What clients notice while these hosts boot.
fn felt(cluster: &Cluster, hosts: &[HostName], leader: Option<&HostName>) -> Vec<String> {
    let count_of = |role| cluster.with_role(role).count();
    let among = |role| {
        let has = |host: &&HostName| cluster.nodes[*host].roles.contains(&role);
        hosts.iter().find(has)
    };
    let mut felt = Vec::new();
    let members = count_of(Role::Postgres);
    if let Some(leader) = leader.filter(|leader| hosts.contains(leader)) {
        felt.push(match members {
            1 => format!("nothing can be read or written while {leader} is away: there is no other member"),
            _ => format!("{leader} hands over before it boots: writes are refused for about 2 s, or held back by the poolers"),
        });
    }
    if among(Role::Postgres).is_some() && members > 1 {
        felt.push("clients that are connected to a replica for more than 20 s after its turn has begun are cut off".into());
    }
    if let Some(store) = among(Role::Etcd).filter(|_| count_of(Role::Etcd) == 1) {
        felt.push(match cluster.inventory.patroni.failsafe {
            true => format!("nothing fails over while {store} is away: it is the only etcd; the leader goes on"),
            false => format!("writes are refused while {store} is away: it is the only etcd, and patroni.failsafe is off"),
        });
    }
    if let Some(door) = among(Role::Haproxy) {
        felt.push(match (count_of(Role::Haproxy), cluster.inventory.haproxy.vip) {
            (1, _) => format!("no client reaches the cluster while {door} is away: it is the only front door"),
            (_, Some(vip)) => format!("clients of {vip} connect again when another front door takes it"),
            (_, None) => "clients of each front door are cut off while it is away; those that know the others go on there".into(),
        });
    }
    felt
}
