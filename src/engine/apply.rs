//! `up` and `render`: bring the hosts to the inventory's state, and verify the cluster.
//!
//! Both verbs follow the same path. `up` also creates and starts hosts. `render` shows every diff before it
//! asks, and continues with the hosts that it can reach: one dead host must not prevent the repair of the
//! others.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    ahead, authority,
    context::Context,
    etcd_moves,
    headway::Headway,
    hosts::HostStatus,
    lapse,
    launch::launch,
    preview::Preview,
    retire::{self, Agreed},
    run::Run,
    settle::{Consent, ask, settle},
    taken::{Leftovers, Taken},
    unfinished,
};
use crate::{
    cluster::{Cluster, TlsStage},
    error::{Error, Result},
    machine::Machine,
    plan::membership::Left,
    provider::{Drifted, Part},
};

pub(crate) use super::settle::Verb;

/// The result of a successful run.
pub(crate) struct Applied {
    pub cluster: Arc<Cluster>,
    pub machines: Vec<Machine>,
}

/// Brings the cluster to the inventory's state, and verifies it.
pub(crate) async fn run(
    verb: Verb,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<Applied> {
    context.not_lost().await?;
    let taken = Taken::by(context, verb.as_str(), Leftovers::Offer, cancel).await?;
    if let Err(error) = context.marks_are_known().await {
        context.connections.conclude(Some(&error)).await;
        context.connections.close(false).await;
        return Err(error);
    }
    // On the first run, this makes the secrets; notes about them come before everything else.
    context.secrets()?;
    for note in context.workspace.take_notes() {
        context.operator.say(&format!("note: {note}"));
    }
    for note in unfinished::notes(context)? {
        context.operator.say(&note);
    }
    taken
        .run(async |run| apply(verb, run, Consent::Needed).await)
        .await
}

/// The body of the run. `consent` is what the user has agreed to before.
pub(super) async fn apply(verb: Verb, run: &Run<'_>, consent: Consent) -> Result<Applied> {
    let mut agreed = Agreed::new();
    if verb == Verb::Up
        && let Some(wide) = etcd_moves::joined_first(run.context).await?
    {
        agreed = retire::ask_before_others_join(run).await?;
        run.context
            .operator
            .say("note: etcd moves to other hosts: those join first, and then the others leave");
        let joining = etcd_moves::run(run, &wide);
        at_once(verb, &joining, consent, Round::Before, &agreed).await?;
        etcd_moves::lead_elsewhere(run, &wide).await?;
    }
    at_once(verb, run, consent, Round::Last, &agreed).await
}

/// Which round of a run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Hosts that are to leave still need what the provider would take from them.
    Before,
    Last,
}

async fn at_once(
    verb: Verb,
    run: &Run<'_>,
    consent: Consent,
    round: Round,
    agreed: &Agreed,
) -> Result<Applied> {
    let headway = Arc::<Headway>::default();
    let applied = converge(verb, run, &headway, consent, round, agreed).await;
    headway.end(applied).await
}

async fn converge(
    verb: Verb,
    run: &Run<'_>,
    headway: &Arc<Headway>,
    consent: Consent,
    round: Round,
    agreed: &Agreed,
) -> Result<Applied> {
    let context = run.context;
    // Only `up` looks at what surrounds the hosts, such as networks and firewalls.
    let drift = async {
        match verb {
            Verb::Up => context.provider.drift().await,
            Verb::Render => Ok(Drifted::default()),
        }
    };
    let bucket = async {
        match verb {
            Verb::Up => context.say_of_bucket().await,
            Verb::Render => Ok(()),
        }
    };
    let (hosts, mut drift, ()) = tokio::try_join!(context.host_status(), drift, bucket)?;
    let drifted = !drift.changes.is_empty();
    drift.changes.extend(context.bucket_change());
    let stay = |left: &&Left| !left.member && !context.leaving.include(&left.name);
    for left in hosts.left.iter().filter(stay) {
        let remove = context.command(&format!("up --remove {}", left.name));
        context.operator.say(&format!(
            "note: host {left}; it is left alone, and `{remove}` removes it"
        ));
    }
    let retirement = match verb {
        Verb::Up => retire::of_up(run, agreed).await?,
        Verb::Render => None,
    };
    let (mut hosts, mut consent) = match verb {
        Verb::Up => launched(run, hosts, drift, headway, consent).await?,
        Verb::Render => {
            hosts.some(context)?;
            (hosts, Consent::Needed)
        }
    };
    // Consent to the departure includes consent to the plan that follows from it.
    if retirement.is_some() && consent == Consent::Needed {
        consent = Consent::Once;
    }
    if !hosts.moving.is_empty() {
        hosts = readdressed(verb, run, hosts, consent).await?;
        consent = Consent::Once;
    }
    match verb {
        Verb::Up => {
            if authority::replace(run, &hosts.running).await? {
                consent = Consent::Once;
            }
        }
        Verb::Render => lapse::lapsed(context)?.map_or(Ok(()), Err)?,
    }
    let resting: &[Machine] = match verb {
        Verb::Up => &[],
        Verb::Render => &hosts.stopped,
    };
    let mut cluster = context
        .on_some(&hosts.running, resting, &run.events, async |connected| {
            // This is the only place that sets it, so it cannot be set already.
            let _ = connected.headway.set(headway.clone());
            settle(verb, connected, consent, run.cancel).await
        })
        .await?;
    while cluster.tls.is_migrating() {
        let next = cluster.tls.towards(TlsStage::of(&context.inventory));
        context.workspace.note_tls(next)?;
        // Connects anew, because pgherd's own expectations change with the stage.
        cluster = context
            .on(&hosts.running, &run.events, async |connected| {
                settle(verb, connected, Consent::Once, run.cancel).await
            })
            .await?;
    }
    if verb == Verb::Up {
        authority::complete(run, &hosts.running, Consent::Once).await?;
    }
    // No service needs any more what is not declared.
    if drifted && round == Round::Last {
        context.provider.repair(Part::All, &run.events).await?;
    }
    if let Some(retirement) = retirement {
        retirement.end(run).await?;
    }
    if verb == Verb::Up {
        retire::ended(context)?;
        context.workspace.end_replacing()?;
    }
    Ok(Applied {
        cluster,
        machines: hosts.running,
    })
}

/// Creates or starts hosts that do not run, and repairs what surrounds them, after the user has agreed. Returns
/// when all hosts run.
async fn launched(
    run: &Run<'_>,
    mut hosts: HostStatus,
    drift: Drifted,
    headway: &Headway,
    consent: Consent,
) -> Result<(HostStatus, Consent)> {
    let (context, cancel) = (run.context, run.cancel);
    let absent = hosts.absent();
    if absent.is_empty() && drift.changes.is_empty() {
        return Ok((hosts, consent));
    }
    let preview = tokio::select! {
        preview = context.preview(hosts, drift) => preview?,
        () = cancel.cancelled() => return Err(Error::interrupted().left("nothing was changed")),
    };
    preview.plan.refuse_while_paused(&context.inventory)?;
    if consent == Consent::Needed {
        ask(Verb::Up, context, &preview).await?;
    }
    // The user is asked about unseen hosts once they can be observed.
    let agreed = match preview.unseen().is_empty() {
        true => Consent::Once,
        false => Consent::Needed,
    };
    context.make_bucket(&run.events).await?;
    if !preview.drift.is_empty() {
        context.provider.repair(Part::Missing, &run.events).await?;
    }
    // What was put right may be what hosts are told by, such as the name of a load balancer.
    hosts = match preview.drift.is_empty() {
        true => preview.hosts,
        false => context.host_status().await?,
    };
    // Before hosts are created, the hosts that were unseen must say who the members are.
    if !(preview.unreachable.is_empty() || absent.is_empty()) {
        hosts = context.preview(hosts, Drifted::default()).await?.hosts;
    }
    if !absent.is_empty() {
        let early = ahead::is_possible(context, &hosts, agreed)?;
        let early = early.then_some((&hosts.running[..], headway));
        let launched = launch(run, &absent, early).await?;
        hosts.running.extend(launched);
    }
    Ok((hosts, agreed))
}

/// Moves hosts to the addresses in the inventory. Returns the hosts as they are afterwards.
async fn readdressed(
    verb: Verb,
    run: &Run<'_>,
    mut hosts: HostStatus,
    consent: Consent,
) -> Result<HostStatus> {
    let context = run.context;
    // Anything that would stop the run later must stop it before the move.
    if consent == Consent::Needed {
        let plan = context
            .on(&hosts.running, &run.events, async |connected| {
                let plan = connected.look().await?.plan()?;
                plan.refuse_while_paused(&context.inventory)?;
                Ok(plan)
            })
            .await?;
        let preview = Preview {
            hosts,
            ..Preview::of_plan(plan)
        };
        ask(verb, context, &preview).await?;
        hosts = preview.hosts;
    }
    let moves: Vec<_> = hosts
        .moving
        .iter()
        .map(|it| (it.host.clone(), it.to))
        .collect();
    context.provider.readdress(&moves, &run.events).await?;
    context.host_status().await
}
