//! Roles and databases: Patroni's own, and those of the inventory's applications.
//!
//! Nothing of these is ever dropped, except the roles that stood in while passwords changed.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    local_sql::{QUIETLY, local_sql},
    passwords::{Own, has_password, own, telling, verifier},
    sessions,
};
use crate::{
    cluster::{Cluster, INTERIM_REPLICATION_USER, INTERIM_REWIND_USER, Node, REWIND_USER},
    facts::{DbRole, Facts},
    inventory::{HostName, Role},
    quantity::count,
    remote::Script,
    sql::{identifier, literal},
};

/// What is wrong with the cluster's own roles, in words; empty if it is unknown.
pub(super) fn lacking<'a>(
    cluster: &Cluster,
    databases: impl Iterator<Item = &'a Node>,
    found: &'a Found,
) -> Vec<String> {
    let Some((node, facts)) = telling(databases, found) else {
        return Vec::new();
    };
    let mut lacking = Vec::new();
    for role in own(cluster) {
        let name = role.name;
        match facts.db_roles.get(name) {
            Some(found) => lacking.extend(flaws(&role, found)),
            None => lacking.push(format!("{} has no role {name}", node.name)),
        }
    }
    if cluster.secrets.interim.is_none() {
        for name in [INTERIM_REPLICATION_USER, INTERIM_REWIND_USER] {
            if facts.db_roles.contains_key(name) {
                lacking.push(format!("{name} has served"));
            }
        }
    }
    lacking
}

/// What is wrong with roles and databases, the cluster's own and the inventory's, in words; empty if it is
/// unknown.
pub(super) fn not_right(cluster: &Cluster, found: &Found) -> Vec<String> {
    let databases = || cluster.with_role(Role::Postgres);
    let mut wrong = lacking(cluster, databases(), found);
    if let Some((_, facts)) = telling(databases(), found) {
        wrong.extend(wanted(cluster, facts).wrong);
    }
    wrong
}

/// Parameters that prevent the cluster's own roles from working when they are set for one of these roles. Other
/// parameters are left alone.
const HARMFUL: [&str; 11] = [
    "default_transaction_isolation",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "role",
    "search_path",
    "session_preload_libraries",
    "statement_timeout",
    "transaction_timeout",
    "wal_sender_timeout",
];

/// What is wrong with an existing role of the cluster, in words.
pub(super) fn flaws(role: &Own<'_>, found: &DbRole) -> Vec<String> {
    let name = role.name;
    let mut flaws = Vec::new();
    let mut flaw = |is: bool, what: &str| {
        if is {
            flaws.push(format!("{name} {what}"));
        }
    };
    let has = |attribute| role.attributes.split(' ').any(|it| it == attribute);
    flaw(!found.login, "cannot log in");
    flaw(has("superuser") && !found.superuser, "is no superuser");
    flaw(
        has("replication") && !found.replication,
        "may not replicate",
    );
    flaw(found.expired, "has an expired password");
    if let Some(limit) = found.connection_limit {
        flaw(
            true,
            &format!("may have no more than {}", count(limit, "connection")),
        );
    }
    flaw(
        !has_password(found, role.password),
        "has another password than secrets.yaml says",
    );
    flaw(
        found.lacks_functions,
        "may not execute what pg_rewind needs",
    );
    let set: Vec<&str> = HARMFUL
        .into_iter()
        .filter(|parameter| found.settings.contains(*parameter))
        .collect();
    flaw(
        !set.is_empty(),
        &format!("has settings that prevent its work: {}", set.join(", ")),
    );
    flaws
}

/// Plans the correction of the cluster's own roles.
///
/// Patroni creates its roles once, right after initdb, and never changes a password. An interrupted bootstrap
/// can leave a leader that no replica can ever join.
pub(super) fn ensure(
    plan: &mut Plan,
    cluster: &Cluster,
    host: &HostName,
    found: &Found,
    lacking: &[String],
    after: Vec<StepId>,
) -> StepId {
    let why = if lacking.is_empty() {
        "a bootstrap may have been interrupted before Patroni had made its roles".to_owned()
    } else {
        lacking.join("; ")
    };
    let names: Vec<&str> = own(cluster).iter().map(|role| role.name).collect();
    let changed = sessions::changed(cluster, found);
    let changed: Vec<&str> = changed
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| names.contains(name))
        .collect();
    plan.push(Step {
        host: host.clone(),
        name: "ensure-roles",
        why,
        after,
        changes: vec![Change::Other(format!(
            "the roles {}, if they differ",
            names.join(", ")
        ))],
        action: Action::RunOnLeader(local_sql(
            sessions::note(Script::new(), &changed),
            cluster,
            &own_roles(cluster),
        )),
        limit: Duration::from_secs(60),
        units: vec!["patroni"],
    })
}

fn own_roles(cluster: &Cluster) -> String {
    let mut sql = String::from(QUIETLY);
    for role in own(cluster) {
        let name = role.name;
        sql.push_str(&create_role(name));
        sql.push_str(&format!(
            "alter role {name} with {} password {} connection limit -1 valid until 'infinity';\n",
            role.attributes,
            verifier(cluster, name, role.password)
        ));
    }
    let names: Vec<String> = own(cluster).iter().map(|role| literal(role.name)).collect();
    let harmful: Vec<String> = HARMFUL.iter().map(|name| literal(name)).collect();
    sql.push_str(&format!(
        "select format('alter role %I reset %I', r.rolname, split_part(c.item, '=', 1)) \
         from pg_db_role_setting s join pg_roles r on r.oid = s.setrole, unnest(s.setconfig) as c(item) \
         where s.setdatabase = 0 and r.rolname in ({}) and split_part(c.item, '=', 1) in ({}) \\gexec\n",
        names.join(", "),
        harmful.join(", ")
    ));
    for function in [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ] {
        sql.push_str(&format!(
            "grant execute on function pg_catalog.{function} to {REWIND_USER};\n"
        ));
    }
    if cluster.secrets.interim.is_some() {
        sql.push_str(&format!("grant {REWIND_USER} to {INTERIM_REWIND_USER};\n"));
    } else {
        sql.push_str(&format!(
            "set client_min_messages = 'warning';\n\
             drop role if exists {INTERIM_REPLICATION_USER}, {INTERIM_REWIND_USER};\n"
        ));
    }
    sql
}

/// Creates a role that may exist already.
pub(super) fn create_role(name: &str) -> String {
    format!(
        "select not exists (select from pg_roles where rolname = {}) as absent \\gset\n\
         \\if :absent\ncreate role {};\n\\endif\n",
        literal(name),
        identifier(name)
    )
}

/// Plans the inventory's users and databases, as far as they are missing.
pub(super) fn accounts(
    plan: &mut Plan,
    cluster: &Cluster,
    host: &HostName,
    found: &Found,
    after: Vec<StepId>,
) {
    const NAME: &str = "ensure-databases";
    let postgresql = &cluster.inventory.postgresql;
    if postgresql.users.is_empty() && postgresql.databases.is_empty() {
        return;
    }
    let databases = cluster.with_role(Role::Postgres);
    let nothing = Facts::default();
    let (known, facts) = match telling(databases, found) {
        Some((_, facts)) => (true, facts),
        None => (false, &nothing),
    };
    let wanted = wanted(cluster, facts);
    if wanted.changes.is_empty() {
        plan.skip(host, NAME, "the users and databases are there");
        return;
    }
    let users = &cluster.inventory.postgresql.users;
    let changed = sessions::changed(cluster, found);
    let changed: Vec<&str> = changed
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| users.contains_key(*name))
        .collect();
    plan.push(Step {
        host: host.clone(),
        name: NAME,
        why: if known {
            "a user or a database is not as the inventory says".into()
        } else {
            "the inventory's users and databases".into()
        },
        after,
        changes: wanted.changes.into_iter().map(Change::Other).collect(),
        action: Action::RunOnLeader(local_sql(
            sessions::note(Script::new(), &changed),
            cluster,
            &wanted.sql,
        )),
        limit: Duration::from_secs(120),
        units: vec!["patroni"],
    });
}

/// What the inventory's users and databases still need: as SQL, and in words.
struct Wanted {
    sql: String,
    changes: Vec<String>,
    /// What is wrong now, for a proof.
    wrong: Vec<String>,
}

fn wanted(cluster: &Cluster, facts: &Facts) -> Wanted {
    let postgresql = &cluster.inventory.postgresql;
    let mut sql = String::from(QUIETLY);
    let mut changes = Vec::new();
    let mut wrong = Vec::new();
    for name in postgresql.users.keys() {
        let found = facts.db_roles.get(name);
        let password = cluster.secrets.users.get(name);
        let right = found.is_some_and(|role| {
            role.login
                && !role.expired
                && role.connection_limit != Some(0)
                && password.is_none_or(|password| has_password(role, password))
        });
        if right {
            continue;
        }
        let (change, is) = match found {
            None => (format!("user {name}"), "is not there"),
            Some(role) if !role.login || role.connection_limit == Some(0) => {
                (format!("user {name} may log in"), "may not log in")
            }
            Some(role) if role.expired => (
                format!("the password of user {name} does not expire"),
                "has an expired password",
            ),
            Some(_) => (
                format!("the password of user {name}"),
                "has another password than secrets.yaml says",
            ),
        };
        changes.push(change);
        wrong.push(format!("the user {name} {is}"));
        sql.push_str(&create_role(name));
        let password = password.map_or(String::new(), |password| {
            format!(" password {}", verifier(cluster, name, password))
        });
        let mut more = String::new();
        if found.is_some_and(|role| role.expired) {
            more.push_str(" valid until 'infinity'");
        }
        if found.is_some_and(|role| role.connection_limit == Some(0)) {
            more.push_str(" connection limit -1");
        }
        sql.push_str(&format!(
            "alter role {} with login{more}{password};\n",
            identifier(name)
        ));
    }
    // Users may be members of each other, so all must exist first.
    for (name, user) in &postgresql.users {
        for role in &user.roles {
            let member = facts.db_roles.get(name);
            if member.is_some_and(|found| found.member_of.contains(role)) {
                continue;
            }
            changes.push(format!("user {name} becomes a member of {role}"));
            wrong.push(format!("the user {name} is no member of {role}"));
            sql.push_str(&format!(
                "grant {} to {};\n",
                identifier(role),
                identifier(name)
            ));
        }
    }
    for (name, database) in &postgresql.databases {
        let owner = &database.owner;
        match facts.databases.get(name) {
            Some(found) if found == owner => continue,
            Some(found) => {
                changes.push(format!(
                    "database {name} belongs to {owner}, not to {found}"
                ));
                wrong.push(format!(
                    "the database {name} belongs to {found}, not to {owner}"
                ));
            }
            None => {
                changes.push(format!("database {name}, of user {owner}"));
                wrong.push(format!("the database {name} is not there"));
            }
        }
        let create = format!(
            "create database {} owner {}",
            identifier(name),
            identifier(owner)
        );
        sql.push_str(&format!(
            "select {} where not exists (select from pg_database where datname = {}) \\gexec\n\
             alter database {} owner to {};\n",
            literal(&create),
            literal(name),
            identifier(name),
            identifier(owner)
        ));
    }
    Wanted {
        sql,
        changes,
        wrong,
    }
}
