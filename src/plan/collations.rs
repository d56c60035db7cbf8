//! Collations whose version has changed: a new libc or ICU may sort text in another order than the one in which indexes
//! were built, and those would miss rows or take duplicates.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{Action, Change, Plan, Step, local_query, local_sql};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::HostName,
    remote::Script,
    sql::{connect, identifier},
};

const QUERY: &str = include_str!("collations.sql");
/// How long all indexes may take: they are built again while clients read and write.
const REINDEXING: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is old in one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Old {
    /// Names of collations, with the recorded and the present version.
    pub collations: Vec<(String, String, String)>,
    /// The same of the database's own collation.
    pub database: Option<(String, String)>,
    /// The indexes that use any of these.
    pub indexes: Vec<String>,
    /// Indexes that an interrupted rebuild has left, and that nobody uses.
    pub invalid: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Index {
        database: String,
        index: String,
        valid: bool,
    },
    Collation {
        database: String,
        collation: String,
        recorded: String,
        actual: Option<String>,
    },
    Database {
        database: String,
        recorded: String,
        actual: Option<String>,
    },
}

/// The script that prints the names of all databases to look into.
pub fn databases(cluster: &Cluster) -> Script {
    let query =
        "select json_agg(datname) from pg_database where datallowconn and not datistemplate";
    local_query(Script::probe(""), cluster, query)
}

/// The script that looks into these databases.
pub fn look(cluster: &Cluster, databases: &[String]) -> Script {
    let queries: Vec<String> = databases
        .iter()
        .map(|name| format!("{}\n{QUERY}", connect(name)))
        .collect();
    let queries = format!("\\set ON_ERROR_STOP on\n{}", queries.join("\n"));
    local_query(Script::probe(""), cluster, &queries)
}

/// Reads the answer to [`look`]: the databases with anything that is old.
pub fn parse(text: &str) -> Result<BTreeMap<String, Old>> {
    let mut old: BTreeMap<String, Old> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let row = serde_json::from_str(line).map_err(|error| {
            Error::new(
                Code::AnswerUnusable,
                "PostgreSQL's answer about collations cannot be read",
            )
            .because(error)
        })?;
        match row {
            Row::Index {
                database,
                index,
                valid,
            } => {
                let of = old.entry(database).or_default();
                match !valid && index.contains("_ccnew") {
                    true => of.invalid.push(index),
                    false => of.indexes.push(index),
                }
            }
            Row::Collation {
                database,
                collation,
                recorded,
                actual,
            } => {
                let actual = actual.unwrap_or_else(|| "unknown".into());
                let of = old.entry(database).or_default();
                of.collations.push((collation, recorded, actual));
            }
            Row::Database {
                database,
                recorded,
                actual,
            } => {
                let actual = actual.unwrap_or_else(|| "unknown".into());
                old.entry(database).or_default().database = Some((recorded, actual));
            }
        }
    }
    Ok(old)
}

/// `1 index`, `2 indexes`.
pub fn indexes(n: usize) -> String {
    let noun = if n == 1 { "index" } else { "indexes" };
    format!("{n} {noun}")
}

/// Builds the indexes anew while clients go on, and then notes the present versions.
///
/// The versions are noted only after all indexes of their database, so that a run that was cut off begins it again.
pub fn reindex(cluster: &Cluster, leader: &HostName, old: &BTreeMap<String, Old>) -> Plan {
    let mut plan = Plan::default();
    let mut after = Vec::new();
    for (database, old) in old {
        let mut sql = format!("\\set ON_ERROR_STOP on\n{}\n", connect(database));
        for index in &old.invalid {
            sql.push_str(&format!("drop index concurrently if exists {index};\n"));
        }
        for index in &old.indexes {
            sql.push_str(&format!(
                "\\echo {index}\nreindex index concurrently {index};\n"
            ));
        }
        for (collation, ..) in &old.collations {
            sql.push_str(&format!("alter collation {collation} refresh version;\n"));
        }
        if old.database.is_some() {
            let name = identifier(database);
            sql.push_str(&format!(
                "alter database {name} refresh collation version;\n"
            ));
        }
        after = vec![plan.push(Step {
            host: leader.clone(),
            name: "reindex",
            why: format!("collations in {database} have another version than their indexes"),
            after,
            changes: vec![Change::Other(format!(
                "{} of {database} built anew, while clients go on",
                indexes(old.indexes.len())
            ))],
            action: Action::RunOnLeader(local_sql(Script::new().alone("reindex"), cluster, &sql)),
            limit: REINDEXING,
            units: vec!["patroni"],
        })];
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, cluster};

    #[test]
    fn what_is_old_is_named_and_built_anew_before_its_version_is_noted() {
        let said = r#"{"database": "shop", "recorded": "2.36", "actual": "2.41"}
{"database": "shop", "collation": "public.de", "recorded": "1", "actual": "153.120"}
{"database": "shop", "index": "public.names", "valid": true}
{"database": "shop", "index": "public.names_ccnew", "valid": false}"#;
        let old = parse(said).unwrap();
        let shop = &old["shop"];
        assert_eq!(shop.database, Some(("2.36".into(), "2.41".into())));
        assert_eq!(shop.collations.len(), 1);
        assert_eq!((shop.indexes.len(), shop.invalid.len()), (1, 1));
        let plan = reindex(&cluster("", FIVE), &HostName::new("node1"), &old);
        let Action::RunOnLeader(script) = &plan.steps[0].action else {
            panic!("on the leader");
        };
        for part in [
            "drop index concurrently if exists public.names_ccnew;",
            "reindex index concurrently public.names;\nalter collation public.de refresh version;\nalter database \"shop\" refresh",
        ] {
            assert!(script.contains(part), "{part}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
