//! `upgrade`: another major version of PostgreSQL, in place.
//!
//! What the user has agreed to is noted in the workspace before anything stops, and until the new version is accepted.
//! A run that was cut off goes on from there, or goes back.

use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    restore::under_way,
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, PgVersion},
    machine::Machine,
    workspace::{UpgradeStage, Upgrading},
};

mod back;
mod carry;
mod outlook;

pub(crate) use back::{Loss, Returned, accept, back};
pub(crate) use outlook::Outlook;
use outlook::outlook;

/// What the user asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// `None` goes on with an upgrade that was cut off.
    pub to: Option<u16>,
    /// Only install the new version beside the old one, and check.
    pub prepare: bool,
}

/// An upgrade that is complete, and not accepted.
#[derive(Debug, Clone)]
pub(crate) struct Upgraded {
    pub upgrading: Upgrading,
    /// What is to be written into the inventory, if it is not there yet.
    pub write: Option<u16>,
    /// Seconds from the first step to the last.
    pub seconds: i64,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) enum Done {
    /// The new version is installed everywhere, and can take the database over.
    Prepared(Box<Outlook>),
    Upgraded(Upgraded),
}

/// What an upgrade would do, without a change.
pub(crate) async fn preview(context: &Context, wish: Wish) -> Result<Outlook> {
    let to = wanted(context, wish)?;
    let (events, _quiet) = crate::event::Events::channel();
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    let from = context.on(machines, &events, from).await?;
    let old = old_version(context, from, to)?;
    let work = async |connected: &Connected<'_>| {
        let observed = connected.look().await?.whole()?;
        outlook(connected, &observed, (from, to)).await
    };
    old.on(machines, &events, work).await
}

/// Upgrades the cluster, or goes on with an upgrade that was cut off.
pub(crate) async fn run(context: &Context, wish: Wish, cancel: &CancellationToken) -> Result<Done> {
    let taken = Taken::by(context, "upgrade", Leftovers::Offer, cancel).await?;
    refuse_restore(context)?;
    if let Some(upgrading) = context.workspace.upgrading()? {
        is_the_same(context, &upgrading, wish)?;
    }
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    taken
        .run(async |run| carry(run, machines, wish).await)
        .await
}

async fn carry(run: &Run<'_>, machines: &[Machine], wish: Wish) -> Result<Done> {
    let context = run.context;
    let upgrading = match context.workspace.upgrading()? {
        Some(begun) => {
            let note = format!(
                "note: going on with the upgrade from PostgreSQL {} to {}, begun {}",
                begun.from, begun.to, begun.since
            );
            context.operator.say(&note);
            begun
        }
        None => {
            let to = wanted(context, wish)?;
            let from = context.on(machines, &run.events, from).await?;
            let old = old_version(context, from, to)?;
            let work = async |connected: &Connected<'_>| {
                let part = Part { run, connected };
                part.prepare((from, to), wish.prepare).await
            };
            match old.on(machines, &run.events, work).await? {
                Ready::Prepared(outlook) => return Ok(Done::Prepared(outlook)),
                Ready::Agreed(upgrading) => *upgrading,
            }
        }
    };
    let to = upgrading.to;
    let new = context.of_version(to)?;
    let work = async |connected: &Connected<'_>| {
        let part = Part { run, connected };
        part.upgrade(upgrading.clone()).await
    };
    let done = new.on(machines, &run.events, work).await;
    if let Err(error) = done {
        return Err(back::after_failure(run, machines, error).await);
    }
    Ok(Done::Upgraded(Upgraded {
        write: (context.inventory.postgresql.version != PgVersion::Major(to)).then_some(to),
        seconds: jiff::Timestamp::now().as_second() - upgrading.since.as_second(),
        upgrading,
    }))
}

/// The version that the user asks for.
fn wanted(context: &Context, wish: Wish) -> Result<u16> {
    let Some(to) = wish.to else {
        return Err(Error::new(
            Code::InvalidArguments,
            "no version is named, and no upgrade is under way",
        )
        .left("nothing was changed")
        .hint(format!(
            "name the version: {}",
            context.command("upgrade --to N")
        )));
    };
    if PgVersion::MAJORS.contains(&to) {
        return Ok(to);
    }
    let (least, most) = PgVersion::MAJORS.into_inner();
    Err(Error::new(
        Code::InvalidArguments,
        format!("--to {to}: pgherd supports PostgreSQL {least} to {most}"),
    ))
}

/// The version that the databases have.
async fn from(connected: &Connected<'_>) -> Result<u16> {
    let observed = connected.look().await?.whole()?;
    let versions: Vec<(&HostName, u16)> = observed
        .found
        .facts
        .iter()
        .filter_map(|(host, facts)| Some((host, facts.data.as_ref()?.version?)))
        .collect();
    let Some((_, first)) = versions.first() else {
        return Err(Error::new(Code::NotPossibleNow, "no member has a database")
            .left("nothing was changed"));
    };
    if versions.iter().all(|(_, version)| version == first) {
        return Ok(*first);
    }
    let mut error = Error::new(
        Code::NotPossibleNow,
        "the members have databases of different versions of PostgreSQL",
    );
    for (host, version) in versions {
        error = error.cause(format!("{host}: {version}"));
    }
    Err(error
        .left("nothing was changed")
        .hint("an upgrade that another operator has begun goes on where it was begun"))
}

/// The same cluster with the old version in its inventory. The user's may name the old or the new one.
fn old_version(context: &Context, from: u16, to: u16) -> Result<Context> {
    let refused = |what: String| Error::new(Code::NotPossibleNow, what).left("nothing was changed");
    if to == from {
        return Err(refused(format!("the cluster runs PostgreSQL {to} already")));
    }
    if to < from {
        return Err(refused(format!(
            "the cluster runs PostgreSQL {from}: there is no way to an older version"
        ))
        .hint("an upgrade that is not accepted can be taken back: pgherd upgrade --back"));
    }
    match context.inventory.postgresql.version {
        PgVersion::Major(version) if version != from && version != to => Err(Error::new(
            Code::InventoryContradictsHosts,
            format!("the inventory asks for PostgreSQL {version}, and the cluster runs {from}"),
        )
        .left("nothing was changed")
        .hint(format!("set postgresql.version to {from} or to {to}"))),
        _ => context.of_version(from),
    }
}

/// Whether it is the upgrade that was cut off, which the user wants.
fn is_the_same(context: &Context, begun: &Upgrading, wish: Wish) -> Result<()> {
    let refused = |what: String| Error::new(Code::NotPossibleNow, what).left("nothing was changed");
    let (from, to) = (begun.from, begun.to);
    match begun.stage {
        UpgradeStage::Kept => Err(refused(format!(
            "the upgrade from PostgreSQL {from} to {to} waits to be accepted"
        ))
        .hint(format!(
            "accept it: {}",
            context.command("upgrade --accept")
        ))
        .hint(format!(
            "or go back to {from}: {}",
            context.command("upgrade --back")
        ))),
        UpgradeStage::Accepts => Err(refused(format!("PostgreSQL {from} is being removed")).hint(
            format!("complete it: {}", context.command("upgrade --accept")),
        )),
        UpgradeStage::Undoes | UpgradeStage::Returns => Err(refused(format!(
            "the way back to PostgreSQL {from} is under way"
        ))
        .hint(format!(
            "complete it: {}",
            context.command("upgrade --back")
        ))),
        UpgradeStage::Upgrades | UpgradeStage::Leads if wish.prepare => Err(refused(format!(
            "an upgrade from PostgreSQL {from} to {to} is under way"
        ))
        .hint(format!("complete it: {}", context.command("upgrade")))),
        UpgradeStage::Upgrades | UpgradeStage::Leads if wish.to.is_none_or(|it| it == to) => Ok(()),
        UpgradeStage::Upgrades | UpgradeStage::Leads => Err(refused(format!(
            "another upgrade is under way: from PostgreSQL {from} to {to}"
        ))
        .hint(format!("complete it: {}", context.command("upgrade")))
        .hint(format!("or go back: {}", context.command("upgrade --back")))),
    }
}

fn refuse_restore(context: &Context) -> Result<()> {
    match context.workspace.restoring()? {
        None => Ok(()),
        Some(restoring) => Err(under_way::refused(context, &restoring)),
    }
}

/// Refuses other verbs while the members are between two versions.
pub(super) fn refuse_meanwhile(context: &Context) -> Result<()> {
    let Some(it) = context.workspace.upgrading()? else {
        return Ok(());
    };
    if it.is_kept() {
        return Ok(());
    }
    let mut error = Error::new(
        Code::NotPossibleNow,
        match it.goes_back() {
            true => format!(
                "the way back from PostgreSQL {} to {} is under way",
                it.to, it.from
            ),
            false => format!(
                "an upgrade from PostgreSQL {} to {} is under way",
                it.from, it.to
            ),
        },
    )
    .left("nothing was changed");
    match it.stage {
        UpgradeStage::Undoes | UpgradeStage::Returns => {}
        UpgradeStage::Accepts => {
            error = error.hint(format!(
                "complete it: {}",
                context.command("upgrade --accept")
            ));
        }
        _ => error = error.hint(format!("complete it: {}", context.command("upgrade"))),
    }
    if it.stage != UpgradeStage::Accepts {
        error = error.hint(format!("go back: {}", context.command("upgrade --back")));
    }
    Err(error)
}

/// One line for verbs that look, while an upgrade is not accepted.
pub(crate) fn note(context: &Context) -> Result<Option<String>> {
    let Some(it) = context.workspace.upgrading()? else {
        return Ok(None);
    };
    let Upgrading {
        from, to, keeper, ..
    } = &it;
    let accept = context.command("upgrade --accept");
    let back = context.command("upgrade --back");
    Ok(Some(match it.stage {
        UpgradeStage::Kept => format!(
            "note: PostgreSQL {from}'s data is kept on {keeper} until you accept {to}: {accept}; or go back: {back}"
        ),
        UpgradeStage::Accepts => {
            format!("note: PostgreSQL {from} is being removed; complete it: {accept}")
        }
        UpgradeStage::Undoes | UpgradeStage::Returns => {
            format!("note: the way back to PostgreSQL {from} is under way; complete it: {back}")
        }
        UpgradeStage::Upgrades | UpgradeStage::Leads => format!(
            "note: an upgrade from PostgreSQL {from} to {to} is under way; complete it: {}; or go back: {back}",
            context.command("upgrade")
        ),
    }))
}

/// How the part of a run ends in which the old version serves.
enum Ready {
    Prepared(Box<Outlook>),
    Agreed(Box<Upgrading>),
}

/// A part of an upgrade, on connected hosts.
struct Part<'a> {
    run: &'a Run<'a>,
    /// With the inventory of one of the two versions.
    connected: &'a Connected<'a>,
}
