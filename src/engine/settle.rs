//! Plans in rounds on connected hosts, until the cluster is as the inventory says and is verified.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    observe::Observed,
    operator::{Question, consent},
    preview::Preview,
    prove::SETTLING,
    tls_migration,
};
use crate::{
    cluster::{Cluster, KnownHost},
    error::{Code, Error, Result},
    event::Event,
    inventory::{HostName, Inventory},
    plan::{self, PAUSED, membership},
    quantity::count,
};

/// The maximum number of plans in a run: one until data volumes are mounted, one until etcd answers, one until a
/// member leads, and one for the rest.
const ROUNDS: usize = 4;

/// The verb. Both follow the same path, but `render` continues without hosts that it cannot reach.
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

/// What the user has agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// The user has not been asked yet.
    Needed,
    /// To the plan that was shown. A later plan, from what can be seen only later, may have other steps.
    Once,
    /// To all steps that are necessary.
    Given,
}

/// Asks the user to agree to a plan, and to the hosts that are created and started before it.
pub(super) async fn ask(verb: Verb, context: &Context, preview: &Preview) -> Result<()> {
    let question = Question::Apply {
        verb,
        context,
        preview,
    };
    consent(context.operator.as_ref(), question)
        .await
        .map(|_| ())
}

/// Brings connected hosts to a verified cluster.
pub(super) async fn settle(
    verb: Verb,
    connected: &Connected<'_>,
    mut consent: Consent,
    cancel: &CancellationToken,
) -> Result<Arc<Cluster>> {
    for _ in 0..ROUNDS {
        let ended = round(verb, connected, consent, cancel).await?;
        consent = match (ended, consent) {
            (Round::Settled(cluster), _) => return Ok(cluster),
            // A later plan may have other steps than those that the user agreed to.
            (Round::Again, Consent::Once) => Consent::Needed,
            // What is on data volumes makes the next plan shorter.
            (Round::Mounted | Round::Again, consent) => consent,
        };
    }
    let status = connected.context.command("status");
    Err(Error::new(
        Code::ClusterNotAsDeclared,
        "pgherd cannot find out what the databases need, although etcd answers",
    )
    .hint(format!("how it is: {status}")))
}

/// Makes the hosts ready for databases that are restored ([`Found::restores`](plan::Found)), which are not started.
pub(super) async fn make_ready(
    connected: &Connected<'_>,
    cancel: &CancellationToken,
) -> Result<Observed> {
    for _ in 0..=ROUNDS {
        let observed = connected.look().await?.whole()?;
        let plan = observed.plan()?;
        if plan.is_empty() {
            return Ok(observed);
        }
        connected.announce(&plan);
        let begun = membership::remembered(&observed.cluster, &observed.found, false);
        keep_members(connected.context, begun)?;
        connected.carry_out(plan, &observed.cluster, cancel).await?;
    }
    let status = connected.context.command("status");
    Err(Error::new(
        Code::ClusterNotAsDeclared,
        "the hosts do not become ready for a database",
    )
    .hint(format!("how they are: {status}")))
}

/// How a round has ended.
enum Round {
    Settled(Arc<Cluster>),
    /// Data volumes are mounted, and can be read now.
    Mounted,
    /// Another plan must follow.
    Again,
}

/// Plans once and executes the plan.
async fn round(
    verb: Verb,
    connected: &Connected<'_>,
    consent: Consent,
    cancel: &CancellationToken,
) -> Result<Round> {
    let context = connected.context;
    let stop = || Error::interrupted().hint("run the same command again: it continues from here");
    // `render` reports unreachable hosts, and does not wait for them.
    let whole = |observed: Observed| match verb {
        Verb::Up => observed.whole(),
        Verb::Render => observed.in_part().and_then(Observed::of_known_addresses),
    };
    let observed = tokio::select! {
        observed = connected.look() => whole(observed?)?,
        () = cancel.cancelled() => return Err(stop()),
    };
    let plan = observed.plan()?;
    plan.refuse_while_paused(&context.inventory)?;
    if verb == Verb::Up {
        context.tell_of_bucket(&plan)?;
    }
    if plan.paused {
        let resume = plan::how_to_resume(&context.inventory);
        context.operator.say(&format!("note: {PAUSED}; {resume}"));
    }
    connected.announce(&plan);
    let cluster = observed.cluster.clone();
    let preview = Preview {
        notes: Vec::from_iter(tls_migration::note(cluster.tls, &context.inventory)),
        tuning: cluster.tuning(),
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
        let (partial, mounts) = (preview.plan.partial, preview.plan.mounts);
        connected.carry_out(preview.plan, &cluster, cancel).await?;
        if partial {
            return Ok(match mounts {
                true => Round::Mounted,
                false => Round::Again,
            });
        }
        let stands = connected.until_it_stands(&observed);
        let (looked, ()) = tokio::join!(connected.look(), stands);
        whole(looked?)?
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
            Ok(Round::Settled(cluster))
        }
        Some(error) => Err(error),
    }
}

/// Writes the list of hosts for later runs.
///
/// Hosts that pgherd made are found by the cluster's label, even if they never became members.
fn keep_members(context: &Context, mut hosts: Vec<KnownHost>) -> Result<()> {
    if context.provider.owns_hosts() {
        hosts.retain(|host| host.joined || context.inventory.hosts.contains_key(&host.name));
    }
    context.workspace.note_members(&hosts)
}

/// The error of a `render` that could not observe all hosts.
fn left_out(mut unreachable: Vec<Error>, absent: &[HostName], inventory: &Inventory) -> Error {
    let up = inventory.command("up");
    unreachable.extend(absent.iter().map(|host| {
        Error::new(Code::HostNotRunning, "the host does not run")
            .on(host)
            .hint(format!("make or start it: {up}"))
    }));
    let render = inventory.command("render");
    let error = match unreachable.len() {
        1 => unreachable.remove(0),
        many => Error::several(
            format!("{} could not be reached", count(many, "host")),
            unreachable,
        ),
    };
    error
        .left("the other hosts are as rendered; the cluster as a whole is not verified")
        .hint(format!("once they can be reached: {render}"))
}
