//! The roles in the database that services of the cluster log in as: the step that makes one true, and the SQL that
//! removes one.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId, local_sql::QUIETLY, passwords::telling};
use crate::{
    cluster::Cluster,
    inventory::{HostName, Role},
    remote::Script,
    sql::literal,
};

/// A role that must be as its service needs it.
pub(super) struct OwnRole {
    /// The step that makes it so.
    pub(super) step: &'static str,
    /// What is true if nothing is lacking.
    pub(super) right: &'static str,
    /// Why the step is there if it is not known what is lacking.
    pub(super) needed: &'static str,
    /// What is wrong with it, in words.
    pub(super) lacking: Vec<String>,
    /// What is made, in words.
    pub(super) made: String,
    pub(super) limit: Duration,
}

/// Plans what is lacking, by the script that `how` makes; returns the step.
pub(super) fn ensure(
    plan: &mut Plan,
    cluster: &Cluster,
    host: &HostName,
    found: &Found,
    after: Vec<StepId>,
    role: OwnRole,
    how: impl FnOnce() -> Script,
) -> Option<StepId> {
    let known = telling(cluster.with_role(Role::Postgres), found).is_some();
    if known && role.lacking.is_empty() {
        plan.skip(host, role.step, role.right);
        return None;
    }
    Some(plan.push(Step {
        host: host.clone(),
        name: role.step,
        why: match role.lacking.is_empty() {
            true => role.needed.to_owned(),
            false => role.lacking.join("; "),
        },
        after,
        changes: vec![Change::Other(role.made)],
        action: Action::RunOnLeader(how()),
        limit: role.limit,
        units: vec!["patroni"],
    }))
}

/// The SQL that ends the sessions of a role, and removes it.
pub(super) fn removal(name: &str) -> String {
    format!(
        "{QUIETLY}set client_min_messages = 'warning';\n\
         select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = {};\n\
         drop role if exists {name};\n",
        literal(name)
    )
}
