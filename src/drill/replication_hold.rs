//! Delays replication on the leader, so that the drill shows what an asynchronous cluster loses.
//!
//! The processes that send WAL to the replicas are stopped, as if the network had become very slow. PostgreSQL
//! itself continues. Without this, it would depend on luck and milliseconds how much is under way when a host
//! dies.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::{
    clients::{Clients, Target},
    fault::Tools,
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    remote::Script,
    services::postgres::Sql,
};

/// How long a replica may be delayed. After `wal_receiver_timeout` (60 s by default), it would open a new
/// connection, with a new process that is not stopped.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The transient unit on the leader's host that ends the delay, whatever happens to the drill.
const UNIT: &str = "pgherd-hold";
/// How much longer than requested the unit lets the delay last. The host is dead by then.
const SLACK: Duration = Duration::from_secs(10);
/// How long the command on the host may take.
const ORDER: Duration = Duration::from_secs(20);

/// A leader whose replicas get no WAL.
pub(super) struct ReplicationHold {
    sql: Sql,
    host: HostName,
}

impl ReplicationHold {
    /// Stops the processes that send WAL on `host`, for little longer than `lag`.
    pub(super) async fn begin(
        tools: &Tools<'_>,
        clients: &Arc<Clients>,
        host: &HostName,
        lag: Duration,
    ) -> Result<Self> {
        let failed = |error: Error| error.on(host).left("nothing was broken");
        let sql = clients
            .open(&Target::Member(host.clone()))
            .await
            .map_err(|error| {
                failed(
                    Error::new(Code::PostgresqlUnreachable, "cannot ask the leader")
                        .cause(error.to_string()),
                )
            })?;
        let rows = sql.query("select pid from pg_stat_replication").await;
        let pids: Vec<u32> = rows
            .map_err(failed)?
            .iter()
            .filter_map(|row| row.get(0)?.parse().ok())
            .collect();
        if pids.is_empty() {
            return Err(failed(Error::new(
                Code::DrillAborted,
                "no replica streams from the leader",
            )));
        }
        tell(tools, host, &script(&pids, lag + SLACK)).await?;
        Ok(Self {
            sql,
            host: host.clone(),
        })
    }

    /// Bytes of WAL that even the best replica lacks.
    pub(super) async fn behind(&self) -> Result<u64> {
        let statement = "select min(pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn))::bigint \
                         from pg_stat_replication";
        let answer = self.sql.value(statement).await;
        let answer = answer.map_err(|error| error.on(&self.host))?;
        answer.parse().map_err(|_| {
            Error::new(
                Code::DrillAborted,
                "the replicas disconnected while replication was held up",
            )
            .on(&self.host)
        })
    }
}

/// Lets replication on `host` continue, if it is delayed.
pub(super) async fn release(tools: &Tools<'_>, host: &HostName) -> Result<()> {
    let script = Script::new().line(format!(
        "! systemctl --quiet is-active {UNIT} || systemctl stop {UNIT}"
    ));
    tell(tools, host, &script).await
}

/// The unit exists before anything is stopped, so that nothing stays stopped.
fn script(pids: &[u32], limit: Duration) -> Script {
    let pids = pids.iter().fold(String::new(), |mut list, pid| {
        let _ = write!(list, " {pid}");
        list
    });
    Script::new()
        .line(format!(
            "systemd-run --quiet --collect --unit={UNIT} \
             --property=ExecStopPost=\"/bin/sh -c 'kill -CONT{pids}'\" /bin/sleep {}",
            limit.as_secs().max(1)
        ))
        .line(format!("kill -STOP{pids}"))
}

async fn tell(tools: &Tools<'_>, host: &HostName, script: &Script) -> Result<()> {
    let quiet = |_, _: &str| {};
    let output = tools.remote.run(host, script, ORDER, &quiet).await?;
    if output.success() {
        return Ok(());
    }
    Err(Error::new(
        Code::DrillAborted,
        "replication could not be held up, or not released again",
    )
    .on(host)
    .excerpt("stderr", output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_hold_is_there_before_it_begins() {
        let script = script(&[12, 345], Duration::from_secs(15));
        assert!(script.contains(
            "--property=ExecStopPost=\"/bin/sh -c 'kill -CONT 12 345'\" /bin/sleep 15\nkill -STOP 12 345\n"
        ));
    }
}
