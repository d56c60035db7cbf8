//! The plan of `up`: from the observed state to the desired one.

use serde_json::Value;

use super::{
    Found, Plan, StepId, base, bootstrap_recovery,
    components::{self, Component, Configured, Turn},
    etcd_members,
    members::Members,
    membership, newest, parameters, preconditions, requirements, waits,
};
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    inventory::Role,
    render::Files,
};

/// Plans everything that stands between `found` and the cluster as the inventory wants it.
///
/// `config` is the cluster-wide configuration as it should be in the DCS. A host of which there are
/// no facts could not be looked at: there is no step for it, nor for what only such an etcd could tell.
pub fn up(cluster: &Cluster, files: &Files, config: &Value, found: &Found) -> Result<Plan> {
    membership::check(cluster, found)?;
    newest::check(cluster, found)?;
    preconditions::check(
        cluster,
        files,
        found,
        requirements::findings(cluster, found),
    )?;
    steps(cluster, files, config, found)
}

/// The same for a proof, which looks also at a cluster whose members are not those declared, and at
/// hosts that are in use already: what they lack is not asked.
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
    let mut plan = Plan {
        paused: found.is_paused(),
        ..Plan::default()
    };
    let mut databases: Vec<(&Node, Configured)> = Vec::new();
    let mut etcds: Vec<(&Node, Configured)> = Vec::new();
    let tried = parameters::of_databases(&mut plan, cluster, files, config, found);
    for node in cluster.nodes.values() {
        let Some(facts) = found.facts.get(&node.name) else {
            continue;
        };
        let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
        let base = base::plan(&mut plan, cluster, node, facts, files)?;
        for role in &node.roles {
            let mut after = base.packages.clone();
            let mut venv = None;
            if *role == Role::Postgres {
                venv = base.venv;
                after.clone_from(&base.patroni);
                after.extend(&tried);
            }
            let component = Component {
                node,
                role: *role,
                facts,
                files,
                replaced: venv.is_some(),
            };
            let configured = components::configure(&mut plan, cluster, &component, after)?;
            #[allow(
                clippy::match_wildcard_for_single_variants,
                clippy::wildcard_enum_match_arm,
                reason = "a service that is not named here needs nothing here"
            )]
            match role {
                Role::Postgres => databases.push((node, configured)),
                Role::Etcd => etcds.push((node, configured)),
                // What nobody else has to wait for.
                _ => {
                    let step = components::run_unit(&mut plan, node, *role, &configured, &[]);
                    if let Some(step) = step {
                        waits::await_ready(&mut plan, node, *role, vec![step]);
                    }
                }
            }
        }
    }
    let first = newest::first(cluster, found);
    let held = first.map(|first| newest::hold(&mut plan, found, first, &mut databases));
    let held = held.unwrap_or_default();
    for (_, configured) in &mut etcds {
        configured.ready.extend(&held);
    }
    let mut dcs_ready = etcd(&mut plan, cluster, found, &etcds);
    dcs_ready.extend(held);
    if bootstrap_recovery::depend_on_the_dcs(cluster, found) {
        plan.partial = true;
        if dcs_ready.is_empty() {
            for (node, _) in &etcds {
                waits::await_ready(&mut plan, node, Role::Etcd, Vec::new());
            }
        }
        return Ok(plan);
    }
    let mut cleared =
        bootstrap_recovery::clear(&mut plan, cluster, found, &etcds, &mut databases, dcs_ready);
    cleared.extend(tried);
    if let Some(members) = Members::of(cluster, found, &databases) {
        members.led_by(first).plan(&mut plan, config, &cleared);
    }
    Ok(plan)
}

/// Starts what does not run, all at once; restarts what must be restarted one at a time, so that a
/// quorum stays. Returns the steps after which the DCS can be used.
///
/// Members look for each other by name, so that every host must know the names before one restarts.
///
/// With a quorum the others are told of a member's new URL before it restarts; without one, or of the
/// only member, that can only follow.
fn etcd(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    etcds: &[(&Node, Configured)],
) -> Vec<StepId> {
    let (starts, others): (Vec<_>, Vec<_>) = etcds
        .iter()
        .partition(|(_, configured)| configured.turn == Turn::Start);
    // A member that is away must be back before another goes. Without a quorum there is nothing to
    // keep, and the restart may be what brings it back.
    let declared = cluster.with_role(Role::Etcd).count();
    let quorum = others.len() > declared / 2
        && found.dcs.is_some()
        && etcd_members::has_quorum(cluster, found);
    let named: Vec<StepId> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == components::PREPARE && declared > 1)
        .filter(|id| {
            etcds
                .iter()
                .any(|(node, _)| node.name == plan.steps[*id].host)
        })
        .collect();
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
