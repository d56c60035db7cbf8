//! `restore --into`: another cluster, made from this one's repository at a moment.
//!
//! The source is only read: the host of its repository, over SSH. Everything else is done to the clone, which is locked,
//! and whose workspace says how far it is.

use std::{slice, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use self::ahead::{are_apart, backup_for, is_of_version, keeper, major, outlook, statements};
use super::{
    Reached, RestoreStage, Restored, backup,
    outlook::room,
    reached, rejoined,
    relay::{Relay, Repository},
    under_way,
};
use crate::{
    cluster::Cluster,
    engine::{
        connected::Connected,
        context::Context,
        launch,
        operator::{Question, consent},
        run::Run,
        settle::{self, Consent, Verb},
        taken::{Leftovers, Taken},
    },
    error::{Code, Error, Result},
    event::Events,
    inventory::HostName,
    moment::Moment,
    plan::{
        lost,
        restore::{InPlace, Origin, Statements, Wanted},
    },
    remote::{Remote, Script, quote},
    render,
    services::{
        archive::ground::{self, Ground},
        postgres::patroni,
    },
    workspace::{self, Restoring, Sql},
};

mod ahead;

pub(crate) use ahead::Outlook;

/// How long a host may take to say which pgBackRest it has.
const ANSWER: Duration = Duration::from_secs(30);

/// What the user asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wish {
    /// `None` goes on with a clone that was cut off.
    pub to: Option<Moment>,
    pub set: Option<String>,
    pub timeline: Option<u32>,
    pub host: Option<String>,
    /// The place of the backup: `disk` or `bucket`.
    pub from: Option<String>,
    /// What runs in the clone before anybody can reach it.
    pub run: Vec<Sql>,
}

/// A command on the clone. Where two inventories are in play, each command names its own.
fn on_clone(target: &Context, verb: &str) -> String {
    let path = quote(&target.inventory.path.display().to_string());
    format!("pgherd -i {path} {verb}")
}

/// What would be made, without a change.
pub(crate) async fn preview(source: &Context, target: &Context, wish: &Wish) -> Result<Outlook> {
    are_apart(source, target)?;
    if let Some(begun) = target.workspace.restoring()? {
        return Err(under_way::refused(target, &begun));
    }
    let keeper = keeper(source).await?;
    let (events, _quiet) = Events::channel();
    let work = async |origin: &Connected<'_>| outlook(origin, target, wish).await;
    source.on(slice::from_ref(&keeper), &events, work).await
}

/// Makes the clone, or goes on with one that was cut off.
pub(crate) async fn run(
    source: &Context,
    target: &Context,
    wish: &Wish,
    cancel: &CancellationToken,
) -> Result<Restored> {
    are_apart(source, target)?;
    target.not_lost().await?;
    let keeper = keeper(source).await?;
    let taken = Taken::by(target, "restore", Leftovers::Offer, cancel).await?;
    if let Err(error) = target.marks_are_known().await {
        target.connections.conclude(Some(&error)).await;
        target.connections.close(false).await;
        return Err(error);
    }
    // On the first run, this makes the clone's own secrets.
    target.secrets()?;
    for note in target.workspace.take_notes() {
        target.operator.say(&format!("note: {note}"));
    }
    taken
        .run(async |run| {
            let (events, _quiet) = Events::channel();
            let work = async |origin: &Connected<'_>| clone(run, origin, wish).await;
            source.on(slice::from_ref(&keeper), &events, work).await
        })
        .await
}

async fn clone(run: &Run<'_>, origin: &Connected<'_>, wish: &Wish) -> Result<Restored> {
    let target = run.context;
    let mut restoring = match target.workspace.restoring()? {
        Some(begun) => goes_on(origin.context, target, begun, wish)?,
        None => {
            let outlook = outlook(origin, target, wish).await?;
            agreed(origin.context, target, wish, &outlook).await?
        }
    };
    let run_before = statements(restoring.from.as_ref().map_or(&[][..], |it| &it.run))?;
    if restoring.stage == RestoreStage::Prepares {
        let machines = launch::all(run).await?;
        let work = async |connected: &Connected<'_>| {
            make_ready(run, connected, origin, &mut restoring).await
        };
        target.on(&machines, &run.events, work).await?;
    }
    let hosts = target.host_status().await?;
    let origin_of = plan_origin(origin.context, target, run_before);
    let work = async |connected: &Connected<'_>| {
        finish(run, connected, origin, restoring, origin_of).await
    };
    target.on(hosts.complete(target)?, &run.events, work).await
}

fn plan_origin(source: &Context, target: &Context, run: Vec<Statements>) -> Origin {
    Origin {
        stanza: source.inventory.cluster.clone(),
        run,
        login: target.inventory.ssh.user.clone(),
        installs: false,
    }
}

/// Asks the user, and notes what is made.
async fn agreed(
    source: &Context,
    target: &Context,
    wish: &Wish,
    outlook: &Outlook,
) -> Result<Restoring> {
    consent(target.operator.as_ref(), Question::Clone { outlook }).await?;
    let since = jiff::Timestamp::now();
    let restoring = Restoring {
        id: since.as_millisecond().to_string(),
        since,
        host: outlook.host.to_string(),
        to: outlook.to.clone(),
        set: wish.set.clone(),
        timeline: wish.timeline,
        places: outlook.places.clone(),
        keeps: false,
        anew: Some(outlook.source.system.clone()),
        from: Some(workspace::Origin {
            cluster: outlook.from.clone(),
            id: source.workspace.cluster_id()?.unwrap_or_default(),
            inventory: source.inventory.path.clone(),
            run: wish.run.clone(),
        }),
        stage: RestoreStage::Prepares,
    };
    target.workspace.note_restoring(&restoring)?;
    Ok(restoring)
}

/// The clone that was cut off, if it is the one that the user wants. Its SQL may have been corrected.
fn goes_on(
    source: &Context,
    target: &Context,
    mut begun: Restoring,
    wish: &Wish,
) -> Result<Restoring> {
    let id = source.workspace.cluster_id()?.unwrap_or_default();
    match &begun.from {
        Some(from) if from.id == id => {}
        _ => return Err(under_way::refused(target, &begun)),
    }
    super::is_the_same(
        target,
        &begun,
        &super::Wish {
            to: wish.to.clone(),
            set: wish.set.clone(),
            timeline: wish.timeline,
            host: wish.host.clone(),
            from: None,
        },
    )?;
    let place = backup::named(&source.inventory, wish.from.as_deref())?;
    if let (Some(place), Some(first)) = (place, begun.places.first())
        && place != *first
    {
        return Err(under_way::refused(target, &begun));
    }
    target.operator.say(&format!(
        "note: going on with the clone of {} at {}, begun {}",
        source.inventory.cluster, begun.to, begun.since
    ));
    if let Some(from) = begun.from.as_mut().filter(|_| !wish.run.is_empty()) {
        if begun.stage == RestoreStage::Leads {
            let note = "note: the SQL has run already, and does not run again";
            target.operator.say(note);
        } else {
            from.run.clone_from(&wish.run);
            target.workspace.note_restoring(&begun)?;
        }
    }
    Ok(begun)
}

/// Makes the hosts ready, without a database, and looks whether the restored one fits there.
async fn make_ready(
    run: &Run<'_>,
    connected: &Connected<'_>,
    origin: &Connected<'_>,
    restoring: &mut Restoring,
) -> Result<()> {
    let target = run.context;
    let member = HostName::new(&restoring.host);
    let observed = connected.look().await?.whole()?;
    // What stops the run must stop it before anything is changed.
    observed.plan()?;
    let chosen = (restoring.set.as_deref(), restoring.places.first().copied());
    let (_, backup) = backup_for(origin, &restoring.to, chosen).await?;
    is_of_version(major(&observed.cluster, &member), &member, &backup)
        .map_err(|error| error.left("the hosts are made, and there is no database on them"))?;
    let cluster = observed.cluster.clone();
    let held = in_place(&cluster, &member, restoring, None);
    let plan = held.stop_all(&observed.found);
    if !plan.is_empty() {
        connected.announce(&plan);
        connected.carry_out(plan, &cluster, run.cancel).await?;
    }
    let observed = settle::make_ready(connected, run.cancel).await?;
    let cluster = observed.cluster.clone();
    if !lost::is(&cluster, &observed.found) {
        let plan = in_place(&cluster, &member, restoring, None).let_go(&observed.found);
        connected.carry_out(plan, &cluster, run.cancel).await?;
        target.workspace.end_restoring()?;
        return Err(Error::new(
            Code::NotPossibleNow,
            format!("a host of {} has a database after all", cluster.name()),
        )
        .left("nothing is restored; the hosts are ready, and no database was started"));
    }
    let ground = ground::look_at_host(&cluster, &member, connected.remote.as_ref()).await?;
    let ground = Ground {
        kept: None,
        movable: false,
        ..ground
    };
    room(target, &member, &ground, &backup).map_err(|error| {
        error
            .left("the hosts are ready, and there is no database on them")
            .hint(format!(
                "give it up: {}",
                on_clone(target, "restore --back")
            ))
    })?;
    restoring.stage = RestoreStage::Restores;
    target.workspace.note_restoring(restoring)
}

fn in_place<'a>(
    cluster: &'a Cluster,
    host: &'a HostName,
    restoring: &'a Restoring,
    from: Option<&'a Origin>,
) -> InPlace<'a> {
    InPlace {
        cluster,
        host,
        id: &restoring.id,
        wanted: Wanted {
            to: &restoring.to,
            set: restoring.set.as_deref(),
            timeline: restoring.timeline,
            places: &restoring.places,
        },
        keeps: false,
        anew: restoring.anew.as_deref(),
        from,
    }
}

/// Restores the database, lets it lead, and brings everything else to what the clone's inventory says.
async fn finish(
    run: &Run<'_>,
    connected: &Connected<'_>,
    origin: &Connected<'_>,
    mut restoring: Restoring,
    mut from: Origin,
) -> Result<Restored> {
    let target = run.context;
    let observed = connected.look().await?.whole()?;
    let cluster = observed.cluster.clone();
    let host = HostName::new(&restoring.host);
    if restoring.stage == RestoreStage::Restores {
        from.installs = pgbackrest(connected.remote.as_ref(), &host)
            .await?
            .is_empty();
        let work = in_place(&cluster, &host, &restoring, Some(&from));
        restore(run, connected, origin, &work, &from, &cluster).await?;
        restoring.stage = RestoreStage::Leads;
        target.workspace.note_restoring(&restoring)?;
    }
    let work = in_place(&cluster, &host, &restoring, Some(&from));
    let reached: Reached = reached(connected, &work).await?;
    let survey = patroni::survey(&connected.http, &cluster).await;
    let leads = patroni::leader_of(&survey) == Some(&host);
    for plan in [work.lead(&observed.found, leads), work.rejoin()] {
        connected.announce(&plan);
        connected.carry_out(plan, &cluster, run.cancel).await?;
    }
    rejoined(run, connected, &cluster).await?;
    settle::settle(Verb::Up, connected, Consent::Given, run.cancel).await?;
    connected
        .carry_out(work.end(), &cluster, run.cancel)
        .await?;
    target.workspace.end_restoring()?;
    Ok(Restored {
        backup: reached.backup,
        newest: reached.newest,
        seconds: jiff::Timestamp::now().as_second() - restoring.since.as_second(),
        to: restoring.to,
        host: restoring.host,
        kept_dir: None,
    })
}

/// Restores the database through this process, cuts it off from the source, and runs the user's SQL.
async fn restore(
    run: &Run<'_>,
    connected: &Connected<'_>,
    origin: &Connected<'_>,
    work: &InPlace<'_>,
    from: &Origin,
    cluster: &Arc<Cluster>,
) -> Result<()> {
    let (source, target) = (origin.context, run.context);
    let keeper = backup::keeper(source)?;
    let config = render::dcs_config(cluster);
    let plan = work.prepare_clone(from, &config);
    connected.announce(&plan);
    connected.carry_out(plan, cluster, run.cancel).await?;
    let here = pgbackrest(connected.remote.as_ref(), work.host).await?;
    let there = pgbackrest(origin.remote.as_ref(), keeper).await?;
    if here != there {
        return Err(Error::new(
            Code::NotPossibleNow,
            format!(
                "it has {here}, and {keeper} of {} has {there}: both must have the same version",
                source.inventory.cluster
            ),
        )
        .on(work.host)
        .left("there is no database on the hosts")
        .hint("give the clone's hosts the distribution that the source's have")
        .hint(format!("give it up: {}", on_clone(target, "down"))));
    }
    let repository = Repository {
        remote: origin.remote.clone(),
        host: keeper.clone(),
        stanza: from.stanza.clone(),
    };
    let folder = target.workspace.control_dir()?;
    let remote = connected.remote.as_ref();
    let relay = Relay::start(repository, folder, remote, work.host).await?;
    let plan = work.restore();
    connected.announce(&plan);
    let restored = connected.carry_out(plan, cluster, run.cancel).await;
    restored.map_err(|error| {
        let error = match relay.trouble() {
            Some(why) => error.cause(format!("on the way to the repository: {why}")),
            None => error,
        };
        let again = under_way::clones(&source.inventory.path, &target.inventory.path);
        error
            .left("nobody can reach the clone's database; nothing of the source was changed")
            .hint(format!("go on: {again}"))
            .hint(format!(
                "or give it up: {}",
                on_clone(target, "restore --back")
            ))
    })
}

/// The version that a host's pgBackRest tells; empty if there is none.
async fn pgbackrest(remote: &dyn Remote, host: &HostName) -> Result<String> {
    let script = Script::probe("cd /; pgbackrest version 2>/dev/null || true");
    let quiet = |_, _: &str| {};
    let output = remote.run(host, &script, ANSWER, &quiet).await?;
    Ok(output.stdout.trim().to_owned())
}

/// Gives up a clone that nobody could reach yet; its hosts stay, without a database.
pub(super) async fn back(
    target: &Context,
    taken: &Taken<'_>,
    restoring: &Restoring,
    from: &workspace::Origin,
) -> Result<String> {
    let again = under_way::clones(&from.inventory, &target.inventory.path);
    if restoring.stage == RestoreStage::Leads {
        return Err(Error::new(
            Code::NotPossibleNow,
            "the clone may have served clients already",
        )
        .left("nothing was changed")
        .hint(format!("complete it: {again}"))
        .hint(format!("or remove it: {}", on_clone(target, "down"))));
    }
    let work = async |run: &Run<'_>| {
        if restoring.stage == RestoreStage::Restores {
            let hosts = target.host_status().await?;
            let work = async |connected: &Connected<'_>| give_up(run, connected, restoring).await;
            target
                .on(hosts.complete(target)?, &run.events, work)
                .await?;
        }
        target.workspace.end_restoring()
    };
    taken.run(work).await?;
    Ok(format!(
        "what was restored so far is removed; clone another moment: {again} --to latest"
    ))
}

async fn give_up(run: &Run<'_>, connected: &Connected<'_>, restoring: &Restoring) -> Result<()> {
    let observed = connected.look().await?.whole()?;
    let cluster = observed.cluster.clone();
    let host = HostName::new(&restoring.host);
    let from = Origin {
        stanza: String::new(),
        run: Vec::new(),
        login: String::new(),
        installs: false,
    };
    let work = in_place(&cluster, &host, restoring, Some(&from));
    for plan in [work.give_up(), work.let_go(&observed.found)] {
        connected.announce(&plan);
        connected.carry_out(plan, &cluster, run.cancel).await?;
    }
    Ok(())
}
