//! The plan of `up`: from what was found to what should be.

use std::time::Duration;

use serde_json::Value;

use super::{
    Action, Change, Condition, Found, Plan, Step, StepId,
    components::{self, Component, Configured, Turn},
    config_patch, etcd_members, packages, reconnect, remains, roles, surprise, turns,
};
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    inventory::{HostName, Role},
    render::Files,
};

/// How long a leader or a first replica may take.
pub(super) const FORMING: Duration = Duration::from_secs(180);
/// How long a replica may copy; it is only given up when it is no longer seen to be copying.
const COPYING: Duration = Duration::from_secs(6 * 3600);

/// Plans everything that stands between `found` and the cluster as the inventory wants it.
///
/// `config` is the cluster-wide configuration as it should be in the DCS. A host of which there are
/// no facts could not be looked at: there is no step for it, nor for what only such an etcd could tell.
pub fn up(cluster: &Cluster, files: &Files, config: &Value, found: &Found) -> Result<Plan> {
    surprise::check(cluster, found)?;
    let mut plan = Plan::default();
    let mut databases: Vec<(&Node, Configured)> = Vec::new();
    let mut etcds: Vec<(&Node, Configured)> = Vec::new();
    for node in cluster.nodes.values() {
        let Some(facts) = found.facts.get(&node.name) else {
            continue;
        };
        let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
        let prepared = components::prepare(&mut plan, cluster, node, facts, files)?;
        let installed =
            packages::install(&mut plan, cluster, node, facts, Vec::from_iter(prepared));
        let base: Vec<StepId> = installed.or(prepared).into_iter().collect();
        for role in &node.roles {
            let mut after = base.clone();
            let mut venv = None;
            if *role == Role::Postgres {
                venv =
                    packages::install_patroni(&mut plan, cluster, node, facts, files, base.clone());
                after = venv.map_or(after, |venv| vec![venv]);
            }
            let component = Component {
                node,
                role: *role,
                facts,
                files,
                replaced: venv.is_some(),
            };
            let configured = components::configure(&mut plan, cluster, &component, after)?;
            match role {
                Role::Postgres => databases.push((node, configured)),
                Role::Etcd => etcds.push((node, configured)),
                Role::Haproxy => {
                    components::run_unit(&mut plan, node, *role, &configured, &[]);
                }
            }
        }
    }
    let dcs_ready = etcd(&mut plan, cluster, found, &etcds);
    let cleared = remains::clear(&mut plan, cluster, found, &etcds, &mut databases, dcs_ready);
    patroni(&mut plan, cluster, found, config, &databases, &cleared);
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
    let quorum = others.len() > declared / 2 && etcd_members::has_quorum(cluster, found);
    let named: Vec<StepId> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == "prepare" && declared > 1)
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
        let wait = plan.push(Step {
            host: node.name.clone(),
            name: "await-etcd",
            why: "Patroni can only begin once the DCS answers".into(),
            after: vec![step],
            changes: Vec::new(),
            action: Action::Await(Condition::EtcdHealthy),
            limit: Duration::from_secs(60),
            units: vec!["etcd"],
        });
        let wait = if first {
            wait
        } else {
            etcd_members::update(plan, cluster, found, node, &[wait]).unwrap_or(wait)
        };
        if serial {
            last = vec![wait];
        } else if quorum {
            last.push(wait);
        }
        healthy.push(wait);
    }
    healthy
}

/// Everything about the database hosts' units, and what must be seen after them.
fn patroni(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    config: &Value,
    databases: &[(&Node, Configured)],
    dcs_ready: &[StepId],
) {
    let facts = |host: &HostName| found.facts.get(host);
    let blind = found.dcs.is_none()
        && cluster
            .with_role(Role::Etcd)
            .any(|node| facts(&node.name).is_none());
    let fresh = !databases.iter().any(|(node, _)| {
        facts(&node.name)
            .and_then(|facts| facts.data.as_ref())
            .is_some_and(|data| data.entries > 0 && !data.is_half_made())
    });
    let leader = found.dcs.as_ref().and_then(|keys| keys.leader.clone());
    // While etcd is away the one that takes writes can still be told from the databases themselves.
    let primary = databases
        .iter()
        .find(|(node, _)| facts(&node.name).is_some_and(|facts| facts.in_recovery == Some(false)));
    let Some((first, _)) = databases.first() else {
        return;
    };

    let leading = leader
        .as_deref()
        .or(primary.map(|(node, _)| node.name.as_str()));
    let exchanged = turns::exchange_in_turn(plan, cluster, found, databases, leading, dcs_ready);

    let mut started: Vec<StepId> = Vec::new();
    let mut woken: Vec<(&Node, StepId)> = Vec::new();
    for (node, configured) in databases {
        if matches!(configured.turn, Turn::Start | Turn::Reload)
            && let Some(step) =
                components::run_unit(plan, node, Role::Postgres, configured, dcs_ready)
        {
            started.push(step);
            if configured.turn == Turn::Start {
                woken.push((node, step));
            }
        }
    }

    // What is started waits for the DCS by itself.
    let mut led: Vec<StepId> = if started.is_empty() {
        dcs_ready.to_vec()
    } else {
        started
    };
    led.extend(&exchanged);
    if !woken.is_empty() || leader.is_none() {
        led = vec![plan.push(Step {
            host: first.name.clone(),
            name: "await-leader",
            why: "one member must take writes".into(),
            after: led,
            changes: Vec::new(),
            action: Action::Await(Condition::Leader),
            limit: FORMING,
            units: vec!["patroni"],
        })];
    }

    let lacking = roles::lacking(cluster, databases.iter().map(|(node, _)| *node), found);
    let unseen = primary.is_none() && (!woken.is_empty() || leader.is_none());
    if !fresh && !blind && (!lacking.is_empty() || unseen) {
        led = vec![roles::ensure(
            plan,
            cluster,
            &first.name,
            &lacking,
            led.clone(),
        )];
    }
    roles::accounts(plan, cluster, &first.name, found, led.clone());

    led.extend(reconnect::reconnect(
        plan, cluster, found, databases, leading, &led,
    ));
    let mut streaming: Vec<StepId> = Vec::new();
    if databases.len() > 1 {
        // Which of them leads is known when the step's turn comes; the leader itself has nothing
        // to wait for.
        let waiting: Vec<&Node> = if fresh || leader.is_none() || !lacking.is_empty() {
            databases.iter().map(|(node, _)| *node).collect()
        } else {
            woken.iter().map(|(node, _)| *node).collect()
        };
        for node in waiting {
            streaming.push(await_streaming(plan, node, led.clone()));
        }
    }

    let mut settled = if streaming.is_empty() { led } else { streaming };
    settled.extend(&exchanged);
    turns::restart_in_turn(plan, databases, leading, &mut settled);

    if blind {
        return;
    }
    let known = found.dcs.as_ref().and_then(|keys| keys.config.as_ref());
    let (patch, mut changes) = config_patch(known, config);
    if known.is_none() {
        // The cluster begins with a short loop, so that replicas need not wait for slots; this is
        // all that differs from what it began with.
        changes
            .retain(|change| matches!(change, Change::Setting { key, .. } if key == "loop_wait"));
    }
    if !changes.is_empty() {
        let patched = plan.push(Step {
            host: first.name.clone(),
            name: "patch-config",
            why: "the cluster-wide configuration is not as the inventory says".into(),
            after: settled,
            changes,
            action: Action::PatchConfig(if known.is_none() {
                config.clone()
            } else {
                patch
            }),
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        });
        settled = vec![patched];
    } else {
        plan.skip(
            &first.name,
            "patch-config",
            "the DCS has the inventory's settings",
        );
    }
    let patched = plan.steps.iter().any(|step| step.name == "patch-config");
    let parameters = databases
        .iter()
        .any(|(_, configured)| configured.parameters);
    if !fresh && (patched || parameters) {
        plan.push(Step {
            host: first.name.clone(),
            name: "restart-pending",
            why: "some parameters only take effect when PostgreSQL starts".into(),
            after: settled,
            changes: vec![Change::Other(
                "PostgreSQL restarts where a parameter waits for it".into(),
            )],
            action: Action::RestartPending,
            limit: Duration::from_secs(600),
            units: vec!["patroni"],
        });
        return;
    }
    let reloads: Vec<StepId> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == "reload-patroni")
        .collect();
    if !reloads.is_empty() {
        plan.push(Step {
            host: first.name.clone(),
            name: "take-over",
            why: "Patroni reads what was reloaded in its next loop, which may be seconds away"
                .into(),
            after: reloads,
            changes: vec![Change::Other("every Patroni runs its loop now".into())],
            action: Action::TakeOver,
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        });
    }
}

pub(super) fn await_streaming(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "await-streaming",
        why: "a replica counts once the leader streams to it".into(),
        after,
        changes: Vec::new(),
        action: Action::Await(Condition::Streaming),
        limit: COPYING,
        units: vec!["patroni"],
    })
}
