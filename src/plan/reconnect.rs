//! Makes replication connect again after one of its ends has another address.

use std::time::Duration;

use super::{Action, Change, Plan, Step, StepId, components::Configured, local_sql::local_psql};
use crate::{
    cluster::{Cluster, Node},
    inventory::Role,
    remote::{Script, quote},
    services::postgres::PATRONI,
    sql::literal,
};

/// Ends replication connections with addresses that no member has any more, so that they are opened again.
///
/// Neither end of such a connection notices that the address is gone. Both would wait a minute for their
/// timeouts, and the replica's slot would be in use until then.
pub(super) fn reconnect(
    plan: &mut Plan,
    cluster: &Cluster,
    databases: &[(&Node, Configured)],
    leader: Option<&str>,
    led: &[StepId],
) -> Vec<StepId> {
    let moved: Vec<&Node> = databases
        .iter()
        .filter(|(_, configured)| configured.told.moved)
        .map(|(node, _)| *node)
        .collect();
    let Some(first) = moved.first() else {
        return Vec::new();
    };
    // All hosts must know the new addresses first.
    let mut after: Vec<StepId> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == PATRONI.reload)
        .collect();
    after.extend(led);
    let leader_moved = moved.iter().any(|node| Some(node.name.as_str()) == leader);
    if !leader_moved {
        let why = "each Patroni would apply the new access rules only in its next loop";
        after = vec![wake(plan, first, why, after)];
    }
    let gone = if leader_moved {
        "true".to_owned()
    } else {
        let members: Vec<String> = cluster
            .with_role(Role::Postgres)
            .map(|node| {
                let (name, address) = (node.name.as_str(), node.address.to_string());
                format!("({}, {})", literal(name), literal(&address))
            })
            .collect();
        format!(
            "(application_name, host(client_addr)) not in ({})",
            members.join(", ")
        )
    };
    let freed = plan.push(Step {
        host: first.name.clone(),
        name: "free-slots",
        why: "the leader would stream to old addresses until it times out".into(),
        after,
        changes: vec![Change::Other(
            "the leader ends replication to addresses that belong to no member".into(),
        )],
        action: Action::RunOnLeader(free_slots(cluster, &gone)),
        // If the leader has lost its lock, a new leader comes only after the lock has expired (`ttl`).
        limit: Duration::from_secs(90),
        units: vec!["patroni"],
    });
    let mut steps = Vec::new();
    if leader_moved {
        let why = "the replicas would look for the leader only in their next loop";
        steps.push(wake(plan, first, why, vec![freed]));
    }
    steps.extend(moved.into_iter().map(|node| {
        plan.push(Step {
            host: node.name.clone(),
            name: "reconnect-replica",
            why: "a replica waits for its old connection until it times out".into(),
            after: vec![freed],
            changes: vec![Change::Other("replication begins anew".into())],
            // The receiver is no backend, so pg_terminate_backend() does not know it.
            action: Action::Run(
                Script::new()
                    .line(local_psql())
                    .line(format!(
                        "pid=$(echo 'select pid from pg_stat_wal_receiver' | local_psql {} -At)",
                        cluster.inventory.postgresql.port
                    ))
                    .line("[ -z \"$pid\" ] || kill \"$pid\""),
            ),
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        })
    }));
    steps
}

fn wake(plan: &mut Plan, node: &Node, why: &str, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "wake-members",
        why: why.into(),
        after,
        changes: vec![Change::Other("every Patroni runs its loop now".into())],
        action: Action::Wake,
        limit: Duration::from_secs(30),
        units: vec!["patroni"],
    })
}

/// Ends the walsenders for which `gone` is true.
///
/// A walsender whose socket is full tries to send a last message, and ends only at the second signal.
fn free_slots(cluster: &Cluster, gone: &str) -> Script {
    let port = cluster.inventory.postgresql.port;
    Script::new()
        .line(local_psql())
        .line(format!("ask() {{ printf '%s' \"$1\" | local_psql {port} -At; }}"))
        .line(format!(
            "pids=$(ask {} | paste -sd ,)",
            quote(&format!("select pid from pg_stat_replication where {gone}"))
        ))
        .line("[ -n \"$pids\" ] || exit 0")
        .line("for _ in 1 2 3 4 5 6 7 8 9 10; do")
        .line("  left=$(ask \"select count(pg_terminate_backend(pid)) from pg_stat_replication where pid in ($pids)\")")
        .line("  [ \"$left\" != 0 ] || exit 0")
        .line("  sleep 0.2")
        .line("done")
        .line("echo 'they are still there, and end by themselves within a minute' >&2")
}
