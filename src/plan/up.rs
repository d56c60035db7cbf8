//! The plan of `up`: from the observed state to the desired one.

use serde_json::Value;

use super::{
    Found, Plan, StepId, backups, base, bootstrap_recovery,
    components::{self, Component, Configured, Turn},
    data_volume,
    etcd_joins::{self, Join},
    etcd_leaves::{self, Leave},
    etcd_members, etcd_takes_in, lost,
    members::Members,
    membership, monitor, new_store, newest, packages, parameters, pooler, preconditions,
    requirements, role_leaves, waits,
};
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    facts::Facts,
    inventory::{HostName, Role},
    render::{File, Files},
    services::postgres::PATRONI,
};

/// Plans all differences between `found` and the cluster that the inventory describes.
///
/// `config` is the desired cluster-wide configuration in the DCS. A host without facts could not be observed:
/// there are no steps for it, and no steps that depend on what only such an etcd could tell.
pub fn up(cluster: &Cluster, files: &Files, config: &Value, found: &Found) -> Result<Plan> {
    membership::check(cluster, found)?;
    if !data_volume::is_unread(cluster, found) {
        newest::check(cluster, found)?;
    }
    preconditions::check(
        cluster,
        files,
        found,
        requirements::findings(cluster, found),
    )?;
    Ok(Plan {
        at_once: packages::at_once(cluster, found),
        ..steps(cluster, files, config, found)?
    })
}

/// The same for a proof. A proof also covers a cluster whose members are not the declared ones, and hosts in
/// use; what these lack is not checked.
pub fn differences(
    cluster: &Cluster,
    files: &Files,
    config: &Value,
    found: &Found,
) -> Result<Plan> {
    preconditions::check(cluster, files, found, Vec::new())?;
    steps(cluster, files, config, found)
}

fn steps(cluster: &Cluster, files: &Files, config: &Value, found: &Found) -> Result<Plan> {
    let joins = etcd_joins::joins(cluster, found);
    let mut leaves = etcd_leaves::leaves(cluster, found);
    let mut plan = without_steps(cluster, found, joins.len());
    if data_volume::is_unread(cluster, found) {
        return until_volumes_are_mounted(plan, cluster, files, found);
    }
    let mut databases: Vec<(&Node, Configured)> = Vec::new();
    let mut etcds: Vec<(&Node, Configured)> = Vec::new();
    let mut later: Vec<Place<'_>> = Vec::new();
    let mut poolers: Vec<Place<'_>> = Vec::new();
    let tried = parameters::of_databases(&mut plan, cluster, files, config, found);
    for node in cluster.nodes.values() {
        let Some(facts) = found.facts.get(&node.name) else {
            continue;
        };
        let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
        let place = Place {
            base: base::plan(&mut plan, cluster, node, facts, files)?,
            node,
            facts,
            files,
            other_store: new_store::is_other(cluster, found, facts),
        };
        let mut is_later = false;
        for role in &node.roles {
            #[allow(
                clippy::match_wildcard_for_single_variants,
                clippy::wildcard_enum_match_arm,
                reason = "a service that is not named here needs nothing here"
            )]
            match role {
                // No Patroni is told of an etcd that has not joined.
                Role::Postgres if !joins.is_empty() => is_later = true,
                Role::Postgres => {
                    let configured = place.configure(&mut plan, cluster, *role, tried.clone())?;
                    databases.push((node, configured));
                }
                Role::Etcd => {
                    let mut held = place.hold(&mut plan, cluster, &joins);
                    held.extend(etcd_leaves::stays(&mut plan, node, facts, &held));
                    let configured = place.configure(&mut plan, cluster, *role, held)?;
                    etcds.push((node, configured));
                }
                // Its password is in the database first.
                Role::Pgbouncer => poolers.push(place.clone()),
                // Steps that no other step waits for.
                _ => {
                    let configured = place.configure(&mut plan, cluster, *role, Vec::new())?;
                    place.run(&mut plan, *role, &configured);
                }
            }
        }
        if is_later {
            later.push(place);
        }
    }
    let first = newest::first(cluster, found);
    let held = first.map(|first| newest::hold(&mut plan, found, first, &mut databases));
    let held = held.unwrap_or_default();
    for (_, configured) in &mut etcds {
        configured.ready.extend(&held);
    }
    after_all_notes(&mut databases, &mut etcds);
    let (joining, etcds): (Vec<_>, Vec<_>) = etcds
        .into_iter()
        .partition(|(node, _)| joins.iter().any(|join| join.node.name == node.name));
    let mut dcs_ready = etcd(&mut plan, cluster, found, &etcds, joins.len());
    dcs_ready.extend(held);
    if !joins.is_empty() {
        if found.dcs.is_none() {
            // Existing members come first: without a majority of them, no member can be added.
            plan.partial = true;
            return Ok(plan);
        }
        dcs_ready = take_in(
            &mut plan,
            cluster,
            found,
            (&joins, &joining),
            &mut leaves,
            dcs_ready,
        );
        for place in later {
            let mut after = tried.clone();
            after.extend(&dcs_ready);
            let configured = place.configure(&mut plan, cluster, Role::Postgres, after)?;
            databases.push((place.node, configured));
        }
    }
    if found.restores {
        plan.partial = true;
        return Ok(plan);
    }
    if bootstrap_recovery::depend_on_the_dcs(cluster, found) {
        return Ok(until_etcd_answers(plan, &etcds, &dcs_ready));
    }
    let mut cleared =
        bootstrap_recovery::clear(&mut plan, cluster, found, &etcds, &mut databases, dcs_ready);
    cleared.extend(tried);
    cleared.extend(lost::ask(&mut plan, cluster, found));
    let members = Members::of(cluster, found, &databases).map(|it| it.led_by(first));
    databases_and_poolers(&mut plan, cluster, (config, members), &cleared, &poolers)?;
    end(&mut plan, cluster, found, &leaves);
    Ok(plan)
}

/// Before all hosts have their note, no member restarts, and no etcd starts: the first member to restart writes keys,
/// and without a note the next run would take the others for members that know the store.
fn after_all_notes<'a>(
    databases: &mut [(&'a Node, Configured)],
    etcds: &mut [(&'a Node, Configured)],
) {
    let noted = databases.iter().filter(|(_, configured)| configured.noted);
    let notes: Vec<StepId> = noted
        .flat_map(|(_, configured)| configured.ready.clone())
        .collect();
    for (_, configured) in databases.iter_mut().chain(etcds) {
        configured.ready.extend(&notes);
    }
}

/// A plan that says only how the membership changes, where `joins` members join etcd.
fn without_steps(cluster: &Cluster, found: &Found, joins: usize) -> Plan {
    let mut membership = etcd_joins::in_words(cluster, found);
    membership.extend(role_leaves::in_words(cluster, found));
    membership.extend(etcd_leaves::in_words(cluster, found, joins));
    Plan {
        paused: found.is_paused(),
        membership,
        taken_off: role_leaves::told(cluster, found),
        ..Plan::default()
    }
}

/// The plan that ends where every data volume is mounted, so that what is on it can be seen.
fn until_volumes_are_mounted(
    mut plan: Plan,
    cluster: &Cluster,
    files: &Files,
    found: &Found,
) -> Result<Plan> {
    plan.partial = true;
    plan.mounts = true;
    for node in cluster.nodes.values() {
        if let Some(facts) = found.facts.get(&node.name) {
            let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
            base::plan(&mut plan, cluster, node, facts, files)?;
        }
    }
    Ok(plan)
}

/// Plans what the databases need, and then the poolers, whose password is in the database first.
fn databases_and_poolers(
    plan: &mut Plan,
    cluster: &Cluster,
    (config, members): (&Value, Option<Members<'_>>),
    dcs_ready: &[StepId],
    poolers: &[Place<'_>],
) -> Result<()> {
    let planned = members
        .as_ref()
        .and_then(|it| it.plan(plan, config, dcs_ready));
    for place in poolers {
        let after = planned.clone().unwrap_or_default();
        let configured = place.configure(plan, cluster, Role::Pgbouncer, after)?;
        place.run(plan, Role::Pgbouncer, &configured);
    }
    if let Some(members) = members.filter(|_| planned.is_some()) {
        members.end_sessions(plan);
    }
    Ok(())
}

/// The plan that ends where etcd answers.
fn until_etcd_answers(mut plan: Plan, etcds: &[(&Node, Configured)], ready: &[StepId]) -> Plan {
    plan.partial = true;
    if ready.is_empty() {
        for (node, _) in etcds {
            waits::await_ready(&mut plan, node, Role::Etcd, Vec::new());
        }
    }
    plan
}

/// Has the repository begin, and lets members leave when every Patroni has its list without them, and all that
/// stay are healthy.
fn end(plan: &mut Plan, cluster: &Cluster, found: &Found, leaves: &[Leave<'_>]) {
    if plan.partial {
        return;
    }
    backups::begin(plan, cluster, found);
    let told = told(plan);
    let last = etcd_leaves::leave(plan, cluster, found, leaves, told);
    let mut retired = Vec::new();
    for (node, mut roles) in role_leaves::leaving(cluster, found) {
        roles.retain(|role| *role != Role::Etcd);
        if !roles.is_empty() {
            let going = (node, &roles[..]);
            let step =
                role_leaves::take_off(plan, cluster, found, going, "retire-roles", last.clone());
            retired.extend(step);
        }
    }
    pooler::leave(plan, cluster, found, &retired);
    monitor::leave(plan, cluster, found, &retired);
}

/// The steps after which every Patroni has its list of etcd's members, and all of these are healthy.
fn told(plan: &Plan) -> Vec<StepId> {
    let of = |name: &str| {
        ["await-etcd", "await-member", PATRONI.configure].contains(&name)
            || [PATRONI.start, PATRONI.reload, PATRONI.restart].contains(&name)
            || name == components::ALONE
    };
    let steps = 0..plan.steps.len();
    steps.filter(|id| of(plan.steps[*id].name)).collect()
}

/// A host, and the steps that its services wait for.
#[derive(Clone)]
struct Place<'a> {
    node: &'a Node,
    facts: &'a Facts,
    files: &'a [File],
    base: base::Base,
    /// etcd has another store than the one that a Patroni here knows.
    other_store: bool,
}

impl Place<'_> {
    /// Keeps etcd from starting before the others have added it.
    fn hold(&self, plan: &mut Plan, cluster: &Cluster, joins: &[Join<'_>]) -> Vec<StepId> {
        let mut joins = joins.iter();
        let join = joins.find(|join| join.node.name == self.node.name && join.from.is_held());
        let packages = self.base.packages.clone();
        join.map(|join| etcd_takes_in::hold(plan, cluster, join, packages))
            .into_iter()
            .collect()
    }

    /// Plans what a service's unit needs, and waits until it is ready.
    fn run(&self, plan: &mut Plan, role: Role, configured: &Configured) {
        if let Some(step) = components::run_unit(plan, self.node, role, configured, &[]) {
            waits::await_ready(plan, self.node, role, vec![step]);
        }
    }

    /// Plans a service's files, after the steps in `more` too.
    fn configure(
        &self,
        plan: &mut Plan,
        cluster: &Cluster,
        role: Role,
        more: Vec<StepId>,
    ) -> Result<Configured> {
        let is_database = role == Role::Postgres;
        let base = &self.base;
        let mut after = match is_database {
            true => base.patroni.clone(),
            false => base.packages.clone(),
        };
        after.extend(more);
        let component = Component {
            node: self.node,
            role,
            facts: self.facts,
            files: self.files,
            replaced: is_database && base.venv.is_some(),
            other_store: is_database && self.other_store,
        };
        components::configure(plan, cluster, &component, after)
    }
}

/// Lets the members in `joins` join etcd, when all members answer and every host knows every name.
///
/// Members whose hosts leave are removed first: no other host knows their names any more.
fn take_in(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    (joins, joining): (&[Join<'_>], &[(&Node, Configured)]),
    leaves: &mut Vec<Leave<'_>>,
    after: Vec<StepId>,
) -> Vec<StepId> {
    let gone: Vec<Leave<'_>> = leaves
        .extract_if(.., |leave| leave.node.is_none())
        .collect();
    let mut after = etcd_leaves::leave(plan, cluster, found, &gone, after);
    after.extend(named(plan, cluster));
    let configured = |join: &Join<'_>| {
        let mut all = joining.iter();
        all.find(|(node, _)| node.name == join.node.name)
    };
    let all: Vec<(&Join<'_>, &Configured)> = joins
        .iter()
        .filter_map(|join| Some((join, &configured(join)?.1)))
        .collect();
    etcd_takes_in::take_in(plan, cluster, &found.etcd, &all, after)
}

/// The steps after which the etcd hosts know each other's names.
fn named(plan: &Plan, cluster: &Cluster) -> Vec<StepId> {
    let of_etcd = |host: &HostName| cluster.with_role(Role::Etcd).any(|it| it.name == *host);
    (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == components::PREPARE)
        .filter(|id| of_etcd(&plan.steps[*id].host))
        .collect()
}

/// Starts what does not run, all in parallel; restarts what must be restarted one at a time, so that a quorum
/// stays. Returns the steps after which the DCS can be used.
///
/// Members look for each other by name, so every host must know the names before one restarts.
///
/// `joining` is the number of declared members that must still be added. They are not among `etcds`.
///
/// With a quorum, the others are told of a member's new URL before it restarts. Without one, or for an only
/// member, that is possible only afterwards.
fn etcd(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    etcds: &[(&Node, Configured)],
    joining: usize,
) -> Vec<StepId> {
    let (starts, others): (Vec<_>, Vec<_>) = etcds
        .iter()
        .partition(|(_, configured)| configured.turn == Turn::Start);
    // A member that is away must be back before another one restarts. Without a quorum there is none to keep,
    // and the restart may bring it back.
    let declared = cluster.with_role(Role::Etcd).count();
    // Hosts that will join are no members yet. A member that lost its data is missing in every majority.
    let members = declared.saturating_sub(joining).max(1);
    let quorum = others.len() > members / 2
        && found.dcs.is_some()
        && (joining > 0 || etcd_members::has_quorum(cluster, found));
    let named = match declared {
        1 => Vec::new(),
        _ => named(plan, cluster),
    };
    let mut healthy = Vec::new();
    let mut last = named;
    for (node, configured) in starts.into_iter().chain(others) {
        let serial = configured.turn == Turn::Restart;
        let mut before = if serial { last.clone() } else { Vec::new() };
        let first = quorum && declared > 1;
        if first {
            let mut after = last.clone();
            after.extend(&configured.ready);
            before.extend(etcd_members::update(plan, cluster, found, node, &after));
        }
        let Some(step) = components::run_unit(plan, node, Role::Etcd, configured, &before) else {
            if first {
                last.extend(before);
            } else {
                healthy.extend(etcd_members::update(plan, cluster, found, node, &[]));
            }
            continue;
        };
        let wait = waits::await_ready(plan, node, Role::Etcd, vec![step]).unwrap_or(step);
        let wait = if first {
            wait
        } else {
            etcd_members::update(plan, cluster, found, node, &[wait]).unwrap_or(wait)
        };
        if serial && quorum {
            last = vec![wait];
        } else if quorum {
            last.push(wait);
        }
        healthy.push(wait);
    }
    healthy
}
