//! Whether the backups are proven: a rehearsal has restored them, and not long ago.

use super::super::client::{Repository, in_days};
use crate::services::archive::rehearsal::{Rehearsals, UNIT, Verdict};

const DAY: i64 = 86_400;
/// The timer waits for up to an hour, and a rehearsal takes its time.
const GRACE: i64 = 6 * 3600;

/// What is wrong, a sentence each. `within` is how many days old a proof may become, or 0. `command` is the command line
/// of a verb, and `again` that of a rehearsal.
pub(super) fn wrong(
    repository: &Repository,
    rehearsals: &Rehearsals,
    within: u32,
    (command, again): (&dyn Fn(&str) -> String, &str),
) -> Vec<String> {
    let age = |at: i64| in_days(repository.now - at);
    let mut wrong = Vec::new();
    if let Some(it) = failed(repository, rehearsals, false) {
        wrong.push(format!(
            "the last rehearsal of a restore, {} ago on {}, proved nothing: {}; again: {again}",
            age(it.ended),
            it.host,
            it.wrong.join("; ")
        ));
    }
    let longest = i64::from(within) * DAY + GRACE;
    let late =
        |at: i64| within > 0 && rehearsals.at_work.is_none() && repository.now - at > longest;
    let why = format!(
        "what the timer's rehearsals say: {} {UNIT}; now: {again}",
        command("logs HOST")
    );
    match (&rehearsals.proof, repository.since) {
        (Some(proof), _) if late(proof.ended) => wrong.push(format!(
            "the last proof that a restore works is {} old, and one is due every {}; {why}",
            age(proof.ended),
            in_days(i64::from(within) * DAY)
        )),
        (None, Some(since)) if late(since) => wrong.push(format!(
            "no restore was proven yet, and there are backups for {}; {why}",
            age(since)
        )),
        _ => {}
    }
    wrong
}

/// The last verdict if it proves nothing, and if that is explained by what is known to be missing or not.
pub(super) fn failed<'a>(
    repository: &Repository,
    rehearsals: &'a Rehearsals,
    explained: bool,
) -> Option<&'a Verdict> {
    let last = rehearsals.last.as_ref();
    last.filter(|it| !it.is_proof() && is_explained(repository, it) == explained)
}

/// A moment before the newest full backup is behind what is known to be missing: nothing to act on, and another moment
/// comes by itself.
fn is_explained(repository: &Repository, failed: &Verdict) -> bool {
    let Some(full) = repository.newest_full() else {
        return false;
    };
    let mut older = repository.backups.iter().filter(|it| it.stop < full.stop);
    let missing = !repository.holes().is_empty() || older.any(|it| it.gone);
    let now = repository.holes_now();
    missing && now.is_empty() && failed.moment.is_some_and(|moment| moment < full.stop)
}

/// For the end of a line about the backups.
pub(super) fn summary(repository: &Repository, rehearsals: &Rehearsals) -> String {
    let proof = rehearsals.proof.as_ref();
    proof.map_or(String::new(), |it| {
        let age = in_days(repository.now - it.ended);
        format!("; a restore was proven {age} ago")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::super::client::Backup, *};
    use crate::inventory::HostName;

    fn verdict(ended: i64, wrong: &[&str]) -> Verdict {
        let document = json!({
            "host": "db2", "begun": ended - 30, "ended": ended, "moment": ended - 60, "seconds": {}, "wrong": wrong,
        });
        serde_json::from_value(document).unwrap()
    }

    fn repository(now: i64) -> Repository {
        Repository {
            now,
            since: Some(0),
            ..Repository::default()
        }
    }

    fn told(repository: &Repository, rehearsals: &Rehearsals, within: u32) -> String {
        let command = |verb: &str| format!("pgherd {verb}");
        wrong(
            repository,
            rehearsals,
            within,
            (&command, "pgherd rehearse"),
        )
        .join("\n")
    }

    #[test]
    fn a_proof_is_due_once_the_cluster_is_old_enough_and_again_in_time() {
        let none = Rehearsals::default();
        assert_eq!(told(&repository(7 * DAY), &none, 7), "");
        let late = told(&repository(8 * DAY), &none, 7);
        assert!(
            late.starts_with("no restore was proven yet, and there are backups for 8 days;"),
            "{late}"
        );
        assert!(late.contains("pgherd logs HOST pgherd-rehearse"), "{late}");
        assert_eq!(told(&repository(80 * DAY), &none, 0), "");
        let proven = Rehearsals {
            last: Some(verdict(10 * DAY, &[])),
            proof: Some(verdict(10 * DAY, &[])),
            at_work: None,
        };
        assert_eq!(told(&repository(17 * DAY), &proven, 7), "");
        let late = told(&repository(20 * DAY), &proven, 7);
        assert!(
            late.starts_with(
                "the last proof that a restore works is 10 days old, and one is due every 7 days;"
            ),
            "{late}"
        );
        let at_work = Rehearsals {
            at_work: Some(HostName::new("db2")),
            ..proven
        };
        assert_eq!(told(&repository(20 * DAY), &at_work, 7), "");
    }

    #[test]
    fn a_rehearsal_that_failed_is_told_unless_its_moment_is_behind_a_known_hole() {
        let failed = Rehearsals {
            last: Some(verdict(10 * DAY, &["recovery failed"])),
            proof: Some(verdict(9 * DAY, &[])),
            at_work: None,
        };
        let mut repository = repository(10 * DAY + 120);
        assert_eq!(
            told(&repository, &failed, 7),
            "the last rehearsal of a restore, 2 m 00 s ago on db2, proved nothing: recovery failed; again: pgherd rehearse"
        );
        let backup = |stop: i64, gone: bool| Backup {
            kind: "full".into(),
            stop,
            gone,
            ..Backup::default()
        };
        repository.backups = vec![backup(DAY, true), backup(10 * DAY, false)];
        assert_eq!(told(&repository, &failed, 7), "");
        repository.backups[1].stop = 9 * DAY;
        assert_ne!(told(&repository, &failed, 7), "");
    }
}
