//! Revokes the right of all roles to create something in the schema `public`.
//!
//! Up to PostgreSQL 14, everybody may create objects there, and so change what a name means for everyone who
//! looks it up in `public`, also for a superuser. From 15 on, only the database's owner may. This corrects
//! older databases, and databases that were restored from them.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    local_sql::{QUIETLY, local_psql},
    passwords::telling,
};
use crate::{
    cluster::{Cluster, Node},
    facts,
    inventory::{HostName, Role},
    remote::{Script, quote},
    sql::{conninfo, literal},
};

const NAME: &str = "close-public";

/// The first PostgreSQL in whose new databases only the owner may create something in `public`.
const CLOSED_SINCE: u16 = 15;

/// Plans that CREATE on `public` is revoked from PUBLIC wherever it is granted; returns the step.
///
/// It comes before databases are created, because they are copies of `template1`.
pub(super) fn close(
    plan: &mut Plan,
    cluster: &Cluster,
    host: &HostName,
    found: &Found,
    after: Vec<StepId>,
) -> Option<StepId> {
    let databases = cluster.with_role(Role::Postgres);
    let (open, why): (Vec<&str>, _) = match telling(databases, found) {
        Some((_, facts)) => {
            let open = facts.open_public.iter().map(String::as_str);
            (
                open.collect(),
                "every role may create functions and operators in the schema public, which a superuser might run",
            )
        }
        None if is_open_at_first(cluster) => (
            facts::open_to_all(&cluster.inventory).collect(),
            "this version of PostgreSQL lets every role create functions and operators in the schema public",
        ),
        None => return None,
    };
    if open.is_empty() {
        plan.skip(
            host,
            NAME,
            "only owners may create something in the schema public",
        );
        return None;
    }
    let changes = open.iter().map(|name| {
        Change::Other(format!(
            "CREATE on the schema public of the database {name} is taken from PUBLIC; the database's owner keeps it"
        ))
    });
    Some(plan.push(Step {
        host: host.clone(),
        name: NAME,
        why: why.into(),
        after,
        changes: changes.collect(),
        action: Action::RunOnLeader(script(cluster, &open)),
        limit: Duration::from_secs(120),
        units: vec!["patroni"],
    }))
}

fn is_open_at_first(cluster: &Cluster) -> bool {
    let version = |node: &Node| node.postgresql.is_some_and(|major| major < CLOSED_SINCE);
    cluster.with_role(Role::Postgres).any(version)
}

fn script(cluster: &Cluster, databases: &[&str]) -> Script {
    let port = cluster.inventory.postgresql.port;
    // The owner is changed only if it is still the one that initdb set.
    let sql = format!(
        "{QUIETLY}\
         select 'revoke create on schema public from public' from pg_namespace where nspname = 'public' \\gexec\n\
         select 'alter schema public owner to pg_database_owner' from pg_namespace \
         where nspname = 'public' and nspowner = (select oid from pg_roles where rolname = 'postgres') \\gexec\n"
    );
    let mut script = Script::new().line(local_psql());
    for name in databases {
        let there = format!(
            "select 1 from pg_database where datname = {}",
            literal(name)
        );
        script = script
            .line(format!(
                "if [ \"$(printf '%s' {} | local_psql {port} -At)\" = 1 ]; then",
                quote(&there)
            ))
            .line(format!(
                "  printf '%s' {} | local_psql {port} -d {} -o /dev/null",
                quote(&sql),
                quote(&conninfo(name))
            ))
            .line("fi");
    }
    script
}
