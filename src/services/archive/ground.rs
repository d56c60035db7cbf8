//! What a restore of a host's database would meet there.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    contract::{ARCHIVE_CONFIG, BACKUP_CONFIG, kept_dir},
    error::{Code, Error, Result},
    inventory::{HostName, Place, Role},
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
    pub place: Place,
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
    /// Of each place, the oldest first.
    pub sources: Vec<Source>,
    /// The places that were asked, and why nothing can be read there.
    pub places: Vec<(Place, Option<String>)>,
}

impl Ground {
    fn parse(text: &str) -> Self {
        let lines: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let of = |key: &str| lines.get(key).copied().filter(|it| !it.is_empty());
        let number = |key: &str| of(key).and_then(|it| it.parse().ok());
        let mut places = Vec::new();
        let mut sources = Vec::new();
        for place in [Place::Disk, Place::Bucket] {
            let Some(info) = lines.get(format!("info-{}", place.as_str()).as_str()) else {
                continue;
            };
            let info = serde_json::from_str(info).unwrap_or(Value::Null);
            sources.extend(sources_of(&info, place));
            places.push((place, unreadable(&info)));
        }
        Self {
            version: of("version").map(str::to_owned),
            system: of("system").map(str::to_owned),
            free: number("free").unwrap_or_default(),
            here: number("here").unwrap_or_default(),
            kept: number("kept"),
            movable: of("movable").is_some(),
            later: number("later"),
            complete: of("complete") == Some("yes"),
            sources,
            places,
        }
    }

    /// From where a backup is restored: its own place first, then the other one, which may have WAL that the first lacks.
    /// Only the one that is named, if one is. Empty if there is only one place.
    pub(crate) fn places_for(&self, source: &Source, from: Option<Place>) -> Vec<Place> {
        if self.places.len() < 2 {
            return Vec::new();
        }
        let readable = self.places.iter().filter(|it| it.1.is_none());
        let others = readable
            .map(|it| it.0)
            .filter(|it| *it != source.place && from.is_none());
        std::iter::once(source.place).chain(others).collect()
    }
}

/// Why the repository cannot be read, or is none yet. 2 is a repository without a backup, which has WAL.
fn unreadable(info: &Value) -> Option<String> {
    let stanza = &info[0];
    let status = &stanza["repo"][0]["status"];
    let code = status["code"]
        .as_i64()
        .or(stanza["status"]["code"].as_i64());
    if code.is_some_and(|it| [0, 2].contains(&it)) {
        return None;
    }
    let said = [status, &stanza["status"]]
        .into_iter()
        .find_map(|it| it["message"].as_str()?.lines().next());
    Some(said.unwrap_or("pgBackRest does not answer").to_owned())
}

fn sources_of(info: &Value, place: Place) -> Vec<Source> {
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
            place,
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
        "CONFIG={config} PLACES={} STANZA={} DATA={} OLD={} UNTIL={}\n{ASK}",
        quote(&cluster.inventory.backup.place_names()),
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
        let info = r#"info-disk=[{"backup":[{"label":"20261127-010000F","timestamp":{"stop":1000},"info":{"size":5},"database":{"id":1}}],"db":[{"id":1,"system-id":7666,"version":"16"}],"status":{"code":0,"message":"ok"}}]"#;
        let it = Ground::parse(&format!(
            "version=16\nsystem=7666\nfree=900\nhere=400\nmovable=yes\ncomplete=no\nlater=12\n{info}\n"
        ));
        assert_eq!(it.later, Some(12));
        assert!(it.movable && !it.complete);
        assert_eq!(it.kept, None);
        assert_eq!(it.sources[0].system, "7666");
        assert_eq!(it.sources[0].version, "16");
        assert_eq!(it.places, [(Place::Disk, None)]);
        assert_eq!(it.places_for(&it.sources[0], None), []);
        let nothing = Ground::parse("version=\nsystem=\nfree=\n");
        assert_eq!(nothing, Ground::default());
    }

    #[test]
    fn wal_comes_from_each_place_that_answers_unless_one_is_named() {
        let info = |place: &str, code: u32, label: &str| {
            format!(
                r#"info-{place}=[{{"backup":[{{"label":"{label}"}}],"repo":[{{"status":{{"code":{code},"message":"cut off\nhere"}}}}],"status":{{"code":{code},"message":"other"}}}}]"#
            )
        };
        let both = [Place::Bucket, Place::Disk];
        for (code, from, expected) in [
            (0, None, &both[..]),
            (0, Some(Place::Bucket), &both[..1]),
            (99, None, &both[..1]),
        ] {
            let said = [info("disk", code, "a"), info("bucket", 0, "b")].join("\n");
            let it = Ground::parse(&said);
            assert_eq!(it.sources[1].label, "b");
            assert_eq!(it.places_for(&it.sources[1], from), expected, "{code}");
            assert_eq!(it.places[0].1.as_deref(), (code == 99).then_some("cut off"));
        }
    }
}
