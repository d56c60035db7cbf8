//! The parts of an upgrade: what is done while the old version serves, and what follows.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        connected::Connected,
        observe::Observed,
        operator::{Question, consent},
        settle::{self, Consent, Verb},
    },
    Part, Ready, outlook,
};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::HostName,
    plan::{
        Plan,
        upgrade::{InPlace, MARK, preflight::Terms},
    },
    remote::Script,
    services::{pgbouncer, postgres::patroni},
    switchover,
    workspace::{UpgradeStage, Upgrading},
};

/// For how many seconds poolers hold their clients back. After 120 s, PgBouncer would end their connections.
const HELD: u32 = 110;
/// How long the checkpoint before the stop may take. It only makes the stop shorter.
const CHECKPOINT: Duration = Duration::from_secs(300);
/// How long a host may take to answer a short question.
const ANSWER: Duration = Duration::from_secs(20);

/// The hosts of an upgrade, by name.
pub(super) struct Hosts<'a> {
    upgrading: &'a Upgrading,
    pub host: HostName,
    pub keeper: HostName,
}

impl<'a> Hosts<'a> {
    pub(super) fn of(upgrading: &'a Upgrading) -> Self {
        Self {
            host: HostName::new(&upgrading.host),
            keeper: HostName::new(&upgrading.keeper),
            upgrading,
        }
    }

    pub(super) fn in_place(&'a self, cluster: &'a Cluster) -> InPlace<'a> {
        InPlace {
            cluster,
            id: &self.upgrading.id,
            from: self.upgrading.from,
            to: self.upgrading.to,
            host: &self.host,
            keeper: &self.keeper,
        }
    }
}

/// What `upgrade-database` has noted on its host.
#[derive(serde::Deserialize)]
pub(super) struct Made {
    /// The new database's identifier.
    pub system: String,
    /// Epoch and number of its first transaction.
    pub xid: String,
}

impl Part<'_> {
    /// Asks, installs the new version, and tries whether it can take the database over. Nothing stops.
    pub(super) async fn prepare(&self, (from, to): (u16, u16), only: bool) -> Result<Ready> {
        let context = self.run.context;
        let observed = self.connected.look().await?.whole()?;
        observed.members_as_declared()?;
        self.connected.certificates_valid(&observed)?;
        let mut outlook = outlook(self.connected, &observed, (from, to)).await?;
        outlook.refuse()?;
        if !only {
            let question = Question::Upgrade {
                cluster: &context.inventory.cluster,
                outlook: &outlook,
            };
            consent(context.operator.as_ref(), question).await?;
        }
        let since = jiff::Timestamp::now();
        let mut upgrading = outlook.agreed(since);
        let cluster = &observed.cluster;
        let hosts = Hosts::of(&upgrading);
        let plan = hosts.in_place(cluster).install(&outlook.ground.terms());
        if !plan.is_empty() {
            self.carry_out(plan, cluster).await?;
            // What the new version's own files say is known only now, and the user may have taken an hour.
            outlook = super::outlook(self.connected, &observed, (from, to)).await?;
            outlook.refuse()?;
            upgrading = outlook.agreed(since);
        }
        let hosts = Hosts::of(&upgrading);
        let plan = hosts.in_place(cluster).check(&outlook.ground.terms());
        let checked = self.carry_out(plan, cluster).await;
        checked.map_err(|error| {
            error.left("the old version serves as before; the packages of the new one are installed beside")
        })?;
        match only {
            true => Ok(Ready::Prepared(Box::new(outlook))),
            false => Ok(Ready::Agreed(Box::new(upgrading))),
        }
    }

    /// Everything that follows; the inventory names the new version.
    pub(super) async fn upgrade(&self, mut upgrading: Upgrading) -> Result<()> {
        let context = self.run.context;
        let begun = upgrading.clone();
        let hosts = Hosts::of(&begun);
        let observed = self.connected.look().await?.whole()?;
        let cluster = &observed.cluster;
        let in_place = hosts.in_place(cluster);
        let mut held = None;
        if upgrading.stage == UpgradeStage::Upgrades {
            held = self.hold(&hosts.host, cluster).await?;
            context.workspace.note_upgrading(&upgrading)?;
            let stopped = self.stop_and_upgrade(&in_place, &observed, &begun).await;
            stopped.map_err(|error| self.way_out(error))?;
            upgrading.stage = UpgradeStage::Leads;
            context.workspace.note_upgrading(&upgrading)?;
        }
        let made = made(self.connected, &hosts.host).await?;
        let led = in_place.lead(&made.system, &observed.files);
        let led = self.carry_out(led, cluster).await;
        if let Some(held) = held {
            if led.is_ok() {
                switchover::seen(&hosts.host, &self.connected.http, cluster).await;
            }
            held.release().await;
        }
        led?;
        self.carry_out(in_place.join(&observed.files), cluster)
            .await?;
        settle::settle(Verb::Up, self.connected, Consent::Given, self.run.cancel).await?;
        self.carry_out(in_place.end(), cluster).await?;
        upgrading.stage = UpgradeStage::Kept;
        context.workspace.note_upgrading(&upgrading)
    }

    /// Holds the poolers' clients back, if there is a leader for which they could wait.
    async fn hold<'a>(
        &'a self,
        host: &HostName,
        cluster: &Cluster,
    ) -> Result<Option<pgbouncer::Hold<'a>>> {
        let survey = patroni::survey(&self.connected.http, cluster).await;
        match patroni::leader_of(&survey) {
            Some(leader) if leader != host => {
                return Err(self.way_out(Error::new(
                    Code::ClusterChanged,
                    format!("{host} was to be upgraded, and {leader} leads now"),
                )));
            }
            // A run that was cut off has stopped the leader.
            None => return Ok(None),
            Some(_) => {}
        }
        let remote = self.connected.remote.as_ref();
        drop(switchover::checkpoint(host, cluster, remote, CHECKPOINT).await);
        pgbouncer::hold(cluster, remote, HELD).await.map(Some)
    }

    /// Until a client reaches the new version, everything can be taken back.
    async fn stop_and_upgrade(
        &self,
        in_place: &InPlace<'_>,
        observed: &Observed,
        begun: &Upgrading,
    ) -> Result<()> {
        let cluster = &observed.cluster;
        let plan = in_place.stop(observed.found.is_paused());
        self.carry_out(plan, cluster).await?;
        same_position(&self.connected.look().await?.whole()?, in_place)?;
        let terms = Terms {
            initdb: begun.initdb.clone(),
            server_options: begun.server_options.clone(),
            ..Terms::default()
        };
        self.carry_out(in_place.upgrade(&terms), cluster).await
    }

    pub(super) async fn carry_out(&self, plan: Plan, cluster: &Arc<Cluster>) -> Result<()> {
        self.connected.announce(&plan);
        self.connected
            .carry_out(plan, cluster, self.run.cancel)
            .await
    }

    fn way_out(&self, error: Error) -> Error {
        let context = self.run.context;
        error
            .hint(format!("go on: {}", context.command("upgrade")))
            .hint(format!("or go back: {}", context.command("upgrade --back")))
    }
}

pub(super) async fn made(connected: &Connected<'_>, host: &HostName) -> Result<Made> {
    let script = Script::probe(format!("cat {MARK}.json"));
    let quiet = |_, _: &str| {};
    let output = connected.remote.run(host, &script, ANSWER, &quiet).await?;
    serde_json::from_str(&output.stdout).map_err(|error| {
        Error::new(Code::AnswerUnusable, format!("{MARK}.json cannot be read"))
            .on(host)
            .because(error)
    })
}

impl Made {
    /// The epoch of the first transaction, and its number in it.
    pub(super) fn first(&self) -> Option<(u64, u64)> {
        let (epoch, number) = self.xid.split_once(':')?;
        Some((epoch.parse().ok()?, number.parse().ok()?))
    }
}

/// Refuses to go on if the member that keeps the old data lacks what the leader had in the end.
fn same_position(observed: &Observed, in_place: &InPlace<'_>) -> Result<()> {
    let position = |host: &HostName| {
        let data = observed.found.facts.get(host)?.data.as_ref()?;
        (data.version == Some(in_place.from)).then_some(data.position?)
    };
    // An earlier run has upgraded the data already, after this check.
    let Some(end) = position(in_place.host) else {
        return Ok(());
    };
    let kept = position(in_place.keeper);
    // A standby's is behind the leader's last record, the checkpoint of its stop.
    if kept >= Some(end) {
        return Ok(());
    }
    let hex = |at: u64| format!("{:X}/{:X}", at >> 32, at & 0xFFFF_FFFF);
    Err(Error::new(
        Code::NotPossibleNow,
        format!(
            "{} does not have everything that {} had in the end, so that it cannot be the way back",
            in_place.keeper, in_place.host
        ),
    )
    .on(in_place.keeper)
    .cause(format!(
        "{} ends at {}, {} at {}",
        in_place.host,
        hex(end),
        in_place.keeper,
        kept.map_or_else(|| "an unknown position".to_owned(), hex)
    ))
    .left("all members are stopped, and nothing was upgraded"))
}
