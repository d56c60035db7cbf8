//! What `postgres_exporter` needs in the database: a role that may look at everything and change nothing.
//!
//! It has no password: it logs in over the socket, as the system's user that the exporter runs as.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    local_sql::{QUIETLY, local_sql},
    own_role::{self, OwnRole},
    passwords::telling,
    roles::create_role,
};
use crate::{
    cluster::{Cluster, MONITOR_USER},
    inventory::{HostName, Role},
    remote::Script,
    services::When,
};

/// The step that makes it.
pub(super) const ENSURE: &str = "ensure-monitor";
/// PostgreSQL's own role for this purpose.
const MAY_LOOK: &str = "pg_monitor";

/// What is wrong with the role, in words; empty if it is unknown.
pub(super) fn lacking(cluster: &Cluster, found: &Found) -> Vec<String> {
    if !cluster.wants(When::Metrics) {
        return Vec::new();
    }
    let Some((_, facts)) = telling(cluster.with_role(Role::Postgres), found) else {
        return Vec::new();
    };
    let Some(role) = facts.db_roles.get(MONITOR_USER) else {
        return vec![format!("there is no role {MONITOR_USER}")];
    };
    let mut lacking = Vec::new();
    let mut flaw = |is: bool, what: &str| {
        if is {
            lacking.push(format!("{MONITOR_USER} {what}"));
        }
    };
    flaw(!role.login, "cannot log in");
    flaw(
        role.superuser || role.replication,
        "may do more than look at the database",
    );
    flaw(role.verifier.is_some(), "has a password");
    flaw(
        !role.member_of.contains(MAY_LOOK),
        "may not look at everything",
    );
    lacking
}

/// Plans what is lacking; returns the step.
pub(super) fn ensure(
    plan: &mut Plan,
    cluster: &Cluster,
    host: &HostName,
    found: &Found,
    after: Vec<StepId>,
) -> Option<StepId> {
    if !cluster.wants(When::Metrics) {
        return None;
    }
    let role = OwnRole {
        step: ENSURE,
        right: "postgres_exporter may look at the database",
        needed: "postgres_exporter needs a role",
        lacking: lacking(cluster, found),
        made: format!("the role {MONITOR_USER}, a member of {MAY_LOOK}, without a password"),
        limit: Duration::from_secs(60),
    };
    own_role::ensure(plan, cluster, host, found, after, role, || {
        let sql = format!(
            "{QUIETLY}{}alter role {MONITOR_USER} with login nosuperuser nocreatedb nocreaterole noreplication \
             nobypassrls inherit password null connection limit 10;\n\
             alter role {MONITOR_USER} reset all;\n\
             grant {MAY_LOOK} to {MONITOR_USER};\n",
            create_role(MONITOR_USER)
        );
        local_sql(Script::new(), cluster, &sql)
    })
}

/// Plans that it goes, when there are no metrics any more.
pub(super) fn leave(plan: &mut Plan, cluster: &Cluster, found: &Found, after: &[StepId]) {
    if cluster.wants(When::Metrics) {
        return;
    }
    let there = telling(cluster.with_role(Role::Postgres), found);
    let Some((node, _)) = there.filter(|(_, it)| it.db_roles.contains_key(MONITOR_USER)) else {
        return;
    };
    let sql = own_role::removal(MONITOR_USER);
    plan.push(Step {
        host: node.name.clone(),
        name: "remove-monitor",
        why: "`monitoring` is not in the inventory any more".into(),
        after: after.to_vec(),
        changes: vec![Change::Other(format!("the role {MONITOR_USER} is removed"))],
        action: Action::RunOnLeader(local_sql(Script::new(), cluster, &sql)),
        limit: Duration::from_secs(60),
        units: vec!["patroni"],
    });
}
