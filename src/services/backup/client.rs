//! What the repository holds, as pgBackRest and its files say.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    contract::BACKUP_CONFIG,
    error::{Code, Error, Result},
    inventory::{Place, Role},
    quantity::duration,
    remote::{Remote, Script, quote},
};

const ASK: &str = include_str!("repository.sh");
/// How long the host may take to list what it has.
const ANSWER: Duration = Duration::from_secs(60);
/// pgBackRest's status of a stanza whose repository it cannot read.
pub(super) const OTHER: i64 = 99;

/// A backup that can be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backup {
    pub label: String,
    /// `full`, `diff` or `incr`.
    pub kind: String,
    /// Seconds since 1970.
    pub start: i64,
    pub stop: i64,
    /// The size of the database, in bytes.
    pub size: u64,
    /// What the backup itself takes in the repository.
    pub stored: u64,
    /// pgBackRest found pages in it whose checksum is wrong.
    pub damaged: bool,
    /// pgBackRest lists it, and its files are not there.
    pub gone: bool,
    /// The first and the last segment of WAL that it cannot do without.
    pub wal: (String, String),
}

/// WAL without a hole, by the numbers of its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub timeline: u32,
    pub first: u64,
    pub last: u64,
}

/// How backups of a kind are made on their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// The next times, in seconds since 1970.
    pub times: Vec<i64>,
    /// One is being made now.
    pub runs: bool,
    /// What systemd says of the last one: `success`, `exit-code`, …
    pub result: String,
    /// When that one ended, in seconds since 1970; 0 if it is not known.
    pub ended: i64,
}

/// The repository of a cluster in one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Repository {
    pub place: Place,
    /// pgBackRest's own verdict: 0 is good.
    pub status: (i64, String),
    /// The oldest first.
    pub backups: Vec<Backup>,
    pub wal: Vec<Range>,
    pub wal_bytes: u64,
    /// When the newest WAL came, in seconds since 1970.
    pub wal_newest: Option<i64>,
    /// By kind; of all places.
    pub schedules: BTreeMap<String, Schedule>,
    /// KiB: available, and in all.
    pub space: Option<(u64, u64)>,
    /// The host's clock.
    pub now: i64,
    /// When it began, in seconds since 1970.
    pub since: Option<i64>,
}

/// Asks the host that keeps the backups; `None` if there is none. Otherwise there is one repository for each place.
pub(crate) async fn ask(cluster: &Cluster, remote: &dyn Remote) -> Option<Result<Vec<Repository>>> {
    let node = cluster.with_role(Role::Backup).next()?;
    let backup = &cluster.inventory.backup;
    let script = Script::probe(format!(
        "CONFIG={BACKUP_CONFIG} STANZA={} ARCHIVING={} PLACES={}\n{ASK}",
        quote(cluster.name()),
        quote(&backup.archiving()),
        quote(&backup.place_names())
    ));
    let quiet = |_, _: &str| {};
    let asked = remote.run(&node.name, &script, ANSWER, &quiet).await;
    Some(asked.and_then(|output| {
        if output.success() {
            return Ok(Repository::all(&output.stdout));
        }
        let what = "pgBackRest does not say which backups there are";
        Err(Error::new(Code::ServiceRefused, what)
            .on(&node.name)
            .excerpt("stderr", output.stderr))
    }))
}

impl Repository {
    /// What the host says of itself comes first, then what is in each place.
    fn all(text: &str) -> Vec<Self> {
        let mut host = Self::default();
        let mut all: Vec<Self> = Vec::new();
        for line in text.lines() {
            // What pgBackRest could not read is in its answer as it is: tabs and other control characters.
            if let Some(json) = line.strip_prefix("info\t") {
                let json = json.replace(char::is_control, " ");
                all.last_mut().unwrap_or(&mut host).read_info(&json);
                continue;
            }
            let fields: Vec<&str> = line.split('\t').collect();
            match (fields.as_slice(), all.last_mut()) {
                (["place", name], _) => all.extend(Place::named(name).map(|place| Self {
                    place,
                    status: (OTHER, "it does not answer".to_owned()),
                    ..host.clone()
                })),
                (["files", label], Some(it)) => {
                    let mut backups = it.backups.iter_mut();
                    if let Some(backup) = backups.find(|it| it.label == *label) {
                        backup.gone = false;
                    }
                }
                (fields, it) => it.unwrap_or(&mut host).read(fields),
            }
        }
        all
    }

    fn read(&mut self, fields: &[&str]) {
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        match fields {
            ["wal", timeline, first, last] => self.wal.push(Range {
                timeline: timeline.parse().unwrap_or_default(),
                first: number(first),
                last: number(last),
            }),
            ["wal-bytes", bytes] => self.wal_bytes = number(bytes),
            ["wal-newest", at] => self.wal_newest = at.parse().ok(),
            ["schedule", kind, times] => {
                let times = times.split_whitespace();
                let schedule = self.schedules.entry((*kind).to_owned()).or_default();
                schedule.times = times.filter_map(|at| at.parse().ok()).collect();
            }
            ["unit", kind, active, result, ended @ ..] => {
                let schedule = self.schedules.entry((*kind).to_owned()).or_default();
                schedule.runs = matches!(*active, "activating" | "active");
                (*result).clone_into(&mut schedule.result);
                schedule.ended = ended.first().and_then(|it| it.parse().ok()).unwrap_or(0);
            }
            ["space", available, size] => self.space = Some((number(available), number(size))),
            ["since", at] => self.since = at.parse().ok(),
            ["now", at] => self.now = at.parse().unwrap_or_default(),
            _ => {}
        }
    }

    fn read_info(&mut self, json: &str) {
        let all: Value = serde_json::from_str(json).unwrap_or_default();
        let stanza = &all[0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let code = stanza["status"]["code"].as_i64().unwrap_or(-1);
        // The stanza only says `other` then.
        let of_repository = stanza["repo"][0]["status"]["message"].as_str();
        let of_repository = of_repository.and_then(|it| it.lines().next());
        let message = match of_repository {
            Some(message) if code == OTHER => message.trim_end_matches(':').to_owned(),
            _ => text(&stanza["status"]["message"]),
        };
        self.status = (code, message);
        let backups = stanza["backup"].as_array().into_iter().flatten();
        self.backups = backups
            .map(|it| Backup {
                label: text(&it["label"]),
                kind: text(&it["type"]),
                start: it["timestamp"]["start"].as_i64().unwrap_or_default(),
                stop: it["timestamp"]["stop"].as_i64().unwrap_or_default(),
                size: it["info"]["size"].as_u64().unwrap_or_default(),
                stored: it["info"]["repository"]["delta"]
                    .as_u64()
                    .unwrap_or_default(),
                damaged: it["error"].as_bool().unwrap_or_default(),
                gone: true,
                wal: (text(&it["archive"]["start"]), text(&it["archive"]["stop"])),
            })
            .collect();
    }

    /// Why it is not known which backups there are, if it is not.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let (code, message) = &self.status;
        // The other codes are of a repository without a stanza, or without a backup.
        (self.backups.is_empty() && [OTHER, -1].contains(code))
            .then(|| format!("pgBackRest cannot read its repository: {message}"))
    }

    /// One is being made.
    pub(crate) fn is_at_work(&self) -> bool {
        self.schedules.values().any(|it| it.runs)
    }

    /// The moments that can be restored: the end of the oldest backup, and when the newest WAL came.
    pub(crate) fn span(&self) -> Option<(i64, i64)> {
        let first = self.backups.first()?.stop;
        Some((first, self.wal_newest.unwrap_or(first).max(first)))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.backups.iter().map(|it| it.stored).sum::<u64>() + self.wal_bytes
    }

    /// Whether a segment of WAL is there, by its name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let there = |(timeline, number): (u32, u64)| {
            let mut ranges = self.wal.iter().filter(|it| it.timeline == timeline);
            ranges.any(|it| (it.first..=it.last).contains(&number))
        };
        segment(name).is_some_and(there)
    }

    /// What is missing in the WAL since the oldest backup, by the names of segments. pgBackRest's own `verify`
    /// does not see a hole.
    pub(crate) fn holes(&self) -> Vec<String> {
        self.holes_since(self.backups.first())
    }

    /// The same since the newest full backup: what hides the present from every restore.
    pub(crate) fn holes_now(&self) -> Vec<String> {
        self.holes_since(self.newest_full())
    }

    pub(crate) fn newest_full(&self) -> Option<&Backup> {
        self.backups.iter().rfind(|it| it.kind == "full")
    }

    fn holes_since(&self, backup: Option<&Backup>) -> Vec<String> {
        let Some((timeline, first)) = backup.and_then(|it| segment(&it.wal.0)) else {
            return Vec::new();
        };
        let mut holes = Vec::new();
        // Up to where there is WAL without a hole, on the timeline that was looked at last.
        let (mut on, mut next) = (timeline, first);
        for range in self.wal.iter().filter(|it| it.timeline >= timeline) {
            if range.last < first {
                continue;
            }
            // A new timeline begins in a segment that the one before it has too, or could not finish.
            if range.first > next {
                holes.push(hole(on, next, range.first - 1));
            }
            on = range.timeline;
            next = range.last + 1;
        }
        let needed = self.backups.iter().filter_map(|it| segment(&it.wal.1));
        let last = needed
            .filter(|(timeline, _)| *timeline == on)
            .map(|it| it.1);
        if let Some(last) = last.max().filter(|last| *last >= next) {
            holes.push(hole(on, next, last));
        }
        holes
    }
}

/// The timeline and the number of a segment; segments have 16 MiB.
fn segment(name: &str) -> Option<(u32, u64)> {
    let part = |from: usize| u32::from_str_radix(name.get(from..from + 8)?, 16).ok();
    Some((part(0)?, u64::from(part(8)?) * 256 + u64::from(part(16)?)))
}

fn hole(timeline: u32, first: u64, last: u64) -> String {
    let name = |number: u64| format!("{timeline:08X}{:08X}{:08X}", number / 256, number % 256);
    match first == last {
        true => name(first),
        false => format!("{} to {}", name(first), name(last)),
    }
}

/// A long time, in words.
pub(crate) fn in_days(seconds: i64) -> String {
    let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    match seconds / 86_400 {
        0..2 => duration(seconds.into()),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a host says that has one backup, and these ranges of WAL.
    fn repository(wal: &[(u32, u64, u64)]) -> Repository {
        let mut text = String::from(
            "info\t[{\"backup\":[{\"archive\":{\"start\":\"000000010000000000000004\",\"stop\":\"000000010000000000000005\"},\
             \"error\":false,\"info\":{\"repository\":{\"delta\":10},\"size\":30},\"label\":\"20261127-010000F\",\
             \"timestamp\":{\"start\":100,\"stop\":160},\"type\":\"full\"}],\"status\":{\"code\":0,\"message\":\"ok\"}}]\n",
        );
        for (timeline, first, last) in wal {
            text.push_str(&format!("wal\t{timeline}\t{first}\t{last}\n"));
        }
        text.push_str("wal-bytes\t7\nwal-newest\t400\nfiles\t20261127-010000F\nspace\t90\t100\n");
        alone(&format!(
            "schedule\tfull\t1000 2000\nunit\tfull\tactivating\tsuccess\nsince\t50\nnow\t500\nplace\tdisk\n{text}"
        ))
    }

    fn alone(text: &str) -> Repository {
        let mut all = Repository::all(text);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn each_place_has_a_repository_of_its_own() {
        let info = |label: &str| {
            format!(
                "info\t[{{\"backup\":[{{\"label\":\"{label}\"}}],\"status\":{{\"code\":0}}}}]\nfiles\t{label}\n"
            )
        };
        let all = Repository::all(&format!(
            "unit\tfull\tactivating\tsuccess\nnow\t5\nplace\tdisk\n{}place\tbucket\n{}wal-newest\t4\n",
            info("a"),
            info("b")
        ));
        let labels = all.iter().map(|it| it.backups[0].label.as_str());
        assert_eq!(labels.collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((all[0].place, all[1].place), (Place::Disk, Place::Bucket));
        assert_eq!((all[0].wal_newest, all[1].wal_newest), (None, Some(4)));
        assert!(all.iter().all(|it| it.is_at_work() && it.now == 5));
        assert!(!all[1].backups[0].gone);
        // One does not answer.
        let all = Repository::all(&format!(
            "now\t5\nplace\tdisk\n{}place\tbucket\n",
            info("a")
        ));
        assert_eq!(all[0].unreadable(), None);
        assert!(all[1].unreadable().unwrap().contains("it does not answer"));
    }

    #[test]
    fn what_a_host_says_is_read() {
        let it = repository(&[(1, 2, 9)]);
        assert_eq!((it.span(), it.bytes(), it.now), (Some((160, 400)), 17, 500));
        assert!(it.is_at_work() && it.status.0 == 0);
        assert_eq!(it.schedules["full"].times, [1000, 2000]);
        assert_eq!(it.backups[0].label, "20261127-010000F");
        assert_eq!((it.space, it.since), (Some((90, 100)), Some(50)));
        assert!(!it.backups[0].gone);
        assert!(it.has("000000010000000000000009") && !it.has("00000001000000000000000A"));
        assert!(!it.has("000000020000000000000009"));
    }

    #[test]
    fn a_repository_that_cannot_be_read_is_no_empty_one() {
        let said = "info\t[{\"backup\":[],\"repo\":[{\"status\":{\"code\":99,\"message\":\"unable to load info file:\\n\
                    at line 1: \u{1}\t\u{fffd}x\"}}],\"status\":{\"code\":99,\"message\":\"other\"}}]\nnow\t5\n";
        let it = alone(&format!("place\tdisk\n{said}"));
        assert_eq!(it.status, (OTHER, "unable to load info file".to_owned()));
        assert!(it.unreadable().unwrap().contains("unable to load"));
        assert_eq!(alone("place\tdisk\ninfo\tnothing\n").status.0, -1);
        assert_eq!(repository(&[]).unreadable(), None);
        let none = r#"info	[{"backup":[],"status":{"code":1,"message":"missing stanza path"}}]"#;
        assert_eq!(alone(&format!("place\tdisk\n{none}")).unreadable(), None);
    }

    #[test]
    fn a_hole_in_the_wal_is_named_and_what_no_backup_needs_is_none() {
        for (wal, holes) in [
            (&[(1, 2, 9)][..], &[][..]),
            (&[(1, 0, 1), (1, 4, 9)], &[]),
            // Another member led from the middle of segment 9 on.
            (&[(1, 2, 9), (2, 9, 12)], &[]),
            (&[(1, 2, 8), (2, 9, 12)], &[]),
            (&[(1, 2, 6), (1, 8, 9)], &["000000010000000000000007"]),
            (
                &[(1, 2, 6), (1, 300, 301)],
                &["000000010000000000000007 to 00000001000000010000002B"],
            ),
            (
                &[(1, 2, 6), (2, 9, 12)],
                &["000000010000000000000007 to 000000010000000000000008"],
            ),
            (&[(1, 2, 4)], &["000000010000000000000005"]),
            (
                &[],
                &["000000010000000000000004 to 000000010000000000000005"],
            ),
        ] {
            assert_eq!(repository(wal).holes(), *holes, "{wal:?}");
        }
    }

    #[test]
    fn times_are_told_in_what_people_count_in() {
        assert_eq!(in_days(-5), "0.0 s");
        assert_eq!(in_days(90_000), "25 h 00 m");
        assert_eq!(in_days(864_000), "10 days");
    }
}
