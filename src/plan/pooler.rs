//! What PgBouncer needs in the databases: its role, and the function by which it finds verifiers of passwords.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    local_sql::{QUIETLY, local_psql},
    monitor,
    own_role::{self, OwnRole},
    passwords::{of_poolers, telling, verifier},
    roles::{self, create_role, flaws},
    sessions,
};
use crate::{
    cluster::{Cluster, Node, POOLER_USER},
    facts::Facts,
    inventory::{HostName, Role},
    remote::{Script, quote},
    services::{When, pgbouncer::lookup},
};

/// The step that makes both.
pub(super) const ENSURE: &str = "ensure-pooler";

/// Every database that takes connections, as libpq's connection string in base64, one on each line.
const DATABASES: &str = r"select translate(encode(convert_to('dbname=''' || replace(replace(datname, E'\\', E'\\\\'), '''', E'\\''') || '''', 'UTF8'), 'base64'), E'\n', '') from pg_database where datallowconn order by datname";

fn databases(cluster: &Cluster) -> impl Iterator<Item = &Node> {
    cluster.with_role(Role::Postgres)
}

/// What is wrong with roles and databases, in words, with what poolers need there; empty if it is unknown.
pub(crate) fn not_right(cluster: &Cluster, found: &Found) -> Vec<String> {
    let mut wrong = roles::not_right(cluster, found);
    wrong.extend(lacking(cluster, found));
    wrong.extend(monitor::lacking(cluster, found));
    wrong
}

/// What is wrong with the role and the function, in words; empty if it is unknown.
fn lacking(cluster: &Cluster, found: &Found) -> Vec<String> {
    let (Some(own), Some((_, facts))) = (of_poolers(cluster), telling(databases(cluster), found))
    else {
        return Vec::new();
    };
    let mut lacking = match facts.db_roles.get(POOLER_USER) {
        None => vec![format!("there is no role {POOLER_USER}")],
        Some(role) => {
            let mut flaws = flaws(&own, role);
            if role.superuser || role.replication {
                flaws.push(format!("{POOLER_USER} may do more than find verifiers"));
            }
            flaws
        }
    };
    lacking.extend(facts.no_lookup.iter().map(|database| {
        format!("the database {database} has no function by which PgBouncer finds users")
    }));
    lacking
}

/// Plans what is lacking; returns the step.
///
/// It comes before databases are created, because they are copies of `template1`.
pub(super) fn ensure(
    plan: &mut Plan,
    cluster: &Cluster,
    host: &HostName,
    found: &Found,
    after: Vec<StepId>,
) -> Option<StepId> {
    let own = of_poolers(cluster)?;
    let role = OwnRole {
        step: ENSURE,
        right: "PgBouncer finds users in every database",
        needed: "PgBouncer needs a role, and a function in every database",
        lacking: lacking(cluster, found),
        made: format!(
            "the role {POOLER_USER}, and the function {POOLER_USER}.user_lookup in every database"
        ),
        limit: Duration::from_secs(180),
    };
    own_role::ensure(plan, cluster, host, found, after, role, || {
        let verifier = verifier(cluster, own.name, own.password);
        let role = format!(
            "{QUIETLY}{}alter role {POOLER_USER} with login nosuperuser nocreatedb nocreaterole noreplication \
             nobypassrls inherit password {verifier} connection limit -1 valid until 'infinity';\n\
             alter role {POOLER_USER} reset all;\n",
            create_role(POOLER_USER)
        );
        let changed = changes_password(cluster, found);
        let noted: &[&str] = if changed { &[POOLER_USER] } else { &[] };
        let script = sessions::note(Script::new(), noted).line(local_psql());
        let script = run(script, cluster, &role);
        in_each_database(script, cluster, &format!("{QUIETLY}{}", lookup::create()))
    })
}

/// Whether the role has another password than the one that it will get.
pub(super) fn changes_password(cluster: &Cluster, found: &Found) -> bool {
    let changed = sessions::changed(cluster, found);
    changed.iter().any(|(name, _)| *name == POOLER_USER)
}

/// Plans that both go, when no pooler is there any more.
pub(super) fn leave(plan: &mut Plan, cluster: &Cluster, found: &Found, after: &[StepId]) {
    let is_there = |(_, facts): &(&Node, &Facts)| facts.db_roles.contains_key(POOLER_USER);
    let there = telling(databases(cluster), found).filter(is_there);
    let Some((node, _)) = there.filter(|_| !cluster.wants(When::Pooling)) else {
        return;
    };
    let script = Script::new().line(local_psql());
    let function = format!("{QUIETLY}{}", lookup::drop());
    let script = in_each_database(script, cluster, &function);
    let role = own_role::removal(POOLER_USER);
    plan.push(Step {
        host: node.name.clone(),
        name: "remove-pooler",
        why: "there is no pooler any more".into(),
        after: after.to_vec(),
        changes: vec![Change::Other(format!(
            "the role {POOLER_USER}, and its function in every database, are removed"
        ))],
        action: Action::RunOnLeader(run(script, cluster, &role)),
        limit: Duration::from_secs(180),
        units: vec!["patroni"],
    });
}

/// Runs `sql` in the database `postgres`.
fn run(script: Script, cluster: &Cluster, sql: &str) -> Script {
    let port = cluster.inventory.postgresql.port;
    script.line(format!(
        "printf '%s' {} | local_psql {port} -o /dev/null",
        quote(sql)
    ))
}

/// Runs `sql` in each database, also in those that the inventory does not name.
fn in_each_database(script: Script, cluster: &Cluster, sql: &str) -> Script {
    let port = cluster.inventory.postgresql.port;
    script
        .line(format!(
            "databases=$(printf '%s' {} | local_psql {port} -At)",
            quote(DATABASES)
        ))
        .line("for database in $databases; do")
        .line(format!(
            "  printf '%s' {} | local_psql {port} -d \"$(printf '%s' \"$database\" | base64 -d)\" -o /dev/null",
            quote(sql)
        ))
        .line("done")
}
