//! Whether WAL is archived, if it should be.
//!
//! An `archive_command` that fails is repeated for ever. Nothing is lost, but backups do not advance, and
//! PostgreSQL keeps all WAL until the disk is full.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::settings;
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    services::{
        health::{Check, Look},
        postgres::{Survey, patroni::Status},
    },
};

const NAME: &str = "archive";

/// How long a member may take to report on archiving.
const ANSWER: Duration = Duration::from_secs(10);

/// The mode; what has failed since the last success (or nothing); seconds since the last success.
const STATE: &str = "select pg_catalog.current_setting('archive_mode') as mode, \
     case when last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end as wal, \
     failed_count as failed, \
     coalesce(extract(epoch from pg_catalog.now() - last_archived_time)::pg_catalog.int8::pg_catalog.text, '') as since \
     from pg_catalog.pg_stat_archiver";

/// One member's archiver.
#[derive(Debug, Default, Clone)]
struct Archiver {
    mode: String,
    failing: String,
    failed: String,
    since: String,
}

pub(super) async fn look(look: &Look<'_>, survey: &Survey) -> Check {
    let runs = |status: &Result<Status>| status.as_ref().is_ok_and(Status::is_running);
    let asked = survey
        .iter()
        .filter(|(_, status)| runs(status))
        .map(|(host, _)| async move { (host, ask(look, host).await) });
    let mut wrong = Vec::new();
    let mut archives = false;
    for (host, answer) in join_all(asked).await {
        match answer {
            Ok(archiver) => {
                archives |= archiver.mode != "off";
                let inventory = &look.ways.cluster.inventory;
                let logs = inventory.command(&format!("logs {host} patroni"));
                wrong.extend(failing(host, &archiver, &logs));
            }
            Err(error) => wrong.push(format!(
                "{host} does not say what it archives: {}",
                error.what()
            )),
        }
    }
    let right = if archives {
        "WAL is archived"
    } else {
        "WAL is not archived (archive_mode is off)"
    };
    Check::of(NAME, wrong, right.into())
}

async fn ask(look: &Look<'_>, host: &HostName) -> Result<Archiver> {
    let answer = async {
        let sql = settings::connect(look, host).await?;
        let rows = sql.query(STATE).await?;
        let told = |name| {
            rows.first()
                .map_or(String::new(), |row| settings::field(row, name))
        };
        Ok(Archiver {
            mode: told("mode"),
            failing: told("wal"),
            failed: told("failed"),
            since: told("since"),
        })
    };
    timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        Err(Error::new(
            Code::StatementFailed,
            "PostgreSQL did not answer in time",
        ))
    })
}

/// What is wrong with a member's archiving. `logs` is the command that shows the member's log.
fn failing(host: &HostName, archiver: &Archiver, logs: &str) -> Option<String> {
    let Archiver {
        mode,
        failing,
        failed,
        since,
    } = archiver;
    if mode == "off" || failing.is_empty() {
        return None;
    }
    let last = if since.is_empty() {
        "nothing has been archived yet".to_owned()
    } else {
        format!("the last success was {since} s ago")
    };
    Some(format!(
        "{host} cannot archive {failing} (failures so far: {failed}; {last}), and keeps all WAL until it can; \
         what archive_command says is in PostgreSQL's log: {logs}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_fails_is_told_until_it_succeeds() {
        let host = HostName::new("node1");
        let archiver = |mode: &str, failing: &str, since: &str| Archiver {
            mode: mode.into(),
            failing: failing.into(),
            failed: "6".into(),
            since: since.into(),
        };
        let failing = |archiver| failing(&host, &archiver, "pgherd logs node1 patroni");
        let told = failing(archiver("on", "0003.history", "")).unwrap();
        assert!(told.contains("nothing has been archived yet"), "{told}");
        let told = failing(archiver("always", "0003.history", "90")).unwrap();
        assert!(told.contains("90 s ago"), "{told}");
        // A failure that was followed by a success does not matter any more.
        assert!(failing(archiver("on", "", "5")).is_none());
        assert!(failing(archiver("off", "0003.history", "")).is_none());
    }
}
