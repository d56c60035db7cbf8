//! The health of the backups: whether there are any, whether they come as they should, and whether the WAL
//! between them is whole.

use async_trait::async_trait;
use serde_json::{Map, json};

use super::client::{Backup, OTHER, Repository, ask, in_days};
use crate::{
    error::Result,
    inventory::Role,
    quantity::{bytes, count},
    services::{
        archive::rehearsal::{self, Rehearsals, Verdict},
        health::{Check, Health, Look, Settles, Shown, units},
    },
};

mod document;
mod judged;
mod proof;

pub(crate) use document::whole_document;
pub(crate) use judged::judge;

pub(crate) const HEALTH: &dyn Health = &Backups;

const NAME: &str = "backups";
/// A backup that takes long, or a host that was off when one was due, is no reason for an alarm.
const GRACE: i64 = 6 * 3600;
/// WAL comes once a minute, also when nobody writes.
const SILENCE: i64 = 300;

struct Backups;

#[async_trait]
impl Health for Backups {
    fn role(&self) -> Role {
        Role::Backup
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let mut shown = Shown {
            units: units(self.role(), look),
            ..Shown::default()
        };
        let (asked, rehearsals) = ask_all(look).await;
        let Some(asked) = asked else {
            return shown;
        };
        let (words, document) = match asked {
            Ok(repositories) => {
                let inventory = &look.ways.cluster.inventory;
                let judged = judge(&repositories, &rehearsals, inventory);
                let wrong = judged.told();
                shown
                    .warnings
                    .extend(wrong.iter().map(|it| format!("! backups: {it}")));
                let document = whole_document(&repositories, &judged, &rehearsals, inventory);
                (summary(&repositories), document)
            }
            Err(error) => {
                shown.warnings.push(format!("! backups: {error}"));
                ("unknown".to_owned(), json!({"error": error.to_string()}))
            }
        };
        for row in &mut shown.units {
            row.state.push_str(&format!(", {words}"));
        }
        shown.document = Map::from_iter([(NAME.to_owned(), document)]);
        shown
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let (asked, rehearsals) = ask_all(look).await;
        match asked {
            None => Vec::new(),
            Some(Err(error)) => vec![Check::of(NAME, vec![error.to_string()], String::new())],
            Some(Ok(repositories)) => {
                let inventory = &look.ways.cluster.inventory;
                let wrong = judge(&repositories, &rehearsals, inventory).told();
                // A cluster that begins to serve sends WAL soon.
                let silent = repositories.iter().filter_map(silent).count();
                let settles = match silent > 0 && wrong.len() == silent {
                    true => Settles::Soon,
                    false => Settles::Never,
                };
                let right = in_each(&repositories, |it, number| {
                    summary_of(it) + &proof::summary(it, &rehearsals[number])
                });
                vec![Check::of(NAME, wrong, right).settles(settles)]
            }
        }
    }
}

async fn ask_all(look: &Look<'_>) -> (Option<Result<Vec<Repository>>>, Vec<Rehearsals>) {
    let (cluster, remote) = (look.ways.cluster, look.ways.remote);
    tokio::join!(ask(cluster, remote), rehearsal::everywhere(cluster, remote))
}

/// The last verdict of a place if it proves nothing, and what is known to be missing explains that: it is not wrong.
pub(crate) fn explained<'a>(
    repository: &Repository,
    rehearsals: &'a Rehearsals,
) -> Option<&'a Verdict> {
    proof::failed(repository, rehearsals, true)
}

/// An `archive_command` that says yes and sends nothing is seen only here.
fn silent(repository: &Repository) -> Option<String> {
    let age = repository.now - repository.wal_newest?;
    (age > SILENCE).then(|| {
        format!(
            "the newest WAL in the repository came {} ago, and some comes each minute as long as a member leads and \
             sends it: see the checks `leader`, `archive` and `settings`",
            in_days(age)
        )
    })
}

/// The repositories in one line.
pub(crate) fn summary(repositories: &[Repository]) -> String {
    in_each(repositories, |it, _| summary_of(it))
}

/// What there is to say of each place. With two, their names are before it.
fn in_each(repositories: &[Repository], text: impl Fn(&Repository, usize) -> String) -> String {
    let each = repositories.iter().enumerate().map(|(number, it)| {
        let text = text(it, number);
        match repositories.len() {
            1 => text,
            _ => format!("{}: {text}", it.place.inside()),
        }
    });
    each.collect::<Vec<_>>().join("; ")
}

/// A repository in one line.
pub(crate) fn summary_of(repository: &Repository) -> String {
    let Some(last) = repository.backups.last() else {
        return match repository.is_at_work() {
            true => "the first backup is being made".to_owned(),
            false => "there is no backup yet".to_owned(),
        };
    };
    let mut text = format!(
        "{} ({} with their WAL), the last one {} ago",
        count(repository.backups.len(), "backup"),
        bytes(repository.bytes()),
        in_days(repository.now - last.stop)
    );
    if repository.is_at_work() {
        text.push_str("; another one is being made");
    }
    text
}

/// pgBackRest can read the repository. 2 is `no valid backups`, which is told as such.
fn is_readable(repository: &Repository) -> bool {
    [0, 2].contains(&repository.status.0)
}

/// Why it cannot be read. Where there are `both` places, a bucket that cannot be reached is the likely reason.
fn unreadable(repository: &Repository, both: bool) -> Vec<String> {
    let (code, message) = &repository.status;
    let what = match (*code, both) {
        _ if is_readable(repository) => return Vec::new(),
        (OTHER, true) => "pgBackRest cannot read it",
        (OTHER, false) => {
            "pgBackRest cannot read its repository, as if it were damaged or had another key"
        }
        _ => "pgBackRest says",
    };
    vec![format!("{what}: {message}")]
}

/// The backups whose last run failed, if there is no later one in each place that has what they would have had. `backup`
/// is the command that makes one, and `logs` the beginning of the one that shows a journal.
fn failed_runs(repositories: &[Repository], backup: &str, logs: &str) -> Vec<String> {
    let Some(first) = repositories.first() else {
        return Vec::new();
    };
    let made_since = |kind: &str, ended: i64| {
        repositories.iter().all(|it| {
            let mut backups = it.backups.iter();
            backups.any(|it| !it.gone && it.stop > ended && holds(&it.kind) >= holds(kind))
        })
    };
    let mut wrong = Vec::new();
    for (kind, schedule) in &first.schedules {
        let failed = !schedule.runs && !matches!(schedule.result.as_str(), "" | "success");
        if failed && !(schedule.ended > 0 && made_since(kind, schedule.ended)) {
            wrong.push(format!(
                "the last {} backup failed ({}); why: {logs} HOST pgherd-backup@{kind}; again: {}",
                in_words(kind),
                schedule.result,
                match kind.as_str() {
                    "full" => format!("{backup} --full"),
                    "incr" => format!("{backup} --incremental"),
                    _ => backup.to_owned(),
                }
            ));
        }
    }
    wrong
}

/// How much a backup of this kind holds, to compare kinds.
fn holds(kind: &str) -> u8 {
    match kind {
        "full" => 3,
        "diff" => 2,
        _ => 1,
    }
}

/// What is wrong with the backups that are there, and with their WAL. `full` is the command that makes a full backup.
fn wrong_inside(repository: &Repository, full: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    match repository.backups.last() {
        None if repository.is_at_work() || !is_readable(repository) => {}
        None => wrong.push(format!("there is no backup; make one: {full}")),
        Some(last) => wrong.extend(overdue(repository, last)),
    }
    for damaged in repository.backups.iter().filter(|it| it.damaged) {
        wrong.push(format!(
            "the backup {} has pages whose checksum is wrong: the database on the host that it was made of is damaged",
            damaged.label
        ));
    }
    let newest_full = repository.newest_full().map_or(0, |it| it.stop);
    for gone in repository.backups.iter().filter(|it| it.gone) {
        if gone.stop >= newest_full {
            wrong.push(format!(
                "the files of the backup {} are not in the repository any more, and nothing can be restored from it; \
                 another one: {full}",
                gone.label
            ));
        }
    }
    for hole in repository.holes_now() {
        wrong.push(format!(
            "WAL is missing: {hole}; no moment after it can be restored until there is another full backup: {full}"
        ));
    }
    if let Some((available, size)) = repository.space
        && available < size / 10
        && available < 20 * 1024 * 1024
    {
        wrong.push(format!(
            "the disk with the backups is nearly full: {} of {} are left",
            bytes(available * 1024),
            bytes(size * 1024)
        ));
    }
    wrong
}

/// The next backup of a kind must come within its schedule's longest pause. One that holds more stands for it: a
/// differential backup for an incremental one, and a full backup for both.
fn overdue(repository: &Repository, last: &Backup) -> Vec<String> {
    let last_full = repository.newest_full().unwrap_or(last);
    let mut from_newest = repository.backups.iter().rev();
    let last_diff = from_newest.find(|it| it.kind != "incr").unwrap_or(last);
    let late = |kind: &str, newest: &Backup| {
        let times = &repository.schedules.get(kind)?.times;
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        let pause = pauses.max()?;
        let age = repository.now - newest.stop;
        (age > pause + GRACE && !repository.is_at_work()).then(|| {
            format!(
                "the newest {} backup is {} old, and one is due every {}",
                in_words(kind),
                in_days(age),
                in_days(pause)
            )
        })
    };
    let all = [
        late("full", last_full),
        late("diff", last_diff),
        late("incr", last),
    ];
    all.into_iter().flatten().collect()
}

/// A kind of backup, as people call it.
pub(crate) fn in_words(kind: &str) -> &str {
    match kind {
        "diff" => "differential",
        "incr" => "incremental",
        kind => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::client::Schedule, *};

    const DAY: i64 = 86_400;

    /// A full backup a week ago and a differential one yesterday.
    pub(super) fn good() -> Repository {
        let backup = |kind: &str, stop| Backup {
            label: format!("a-{kind}"),
            kind: kind.into(),
            stop,
            ..Backup::default()
        };
        let schedule = |times: &[i64]| Schedule {
            times: times.to_vec(),
            result: "success".into(),
            ..Schedule::default()
        };
        Repository {
            backups: vec![backup("full", 100 * DAY), backup("diff", 106 * DAY)],
            schedules: [
                ("full".to_owned(), schedule(&[107 * DAY, 114 * DAY])),
                (
                    "diff".to_owned(),
                    schedule(&[108 * DAY, 109 * DAY, 111 * DAY]),
                ),
            ]
            .into(),
            now: 107 * DAY,
            ..Repository::default()
        }
    }

    fn told(repository: &Repository) -> String {
        let mut wrong = unreadable(repository, false);
        wrong.extend(failed_runs(
            std::slice::from_ref(repository),
            "pgherd backup",
            "pgherd logs",
        ));
        wrong.extend(wrong_inside(repository, "pgherd backup --full"));
        wrong.join("\n")
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(told(&good()), "");
        assert_eq!(
            summary_of(&good()),
            "2 backups (0 B with their WAL), the last one 24 h 00 m ago"
        );
        let mut late = good();
        late.now = 109 * DAY;
        assert_eq!(
            told(&late),
            "the newest full backup is 9 days old, and one is due every 7 days\n\
             the newest differential backup is 3 days old, and one is due every 2 days"
        );
        late.schedules.get_mut("full").unwrap().runs = true;
        assert_eq!(told(&late), "", "one is being made");
        let mut failed = good();
        failed.schedules.get_mut("diff").unwrap().result = "exit-code".into();
        assert!(told(&failed).contains("the last differential backup failed (exit-code)"));
        failed.schedules.get_mut("diff").unwrap().ended = failed.backups[0].stop - 1;
        assert_eq!(told(&failed), "", "a full one was made since");
        let mut damaged = good();
        damaged.backups[1].damaged = true;
        assert!(told(&damaged).contains("the backup a-diff has pages whose checksum is wrong"));
        let mut full = good();
        full.space = Some((1024, 1024 * 1024));
        assert!(told(&full).contains("nearly full: 1.0 MiB of 1.0 GiB are left"));
        let mut strange = good();
        strange.status = (4, "database mismatch".into());
        assert!(told(&strange).contains("pgBackRest says: database mismatch"));
        strange.status = (OTHER, "unable to load info file".into());
        strange.backups.clear();
        assert_eq!(
            told(&strange),
            "pgBackRest cannot read its repository, as if it were damaged or had another key: unable to load info file"
        );
    }

    #[test]
    fn incremental_backups_are_due_by_their_own_schedule() {
        let mut it = good();
        let incremental = Schedule {
            times: vec![107 * DAY, 107 * DAY + 3600, 107 * DAY + 7200],
            result: "success".into(),
            ..Schedule::default()
        };
        it.schedules.insert("incr".into(), incremental);
        assert_eq!(
            told(&it),
            "the newest incremental backup is 24 h 00 m old, and one is due every 1 h 00 m"
        );
        let newer = Backup {
            kind: "incr".into(),
            stop: it.now - 600,
            ..it.backups[1].clone()
        };
        it.backups.push(newer);
        assert_eq!(told(&it), "");
        // It stands for no differential backup.
        it.backups[1].stop = 104 * DAY;
        assert_eq!(
            told(&it),
            "the newest differential backup is 3 days old, and one is due every 2 days"
        );
        it.backups[1].stop = 106 * DAY;
        it.schedules.get_mut("incr").unwrap().result = "exit-code".into();
        assert!(told(&it).ends_with("again: pgherd backup --incremental"));
    }

    #[test]
    fn a_backup_without_files_is_told_as_long_as_it_matters() {
        let mut gone = good();
        gone.backups[0].gone = true;
        assert!(told(&gone).contains("the files of the backup a-full are not in the repository"));
        let newer = Backup {
            stop: 107 * DAY,
            ..gone.backups[0].clone()
        };
        gone.backups.push(Backup {
            gone: false,
            ..newer
        });
        assert_eq!(told(&gone), "");
    }

    #[test]
    fn a_repository_that_gets_no_wal_is_told() {
        let mut it = good();
        it.wal_newest = Some(it.now - 200);
        assert_eq!(silent(&it), None);
        it.wal_newest = Some(it.now - 400);
        assert!(silent(&it).unwrap().contains("came 6 m 40 s ago"));
    }

    #[test]
    fn no_backup_is_a_fault_unless_the_first_is_being_made() {
        let mut none = good();
        none.backups.clear();
        none.status = (2, "no valid backups".into());
        assert_eq!(
            told(&none),
            "there is no backup; make one: pgherd backup --full"
        );
        none.schedules.get_mut("full").unwrap().runs = true;
        assert_eq!(told(&none), "");
        assert_eq!(summary_of(&none), "the first backup is being made");
    }
}
