//! Removes what an interrupted bootstrap, or a replica's interrupted first copy, left.
//!
//! Patroni takes the lock `initialize` with an empty value, runs `initdb`, creates its roles, and only then
//! writes the system's identifier into the lock and its configuration beside it. Before that, nothing was ever
//! committed. If Patroni is started again, it neither frees the lock nor repeats `initdb`. It does not repeat a
//! copy either: it waits for ever for somebody to "consider doing reinitialize".
//!
//! If PostgreSQL cannot start with its parameters, `initdb` succeeds and the server never comes up. Patroni
//! then frees the lock. If it may not rename the data directory, the database stays, and the next member
//! creates another one.
//!
//! So only this is removed: data that pgherd itself began in this cluster, that no process uses, and that
//! itself shows that nothing was ever committed, because it is half-made, or because no server ever came up on
//! it (`facts/never_started.sh`). What etcd has, or no longer has, is no evidence.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    components::{Configured, Turn},
    trial,
};
use crate::{
    cluster::{Cluster, Node},
    facts::{DataFact, NEVER_STARTED},
    inventory::Role,
    remote::{Script, quote},
    services::{etcd::PatroniKeys, postgres::PATRONI},
};

/// Whether a bootstrap may have died here, while etcd, which would know, exists and does not answer.
///
/// Members that start on such data would wait for a lock that nobody frees, or run a database that is not the
/// cluster's.
pub(super) fn depend_on_the_dcs(cluster: &Cluster, found: &Found) -> bool {
    if found.dcs.is_some() {
        return false;
    }
    let facts = |role| {
        let nodes = cluster.with_role(role);
        nodes.map(|node| found.facts.get(&node.name))
    };
    let seen = facts(Role::Etcd).all(|facts| facts.is_some());
    let had_data = facts(Role::Etcd).flatten().any(|facts| facts.etcd_data);
    let data: Vec<&DataFact> = facts(Role::Postgres)
        .flatten()
        .filter_map(|facts| facts.data.as_ref())
        .collect();
    let left = data.iter().any(|it| it.is_half_made() || it.never_started);
    let whole = data.iter().any(|it| it.entries > 0);
    seen && had_data && !data.is_empty() && (left || !whole)
}

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
        let Some(data) = data(node).filter(|_| !at_work(node)) else {
            continue;
        };
        let what = if data.is_half_made() && (follows || forming && data.is_unfinished_bootstrap())
        {
            if forming {
                Leftover::HalfMade
            } else {
                Leftover::Copy
            }
        } else if is_nobodys(data, keys) && !leads(keys, node) {
            Leftover::NeverStarted
        } else {
            continue;
        };
        plan.unchanged
            .retain(|right| right.host != node.name || right.name != PATRONI.start);
        configured.turn = Turn::Start;
        configured.cleared = true;
        configured.why = "its data directory is empty again".into();
        configured.first = trial::lines(cluster, node);
        let ready = configured.ready.clone();
        cleared.push(clear_data(plan, cluster, node, what, ready));
    }
    let complete = databases.iter().any(|(node, configured)| {
        let whole = |data: &DataFact| data.entries > 0 && !data.is_half_made();
        !configured.cleared && data(node).is_some_and(whole)
    });
    let all_seen = databases.len() == cluster.with_role(Role::Postgres).count();
    let stale = match keys.initialize.as_deref() {
        None => false,
        // A member with a whole database takes over the lock by itself.
        Some("") => forming && !complete,
        // An interrupted run may have removed the database already.
        Some(_) => forming && !complete && all_seen,
    };
    before.extend(cleared);
    match keys.initialize_revision.clone() {
        Some(revision) if stale => vec![
            plan.push(Step {
                host: etcd.name.clone(),
                name: "release-bootstrap",
                why:
                    "the bootstrap that holds it was interrupted, and no member would begin another"
                        .into(),
                after: before,
                changes: vec![Change::Other(format!(
                    "the lock of {}'s bootstrap is removed from etcd",
                    cluster.name()
                ))],
                action: Action::ReleaseBootstrap { revision },
                limit: Duration::from_secs(10),
                units: vec!["etcd"],
            }),
        ],
        _ => before,
    }
}

fn leads(keys: &PatroniKeys, node: &Node) -> bool {
    keys.leader.as_deref() == Some(node.name.as_str())
}

/// Whether no server ever came up on this database, and the DCS does not know it as the cluster's.
pub(super) fn is_nobodys(data: &DataFact, keys: &PatroniKeys) -> bool {
    let known = keys.initialize.as_deref().filter(|_| keys.config.is_some());
    data.never_started && (known.is_none() || known != data.system_id.as_deref())
}

/// What is removed.
#[derive(Debug, Clone, Copy)]
enum Leftover {
    /// `initdb` never finished.
    HalfMade,
    /// A copy of the leader never finished.
    Copy,
    /// `initdb` finished, and no server ever came up.
    NeverStarted,
}

/// What a script does if the data is not what it was planned for, or no longer.
const LEAVE_ALONE: &str = "{ systemctl start patroni
  echo 'a server has come up on it after all, or it was finished; it is left alone' >&2
  echo 'pgherd-hint: run the same command again' >&2
  exit 67; }";

/// How often the script checks that no server comes up, once a second, before Patroni is stopped.
const QUIET_LOOKS: usize = 3;

fn clear_data(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    what: Leftover,
    after: Vec<StepId>,
) -> StepId {
    let (name, why) = match what {
        Leftover::HalfMade => (
            "clear-bootstrap",
            "initdb began here for this cluster and never finished; nothing was ever committed",
        ),
        Leftover::Copy => (
            "clear-copy",
            "a copy of the leader's data began here and never finished; Patroni does not begin another",
        ),
        Leftover::NeverStarted => (
            "clear-bootstrap",
            "a bootstrap failed here: no server ever came up on this database; nothing was ever committed",
        ),
    };
    let data_dir = &cluster.inventory.postgresql.data_dir;
    let dir = quote(data_dir);
    let mut script = Script::new().alone(name);
    // The plan may be old: the user may have taken long to answer.
    script = match what {
        Leftover::HalfMade => script.line("systemctl stop patroni").line(format!(
            "if [ -e {dir}/postmaster.opts ] || [ \"$(ls {dir}/base 2>/dev/null | grep -c '^[0-9]')\" -ge 3 ]; then {LEAVE_ALONE}; fi"
        )),
        Leftover::Copy => script.line("systemctl stop patroni").line(format!(
            "if [ -e {dir}/global/pg_control ] && [ \"$(ls {dir}/base | grep -c '^[0-9]')\" -ge 3 ]; then {LEAVE_ALONE}; fi"
        )),
        Leftover::NeverStarted => script
            .line(NEVER_STARTED)
            .line(format!("seq {QUIET_LOOKS} | while read -r _; do never_started {dir} || exit 1; sleep 1; done || {LEAVE_ALONE}"))
            .line("systemctl stop patroni")
            .line(format!("never_started {dir} || {LEAVE_ALONE}"))
            .line(format!(
                "if [ -e {dir}/postmaster.pid ] && kill -0 \"$(head -n 1 {dir}/postmaster.pid)\" 2>/dev/null; then {LEAVE_ALONE}; fi"
            )),
    };
    let made = match what {
        Leftover::NeverStarted => "never used",
        Leftover::HalfMade | Leftover::Copy => "half-made",
    };
    plan.push(Step {
        host: node.name.clone(),
        name,
        why: why.into(),
        after,
        changes: vec![Change::Other(format!(
            "the {made} database in {data_dir} is removed"
        ))],
        action: Action::Run(script.line(format!("find {dir} -mindepth 1 -delete"))),
        limit: Duration::from_secs(120),
        units: vec!["patroni"],
    })
}
