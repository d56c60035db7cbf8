//! What an upgrade would do, and whether it is possible.

use std::{collections::BTreeMap, mem, time::Duration};

use futures_util::future::join_all;

use super::super::{connected::Connected, observe::Observed};
use crate::{
    cluster::Cluster,
    contract::old_version_dir,
    error::{Code, Error, Result},
    inventory::{HostName, PoolMode, Role},
    plan::upgrade::preflight::{
        self, Databases, Ground, Member, configured, look_at_databases, look_at_member,
    },
    quantity::{bytes, count},
    remote::Script,
    services::{
        backup,
        postgres::patroni::{self, Status},
    },
    workspace::{UpgradeStage, Upgrading},
};

/// How long a host may take to answer: it sums up the sizes of files.
const ANSWER: Duration = Duration::from_secs(300);

/// What an upgrade would do. Shown before the question.
#[derive(Debug)]
pub(crate) struct Outlook {
    pub ground: Ground,
    /// The member that keeps the old version's data.
    pub keeper: HostName,
    pub kept_dir: String,
    /// The old version's system identifier.
    pub system: String,
    /// Poolers hold their clients back meanwhile.
    pub poolers: bool,
    /// There is a repository of backups.
    pub backups: bool,
    /// Everything that stops it.
    pub findings: Vec<Error>,
}

/// What an upgrade would do. The inventory names the old version.
pub(super) async fn outlook(
    connected: &Connected<'_>,
    observed: &Observed,
    (from, to): (u16, u16),
) -> Result<Outlook> {
    let cluster = &observed.cluster;
    let survey = patroni::survey(&connected.http, cluster).await;
    let Some((host, status)) =
        patroni::leader_of(&survey).and_then(|it| Some((it, survey.get(it)?.as_ref().ok()?)))
    else {
        return Err(Error::new(Code::NoLeader, "no member leads")
            .left("nothing was changed")
            .hint("see what the members say: pgherd status"));
    };
    let mut findings = of_cluster(observed)?;
    for replica in not_streaming(cluster, status, host) {
        findings.push(
            Error::new(
                Code::NotPossibleNow,
                format!("{host} does not stream to {replica}"),
            )
            .on(&replica)
            .hint("see why: pgherd status"),
        );
    }
    let (members, databases) = tokio::join!(
        ask_members(connected, cluster, (from, to)),
        ask_leader(connected, cluster, host)
    );
    let dcs = observed.found.dcs.as_ref();
    let ground = Ground {
        from,
        to,
        host: host.clone(),
        members: members?,
        databases: databases?,
        configured: configured(cluster, dcs.and_then(|keys| keys.config.as_ref())),
    };
    findings.extend(ground.findings());
    if let Some(answer) = backup::ask(cluster, connected.remote.as_ref()).await {
        findings.extend(of_backups(answer));
    }
    let settings = cluster.inventory.pgbouncer.as_ref();
    Ok(Outlook {
        keeper: ground.keeper().unwrap_or(host).clone(),
        kept_dir: old_version_dir(&cluster.inventory.postgresql.data_dir),
        system: dcs
            .and_then(|keys| keys.initialize.clone())
            .unwrap_or_default(),
        poolers: settings.is_some_and(|it| it.pool_mode == PoolMode::Transaction),
        backups: cluster.with_role(Role::Backup).next().is_some(),
        ground,
        findings,
    })
}

/// What is wrong with the cluster itself.
fn of_cluster(observed: &Observed) -> Result<Vec<Error>> {
    let refused = |what: String| Error::new(Code::NotPossibleNow, what);
    let mut findings = Vec::new();
    if observed.found.is_paused() {
        findings.push(refused("the cluster is paused".into()).hint("end the pause: pgherd resume"));
        return Ok(findings);
    }
    let plan = observed.plan()?;
    if plan.changes() > 0 {
        let mut error = refused(format!(
            "the cluster is not as the inventory says: `up` has {} to do first",
            count(plan.changes(), "step")
        ));
        let changing = plan.steps.iter().filter(|step| step.changes_something());
        for step in changing.take(8) {
            error = error.cause(format!("{} {}: {}", step.host, step.name, step.why));
        }
        findings.push(error.hint("do it with the old version in the inventory: pgherd up"));
    }
    Ok(findings)
}

fn of_backups(answer: Result<Vec<backup::Repository>>) -> Option<Error> {
    let refused = |what: String| Error::new(Code::NotPossibleNow, what);
    let repositories = match answer {
        Ok(repositories) => repositories,
        Err(error) => return Some(error),
    };
    // The new version's first steps need each place.
    if let Some(it) = repositories.iter().find(|it| it.newest_full().is_none()) {
        let (place, why) = match repositories.len() {
            1 => (String::new(), None),
            _ => (format!(" {}", it.place.inside()), it.unreadable()),
        };
        let error = refused(format!("no full backup is there yet{place}"));
        return Some(match why {
            Some(why) => error.cause(why).hint("see what is wrong: pgherd backups"),
            None => error.hint("make one: pgherd backup --full"),
        });
    }
    let at_work = repositories.iter().any(backup::Repository::is_at_work);
    at_work.then(|| refused("a backup is being made".into()).hint("wait for it: pgherd backups"))
}

async fn ask_members(
    connected: &Connected<'_>,
    cluster: &Cluster,
    (from, to): (u16, u16),
) -> Result<BTreeMap<HostName, Member>> {
    let script = &look_at_member(cluster, from, to);
    let asked = cluster.with_role(Role::Postgres).map(async |node| {
        let said = ask(connected, &node.name, script).await?;
        Ok((node.name.clone(), Member::parse(&said)))
    });
    join_all(asked).await.into_iter().collect()
}

async fn ask_leader(
    connected: &Connected<'_>,
    cluster: &Cluster,
    host: &HostName,
) -> Result<Databases> {
    let said = ask(connected, host, &look_at_databases(cluster)).await?;
    Ok(preflight::Databases::parse(&said))
}

pub(super) async fn ask(
    connected: &Connected<'_>,
    host: &HostName,
    script: &Script,
) -> Result<String> {
    let quiet = |_, _: &str| {};
    let output = connected.remote.run(host, script, ANSWER, &quiet).await?;
    if output.success() {
        return Ok(output.stdout);
    }
    Err(
        Error::new(Code::StatementFailed, "the database cannot be asked")
            .on(host)
            .excerpt("stderr", output.stderr),
    )
}

impl Outlook {
    /// An error if anything stops it, with all of it at once.
    pub(crate) fn refuse(&mut self) -> Result<()> {
        let mut findings = mem::take(&mut self.findings);
        let error = match findings.len() {
            0 => return Ok(()),
            1 => findings.remove(0),
            many => Error::several(
                format!(
                    "{many} findings: the upgrade to PostgreSQL {} is not possible yet",
                    self.ground.to
                ),
                findings,
            ),
        };
        Err(error.left("nothing has stopped"))
    }

    pub(super) fn agreed(&self, since: jiff::Timestamp) -> Upgrading {
        let terms = self.ground.terms();
        Upgrading {
            id: since.as_millisecond().to_string(),
            since,
            from: self.ground.from,
            to: self.ground.to,
            host: self.ground.host.to_string(),
            keeper: self.keeper.to_string(),
            system: self.system.clone(),
            initdb: terms.initdb,
            server_options: terms.server_options,
            stage: UpgradeStage::Upgrades,
        }
    }

    /// The members that copy the new leader's data.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &HostName> {
        let members = self.ground.members.keys();
        members.filter(|host| **host != self.ground.host)
    }

    /// The size of all databases, in words.
    pub(crate) fn size(&self) -> String {
        bytes(self.ground.databases.size)
    }

    /// About how many seconds nobody can use the database: the schema is dumped and restored, and files are
    /// linked, or copied where there is no replica.
    pub(crate) fn seconds(&self) -> u64 {
        let it = &self.ground.databases;
        let copied = match self.keeper == self.ground.host {
            // A disk copies about 200 MB each second.
            true => it.size / 200_000_000,
            false => 0,
        };
        15 + it.relations / 500 + copied
    }
}

/// Whether the leader streams to all other members; those that it does not stream to.
fn not_streaming(cluster: &Cluster, leader: &Status, host: &HostName) -> Vec<HostName> {
    let members = cluster.with_role(Role::Postgres).map(|node| &node.name);
    members
        .filter(|name| *name != host && !leader.streams_to(name))
        .cloned()
        .collect()
}
