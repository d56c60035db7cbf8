//! Ends sessions that were opened with a password that has changed since.
//!
//! PostgreSQL asks for a password only at the beginning of a session. A session that was opened with a leaked
//! password would stay for as long as its user likes.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    Action, Change, Found, Plan, Step, StepId,
    local_sql::{QUIETLY, local_psql},
    passwords::{has_password, passwords, telling, verifier},
};
use crate::{
    cluster::{Cluster, Node, SUPERUSER},
    facts::OLD_SESSIONS,
    inventory::Role,
    remote::{Script, quote},
    secret::Secret,
    sql::{literal, literals},
};

/// How long a replica may take to have the new passwords, in thirds of a second.
const TIMEOUT: u32 = 180;

/// The roles whose password differs between database and workspace, and will be changed.
pub(super) fn changed<'a>(cluster: &'a Cluster, found: &Found) -> Vec<(&'a str, &'a Secret)> {
    let databases = cluster.with_role(Role::Postgres);
    let Some((_, facts)) = telling(databases, found) else {
        return Vec::new();
    };
    passwords(cluster)
        .filter(|(name, password)| {
            let role = facts.db_roles.get(*name);
            role.is_some_and(|role| !has_password(role, password))
        })
        .collect()
}

/// Notes on the leader whose sessions must end, before passwords change there. If the run is interrupted in
/// between, the next one knows.
pub(super) fn note(script: Script, names: &[&str]) -> Script {
    if names.is_empty() {
        return script;
    }
    let lines: Vec<String> = names
        .iter()
        .map(|name| BASE64_STANDARD.encode(name))
        .collect();
    script.notes().line(format!(
        "printf '%s\\n' {} >>{OLD_SESSIONS}",
        lines.join(" ")
    ))
}

/// Plans that the sessions end, on each member when it has the new passwords.
///
/// This comes last: by then every member and every pooler logs in with the new password, so that a replica that
/// loses its connection opens another at once. The leader comes after the replicas, because it has the note.
pub(super) fn end(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    nodes: &[&Node],
    leading: Option<&str>,
) {
    let changed = changed(cluster, found);
    let known: BTreeSet<&str> = passwords(cluster).map(|(name, _)| name).collect();
    let mut names: BTreeSet<&str> = changed.iter().map(|(name, _)| *name).collect();
    for node in nodes {
        let noted = found.facts.get(&node.name).map(|facts| &facts.old_sessions);
        let noted = noted.into_iter().flatten();
        names.extend(noted.filter_map(|name| known.get(name.as_str()).copied()));
    }
    if names.is_empty() {
        return;
    }
    let told: Vec<&str> = names.iter().copied().collect();
    let before: Vec<StepId> = (0..plan.steps.len())
        .filter(|id| {
            let step = &plan.steps[*id];
            let is_poolers = step.units.contains(&Role::Pgbouncer.unit());
            is_poolers || nodes.iter().any(|node| node.name == step.host)
        })
        .collect();
    // Where no database runs, there are no sessions.
    let runs = |node: &&&Node| {
        let facts = found.facts.get(&node.name);
        facts.is_some_and(|facts| facts.in_recovery.is_some())
    };
    let leads = |node: &&&Node| leading == Some(node.name.as_str());
    let (last, first): (Vec<&&Node>, Vec<&&Node>) = nodes.iter().filter(runs).partition(leads);
    let mut after = before;
    for group in [first, last] {
        let steps: Vec<StepId> = group
            .into_iter()
            .map(|node| {
                plan.push(Step {
                    host: node.name.clone(),
                    name: "end-sessions",
                    why: "sessions with an old password would stay".into(),
                    after: after.clone(),
                    changes: vec![Change::Other(format!(
                        "sessions that were opened with an old password of {} end",
                        told.join(", ")
                    ))],
                    action: Action::Run(script(cluster, &changed, &names)),
                    limit: Duration::from_secs(120),
                    units: vec!["patroni"],
                })
            })
            .collect();
        after.extend(steps);
    }
}

fn script(cluster: &Cluster, changed: &[(&str, &Secret)], names: &BTreeSet<&str>) -> Script {
    let port = cluster.inventory.postgresql.port;
    let arrived: Vec<String> = changed
        .iter()
        .map(|(name, password)| {
            let verifier = verifier(cluster, name, password);
            format!("(rolname = {} and rolpassword = {verifier})", literal(name))
        })
        .collect();
    let others = names.iter().copied().filter(|name| *name != SUPERUSER);
    let mut whose = vec![format!("usename in ({})", literals(others))];
    if names.contains(SUPERUSER) {
        // Over the socket, the system says who the user is, and no password is used: Patroni, root.
        whose.push(format!(
            "(usename = {} and client_addr is not null)",
            literal(SUPERUSER)
        ));
    }
    let mut script = Script::new()
        .alone("end-sessions")
        .line(local_psql())
        .line(format!(
            "ask() {{ printf '%s' \"$1\" | local_psql {port} -At; }}"
        ))
        .line("if ! ask 'select 1' >/dev/null 2>&1; then")
        .line("  echo 'PostgreSQL does not answer here, so that nobody is connected'")
        .line("  exit 0")
        .line("fi");
    if !arrived.is_empty() {
        let there = format!(
            "{QUIETLY}select count(*) from pg_authid where {};\n",
            arrived.join(" or ")
        );
        script = script
            .line("n=0")
            .line(format!(
                "until [ \"$(ask {})\" = {} ]; do",
                quote(&there),
                arrived.len()
            ))
            .line("  n=$((n + 1))")
            .line(format!("  if [ $n -gt {TIMEOUT} ]; then"))
            .line("    echo 'the new passwords have not been replicated to this member yet' >&2")
            .line("    exit 1")
            .line("  fi")
            .line("  sleep 0.3")
            .line("done");
    }
    script
        .line(format!(
            "ask {} >/dev/null",
            quote(&format!(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                 where pid <> pg_backend_pid() and ({})",
                whose.join(" or ")
            ))
        ))
        .line(format!("rm -f {OLD_SESSIONS}"))
}
