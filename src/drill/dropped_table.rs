//! A table of the drill's own is dropped, and comes back from the backups as it was just before.
//!
//! The moment is restored into an instance of its own beside a replica, as `restore --table` does. The cluster itself is
//! never taken back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    clients::{Clients, Target},
    fault::Tools,
    ledger::{Balance, DROPPED as TABLE, Row, removal_of_dropped as removal},
    record::Dropped,
};
use crate::{
    contract::REHEARSAL,
    error::{Code, Error, Result},
    inventory::HostName,
    moment::Moment,
    plan::{
        self, Action,
        restore::{TAKEN, Wanted},
    },
    quantity::bytes,
    remote::{Output, Script},
    services::{
        backup,
        postgres::{Sql, patroni},
    },
};

/// How many rows it has, each of a commit of its own.
const ROWS: u64 = 200;
/// Between the moment and the drop: clocks have microseconds.
const APART: Duration = Duration::from_millis(100);
/// How long a short command on a host may take.
const SHORT: Duration = Duration::from_secs(60);

/// Refuses where there is no backup, or no room for what one restores.
pub(super) async fn is_possible(tools: &Tools<'_>, host: &HostName) -> Result<()> {
    let refused = |what: String| Error::new(Code::DrillAborted, what).left("nothing was broken");
    let repository = backup::ask(&tools.cluster, tools.remote.as_ref())
        .await
        .transpose()?;
    let repositories = repository.unwrap_or_default();
    let backups = repositories.iter().flat_map(|it| &it.backups);
    let Some(size) = backups.map(|it| it.size).max() else {
        return Err(refused("the repository has no backup yet".into())
            .hint("see when there is one: pgherd backups"));
    };
    let script = Script::probe(format!("df -Pk {REHEARSAL} | awk 'NR == 2 {{ print $4 }}'"));
    let free: u64 = run(tools, host, &script, SHORT)
        .await?
        .stdout
        .trim()
        .parse()
        .unwrap_or_default();
    // The limits of a rehearsal.
    let needed = size + size / 3 + (1 << 30);
    if free.saturating_mul(1024) < needed {
        return Err(refused(format!(
            "too little space in {REHEARSAL}: {} are free, and a restore needs {}",
            bytes(free.saturating_mul(1024)),
            bytes(needed)
        ))
        .on(host));
    }
    Ok(())
}

/// The table, its rows, and the moment before its end.
pub(super) struct DroppedTable {
    sql: Sql,
    acknowledged: BTreeSet<Row>,
}

impl DroppedTable {
    /// Makes the table. Each row is acknowledged before the next one.
    pub(super) async fn fill(clients: &Clients) -> Result<Self> {
        let sql = clients.open(&Target::Write).await.map_err(|trouble| {
            Error::new(Code::StatementFailed, "cannot make the table").cause(trouble.to_string())
        })?;
        sql.query(&format!(
            "{}; create table {TABLE} (number bigint primary key)",
            removal()
        ))
        .await?;
        let mut acknowledged = BTreeSet::new();
        for number in 1..=ROWS {
            sql.query(&format!("insert into {TABLE} values ({number})"))
                .await?;
            acknowledged.insert((0, number));
        }
        Ok(Self { sql, acknowledged })
    }

    /// Drops it; returns a moment before that and after its last row.
    pub(super) async fn lose(&self) -> Result<jiff::Timestamp> {
        let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let moment = self.sql.value(now).await?;
        let moment: jiff::Timestamp = moment.parse().map_err(|error: jiff::Error| {
            Error::new(Code::AnswerUnusable, "PostgreSQL's time cannot be read").because(error)
        })?;
        sleep(APART).await;
        self.sql.query(&format!("drop table {TABLE}")).await?;
        Ok(moment)
    }

    /// Has its rows back as they were at the moment, and compares them with those that were acknowledged.
    pub(super) async fn bring_back(
        &self,
        tools: &Tools<'_>,
        clients: &Arc<Clients>,
        host: &HostName,
        moment: jiff::Timestamp,
    ) -> Result<Dropped> {
        let leader = leader(tools).await?;
        let to = Moment::Time(moment);
        let backup = &tools.cluster.inventory.backup;
        let wanted = Wanted {
            to: &to,
            set: None,
            timeline: None,
            places: match backup.is_in_both() {
                true => backup.places(),
                false => &[],
            },
        };
        let what = ("postgres", TABLE);
        let plan = plan::restore::take_out(&tools.cluster, host, &wanted, what, Some(&leader));
        for step in &plan.steps {
            if let Action::Run(script) = &step.action {
                let done = run(tools, &step.host, script, step.limit).await;
                done.map_err(|error| error.step(step.name))?;
            }
        }
        let fetch = Script::new().line(format!("cat {TAKEN}/dump"));
        let dump = run(tools, host, &fetch, SHORT).await?.stdout;
        let sql = format!("\\set ON_ERROR_STOP on\n{dump}");
        let load = plan::local_sql(Script::new(), &tools.cluster, &sql);
        run(tools, &leader, &load, SHORT).await?;
        let rows = clients.ask(&format!("select number from {TABLE}")).await?;
        let there = rows.iter().filter_map(|row| row.get(0)?.parse().ok());
        let there: BTreeSet<Row> = there.map(|number| (0, number)).collect();
        let balance = Balance::of(&self.acknowledged, &there);
        clients.ask(&removal()).await?;
        Ok(Dropped {
            moment,
            rows: balance.acknowledged,
            missing: balance.missing,
            unexpected: balance.unexpected,
        })
    }
}

async fn leader(tools: &Tools<'_>) -> Result<HostName> {
    let survey = patroni::survey(&tools.http, &tools.cluster).await;
    let leader = patroni::leader_of(&survey).cloned();
    leader.ok_or_else(|| Error::new(Code::NoLeader, "the cluster has no leader"))
}

async fn run(
    tools: &Tools<'_>,
    host: &HostName,
    script: &Script,
    limit: Duration,
) -> Result<Output> {
    let quiet = |_, _: &str| {};
    let output = tools.remote.run(host, script, limit, &quiet).await?;
    if output.success() {
        return Ok(output);
    }
    Err(
        Error::new(Code::DrillAborted, "a command of the drill failed")
            .on(host)
            .excerpt("stderr", output.stderr),
    )
}

impl Dropped {
    /// Why the backups did not stand it; empty if they did.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.missing > 0 {
            failures.push(format!(
                "{} of {} rows of the dropped table did not come back",
                self.missing, self.rows
            ));
        }
        if self.unexpected > 0 {
            failures.push(format!(
                "{} rows came back that the dropped table never had",
                self.unexpected
            ));
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_must_come_back_and_no_other() {
        let dropped = |missing, unexpected| Dropped {
            moment: jiff::Timestamp::UNIX_EPOCH,
            rows: 200,
            missing,
            unexpected,
        };
        assert_eq!(dropped(0, 0).failures(), [""; 0]);
        assert_eq!(
            dropped(3, 1).failures(),
            [
                "3 of 200 rows of the dropped table did not come back",
                "1 rows came back that the dropped table never had"
            ]
        );
    }
}
