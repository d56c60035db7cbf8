//! Plans how databases leave the cluster, and refuses what would cost it its data or its leader.
//!
//! A host leaves in this order: its Patroni stops for good, the DCS forgets it, and its slot goes; then
//! the ordinary plan takes it out of every file, and only then its machine goes, which is the provider's.

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

/// How long a member that leads may take to hand over: the new one must be synchronous where that is wanted.
const HANDING_OVER: Duration = Duration::from_secs(120);
/// How long Patroni may take to read its config: it looks at it once a loop, and is woken.
const READING: Duration = Duration::from_secs(60);
/// How long PostgreSQL may take to stop.
const STOPPING: Duration = Duration::from_secs(600);
/// How long a slot may stay: a connection whose other end is gone is held open for a minute.
const DROPPING: Duration = Duration::from_secs(150);
/// How long Patroni is to keep slots of members that left, in seconds, while one is dropped. Zero would
/// take the slots of those that stay from the replicas, too (Patroni 4.1.5, `dcs/__init__.py`).
pub(crate) const LET_GO: u64 = 1;

/// Which hosts are to leave the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Departures {
    #[default]
    None,
    /// Those that somebody has named.
    Agreed(BTreeSet<HostName>),
    /// All that left the inventory; for a plan that is only shown.
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

/// A host that leaves, or is to be made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    pub host: HostName,
    pub roles: Vec<Role>,
    /// Whether it could be looked at.
    pub answers: bool,
    pub becomes: Becomes,
}

/// What becomes of a host that is a member no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// Nothing: it leaves for good.
    Gone,
    /// Another host takes its name at once.
    New,
    /// It stays, without the roles that it gives up.
    Less,
}

impl Leaver {
    /// Whether another host takes its name at once.
    fn returns(&self) -> bool {
        self.becomes == Becomes::New
    }
}

/// The cluster, those that leave among its nodes, and what the members say.
pub struct Outlook<'a> {
    pub cluster: &'a Cluster,
    pub found: &'a Found,
    pub survey: &'a BTreeMap<HostName, Result<Status>>,
    pub leaving: &'a [Leaver],
}

impl<'a> Outlook<'a> {
    pub fn leader(&self) -> Option<&'a HostName> {
        patroni::leader_of(self.survey)
    }

    /// Whether its database leaves; it may also give up another role, and keep that.
    pub fn leaves(&self, host: &HostName) -> bool {
        let mut leaving = self.leaving.iter();
        leaving.any(|it| it.host == *host && it.roles.contains(&Role::Postgres))
    }

    /// The databases that leave, the leader last: until then it has somebody to lead.
    fn databases(&self) -> Vec<&'a Leaver> {
        let with = |it: &&Leaver| it.roles.contains(&Role::Postgres);
        let mut leaving: Vec<&Leaver> = self.leaving.iter().filter(with).collect();
        leaving.sort_by_key(|it| Some(&it.host) == self.leader());
        leaving
    }

    /// Plans that those that are front doors no more have the cluster's address no more.
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

    /// Whether a database has all that the leader has, or soon: it leads, or the leader streams to it.
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

    /// Whether there is no database yet that could be lost.
    fn is_new(&self) -> bool {
        let keys = self.found.dcs.as_ref();
        keys.is_some_and(|keys| keys.members.is_empty() && keys.initialize.is_none())
    }

    /// Who is there and who stays, in a sentence.
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

/// Refuses what the inventory alone shows to be too few, whoever is healthy.
pub fn refuse_too_few(outlook: &Outlook<'_>) -> Result<()> {
    for leaver in outlook.leaving {
        refuse_etcd(outlook, leaver)?;
    }
    let leaving = outlook.databases();
    if leaving.is_empty() || outlook.is_new() {
        return Ok(());
    }
    let staying = outlook.staying();
    let returns = leaving.iter().all(|it| it.returns());
    if staying.is_empty() {
        return Err(outlook
            .refused("nobody would be left to lead, and no copy of the data".into())
            .hint("add another database first, and run `pgherd up`")
            .hint("or remove the whole cluster: pgherd down"));
    }
    if outlook.cluster.inventory.patroni.synchronous && staying.len() < 2 && !returns {
        return Err(outlook
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

/// A member of etcd that is made anew comes back as one that lost its data, which the others must decide. That
/// one may leave for good is for the plan to say that has etcd remove it.
fn refuse_etcd(outlook: &Outlook<'_>, leaver: &Leaver) -> Result<()> {
    if !leaver.roles.contains(&Role::Etcd) || !leaver.returns() {
        return Ok(());
    }
    let host = &leaver.host;
    let members = outlook.cluster.with_role(Role::Etcd).count();
    let others = outlook.found.stores.keys().filter(|it| *it != host).count();
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

/// Plans the steps after which no database that leaves is a member any more, and no front door that leaves has the
/// cluster's address.
///
/// # Errors
/// The data, the leader or the standby would be lost by it.
pub fn plan(outlook: &Outlook<'_>) -> Result<Plan> {
    refuse_too_few(outlook)?;
    let mut plan = Plan {
        paused: outlook.found.is_paused(),
        ..Plan::default()
    };
    let leaving = outlook.databases();
    if leaving.is_empty() {
        outlook.give_vip_over(&mut plan);
        return Ok(plan);
    }
    if outlook.found.dcs.is_none() {
        return Err(Error::new(
            Code::EtcdUnreachable,
            "no etcd answers, so nobody can say who is a member and who leads",
        )
        .left("nothing was changed")
        .hint("see how etcd is: pgherd status"));
    }
    if !outlook.is_new() {
        refuse_loss(outlook)?;
    }
    let mut last = outlook.give_vip_over(&mut plan);
    for leaver in &leaving {
        last.extend(forbid_election(&mut plan, outlook, leaver));
    }
    for leaver in leaving {
        last = member(&mut plan, outlook, leaver, last);
    }
    Ok(plan)
}

/// Refuses what would leave nobody who has the data.
fn refuse_loss(outlook: &Outlook<'_>) -> Result<()> {
    let whole: Vec<&HostName> = outlook
        .staying()
        .into_iter()
        .filter(|host| outlook.is_whole(host))
        .collect();
    let Some(leader) = outlook.leader() else {
        return Err(outlook
            .refused("no member leads now, so nobody can say which of them has every commit".into())
            .hint("see what the members say: pgherd status")
            .hint("make a healthy member the leader first: pgherd failover --to HOST"));
    };
    if outlook.leaves(leader) && whole.is_empty() {
        return Err(outlook
            .refused(format!(
                "{leader} leads, and streams to no database that stays: its copy of the data is the only one that is up to date"
            ))
            .hint("see what is wrong with the replicas: pgherd status")
            .hint("a replica that can no longer follow is copied anew: pgherd reinit HOST"));
    }
    // One that is dead takes nothing with it.
    let mut healthy = outlook.databases();
    healthy.retain(|it| outlook.is_whole(&it.host));
    if healthy.is_empty() || outlook.staying().len() < 2 || whole.len() > 1 {
        return Ok(());
    }
    let synchronous = outlook.cluster.inventory.patroni.synchronous;
    let what = match synchronous {
        true => {
            "the inventory wants `synchronous: true`, and no healthy standby would be left for the leader"
        }
        false => "the data would be on one database alone: no other that stays is healthy",
    };
    Err(outlook
        .refused(what.into())
        .hint("see what is wrong with the others: pgherd status")
        .hint("keep the host in the inventory until they are well again: pgherd up"))
}

/// Sets the tag with which Patroni is never elected, whatever the layout of its config is. Should the member stay
/// after all, its config is not as rendered, and the next run puts it right.
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

/// Keeps a database from being elected from now on: between a hand-over and its stop, it could be again.
fn forbid_election(plan: &mut Plan, outlook: &Outlook<'_>, leaver: &Leaver) -> Option<StepId> {
    let unit = Role::Postgres.unit();
    let facts = outlook.found.facts.get(&leaver.host)?;
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

/// The steps of one database that leaves.
fn member(
    plan: &mut Plan,
    outlook: &Outlook<'_>,
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
    if outlook.leader() == Some(host) {
        last = vec![
            plan.push(step(
                "hand-over",
                "it leads, and leaves",
                last,
                "another member becomes the leader".into(),
                Action::LeadElsewhere {
                    leaving: outlook
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
    let facts = outlook.found.facts.get(host);
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
    let silent: Vec<&HostName> = outlook
        .staying()
        .into_iter()
        .filter(|host| !outlook.survey.get(host).is_some_and(Result::is_ok))
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
    let answers = |it: &&HostName| outlook.found.facts.contains_key(*it);
    vec![
        plan.push(step(
            "drop-slot",
            "the others would keep WAL for it until their disks are full",
            last,
            format!("the replication slot of {host}"),
            Action::DropSlot {
                on: outlook
                    .staying()
                    .into_iter()
                    .filter(answers)
                    .cloned()
                    .collect(),
                ttl: kept_for(outlook.found),
            },
            DROPPING,
        )),
    ]
}

/// How long Patroni is to keep slots when all is done; what a run that was cut off has set is nobody's wish.
fn kept_for(found: &Found) -> Value {
    let config = found.dcs.as_ref().and_then(|keys| keys.config.as_ref());
    match config.and_then(|config| config.get("member_slots_ttl")) {
        Some(ttl) if *ttl != json!(LET_GO) => ttl.clone(),
        _ => Value::Null,
    }
}

/// What is lost by the departure of a host with these roles, a line a thing.
///
/// `stay` are the databases that stay, `leads` whether it is the leader.
pub fn lost(roles: &[Role], stay: &[&HostName], data_dir: &str, leads: bool) -> Vec<String> {
    let mut lost = Vec::new();
    if roles.contains(&Role::Postgres) {
        if leads {
            lost.push(
                "it leads: another member takes over first, and writes are refused for about 2 s"
                    .to_owned(),
            );
        }
        lost.push(format!(
            "its copy of the data in {data_dir} is deleted; {} stay: {}",
            match stay.len() {
                0 => "no copies".to_owned(),
                1 => "1 other copy".to_owned(),
                count => format!("{count} other copies"),
            },
            names(stay)
        ));
    }
    if roles.contains(&Role::Etcd) {
        lost.push("its copy of etcd's data is deleted".into());
    }
    if roles.contains(&Role::Haproxy) {
        lost.push("clients that connect to its address are refused".into());
    }
    lost
}
