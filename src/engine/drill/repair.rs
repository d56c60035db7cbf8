//! Finds and repairs what a killed drill left broken.

use tokio_util::sync::CancellationToken;

use super::runner;
use crate::{
    drill::{Scenario, record::Limits},
    engine::{
        context::Context,
        operator::{Answer, Question},
        run::{Run, beside},
        taken::{Leftovers, Taken},
    },
    error::{Error, Result},
    workspace::{Broken, BrokenHost, BrokenNote},
};

/// Repairs what a drill left broken, and nothing else; returns whether anything was broken.
pub(crate) async fn only(context: &Context, cancel: &CancellationToken) -> Result<bool> {
    let _taken = Taken::by(context, "drill", Leftovers::Leave, cancel).await?;
    match context.workspace.left_broken()? {
        Some((broken, note)) => {
            repair(context, &broken, note, cancel).await?;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// Reports what a drill left broken, in verbs that only look.
pub(crate) fn notice(context: &Context) -> Result<()> {
    if let Some((broken, _)) = context.workspace.left_broken()? {
        context.operator.say(&format!(
            "note: {}\n      put it right: {}",
            describe(&broken),
            context.command("drill --repair")
        ));
    }
    Ok(())
}

/// Offers to repair what a drill left broken, in verbs that change something, before they begin.
pub(in crate::engine) async fn offer(context: &Context, cancel: &CancellationToken) -> Result<()> {
    let Some((broken, note)) = context.workspace.left_broken()? else {
        return Ok(());
    };
    context
        .operator
        .say(&format!("note: {}", describe(&broken)));
    if context.operator.agree(Question::Repair).await? == Answer::No {
        return Ok(());
    }
    repair(context, &broken, note, cancel).await
}

/// Repairs what a drill left broken, if one was killed.
pub(in crate::engine) async fn at_once(
    context: &Context,
    cancel: &CancellationToken,
) -> Result<()> {
    match context.workspace.left_broken()? {
        Some((broken, note)) => repair(context, &broken, note, cancel).await,
        None => Ok(()),
    }
}

/// Repairs it, and returns when the cluster is whole.
async fn repair(
    context: &Context,
    broken: &Broken,
    note: BrokenNote,
    cancel: &CancellationToken,
) -> Result<()> {
    beside(context, "drill", cancel, async |run| {
        let line = format!("putting right: {}", describe(broken));
        context.operator.say(&line);
        put_right(run, broken, note).await
    })
    .await
}

async fn put_right(run: &Run<'_>, broken: &Broken, note: BrokenNote) -> Result<()> {
    let context = run.context;
    // A drill that still runs elsewhere, with a copy of the note, was not killed.
    context.claim(&context.host_status().await?.running).await?;
    // Hosts first: services can be asked only when their hosts run.
    for machine in broken.hosts.iter().map(BrokenHost::machine) {
        match broken.scenario {
            Scenario::CrashHost => context.provider.revive(&machine).await?,
            Scenario::IsolateLeader => context.provider.rejoin(&machine).await?,
            _ => {}
        }
    }
    let hosts = context.host_status().await?;
    let limits = Limits {
        max_outage: None,
        max_lost: 0,
    };
    let repaired = context.on(hosts.complete(context)?, &run.events, async |connected| {
        let repaired = async {
            let observed = connected.look().await?;
            runner(run, connected, observed.cluster, limits)
                .repair_left(broken, note)
                .await
        };
        let hint = |error: Error| error.hint("see what is wrong: pgherd status");
        repaired.await.map_err(hint)
    });
    repaired.await
}

fn describe(broken: &Broken) -> String {
    let hosts: Vec<&str> = broken.hosts.iter().map(|host| host.name.as_str()).collect();
    format!(
        "the drill {} was killed while it had a fault on {}, since {}",
        broken.scenario,
        hosts.join(", "),
        broken.since.strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}
