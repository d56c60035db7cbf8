//! The way back to the old version, and its end.

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        connected::Connected,
        context::Context,
        operator::{Question, consent},
        run::Run,
        settle::{self, Consent, Verb},
        taken::{Leftovers, Taken},
    },
    Part,
    carry::{Hosts, made},
    outlook::ask,
};
use crate::{
    cluster::Cluster,
    contract::old_version_dir,
    error::{Code, Error, Result},
    inventory::{HostName, PgVersion},
    machine::Machine,
    plan::{local_query, upgrade::InPlace},
    remote::{Script, quote},
    services::{pgbouncer, postgres::patroni},
    switchover,
    workspace::{UpgradeStage, Upgrading},
};

/// For how many seconds poolers hold their clients back.
const HELD: u32 = 110;

/// What the way back costs.
#[derive(Debug, Clone)]
pub(crate) struct Loss {
    pub upgrading: Upgrading,
    /// Transactions that wrote something since the new version leads; `None` if nobody can be asked.
    pub transactions: Option<u64>,
    /// The way back loses nothing: no client has reached the new version.
    pub nothing: bool,
}

/// The result of a way back.
#[derive(Debug, Clone)]
pub(crate) struct Returned {
    pub loss: Loss,
    /// What is to be written into the inventory.
    pub write: Option<u16>,
}

/// The upgrade that is not accepted, or the error that there is none.
fn begun(context: &Context) -> Result<Upgrading> {
    context.workspace.upgrading()?.ok_or_else(|| {
        Error::new(
            Code::NotPossibleNow,
            "no upgrade is under way, and none waits to be accepted",
        )
        .left("nothing was changed")
        .hint(format!("begin one: {}", context.command("upgrade --to N")))
    })
}

/// Goes back to the old version.
pub(crate) async fn back(context: &Context, cancel: &CancellationToken) -> Result<Returned> {
    let taken = Taken::by(context, "upgrade", Leftovers::Offer, cancel).await?;
    let upgrading = begun(context)?;
    if upgrading.stage == UpgradeStage::Accepts {
        return Err(Error::new(
            Code::NotPossibleNow,
            format!("PostgreSQL {}'s data is being removed", upgrading.from),
        )
        .left("nothing was changed")
        .hint(format!(
            "complete it: {}",
            context.command("upgrade --accept")
        )));
    }
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    let old = context.of_version(upgrading.from)?;
    let new = context.of_version(upgrading.to)?;
    let loss = taken
        .run(async |run| {
            let nothing = matches!(
                upgrading.stage,
                UpgradeStage::Upgrades | UpgradeStage::Undoes
            );
            let loss = match nothing {
                true => Loss {
                    upgrading: upgrading.clone(),
                    transactions: Some(0),
                    nothing,
                },
                false => {
                    let look = async |connected: &Connected<'_>| loss(connected, &upgrading).await;
                    new.on(machines, &run.events, look).await?
                }
            };
            if !upgrading.goes_back() {
                let question = Question::UpgradeBack {
                    cluster: &context.inventory.cluster,
                    loss: &loss,
                };
                consent(context.operator.as_ref(), question).await?;
            }
            let work = async |connected: &Connected<'_>| {
                let part = Part { run, connected };
                match nothing {
                    true => part.undo(upgrading.clone()).await,
                    false => part.put_back(upgrading.clone()).await,
                }
            };
            old.on(machines, &run.events, work).await?;
            Ok(loss)
        })
        .await?;
    let from = upgrading.from;
    Ok(Returned {
        write: (context.inventory.postgresql.version == PgVersion::Major(upgrading.to))
            .then_some(from),
        loss,
    })
}

/// What was written since the new version leads, and whether the old version's data is there.
async fn loss(connected: &Connected<'_>, upgrading: &Upgrading) -> Result<Loss> {
    let observed = connected.look().await?.whole()?;
    let cluster = &observed.cluster;
    let keeper = HostName::new(&upgrading.keeper);
    let data = &cluster.inventory.postgresql.data_dir;
    let script = Script::probe(format!(
        "cat {}/PG_VERSION {}/PG_VERSION 2>/dev/null || true",
        quote(&old_version_dir(data)),
        quote(data)
    ));
    let said = ask(connected, &keeper, &script).await.unwrap_or_default();
    let from = upgrading.from.to_string();
    if !said.lines().any(|version| version == from) {
        return Err(Error::new(
            Code::NotPossibleNow,
            format!(
                "PostgreSQL {from}'s data is not in {}",
                old_version_dir(data)
            ),
        )
        .on(&keeper)
        .left("nothing was changed"));
    }
    Ok(Loss {
        upgrading: upgrading.clone(),
        transactions: written(connected, cluster, upgrading).await,
        nothing: false,
    })
}

/// How many transactions have written something since the upgrade; `None` if nobody can be asked.
async fn written(
    connected: &Connected<'_>,
    cluster: &Cluster,
    upgrading: &Upgrading,
) -> Option<u64> {
    let survey = patroni::survey(&connected.http, cluster).await;
    let leader = patroni::leader_of(&survey)?;
    let sql = "select txid_snapshot_xmax(txid_current_snapshot())";
    let script = local_query(Script::new(), cluster, sql);
    let now: u64 = ask(connected, leader, &script)
        .await
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let made = made(connected, &HostName::new(&upgrading.host)).await;
    let (epoch, number) = made.ok()?.first()?;
    now.checked_sub((epoch << 32) + number)
}

/// Takes an upgrade back by itself that has failed before anybody could use the new version; returns the error to
/// tell.
pub(super) async fn after_failure(run: &Run<'_>, machines: &[Machine], error: Error) -> Error {
    let context = run.context;
    let upgrading = match context.workspace.upgrading() {
        Ok(Some(it)) if it.stage == UpgradeStage::Upgrades => it,
        _ => return error,
    };
    // What has failed for another reason may go on.
    if error.code() != Code::ScriptFailed || run.cancel.is_cancelled() {
        return error;
    }
    context.operator.say(&format!(
        "note: the upgrade has failed, and nobody has used the new version: going back to PostgreSQL {}",
        upgrading.from
    ));
    let Ok(old) = context.of_version(upgrading.from) else {
        return error;
    };
    let from = upgrading.from;
    let work = async |connected: &Connected<'_>| {
        let part = Part { run, connected };
        part.undo(upgrading.clone()).await
    };
    match old.on(machines, &run.events, work).await {
        Ok(()) => error.left(format!(
            "PostgreSQL {from} leads again, and nothing was lost"
        )),
        Err(failed) => error.cause(format!("and the way back has failed too: {failed}")),
    }
}

impl Part<'_> {
    /// Undoes an upgrade whose new version no client has reached.
    pub(super) async fn undo(&self, mut upgrading: Upgrading) -> Result<()> {
        let context = self.run.context;
        upgrading.stage = UpgradeStage::Undoes;
        context.workspace.note_upgrading(&upgrading)?;
        let observed = self.connected.look().await?.whole()?;
        let hosts = Hosts::of(&upgrading);
        let plan = hosts
            .in_place(&observed.cluster)
            .undo(&upgrading.system, &observed.files);
        self.carry_out(plan, &observed.cluster).await?;
        settle::settle(Verb::Up, self.connected, Consent::Given, self.run.cancel).await?;
        context.workspace.end_upgrading()
    }

    /// The old version leads again, without what was written since.
    async fn put_back(&self, mut upgrading: Upgrading) -> Result<()> {
        let context = self.run.context;
        upgrading.stage = UpgradeStage::Returns;
        context.workspace.note_upgrading(&upgrading)?;
        let observed = self.connected.look().await?.whole()?;
        let cluster = &observed.cluster;
        let hosts = Hosts::of(&upgrading);
        let in_place: InPlace<'_> = hosts.in_place(cluster);
        let remote = self.connected.remote.as_ref();
        // A pooler that cannot hold its clients back does not stop the way back.
        let held = pgbouncer::hold(cluster, remote, HELD).await;
        let plan = in_place.put_back(&upgrading.system, &observed.files);
        let led = self.carry_out(plan, cluster).await;
        if let Ok(held) = held {
            if led.is_ok() {
                switchover::seen(&hosts.keeper, &self.connected.http, cluster).await;
            }
            held.release().await;
        }
        led?;
        self.carry_out(in_place.rejoin(&observed.files), cluster)
            .await?;
        settle::settle(Verb::Up, self.connected, Consent::Given, self.run.cancel).await?;
        context.workspace.end_upgrading()
    }
}

/// Removes what was kept of the old version; returns the upgrade that is accepted.
pub(crate) async fn accept(context: &Context, cancel: &CancellationToken) -> Result<Upgrading> {
    let taken = Taken::by(context, "upgrade", Leftovers::Offer, cancel).await?;
    let mut upgrading = begun(context)?;
    let refused = |what: String| Error::new(Code::NotPossibleNow, what).left("nothing was removed");
    match upgrading.stage {
        UpgradeStage::Kept | UpgradeStage::Accepts => {}
        _ => {
            return Err(refused("the upgrade is not complete".into())
                .hint(format!("complete it: {}", context.command("upgrade"))));
        }
    }
    let to = upgrading.to;
    if context.inventory.postgresql.version != PgVersion::Major(to) {
        return Err(Error::new(
            Code::InventoryContradictsHosts,
            format!("the inventory does not ask for PostgreSQL {to} yet"),
        )
        .left("nothing was removed")
        .hint(format!("write it there: postgresql: {{ version: {to} }}")));
    }
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    taken
        .run(async |run| {
            if upgrading.stage == UpgradeStage::Kept {
                let question = Question::UpgradeAccept {
                    cluster: &context.inventory.cluster,
                    upgrading: &upgrading,
                };
                consent(context.operator.as_ref(), question).await?;
                upgrading.stage = UpgradeStage::Accepts;
                context.workspace.note_upgrading(&upgrading)?;
            }
            let work = async |connected: &Connected<'_>| {
                let part = Part { run, connected };
                let observed = connected.look().await?.whole()?;
                let hosts = Hosts::of(&upgrading);
                let plan = hosts.in_place(&observed.cluster).accept();
                part.carry_out(plan, &observed.cluster).await?;
                settle::settle(Verb::Up, connected, Consent::Given, run.cancel).await?;
                context.workspace.end_upgrading()
            };
            context.on(machines, &run.events, work).await?;
            Ok(upgrading.clone())
        })
        .await
}
