//! Plans how databases leave the cluster. Refuses a departure that would lose the data or leave no leader.
//!
//! A host leaves in this order: its Patroni stops for good, the DCS forgets it, and its slot is dropped. Then the
//! ordinary plan takes it out of every file. The provider removes its machine last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Action, Change, Found, Plan, Step, StepId, vip_leaves};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    quantity::count,
    remote::Script,
    services::postgres::patroni::{self, Status},
};

mod lost;

pub use lost::{Data, lost};

/// How long a leader may take to hand over. In a synchronous cluster, the new leader must be a synchronous standby
/// first.
const HANDING_OVER: Duration = Duration::from_secs(120);
/// How long Patroni may take to read its config. It does so in each loop, and when it is asked to.
const READING: Duration = Duration::from_secs(60);
/// How long PostgreSQL may take to stop.
const STOPPING: Duration = Duration::from_secs(600);
/// How long it may take to drop a slot: PostgreSQL keeps a connection for a minute after its other end has gone.
const DROPPING: Duration = Duration::from_secs(150);
/// How long Patroni keeps the slots of members that left, in seconds, while pgherd has one dropped. With zero, replicas
/// would also lose the slots of members that stay (Patroni 4.1.5, `dcs/__init__.py`).
pub(crate) const LET_GO: u64 = 1;

/// Which hosts are to leave the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Departures {
    #[default]
    None,
    /// The hosts that the user has named.
    Agreed(BTreeSet<HostName>),
    /// All hosts that left the inventory, for a plan that is only shown.
    Shown,
}

impl Departures {
    pub fn include(&self, host: &HostName) -> bool {
        match self {
            Self::None => false,
            Self::Agreed(hosts) => hosts.contains(host),
            Self::Shown => true,
        }
    }
}

/// A host that leaves, or that is made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    pub host: HostName,
    pub roles: Vec<Role>,
    /// Whether pgherd could look at it.
    pub answers: bool,
    pub becomes: Becomes,
}

/// What becomes of a host after it has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It leaves for good.
    Gone,
    /// A new host takes its name at once.
    New,
    /// It stays, without some of its roles.
    Less,
}

impl Leaver {
    /// Whether a new host takes its name at once.
    fn returns(&self) -> bool {
        self.becomes == Becomes::New
    }
}

/// A cluster that hosts leave. Its nodes include the hosts that leave.
pub struct ShrinkingCluster<'a> {
    pub cluster: &'a Cluster,
    pub found: &'a Found,
    pub survey: &'a BTreeMap<HostName, Result<Status>>,
    pub leaving: &'a [Leaver],
}

impl<'a> ShrinkingCluster<'a> {
    pub fn leader(&self) -> Option<&'a HostName> {
        patroni::leader_of(self.survey)
    }

    /// Whether the host's database leaves. A host may also give up another role and keep its database.
    pub fn leaves(&self, host: &HostName) -> bool {
        let mut leaving = self.leaving.iter();
        leaving.any(|it| it.host == *host && it.roles.contains(&Role::Postgres))
    }

    /// The databases that leave. The leader comes last.
    fn databases(&self) -> Vec<&'a Leaver> {
        let with = |it: &&Leaver| it.roles.contains(&Role::Postgres);
        let mut leaving: Vec<&Leaver> = self.leaving.iter().filter(with).collect();
        leaving.sort_by_key(|it| Some(&it.host) == self.leader());
        leaving
    }

    /// Plans that hosts which are no longer front doors give up the cluster's address.
    fn give_vip_over(&self, plan: &mut Plan) -> Vec<StepId> {
        let goes = |it: &&Leaver| it.becomes != Becomes::Less || it.roles.contains(&Role::Haproxy);
        let doors = self.leaving.iter().filter(goes).map(|it| &it.host);
        vip_leaves::plan(plan, self.cluster, self.found, doors)
    }

    /// The databases that stay.
    fn staying(&self) -> Vec<&'a HostName> {
        let databases = self.cluster.with_role(Role::Postgres);
        let names = databases.map(|node| &node.name);
        names.filter(|host| !self.leaves(host)).collect()
    }

    /// Whether a database has all data, or will have it soon: it leads, or the leader streams to it.
    fn is_whole(&self, host: &HostName) -> bool {
        let Some(leader) = self.leader() else {
            return false;
        };
        let streams = |status: &Status| status.streams_to(host);
        let runs = |it: &Result<Status>| it.as_ref().is_ok_and(Status::is_running);
        host == leader
            || (self.survey.get(host).is_some_and(runs)
                && self.survey[leader].as_ref().is_ok_and(streams))
    }

    /// Whether there is no data yet.
    fn is_new(&self) -> bool {
        let keys = self.found.dcs.as_ref();
        keys.is_some_and(|keys| keys.members.is_empty() && keys.initialize.is_none())
    }

    /// Which databases leave and which stay, in a sentence.
    fn sum(&self) -> String {
        let staying = self.staying();
        let leaving = self.databases();
        let whole: Vec<&HostName> = staying
            .iter()
            .copied()
            .filter(|host| self.is_whole(host))
            .collect();
        let leaving: Vec<&HostName> = leaving.iter().map(|it| &it.host).collect();
        format!(
            "of {} {} would leave ({}) and {} would stay ({}); of those, {} {} healthy now{}",
            count(staying.len() + leaving.len(), "database"),
            leaving.len(),
            names(&leaving),
            staying.len(),
            names(&staying),
            match whole.len() {
                0 => "none".to_owned(),
                some => some.to_string(),
            },
            if whole.len() > 1 { "are" } else { "is" },
            match whole.is_empty() {
                true => String::new(),
                false => format!(" ({})", names(&whole)),
            }
        )
    }

    fn refused(&self, what: String) -> Error {
        Error::new(Code::NotPossibleNow, what)
            .cause(self.sum())
            .left("nothing was changed")
    }
}

fn names(hosts: &[&HostName]) -> String {
    let names: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    match names.is_empty() {
        true => "nobody".into(),
        false => names.join(", "),
    }
}

/// Refuses a cluster with too few members. This needs only the inventory, not the members' health.
pub fn refuse_too_few(shrinking: &ShrinkingCluster<'_>) -> Result<()> {
    for leaver in shrinking.leaving {
        refuse_etcd(shrinking, leaver)?;
    }
    let leaving = shrinking.databases();
    if leaving.is_empty() || shrinking.is_new() {
        return Ok(());
    }
    let staying = shrinking.staying();
    let returns = leaving.iter().all(|it| it.returns());
    if staying.is_empty() {
        return Err(shrinking
            .refused("nobody would be left to lead, and no copy of the data".into())
            .hint("add another database first, and run `pgherd up`")
            .hint("or remove the whole cluster: pgherd down"));
    }
    if shrinking.cluster.inventory.patroni.synchronous && staying.len() < 2 && !returns {
        return Err(shrinking
            .refused(
                "the inventory wants `synchronous: true`, and no standby would be left for the leader"
                    .into(),
            )
            .cause("a synchronous cluster needs 2 databases: the leader and a standby that has every commit")
            .hint("add another database first, and run `pgherd up`")
            .hint("or set patroni: { synchronous: false }, and accept that a failover may lose commits"));
    }
    Ok(())
}

/// Refuses to make a member of etcd anew while the others are no majority: only a majority can replace it. If a member
/// leaves for good, the plan that removes it from etcd checks that.
fn refuse_etcd(shrinking: &ShrinkingCluster<'_>, leaver: &Leaver) -> Result<()> {
    if !leaver.roles.contains(&Role::Etcd) || !leaver.returns() {
        return Ok(());
    }
    let host = &leaver.host;
    let members = shrinking.cluster.with_role(Role::Etcd).count();
    let others = shrinking
        .found
        .stores
        .keys()
        .filter(|it| *it != host)
        .count();
    let needed = members / 2 + 1;
    // The only one is filled again by Patroni.
    if members == 1 || others >= needed {
        return Ok(());
    }
    Err(Error::new(
        Code::NotPossibleNow,
        format!("without {host}, etcd would have no majority"),
    )
    .cause(format!(
        "etcd has {members} members and needs {needed} of them; without {host}, {others} would answer"
    ))
    .left("nothing was changed")
    .hint("bring the other members back first: pgherd up"))
}

/// Plans the steps after which the databases that leave are no longer members, and the front doors that leave no longer
/// have the cluster's address.
///
/// # Errors
/// The cluster would lose its data, its leader or its standby.
pub fn plan(shrinking: &ShrinkingCluster<'_>) -> Result<Plan> {
    refuse_too_few(shrinking)?;
    let mut plan = Plan {
        paused: shrinking.found.is_paused(),
        ..Plan::default()
    };
    let leaving = shrinking.databases();
    if leaving.is_empty() {
        shrinking.give_vip_over(&mut plan);
        return Ok(plan);
    }
    if shrinking.found.dcs.is_none() {
        return Err(Error::new(
            Code::EtcdUnreachable,
            "no etcd answers, so nobody can say who is a member and who leads",
        )
        .left("nothing was changed")
        .hint("see how etcd is: pgherd status"));
    }
    if !shrinking.is_new() {
        refuse_loss(shrinking)?;
    }
    let mut last = shrinking.give_vip_over(&mut plan);
    for leaver in &leaving {
        last.extend(forbid_election(&mut plan, shrinking, leaver));
    }
    for leaver in leaving {
        last = member(&mut plan, shrinking, leaver, last);
    }
    Ok(plan)
}

/// Refuses a departure after which no member would have all data.
fn refuse_loss(shrinking: &ShrinkingCluster<'_>) -> Result<()> {
    let whole: Vec<&HostName> = shrinking
        .staying()
        .into_iter()
        .filter(|host| shrinking.is_whole(host))
        .collect();
    let Some(leader) = shrinking.leader() else {
        return Err(shrinking
            .refused("no member leads now, so nobody can say which of them has every commit".into())
            .hint("see what the members say: pgherd status")
            .hint("make a healthy member the leader first: pgherd failover --to HOST"));
    };
    if shrinking.leaves(leader) && whole.is_empty() {
        return Err(shrinking
            .refused(format!(
                "{leader} leads, and streams to no database that stays: its copy of the data is the only one that is up to date"
            ))
            .hint("see what is wrong with the replicas: pgherd status")
            .hint("a replica that can no longer follow is copied anew: pgherd reinit HOST"));
    }
    // Nothing is lost with a member that is dead.
    let mut healthy = shrinking.databases();
    healthy.retain(|it| shrinking.is_whole(&it.host));
    if healthy.is_empty() || shrinking.staying().len() < 2 || whole.len() > 1 {
        return Ok(());
    }
    let synchronous = shrinking.cluster.inventory.patroni.synchronous;
    let what = match synchronous {
        true => {
            "the inventory wants `synchronous: true`, and no healthy standby would be left for the leader"
        }
        false => "the data would be on one database alone: no other that stays is healthy",
    };
    Err(shrinking
        .refused(what.into())
        .hint("see what is wrong with the others: pgherd status")
        .hint("keep the host in the inventory until they are well again: pgherd up"))
}

/// Sets the tag `nofailover`, with which Patroni is never elected. It reads the config as YAML, so its layout does not
/// matter. If the member stays after all, the next run renders its config again.
const NOFAILOVER: &str = r#"python=/opt/patroni/bin/python
[ -x $python ] || python=/usr/bin/python3
tagged=$(mktemp /etc/patroni.yml.pgherd.XXXXXX)
$python -c '
import sys, yaml
config = yaml.safe_load(sys.stdin)
config["tags"] = dict(config.get("tags") or {}, nofailover=True)
yaml.safe_dump(config, sys.stdout, sort_keys=False)' </etc/patroni.yml >"$tagged" || { rm -f "$tagged"; exit 1; }
chown --reference=/etc/patroni.yml "$tagged"
chmod --reference=/etc/patroni.yml "$tagged"
mv -f "$tagged" /etc/patroni.yml
systemctl reload patroni"#;

/// Keeps a database from being elected: it could become the leader again between its hand-over and its stop.
fn forbid_election(
    plan: &mut Plan,
    shrinking: &ShrinkingCluster<'_>,
    leaver: &Leaver,
) -> Option<StepId> {
    let unit = Role::Postgres.unit();
    let facts = shrinking.found.facts.get(&leaver.host)?;
    if !facts.unit(unit).is_active() {
        return None;
    }
    Some(plan.push(Step {
        host: leaver.host.clone(),
        name: "forbid-election",
        why: "it leaves, and must not become the leader meanwhile".into(),
        after: Vec::new(),
        changes: vec![Change::Other("its Patroni has the tag nofailover".into())],
        action: Action::ForbidElection(Script::new().alone("forbid-election").line(NOFAILOVER)),
        limit: READING,
        units: vec![unit],
    }))
}

/// Plans the departure of one database.
fn member(
    plan: &mut Plan,
    shrinking: &ShrinkingCluster<'_>,
    leaver: &Leaver,
    mut last: Vec<StepId>,
) -> Vec<StepId> {
    let Leaver { host, .. } = leaver;
    let step = |name, why: &str, after: Vec<StepId>, what: String, action, limit| Step {
        host: host.clone(),
        name,
        why: why.into(),
        after,
        changes: vec![Change::Other(what)],
        action,
        limit,
        units: match leaver.answers {
            true => vec!["patroni"],
            false => Vec::new(),
        },
    };
    if shrinking.leader() == Some(host) {
        last = vec![
            plan.push(step(
                "hand-over",
                "it leads, and leaves",
                last,
                "another member becomes the leader".into(),
                Action::LeadElsewhere {
                    leaving: shrinking
                        .databases()
                        .iter()
                        .map(|it| it.host.clone())
                        .collect(),
                },
                HANDING_OVER,
            )),
        ];
    }
    let unit = Role::Postgres.unit();
    let facts = shrinking.found.facts.get(host);
    if facts.is_some_and(|facts| {
        let unit = facts.unit(unit);
        unit.loaded && (unit.is_active() || unit.enabled == "enabled")
    }) {
        last = vec![
            plan.push(step(
                "retire-patroni",
                "it must never be elected again",
                last,
                format!("{unit} is stopped and disabled, and PostgreSQL with it"),
                Action::Run(
                    Script::new()
                        .alone("retire-patroni")
                        .line(format!("systemctl disable --quiet --now {unit}")),
                ),
                STOPPING,
            )),
        ];
    }
    last = vec![plan.push(step(
        "forget-member",
        "the others are not to count it any more",
        last,
        format!("the entry of {host} in the DCS"),
        Action::ForgetMember,
        Duration::from_secs(30),
    ))];
    if leaver.returns() {
        return last;
    }
    let silent: Vec<&HostName> = shrinking
        .staying()
        .into_iter()
        .filter(|host| !shrinking.survey.get(host).is_some_and(Result::is_ok))
        .collect();
    if !silent.is_empty() {
        plan.skip(
            host,
            "drop-slot",
            format!(
                "{} would lose the slot too, and with it the WAL that it needs when it comes back; Patroni drops the slot of {host} by itself, within half an hour",
                names(&silent)
            ),
        );
        return last;
    }
    let answers = |it: &&HostName| shrinking.found.facts.contains_key(*it);
    vec![
        plan.push(step(
            "drop-slot",
            "the others would keep WAL for it until their disks are full",
            last,
            format!("the replication slot of {host}"),
            Action::DropSlot {
                on: shrinking
                    .staying()
                    .into_iter()
                    .filter(answers)
                    .cloned()
                    .collect(),
                ttl: kept_for(shrinking.found),
            },
            DROPPING,
        )),
    ]
}

/// How long Patroni keeps slots afterwards: as before, unless that is what a run which was cut off has set.
fn kept_for(found: &Found) -> Value {
    let config = found.dcs.as_ref().and_then(|keys| keys.config.as_ref());
    match config.and_then(|config| config.get("member_slots_ttl")) {
        Some(ttl) if *ttl != json!(LET_GO) => ttl.clone(),
        _ => Value::Null,
    }
}
