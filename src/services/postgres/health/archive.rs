//! Whether WAL is archived, if it should be.
//!
//! An `archive_command` that fails is repeated for ever. Nothing is lost, but backups do not advance, and
//! PostgreSQL keeps all WAL until the disk is full.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::settings;
use crate::{
    error::{Code, Error, Result},
    facts::Space,
    inventory::HostName,
    quantity::{bytes, count},
    services::{
        backup::in_days,
        health::{Check, Look},
        postgres::{Survey, patroni::Status},
    },
};

const NAME: &str = "archive";

/// How long a member may take to report on archiving.
const ANSWER: Duration = Duration::from_secs(10);

/// WAL that waits this long is not archived in time, in seconds, even if no command has failed. A command that crashes
/// ends PostgreSQL's archiver too, which does not count it as a failure then.
const SLOW: i64 = 120;

/// The mode; what has failed since the last success (or nothing); seconds since the last success. Of the segments that
/// wait: their number, the age of the oldest in seconds (or nothing), and the size of each. A replica sends none, and
/// keeps none; what it could not archive while it led is not tried again.
const STATE: &str = "select pg_catalog.current_setting('archive_mode') as mode, \
     case when (not pg_catalog.pg_is_in_recovery() or pg_catalog.current_setting('archive_mode') = 'always') \
     and last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end as wal, \
     failed_count as failed, \
     coalesce(extract(epoch from pg_catalog.now() - last_archived_time)::pg_catalog.int8::pg_catalog.text, '') as since, \
     waiting.number as waiting, coalesce(waiting.age::pg_catalog.text, '') as waits, \
     pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) as segment \
     from pg_catalog.pg_stat_archiver, lateral (select pg_catalog.count(*) as number, \
     extract(epoch from pg_catalog.now() - pg_catalog.min(modification))::pg_catalog.int8 as age \
     from pg_catalog.pg_ls_archive_statusdir() \
     where not pg_catalog.pg_is_in_recovery() and name ~ '^[0-9A-F]{24}[.]ready$') as waiting";

/// One member's archiver.
#[derive(Debug, Default, Clone)]
struct Archiver {
    mode: String,
    failing: String,
    failed: String,
    since: String,
    /// How many segments wait, for how many seconds the oldest one has waited, and their size in all.
    waiting: u64,
    waits: i64,
    bytes: u64,
    /// The filesystem that they fill.
    space: Option<Space>,
}

/// What all members say.
pub(super) struct Archives {
    /// At least one should archive.
    any: bool,
    /// What is wrong, a sentence each.
    pub(super) wrong: Vec<String>,
    /// Each member that should archive, for `--json`.
    pub(super) document: Value,
}

impl Archives {
    pub(super) fn check(self) -> Check {
        let right = match self.any {
            true => "WAL is archived",
            false => "WAL is not archived (archive_mode is off)",
        };
        Check::of(NAME, self.wrong, right.into())
    }
}

pub(super) async fn look(look: &Look<'_>, survey: &Survey) -> Archives {
    let runs = |status: &Result<Status>| status.as_ref().is_ok_and(Status::is_running);
    let asked = survey
        .iter()
        .filter(|(_, status)| runs(status))
        .map(|(host, _)| async move { (host, ask(look, host).await) });
    let inventory = &look.ways.cluster.inventory;
    let mut wrong = Vec::new();
    let mut documents = Vec::new();
    for (host, answer) in join_all(asked).await {
        match answer {
            Ok(archiver) => {
                let logs = inventory.command(&format!("logs {host} patroni"));
                wrong.extend(archiver.wrong(host, &logs));
                documents.extend((archiver.mode != "off").then(|| archiver.document(host)));
            }
            Err(error) => wrong.push(format!(
                "{host} does not say what it archives: {}",
                error.what()
            )),
        }
    }
    Archives {
        any: !documents.is_empty(),
        wrong,
        document: documents.into(),
    }
}

async fn ask(look: &Look<'_>, host: &HostName) -> Result<Archiver> {
    let answer = async {
        let sql = settings::connect(look, host).await?;
        let rows = sql.query(STATE).await?;
        let told = |name| {
            rows.first()
                .map_or(String::new(), |row| settings::field(row, name))
        };
        let number = |name| told(name).parse::<u64>().unwrap_or_default();
        let facts = look.found.facts.get(host);
        let space = facts.and_then(|it| {
            let space = &it.needs.space;
            // The WAL is with the data, unless somebody has moved it.
            space.get("wal").or_else(|| space.get("data"))
        });
        Ok(Archiver {
            mode: told("mode"),
            failing: told("wal"),
            failed: told("failed"),
            since: told("since"),
            waiting: number("waiting"),
            waits: told("waits").parse().unwrap_or_default(),
            bytes: number("waiting") * number("segment"),
            space: space.filter(|it| it.size > 0).cloned(),
        })
    };
    timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        Err(Error::new(
            Code::StatementFailed,
            "PostgreSQL did not answer in time",
        ))
    })
}

impl Archiver {
    /// What is wrong with a member's archiving. `logs` is the command that shows the member's log.
    fn wrong(&self, host: &HostName, logs: &str) -> Option<String> {
        let Self {
            mode,
            failing,
            failed,
            since,
            ..
        } = self;
        let slow = self.waiting > 0 && self.waits >= SLOW;
        if mode == "off" || (failing.is_empty() && !slow) {
            return None;
        }
        let last = if since.is_empty() {
            "nothing has been archived yet".to_owned()
        } else {
            format!("the last success was {since} s ago")
        };
        let what = if failing.is_empty() {
            format!("{host} archives too slowly, or its archive_command hangs or crashes ({last})")
        } else {
            format!("{host} cannot archive {failing} (failures so far: {failed}; {last})")
        };
        Some(format!(
            "{what}, and keeps all WAL until it can{}; what archive_command says is in PostgreSQL's log: {logs}",
            self.pile()
        ))
    }

    /// How much waits, and how long there is room for it.
    fn pile(&self) -> String {
        if self.waiting == 0 {
            return String::new();
        }
        let mut text = format!(
            ": {} ({}), the first for {}",
            count(self.waiting, "segment"),
            bytes(self.bytes),
            in_days(self.waits)
        );
        if let (Some(seconds), Some(space)) = (self.lasts(), &self.space) {
            text.push_str(&format!(
                "; at this rate {} is full in {}, and PostgreSQL stops",
                space.target,
                in_days(seconds)
            ));
        }
        text
    }

    /// In how many seconds the WAL fills its filesystem, at the rate at which it piles up.
    fn lasts(&self) -> Option<i64> {
        let available = self.space.as_ref()?.available.checked_mul(1024)?;
        let waits = u64::try_from(self.waits).ok().filter(|it| *it > 0)?;
        i64::try_from(available.checked_mul(waits)?.checked_div(self.bytes)?).ok()
    }

    fn document(&self, host: &HostName) -> Value {
        let waits = self.waiting > 0;
        json!({
            "member": host,
            "failing": (!self.failing.is_empty()).then_some(&self.failing),
            "waiting_segments": self.waiting,
            "waiting_bytes": self.bytes,
            "waiting_seconds": waits.then_some(self.waits),
            "full_in_seconds": self.lasts().filter(|_| waits),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(archiver: &Archiver) -> Option<String> {
        archiver.wrong(&HostName::new("node1"), "pgherd logs node1 patroni")
    }

    #[test]
    fn an_archive_that_fails_is_told_until_it_succeeds() {
        let archiver = |mode: &str, failing: &str, since: &str| Archiver {
            mode: mode.into(),
            failing: failing.into(),
            failed: "6".into(),
            since: since.into(),
            ..Archiver::default()
        };
        let failing = told(&archiver("on", "0003.history", "")).unwrap();
        assert!(
            failing.contains("nothing has been archived yet"),
            "{failing}"
        );
        let failing = told(&archiver("always", "0003.history", "90")).unwrap();
        assert!(failing.contains("90 s ago"), "{failing}");
        // A failure that was followed by a success does not matter any more.
        assert!(told(&archiver("on", "", "5")).is_none());
        assert!(told(&archiver("off", "0003.history", "")).is_none());
    }

    #[test]
    fn what_waits_is_told_with_the_time_until_the_disk_is_full() {
        let mut archiver = Archiver {
            mode: "on".into(),
            failing: "000000010000000000000007".into(),
            failed: "3".into(),
            since: "640".into(),
            waiting: 10,
            waits: 600,
            bytes: 160 << 20,
            space: Some(Space {
                target: "/data".into(),
                size: 200 << 20,
                // Ten times as much as waits.
                available: 1600 << 10,
                ..Space::default()
            }),
        };
        assert_eq!(
            told(&archiver).unwrap(),
            "node1 cannot archive 000000010000000000000007 (failures so far: 3; the last success was 640 s ago), and keeps \
             all WAL until it can: 10 segments (160.0 MiB), the first for 10 m 00 s; at this rate /data is full in \
             1 h 40 m, and PostgreSQL stops; what archive_command says is in PostgreSQL's log: pgherd logs node1 patroni"
        );
        assert_eq!(
            archiver.document(&HostName::new("node1"))["full_in_seconds"],
            6000
        );
        // A command that hangs has not failed.
        archiver.failing.clear();
        assert!(
            told(&archiver)
                .unwrap()
                .contains("too slowly, or its archive_command hangs or crashes")
        );
        archiver.waits = 60;
        assert_eq!(told(&archiver), None);
    }
}
