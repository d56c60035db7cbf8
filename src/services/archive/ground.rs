//! What a restore of a host's database would meet there.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    contract::{ARCHIVE_CONFIG, BACKUP_CONFIG, kept_dir},
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    liberal,
    moment::{Moment, in_full},
    remote::{Remote, Script, quote},
};

const ASK: &str = include_str!("ground.sh");
/// How long the host may take: it reads the WAL since the moment.
const ANSWER: Duration = Duration::from_secs(120);

/// A backup in the repository, as a restore sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub label: String,
    /// Seconds since 1970.
    pub stop: i64,
    /// Bytes.
    pub size: u64,
    /// PostgreSQL's major version.
    pub version: String,
    /// The database's own identifier.
    pub system: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ground {
    /// Of the data that is there; `None` if there is none.
    pub version: Option<String>,
    pub system: Option<String>,
    /// KiB that are free beside the data.
    pub free: u64,
    /// KiB of the data.
    pub here: u64,
    /// KiB of the data that an earlier restore has kept.
    pub kept: Option<u64>,
    /// The data can be moved aside.
    pub movable: bool,
    /// How many transactions were committed after the moment, as far as the host's WAL shows.
    pub later: Option<u64>,
    /// The host's WAL begins before the moment.
    pub complete: bool,
    /// The oldest first.
    pub sources: Vec<Source>,
}

impl Ground {
    fn parse(text: &str) -> Self {
        let lines: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let of = |key: &str| lines.get(key).copied().filter(|it| !it.is_empty());
        let number = |key: &str| of(key).and_then(|it| it.parse().ok());
        let info = of("info").and_then(|it| serde_json::from_str(it).ok());
        Self {
            version: of("version").map(str::to_owned),
            system: of("system").map(str::to_owned),
            free: number("free").unwrap_or_default(),
            here: number("here").unwrap_or_default(),
            kept: number("kept"),
            movable: of("movable").is_some(),
            later: number("later"),
            complete: of("complete") == Some("yes"),
            sources: sources(&info.unwrap_or(Value::Null)),
        }
    }
}

fn sources(info: &Value) -> Vec<Source> {
    let stanza = &info[0];
    let databases = stanza["db"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |id: &Value, key: &str| {
        let mut all = databases.iter();
        let database = all.find(|it| it["id"] == *id);
        database
            .and_then(|it| liberal::as_text(&it[key]))
            .unwrap_or_default()
    };
    let backups = stanza["backup"].as_array().map_or(&[][..], Vec::as_slice);
    backups
        .iter()
        .map(|it| Source {
            label: liberal::as_text(&it["label"]).unwrap_or_default(),
            stop: it["timestamp"]["stop"].as_i64().unwrap_or_default(),
            size: it["info"]["size"].as_u64().unwrap_or_default(),
            version: of(&it["database"]["id"], "version"),
            system: of(&it["database"]["id"], "system-id"),
        })
        .collect()
}

/// Looks at the host, which is one with a database, or the one with the repository.
pub(crate) async fn look(
    cluster: &Cluster,
    host: &HostName,
    to: &Moment,
    remote: &dyn Remote,
) -> Result<Ground> {
    let until = to.time().map(in_full).unwrap_or_default();
    let keeps = cluster.with_role(Role::Backup).any(|it| it.name == *host);
    let config = if keeps { BACKUP_CONFIG } else { ARCHIVE_CONFIG };
    ask(cluster, host, (config, &until), remote).await
}

/// Looks at the host alone, where another cluster's database is to come.
pub(crate) async fn look_at_host(
    cluster: &Cluster,
    host: &HostName,
    remote: &dyn Remote,
) -> Result<Ground> {
    ask(cluster, host, ("", ""), remote).await
}

/// Without a config, the repository is not asked.
async fn ask(
    cluster: &Cluster,
    host: &HostName,
    (config, until): (&str, &str),
    remote: &dyn Remote,
) -> Result<Ground> {
    let data = &cluster.inventory.postgresql.data_dir;
    let script = Script::probe(format!(
        "CONFIG={config} STANZA={} DATA={} OLD={} UNTIL={}\n{ASK}",
        quote(cluster.name()),
        quote(data),
        quote(&kept_dir(data)),
        quote(until),
    ));
    let quiet = |_, _: &str| {};
    let output = remote.run(host, &script, ANSWER, &quiet).await?;
    if !output.success() {
        return Err(Error::new(
            Code::ServiceRefused,
            "pgBackRest cannot read the repository from here",
        )
        .on(host)
        .excerpt("stderr", output.stderr)
        .excerpt("stdout", output.stdout.lines().last().unwrap_or_default()));
    }
    Ok(Ground::parse(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read_and_what_is_missing_is_unknown() {
        let info = r#"info=[{"backup":[{"label":"20261127-010000F","timestamp":{"stop":1000},"info":{"size":5},"database":{"id":1}}],"db":[{"id":1,"system-id":7666,"version":"16"}]}]"#;
        let it = Ground::parse(&format!(
            "version=16\nsystem=7666\nfree=900\nhere=400\nmovable=yes\ncomplete=no\nlater=12\n{info}\n"
        ));
        assert_eq!(it.later, Some(12));
        assert!(it.movable && !it.complete);
        assert_eq!(it.kept, None);
        assert_eq!(it.sources[0].system, "7666");
        assert_eq!(it.sources[0].version, "16");
        let nothing = Ground::parse("version=\nsystem=\nfree=\ninfo=[]\n");
        assert_eq!(nothing, Ground::default());
    }
}
