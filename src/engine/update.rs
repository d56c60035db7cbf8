//! `update`: newer versions of what the cluster consists of, one host at a time, while the cluster serves.
//!
//! Nothing needs a note on this machine: what is installed and what runs is known from the hosts at any time, so that the
//! same command goes on wherever it was cut off.

use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    observe::Observed,
    operator::{Question, consent},
    reboot::doors,
    run::Run,
    settle::{self, Consent, Verb},
    taken::{Leftovers, Taken},
};
use crate::{
    cluster::{Cluster, Node},
    configs::pinned,
    contract::REQUIREMENTS,
    error::{Code, Error, Result},
    facts::{Depth, Upkeep},
    inventory::{HostName, Role},
    plan::{
        self, Plan,
        collations::{self, Old},
        operate::{self, Seen, Which},
        update::{Scope, of_backups, postgresql_is_old},
    },
    quantity::count,
    services::postgres::patroni,
};

pub(crate) use crate::facts::Update;

/// A host as it is, and what an update would bring.
#[derive(Debug, Clone)]
pub(crate) struct Outdated {
    pub node: Node,
    pub leads: bool,
    pub upkeep: Upkeep,
    /// What would come.
    pub updates: Vec<Update>,
    /// The installed version of Patroni, and the one that pgherd pins, if they differ.
    pub patroni: Option<(String, String)>,
}

impl Outdated {
    /// Whether there is anything to do on this host.
    pub(crate) fn is_due(&self) -> bool {
        !self.updates.is_empty() || self.patroni.is_some() || self.upkeep.outdated().count() > 0
    }
}

/// What the user asks for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    pub scope: Scope,
    /// Indexes whose collations have changed are built anew.
    pub reindex: bool,
}

/// What an update means, before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    /// In the order of their turns.
    pub hosts: Vec<Outdated>,
    /// How many other changes `up` would make first.
    pub pending: usize,
    /// The databases with collations that have another version than the indexes that were built by them.
    pub collations: BTreeMap<String, Old>,
    /// Whether these indexes are built anew.
    pub reindex: bool,
}

impl Outlook {
    /// Whether any host lacks or still runs something.
    pub(crate) fn hosts_are_due(&self) -> bool {
        self.hosts.iter().any(Outdated::is_due)
    }
}

/// What there is to update; changes nothing but apt's lists of packages.
pub(crate) async fn check(context: &Context, wish: Wish) -> Result<Outlook> {
    let hosts = context.host_status().await?;
    let (events, _quiet) = crate::event::Events::channel();
    let work = async |connected: &Connected<'_>| {
        let observed = connected.look().await?.whole()?;
        outlook(connected, &observed, wish).await
    };
    context.on(hosts.complete(context)?, &events, work).await
}

/// Updates the hosts; returns the result as sentences.
pub(crate) async fn run(
    context: &Context,
    wish: Wish,
    cancel: &CancellationToken,
) -> Result<String> {
    let taken = Taken::by(context, "update", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.complete(context)?;
    taken
        .run(async |run| {
            let work = async |connected: &Connected<'_>| update(run, connected, wish).await;
            context.on(running, &run.events, work).await
        })
        .await
}

async fn outlook(connected: &Connected<'_>, observed: &Observed, wish: Wish) -> Result<Outlook> {
    let cluster = &observed.cluster;
    let mut upkeep = connected.upkeep(cluster, Depth::Refreshed).await?;
    let survey = patroni::survey(&connected.http, cluster).await;
    let leader = patroni::leader_of(&survey);
    let mut names: Vec<HostName> = cluster.nodes.keys().cloned().collect();
    plan::order(cluster, leader, &mut names);
    let plan = observed.plan()?;
    let of_patroni = |name: &str| name.ends_with("-patroni") || name == "hand-over";
    let other = plan.steps.iter().filter(|step| step.changes_something());
    let pending = other.filter(|step| !of_patroni(step.name)).count();
    let hosts = names.into_iter().map(|host| {
        let upkeep = upkeep.remove(&host).unwrap_or_default();
        Outdated {
            node: cluster.nodes[&host].clone(),
            leads: leader == Some(&host),
            updates: wish.scope.chosen(&upkeep).into_iter().cloned().collect(),
            patroni: patroni_of(observed, &host),
            upkeep,
        }
    });
    Ok(Outlook {
        hosts: hosts.collect(),
        pending,
        collations: collations_of(connected, cluster)
            .await
            .map_or_else(BTreeMap::new, |it| it.1),
        reindex: wish.reindex,
    })
}

/// Patroni in its venv as it is installed, and as pgherd pins it, if they differ.
fn patroni_of(observed: &Observed, host: &HostName) -> Option<(String, String)> {
    let facts = observed.found.facts.get(host)?;
    facts.patroni_stamp.as_ref()?;
    let there = facts.software().remove("patroni")?;
    let files = observed.files.get(host)?;
    let wanted = files.iter().find(|file| file.path == REQUIREMENTS)?;
    let wanted = pinned(&wanted.content, "patroni")?;
    (there != wanted).then_some((there, wanted))
}

async fn update(run: &Run<'_>, connected: &Connected<'_>, wish: Wish) -> Result<String> {
    let context = run.context;
    let observed = connected.look().await?.whole()?;
    observed.members_as_declared()?;
    connected.certificates_valid(&observed)?;
    let cluster = observed.cluster.clone();
    let outlook = outlook(connected, &observed, wish).await?;
    for host in &outlook.hosts {
        if let Some(why) = &host.upkeep.stale {
            context.operator.say(&format!(
                "note: {} cannot fetch all lists of packages, and knows those from before: {why}",
                host.node.name
            ));
        }
    }
    if !outlook.hosts_are_due() && (!wish.reindex || outlook.collations.is_empty()) {
        let told = "everything is up to date, and runs".to_owned();
        return Ok(with_collations(context, told, &outlook.collations));
    }
    one_version_of_backups(&outlook)?;
    let question = Question::Update {
        cluster: cluster.name(),
        outlook: &outlook,
    };
    consent(context.operator.as_ref(), question).await?;
    leftovers(run, connected, &cluster, &outlook).await?;
    settled(run, connected).await?;
    backups(run, connected, &cluster, &outlook).await?;
    let done = hosts_in_turn(run, connected, &cluster, &outlook).await?;
    let mut told = match done {
        0 => format!(
            "the cluster {} runs what is installed, and is healthy",
            cluster.name()
        ),
        _ => format!(
            "{} of {} updated, and the cluster is healthy",
            count(done, "host"),
            cluster.name()
        ),
    };
    let upkeep = connected.upkeep(&cluster, Depth::Running).await?;
    let reboots = upkeep
        .iter()
        .filter(|(_, it)| !it.reboot_reasons().is_empty());
    let reboots: Vec<&str> = reboots.map(|(host, _)| host.as_str()).collect();
    if !reboots.is_empty() {
        told.push_str(&format!(
            "\na reboot waits on {}: {}",
            reboots.join(", "),
            context.command("reboot --needed")
        ));
    }
    let Some((leader, old)) = collations_of(connected, &cluster).await else {
        return Ok(told);
    };
    if wish.reindex && !old.is_empty() {
        let plan = collations::reindex(&cluster, &leader, &old);
        connected.announce(&plan);
        connected.carry_out(plan, &cluster, run.cancel).await?;
        let indexes = old.values().map(|it| it.indexes.len()).sum();
        told.push_str(&format!(
            "\n{} built anew, because collations have changed",
            collations::indexes(indexes)
        ));
        return Ok(told);
    }
    Ok(with_collations(context, told, &old))
}

/// What is old in each database, and the member that leads. A database that cannot be looked into is no reason to hold
/// an update back.
async fn collations_of(
    connected: &Connected<'_>,
    cluster: &Cluster,
) -> Option<(HostName, BTreeMap<String, Old>)> {
    match connected.collations(cluster).await {
        Ok(old) => old,
        Err(error) => {
            let operator = &connected.context.operator;
            operator.say(&format!("note: collations are not compared: {error}"));
            None
        }
    }
}

/// The text, and what must be reindexed.
fn with_collations(context: &Context, mut told: String, old: &BTreeMap<String, Old>) -> String {
    if old.is_empty() {
        return told;
    }
    for line in collations_in_words(old) {
        told.push_str(&format!("\n! {line}"));
    }
    told.push_str(&format!(
        "\nbuild these indexes anew, while clients go on: {}",
        context.command("update --reindex")
    ));
    told
}

/// What is old in each database, one line each.
pub(crate) fn collations_in_words(old: &BTreeMap<String, Old>) -> Vec<String> {
    let words = |(database, old): (&String, &Old)| {
        let own = old.database.iter();
        let own = own.map(|(was, is)| format!("the database's own: {was}, now {is}"));
        let named = old.collations.iter();
        let named = named.map(|(name, was, is)| format!("{name}: {was}, now {is}"));
        let all: Vec<String> = own.chain(named).collect();
        format!(
            "collations of {database} have changed ({}); indexes to build anew: {}",
            all.join("; "),
            match old.indexes.as_slice() {
                [] => "none".to_owned(),
                some => some.join(", "),
            }
        )
    };
    old.iter().map(words).collect()
}

/// The hosts get their packages, one at a time; returns how many did.
async fn hosts_in_turn(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &Arc<Cluster>,
    outlook: &Outlook,
) -> Result<usize> {
    let mut done = 0;
    for host in &outlook.hosts {
        if run.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        let chosen = host.updates.iter();
        let chosen: Vec<&Update> = chosen.filter(|it| !of_backups(it, &host.upkeep)).collect();
        if !chosen.is_empty() {
            one(run, connected, cluster, (host, &chosen)).await?;
            done += 1;
        }
    }
    Ok(done)
}

/// Both ends of pgBackRest must have the same version, or neither backups nor WAL come through.
fn one_version_of_backups(outlook: &Outlook) -> Result<()> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in &outlook.hosts {
        let there = host.upkeep.packages.get("pgbackrest");
        let coming = host.updates.iter().find(|it| it.package == "pgbackrest");
        let version = coming
            .map(|it| &it.to)
            .or_else(|| there.map(|it| &it.version));
        if let Some(version) = version {
            let hosts = versions.entry(version).or_default();
            hosts.push(host.node.name.as_str());
        }
    }
    if versions.len() < 2 {
        return Ok(());
    }
    let error = Error::new(
        Code::NotPossibleNow,
        "pgBackRest would not have the same version on all hosts, and its two ends would not understand each other",
    );
    let error = versions.iter().fold(error, |error, (version, hosts)| {
        error.cause(format!("{version} on {}", hosts.join(", ")))
    });
    Err(error
        .left("nothing was updated")
        .hint("give all hosts the same package sources, and release held packages: sudo apt-mark unhold pgbackrest"))
}

/// What already runs although its files were replaced restarts first: an earlier run may have been cut off, or somebody
/// has called apt.
async fn leftovers(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &Arc<Cluster>,
    outlook: &Outlook,
) -> Result<()> {
    let mut notes = Plan::default();
    for host in &outlook.hosts {
        plan::update::host(
            &mut notes,
            cluster,
            &host.node,
            &[],
            &host.upkeep,
            Vec::new(),
        );
    }
    if notes.is_empty() {
        return Ok(());
    }
    connected.announce(&notes);
    connected.carry_out(notes, cluster, run.cancel).await?;
    for host in &outlook.hosts {
        if postgresql_is_old(&host.upkeep) {
            postgresql(run, connected, cluster, &host.node.name).await?;
        }
    }
    Ok(())
}

/// Restarts PostgreSQL on one host, after a change of leader if it leads.
async fn postgresql(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &Arc<Cluster>,
    host: &HostName,
) -> Result<()> {
    let survey = patroni::survey(&connected.http, cluster).await;
    let topology = patroni::overview(&connected.http, &survey).await;
    let seen = Seen {
        cluster,
        survey: &survey,
        topology: topology.as_ref(),
    };
    let plan = operate::restart(&seen, Which::One(host), false, &doors(cluster))?;
    connected.announce(&plan);
    connected.carry_out(plan, cluster, run.cancel).await
}

/// pgBackRest on all its hosts at once, before anything else restarts.
async fn backups(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &Arc<Cluster>,
    outlook: &Outlook,
) -> Result<()> {
    let mut plan = Plan::default();
    for host in &outlook.hosts {
        let chosen = host.updates.iter();
        let chosen: Vec<&Update> = chosen.filter(|it| of_backups(it, &host.upkeep)).collect();
        if !chosen.is_empty() {
            let node = &host.node;
            plan::update::host(&mut plan, cluster, node, &chosen, &host.upkeep, Vec::new());
        }
    }
    if plan.is_empty() {
        return Ok(());
    }
    connected.announce(&plan);
    connected.carry_out(plan, cluster, run.cancel).await?;
    settled(run, connected).await
}

/// One host gets its packages, restarts what uses them, and the cluster is proven.
async fn one(
    run: &Run<'_>,
    connected: &Connected<'_>,
    cluster: &Arc<Cluster>,
    (host, chosen): (&Outdated, &[&Update]),
) -> Result<()> {
    let node = &host.node;
    let mut plan = Plan::default();
    plan::update::host(&mut plan, cluster, node, chosen, &host.upkeep, Vec::new());
    connected.announce(&plan);
    connected.carry_out(plan, cluster, run.cancel).await?;
    let now = connected.upkeep_of(node, Depth::Running).await?;
    if node.roles.contains(&Role::Postgres) && postgresql_is_old(&now) {
        postgresql(run, connected, cluster, &node.name).await?;
    }
    settled(run, connected).await
}

/// Whatever the hosts have noted restarts in its turn, and the cluster is proven.
async fn settled(run: &Run<'_>, connected: &Connected<'_>) -> Result<()> {
    let settled = settle::settle(Verb::Up, connected, Consent::Given, run.cancel).await;
    settled.map(|_| ()).map_err(|error| {
        error.hint(format!(
            "once that is right, go on: {}",
            connected.context.command("update")
        ))
    })
}
