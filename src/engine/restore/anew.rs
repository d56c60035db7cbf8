//! A restore of a cluster of which no host has the database: its hosts are made, and made ready, before it.

use std::collections::BTreeMap;

use super::{
    Wish, agreed, begun, in_place,
    outlook::{Outlook, fits, host, named, room, source},
};
use crate::{
    engine::{
        backup, connected::Connected, context::Context, hosts::HostStatus, launch, run::Run, settle,
    },
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Role},
    machine::Machine,
    plan::lost::{self, Keeps},
    services::archive::ground,
    workspace::{RestoreStage, Restoring},
};

/// What a restore would do if no host has the database; `None` if one may have it.
pub(super) async fn outlook(
    context: &Context,
    hosts: &HostStatus,
    events: &Events,
    wish: &Wish,
) -> Result<Option<Outlook>> {
    // What is stopped may have the database.
    if hosts.running.is_empty() || !hosts.stopped.is_empty() {
        return Ok(None);
    }
    let work = async |connected: &Connected<'_>| look(connected, hosts, wish).await;
    context.on(&hosts.running, events, work).await
}

async fn look(
    connected: &Connected<'_>,
    hosts: &HostStatus,
    wish: &Wish,
) -> Result<Option<Outlook>> {
    let context = connected.context;
    let observed = connected.look().await?;
    let found = &observed.found;
    let is_lost = matches!(&found.repository, Some(Keeps::Backups(backups)) if !backups.is_empty());
    if !is_lost || !observed.unreachable.is_empty() {
        return Ok(None);
    }
    let cluster = &observed.cluster;
    let Some(keeper) = cluster.with_role(Role::Backup).next() else {
        return Ok(None);
    };
    let to = named(context, wish)?;
    observed.members_as_declared()?;
    let host = host(context, &BTreeMap::new(), wish.host.as_deref())?;
    let ground = super::outlook::look(connected, cluster, &keeper.name, &to).await?;
    let version = cluster.nodes.get(&host).and_then(|node| node.postgresql);
    let ground = ground::Ground {
        version: version.map(|it| it.to_string()),
        sources: ground.sources,
        places: ground.places,
        ..ground::Ground::default()
    };
    let from = backup::named(&context.inventory, wish.from.as_deref())?;
    let source = source(&ground, &to, (wish.set.as_deref(), from))?.clone();
    // What the DCS remembers is of no host any more.
    fits(&ground, &source, None).map_err(|error| error.on(&host))?;
    let members = cluster.with_role(Role::Postgres);
    let members = members.map(|node| node.name.clone());
    Ok(Some(Outlook {
        to,
        replicas: members.filter(|it| *it != host).collect(),
        places: ground.places_for(&source, from),
        source,
        ground,
        kept_dir: None,
        anew: Some(hosts.missing.clone()),
        host,
    }))
}

/// Returns the machines on which a restore goes on. If no host has the database, they are made and made ready first.
pub(super) async fn made_ready(run: &Run<'_>, wish: &Wish) -> Result<Vec<Machine>> {
    let context = run.context;
    let begun = begun(context, wish)?;
    let hosts = context.host_status().await?;
    let restoring = match begun {
        Some(begun) if begun.stage == RestoreStage::Prepares => begun,
        Some(_) => return Ok(hosts.complete(context)?.to_vec()),
        None => match outlook(context, &hosts, &run.events, wish).await? {
            None => return Ok(hosts.complete(context)?.to_vec()),
            Some(outlook) => agreed(context, wish, &outlook).await?,
        },
    };
    let machines = launch::all(run).await?;
    let work = async |connected: &Connected<'_>| make_ready(run, connected, restoring).await;
    context.on(&machines, &run.events, work).await?;
    Ok(machines)
}

/// Makes the hosts ready, without a database, and looks whether the restored data has room.
async fn make_ready(
    run: &Run<'_>,
    connected: &Connected<'_>,
    mut restoring: Restoring,
) -> Result<()> {
    let context = run.context;
    let member = HostName::new(&restoring.host);
    let observed = connected.look().await?.whole()?;
    // What stops the run must stop it before anything is changed.
    observed.plan()?;
    let cluster = observed.cluster.clone();
    let plan = in_place(&cluster, &member, &restoring).stop_all(&observed.found);
    if !plan.is_empty() {
        connected.announce(&plan);
        connected.carry_out(plan, &cluster, run.cancel).await?;
    }
    let observed = settle::make_ready(connected, run.cancel).await?;
    let cluster = observed.cluster.clone();
    if !lost::is(&cluster, &observed.found) {
        let plan = in_place(&cluster, &member, &restoring).let_go(&observed.found);
        connected.carry_out(plan, &cluster, run.cancel).await?;
        context.workspace.end_restoring()?;
        return Err(Error::new(
            Code::NotPossibleNow,
            "a host has the database after all, on a disk that was not there before",
        )
        .left("nothing is restored; the hosts are ready, and no database was started")
        .hint(format!(
            "go on with what is there: {}",
            context.command("up")
        )));
    }
    let mut ground = super::outlook::look(connected, &cluster, &member, &restoring.to).await?;
    let facts = observed.found.facts.get(&member);
    let data = facts.and_then(|facts| facts.data.as_ref());
    // What an interrupted copy has left is kept aside, beside nothing that an earlier restore has kept.
    let leftover = data.is_some_and(|data| data.entries > 0);
    ground.kept = ground.kept.filter(|_| leftover);
    let from = restoring.places.first().copied();
    let source = source(&ground, &restoring.to, (restoring.set.as_deref(), from))?;
    let kept = room(context, &member, &ground, source).map_err(|error| {
        error
            .left("the hosts are ready, and no database was started")
            .hint(format!("go on: {}", context.command("restore")))
            .hint(format!(
                "or begin anew, after: {}",
                context.command("restore --back")
            ))
    })?;
    restoring.keeps = kept.is_some() && leftover;
    restoring.stage = RestoreStage::Restores;
    context.workspace.note_restoring(&restoring)
}

/// Gives up a restore of a database that no host had. The members stay as they are, without one.
pub(super) async fn give_up(run: &Run<'_>, restoring: &Restoring) -> Result<()> {
    let context = run.context;
    // Before that, there is nothing to remove.
    if restoring.stage == RestoreStage::Restores {
        let hosts = context.host_status().await?;
        let host = HostName::new(&restoring.host);
        let work = async |connected: &Connected<'_>| {
            let cluster = connected.look().await?.cluster;
            let plan = in_place(&cluster, &host, restoring).give_up();
            connected.announce(&plan);
            connected.carry_out(plan, &cluster, run.cancel).await
        };
        context
            .on(hosts.complete(context)?, &run.events, work)
            .await?;
    }
    context.workspace.end_restoring()
}
