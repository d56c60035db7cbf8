//! The function by which PgBouncer finds the verifier of a user's password, as SQL.
//!
//! PgBouncer before 1.19 asks in the database that the client wants, so each database has the function. It runs
//! with the superuser's rights, and only one role may call it.
//!
//! Source: PgBouncer 1.24.1's documentation, `auth_query`.

use crate::{
    contract::{
        INTERIM_REPLICATION_USER, INTERIM_REWIND_USER, POOLER_USER, REPLICATION_USER, REWIND_USER,
        SUPERUSER,
    },
    sql::literal,
};

/// Superusers and the cluster's own roles do not log in through a pooler, nor does anybody whose password has
/// expired, or is stored in another way than for SCRAM.
fn body() -> String {
    let own = [
        REPLICATION_USER,
        REWIND_USER,
        INTERIM_REPLICATION_USER,
        INTERIM_REWIND_USER,
        POOLER_USER,
    ]
    .map(literal);
    format!(
        "select rolname::text, rolpassword from pg_authid \
         where rolname = i_username and rolcanlogin and not rolsuper and not rolreplication \
         and (rolvaliduntil is null or rolvaliduntil > now()) and rolpassword like 'SCRAM-SHA-256$%' \
         and rolname not in ({})",
        own.join(", ")
    )
}

/// A query in one database: a row of the probe's form if the function there is not as [`create`] makes it.
pub(crate) fn missing() -> String {
    format!(
        "select 'no-lookup', current_database() where not exists (select from pg_proc p \
         join pg_namespace n on n.oid = p.pronamespace, pg_roles r, pg_roles s \
         where n.nspname = {role} and p.proname = 'user_lookup' and r.rolname = {role} and s.rolname = {us} \
         and n.nspowner = s.oid and p.proowner = s.oid and p.prosecdef and p.prosrc = {body} \
         and p.proconfig = array['search_path=pg_catalog, pg_temp'] \
         and has_schema_privilege(r.oid, n.oid, 'usage') and has_function_privilege(r.oid, p.oid, 'execute') \
         and not exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0))",
        role = literal(POOLER_USER),
        us = literal(SUPERUSER),
        body = literal(&body()),
    )
}

/// Makes the function in one database; the role must be there.
pub(crate) fn create() -> String {
    let function = format!("{POOLER_USER}.user_lookup(text)");
    format!(
        "begin;\n\
         set local client_min_messages = 'warning';\n\
         create schema if not exists {POOLER_USER};\n\
         alter schema {POOLER_USER} owner to {SUPERUSER};\n\
         drop function if exists {function};\n\
         create function {POOLER_USER}.user_lookup(in i_username text, out uname text, out phash text) \
         returns setof record language sql stable security definer set search_path = pg_catalog, pg_temp as {};\n\
         revoke all on schema {POOLER_USER} from public;\n\
         revoke all on function {function} from public;\n\
         grant usage on schema {POOLER_USER} to {POOLER_USER};\n\
         grant execute on function {function} to {POOLER_USER};\n\
         commit;\n",
        literal(&body())
    )
}

/// Removes the function from one database, and what the role may do there.
pub(crate) fn drop() -> String {
    format!(
        "set client_min_messages = 'warning';\n\
         drop function if exists {POOLER_USER}.user_lookup(text);\n\
         drop schema if exists {POOLER_USER};\n\
         select format('drop owned by %I', rolname) from pg_roles where rolname = {} \\gexec\n",
        literal(POOLER_USER)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_call_it_and_no_superuser_is_found() {
        let made = create();
        for line in [
            "security definer set search_path = pg_catalog, pg_temp",
            "revoke all on function pgherd_pooler.user_lookup(text) from public",
            "not rolsuper and not rolreplication",
        ] {
            assert!(made.contains(line), "{made}");
        }
        // The check compares with what was made.
        assert!(missing().contains(&literal(&body())) && made.contains(&literal(&body())));
    }
}
