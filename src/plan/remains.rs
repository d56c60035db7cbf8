//! What is left of a bootstrap, or of a replica's first copy, that died with its host.
//!
//! Patroni takes the lock `initialize` with an empty value, runs `initdb`, makes its roles, and only
//! then writes the system's identifier there and its configuration beside it. Until that moment
//! nothing was ever committed; a Patroni that is started again neither frees the lock nor repeats
//! `initdb`. Nor does it repeat a copy: it waits for ever for somebody to "consider doing
//! reinitialize". So this, and this alone, is removed: data that pgherd itself began in this cluster,
//! that can be seen to be half-made, and that nobody is at work on.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    components::{Configured, Turn},
};
use crate::{
    cluster::{Cluster, Node},
    facts::DataFact,
    remote::{Script, quote},
};

/// Plans the removal; returns the steps after which members may start.
pub(super) fn clear(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    etcds: &[(&Node, Configured)],
    databases: &mut [(&Node, Configured)],
    mut before: Vec<StepId>,
) -> Vec<StepId> {
    let (Some(keys), Some((etcd, _))) = (&found.dcs, etcds.first()) else {
        return before;
    };
    let at_work = |node: &Node| {
        let facts = found.facts.get(&node.name);
        facts.is_some_and(|facts| facts.data_at_work)
    };
    let data = |node: &Node| {
        let facts = found.facts.get(&node.name)?;
        let ours = facts.data_marker.as_ref() == Some(&cluster.secrets.cluster_id);
        facts.data.as_ref().filter(|_| ours)
    };
    let forming = keys.leader.is_none() && keys.config.is_none();
    if forming && databases.iter().any(|(node, _)| at_work(node)) {
        return before;
    }
    let mut cleared = Vec::new();
    for (node, configured) in databases.iter_mut() {
        let follows = keys
            .leader
            .as_deref()
            .is_some_and(|it| it != node.name.as_str());
        let half_made = data(node).is_some_and(DataFact::is_half_made);
        if !half_made || at_work(node) || !(forming || follows) {
            continue;
        }
        plan.unchanged
            .retain(|right| right.host != node.name || right.name != "start-patroni");
        configured.turn = Turn::Start;
        configured.why = "its data directory is empty again".into();
        let ready = configured.ready.clone();
        cleared.push(clear_data(plan, cluster, node, forming, ready));
    }
    let complete = databases
        .iter()
        .any(|(node, _)| data(node).is_some_and(|data| data.entries > 0 && !data.is_half_made()));
    let stale = match keys.initialize.as_deref() {
        None => false,
        // Whoever has a whole database takes the lock over by itself.
        Some("") => forming && !complete,
        Some(_) => forming && !complete && !cleared.is_empty(),
    };
    before.extend(cleared);
    match keys.initialize_revision.clone() {
        Some(revision) if stale => vec![plan.push(Step {
            host: etcd.name.clone(),
            name: "release-bootstrap",
            why: "the bootstrap that holds it is dead, and no member would begin another".into(),
            after: before,
            changes: vec![Change::Other(format!(
                "the lock of {}'s bootstrap is removed from etcd",
                cluster.name()
            ))],
            action: Action::ReleaseBootstrap { revision },
            limit: Duration::from_secs(10),
            units: vec!["etcd"],
        })],
        _ => before,
    }
}

fn clear_data(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    forming: bool,
    after: Vec<StepId>,
) -> StepId {
    let (name, why) = if forming {
        (
            "clear-bootstrap",
            "initdb began here for this cluster and never finished; nothing was ever committed",
        )
    } else {
        (
            "clear-copy",
            "a copy of the leader's data began here and never finished; Patroni does not begin another",
        )
    };
    let dir = quote(&cluster.inventory.postgresql.data_dir);
    plan.push(Step {
        host: node.name.clone(),
        name,
        why: why.into(),
        after,
        changes: vec![Change::Other(format!(
            "the half-made database in {} is removed",
            cluster.inventory.postgresql.data_dir
        ))],
        action: Action::Run(
            Script::new()
                .alone(name)
                .line("systemctl stop patroni")
                // Somebody may have thought about the plan for long.
                .line(format!(
                    "if [ -e {dir}/global/pg_control ] && [ \"$(ls {dir}/base | grep -c '^[0-9]')\" -ge 3 ]; then"
                ))
                .line("  systemctl start patroni")
                .line("  echo 'it was finished after all, and is left alone' >&2")
                .line("  echo 'pgherd-hint: run the same command again' >&2")
                .line("  exit 67")
                .line("fi")
                .line(format!("find {dir} -mindepth 1 -delete")),
        ),
        limit: Duration::from_secs(120),
        units: vec!["patroni"],
    })
}
