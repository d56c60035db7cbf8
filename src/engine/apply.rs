//! What `up` and `render` do: what is there becomes what the inventory says, and is proven.
//!
//! One way for both. `up` also makes and starts hosts. `render` shows every diff before it asks, and
//! goes on with the hosts that it reaches: at three in the morning one that is dead must not keep the
//! others from being put right.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    authority,
    connected::Connected,
    context::Context,
    hosts::HostStatus,
    observe::Observed,
    operator::{Question, consent},
    preview::Preview,
    prove::SETTLING,
    run::{Leftovers, Run, Taken},
    tls_migration, unfinished,
};
use crate::{
    cluster::{Cluster, KnownHost, TlsStage},
    error::{Code, Error, Result},
    event::Event,
    inventory::{self, HostName, Inventory},
    machine::Machine,
    plan::{self, PAUSED, membership},
    provider::Access,
};

/// How many plans a run takes at most: until etcd answers, until a member leads, and for the rest.
const ROUNDS: usize = 3;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Up,
    Render,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Up => "up",
            Verb::Render => "render",
        }
    }
}

/// Whether somebody has agreed to what is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// Nobody was asked yet.
    Needed,
    /// To the plan that was shown; what can only be seen later may lead to other steps.
    Once,
    /// To everything that it takes.
    Given,
}

/// What a run that went well leaves.
pub(crate) struct Applied {
    pub cluster: Arc<Cluster>,
    pub machines: Vec<Machine>,
}

/// Makes the cluster what the inventory says, and proves it.
pub(crate) async fn run(
    verb: Verb,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<Applied> {
    context.not_lost().await?;
    let taken = Taken::by(context, verb.as_str(), Leftovers::Offer, cancel).await?;
    // Made now, if this is the first run: what is told of it is told before anything else.
    context.secrets()?;
    for note in context.workspace.take_notes() {
        context.operator.say(&format!("note: {note}"));
    }
    for note in unfinished::notes(context)? {
        context.operator.say(&note);
    }
    taken.run(async |run| apply(verb, run).await).await
}

async fn apply(verb: Verb, run: &Run<'_>) -> Result<Applied> {
    let context = run.context;
    // What is around the hosts is `up`'s alone.
    let drift = async {
        match verb {
            Verb::Up => context.provider.drift().await,
            Verb::Render => Ok(Vec::new()),
        }
    };
    let (hosts, drift) = tokio::try_join!(context.host_status(), drift)?;
    for left in hosts.left.iter().filter(|left| !left.member) {
        context.operator.say(&format!(
            "note: host {left}; it is left alone, and `down` takes it along"
        ));
    }
    let (mut hosts, mut consent) = match verb {
        Verb::Up => launched(run, hosts, drift).await?,
        Verb::Render => {
            hosts.some(context)?;
            (hosts, Consent::Needed)
        }
    };
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
        Verb::Render => authority::lapsed(context)?.map_or(Ok(()), Err)?,
    }
    let resting: &[Machine] = match verb {
        Verb::Up => &[],
        Verb::Render => &hosts.stopped,
    };
    let mut cluster = context
        .on_some(&hosts.running, resting, &run.events, async |connected| {
            settle(verb, connected, consent, run.cancel).await
        })
        .await?;
    while cluster.tls.is_migrating() {
        let next = cluster.tls.towards(TlsStage::of(&context.inventory));
        context.workspace.note_tls(next)?;
        // Anew, since with it changes what pgherd itself expects.
        cluster = context
            .on(&hosts.running, &run.events, async |connected| {
                settle(verb, connected, Consent::Once, run.cancel).await
            })
            .await?;
    }
    if verb == Verb::Up {
        authority::complete(run, &hosts.running, Consent::Once).await?;
    }
    Ok(Applied {
        cluster,
        machines: hosts.running,
    })
}

/// The hosts once all of them run: those that do not are made or started, and what is around them is
/// put right, after somebody has agreed.
async fn launched(
    run: &Run<'_>,
    mut hosts: HostStatus,
    drift: Vec<String>,
) -> Result<(HostStatus, Consent)> {
    let (context, cancel) = (run.context, run.cancel);
    let absent = hosts.absent();
    if absent.is_empty() && drift.is_empty() {
        return Ok((hosts, Consent::Needed));
    }
    let preview = tokio::select! {
        preview = context.preview(hosts, drift) => preview?,
        () = cancel.cancelled() => return Err(Error::interrupted().left("nothing was changed")),
    };
    preview.plan.refuse_while_paused(&context.inventory)?;
    ask(Verb::Up, context, &preview).await?;
    // What could not be seen is asked about once it can be.
    let agreed = match preview.unseen().is_empty() {
        true => Consent::Once,
        false => Consent::Needed,
    };
    if !preview.drift.is_empty() {
        context.provider.repair(&run.events).await?;
    }
    hosts = preview.hosts;
    // Before hosts are made, those that could not be seen say who the members are.
    if !(preview.unreachable.is_empty() || absent.is_empty()) {
        hosts = context.preview(hosts, Vec::new()).await?.hosts;
    }
    if !absent.is_empty() {
        hosts.running.extend(launch(run, &absent).await?);
    }
    Ok((hosts, agreed))
}

/// Makes and starts the hosts that do not run.
async fn launch(run: &Run<'_>, absent: &[HostName]) -> Result<Vec<Machine>> {
    let context = run.context;
    let identity = context.workspace.identity()?;
    let access = Access {
        user: context.inventory.ssh.user.clone(),
        public_key: identity.public_key,
        cluster_id: context.secrets()?.cluster_id,
        holder: context.connections.holder(),
    };
    tokio::select! {
        launched = context.provider.launch(absent, &access, &run.events) => launched,
        () = run.cancel.cancelled() => Err(Error::interrupted()
            .left("hosts that were being made may be there; the next run takes them up, and `pgherd down` removes them")),
    }
}

/// Moves hosts to the addresses that the inventory gives them; returns what is there afterwards.
async fn readdressed(
    verb: Verb,
    run: &Run<'_>,
    mut hosts: HostStatus,
    consent: Consent,
) -> Result<HostStatus> {
    let context = run.context;
    // What would be refused afterwards is refused before anything moves.
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

async fn ask(verb: Verb, context: &Context, preview: &Preview) -> Result<()> {
    let question = Question::Apply {
        verb,
        context,
        preview,
    };
    consent(context.operator.as_ref(), question)
        .await
        .map(|_| ())
}

/// Everything from connected hosts to a proven cluster.
pub(super) async fn settle(
    verb: Verb,
    connected: &Connected<'_>,
    mut consent: Consent,
    cancel: &CancellationToken,
) -> Result<Arc<Cluster>> {
    for _ in 0..ROUNDS {
        if let Some(cluster) = round(verb, connected, consent, cancel).await? {
            return Ok(cluster);
        }
        // What can be seen by now may lead to other steps than those that were agreed to.
        if consent == Consent::Once {
            consent = Consent::Needed;
        }
    }
    let status = connected.context.command("status");
    Err(Error::new(
        Code::ClusterNotAsDeclared,
        "what the databases need cannot be told, though etcd answers",
    )
    .hint(format!("how it is: {status}")))
}

/// One plan and what comes of it; `None` if more can only be told now.
async fn round(
    verb: Verb,
    connected: &Connected<'_>,
    consent: Consent,
    cancel: &CancellationToken,
) -> Result<Option<Arc<Cluster>>> {
    let context = connected.context;
    let stop = || Error::interrupted().hint("run the same command again: it takes up from here");
    // What cannot be reached is `render`'s to name, and not to wait for.
    let whole = |observed: Observed| match verb {
        Verb::Up => observed.whole(),
        Verb::Render => observed.in_part(),
    };
    let observed = tokio::select! {
        observed = connected.look() => whole(observed?)?,
        () = cancel.cancelled() => return Err(stop()),
    };
    let plan = observed.plan()?;
    plan.refuse_while_paused(&context.inventory)?;
    if plan.paused {
        let resume = plan::how_to_resume(&context.inventory);
        context.operator.say(&format!("note: {PAUSED}; {resume}"));
    }
    connected.announce(&plan);
    let cluster = observed.cluster.clone();
    let preview = Preview {
        notes: Vec::from_iter(tls_migration::note(cluster.tls, &context.inventory)),
        ..Preview::of_plan(plan)
    };
    if consent == Consent::Needed && !preview.plan.is_empty() {
        ask(verb, context, &preview).await?;
    }
    if cluster.tls.is_migrating() {
        context.workspace.note_tls(cluster.tls)?;
        let stage = cluster.tls.as_str();
        connected.events.emit(Event::Stage { stage });
    }
    let observed = if preview.plan.is_empty() {
        observed
    } else {
        let begun = membership::remembered(&observed.cluster, &observed.found, false);
        keep_members(context, begun)?;
        let partial = preview.plan.partial;
        connected.carry_out(preview.plan, &cluster, cancel).await?;
        if partial {
            return Ok(None);
        }
        whole(connected.look().await?)?
    };
    let absent: Vec<HostName> = connected.absent();
    if !observed.unreachable.is_empty() || !absent.is_empty() {
        return Err(left_out(observed.unreachable, &absent, &context.inventory));
    }
    let settled = membership::remembered(&observed.cluster, &observed.found, true);
    let proof = tokio::select! {
        proof = connected.prove(observed, SETTLING) => proof?,
        () = cancel.cancelled() => return Err(stop()),
    };
    match proof.error(&context.inventory.cluster) {
        None => {
            keep_members(context, settled)?;
            Ok(Some(cluster))
        }
        Some(error) => Err(error),
    }
}

/// Writes the list of hosts for later runs.
///
/// Hosts that pgherd makes carry the cluster's label: one that never became a member is found by it.
fn keep_members(context: &Context, mut hosts: Vec<KnownHost>) -> Result<()> {
    if context.provider.owns_hosts() {
        hosts.retain(|host| host.joined || context.inventory.hosts.contains_key(&host.name));
    }
    context.workspace.note_members(&hosts)
}

/// The error of a `render` that could not look at every host.
fn left_out(mut unreachable: Vec<Error>, absent: &[HostName], inventory: &Inventory) -> Error {
    let up = inventory::command(&inventory.path, "up");
    unreachable.extend(absent.iter().map(|host| {
        Error::new(Code::HostNotRunning, "the host does not run")
            .on(host)
            .hint(format!("make or start it: {up}"))
    }));
    let render = inventory::command(&inventory.path, "render");
    let error = match unreachable.len() {
        1 => unreachable.remove(0),
        count => Error::several(format!("{count} hosts could not be looked at"), unreachable),
    };
    error
        .left("the other hosts are as rendered; the cluster as a whole is not proven")
        .hint(format!("once they can be reached: {render}"))
}
