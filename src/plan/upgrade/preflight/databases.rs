//! What the leader is asked about its databases.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::super::local_query;
use crate::{
    cluster::Cluster,
    remote::{Script, quote},
};

/// Types whose values `pg_upgrade` does not carry over: the oids in them change.
const REG_TYPES: &str = "'regcollation', 'regconfig', 'regdictionary', 'regnamespace', 'regoper', 'regoperator', \
                         'regproc', 'regprocedure'";

/// What the leader says of its databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Databases {
    pub encoding: String,
    pub collate: String,
    pub ctype: String,
    /// As in `pg_database`: `c`, `i` or `b`.
    pub provider: String,
    /// ICU's, or the builtin provider's.
    pub locale: String,
    pub checksums: bool,
    /// MiB.
    pub wal_segment: u64,
    /// The parameters that are set somewhere, by name.
    pub settings: BTreeMap<String, String>,
    pub prepared: u64,
    /// Logical replication slots.
    pub slots: Vec<String>,
    pub tablespaces: Vec<String>,
    /// Extensions, each with the databases that have it.
    pub extensions: BTreeMap<String, BTreeSet<String>>,
    /// Columns of the types that are not carried over: `database: table.column (type)`.
    pub reg: Vec<String>,
    /// Tables, indexes and the like in all databases.
    pub relations: u64,
    /// Bytes of all databases.
    pub size: u64,
}

/// SQL whose rows are JSON arrays, about the whole server. `to_jsonb` bridges names that differ between versions.
const SERVER: &str = r"select json_build_array('template', pg_encoding_to_char(encoding), datcollate, datctype,
  coalesce(to_jsonb(d)->>'datlocprovider', 'c'), coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''))
  from pg_database d where datname = 'template0';
select json_build_array('setting', name, setting) from pg_settings
  where source not in ('default', 'override', 'client', 'session', 'environment variable') or name in ('data_checksums',
  'max_connections', 'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction',
  'track_commit_timestamp', 'shared_preload_libraries');
select json_build_array('segment', setting::int8 / 1048576) from pg_settings where name = 'wal_segment_size';
select json_build_array('prepared', count(*)) from pg_prepared_xacts;
select json_build_array('slot', slot_name) from pg_replication_slots where slot_type = 'logical';
select json_build_array('tablespace', spcname) from pg_tablespace where spcname not in ('pg_default', 'pg_global');
select json_build_array('size', sum(pg_database_size(oid))) from pg_database;
";

/// The same about each database.
fn of_each() -> String {
    format!(
        r"select json_build_array('extension', current_database(), extname) from pg_extension;
select json_build_array('relations', count(*)) from pg_class;
select json_build_array('reg', current_database(), c.oid::regclass::text || '.' || a.attname, t.typname)
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_type t on t.oid = a.atttypid
  where c.relkind in ('r', 'm', 'i') and not a.attisdropped and t.typnamespace = 'pg_catalog'::regnamespace
  and t.typname in ({REG_TYPES}) and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast';
"
    )
}

/// A script by which the leader is asked about its databases.
pub(crate) fn look_at_databases(cluster: &Cluster) -> Script {
    let port = cluster.inventory.postgresql.port;
    // The last statement's rows are connection strings.
    let names = r"select 'dbname=''' || replace(replace(datname, '\', '\\'), '''', '\''') || '''' from pg_database where datallowconn";
    local_query(Script::new(), cluster, SERVER).line(format!(
        "printf '%s' {} | local_psql {port} -At | while read -r database; do\n  printf '%s' {} | local_psql {port} -At -d \"$database\"\ndone",
        quote(names),
        quote(&of_each()),
    ))
}

impl Databases {
    pub(crate) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for row in text.lines() {
            let Ok(Value::Array(row)) = serde_json::from_str(row) else {
                continue;
            };
            let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default();
            let number = |at: usize| row.get(at).and_then(Value::as_u64).unwrap_or_default();
            match text(0) {
                "template" => {
                    all.encoding = text(1).into();
                    all.collate = text(2).into();
                    all.ctype = text(3).into();
                    all.provider = text(4).into();
                    all.locale = text(5).into();
                }
                "setting" if text(1) == "data_checksums" => all.checksums = text(2) == "on",
                "setting" => _ = all.settings.insert(text(1).into(), text(2).into()),
                "segment" => all.wal_segment = number(1),
                "prepared" => all.prepared = number(1),
                "slot" => all.slots.push(text(1).into()),
                "tablespace" => all.tablespaces.push(text(1).into()),
                "size" => all.size = number(1),
                "relations" => all.relations += number(1),
                "extension" => {
                    let databases = all.extensions.entry(text(2).into()).or_default();
                    databases.insert(text(1).into());
                }
                "reg" => all
                    .reg
                    .push(format!("{}: {} ({})", text(1), text(2), text(3))),
                _ => {}
            }
        }
        all
    }
}
