//! Makes WAL wait while the repository is away, and finds out whether all of it is there afterwards.

use std::{sync::Arc, time::Duration};

use super::{
    clients::{Clients, Target},
    fault::Tools,
    record::Outage,
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    poll,
    services::{
        backup,
        postgres::{Sql, patroni},
    },
};

/// How many segments are ended while the repository is away, as a busy database would fill them.
pub(super) const SEGMENTS: u32 = 5;
/// How often.
pub(super) const PAUSE: Duration = Duration::from_secs(4);
/// How long sending them may take.
const SENDING: Duration = Duration::from_secs(120);
/// How often to look.
const LOOK: Duration = Duration::from_millis(500);

const WAITING: &str = "select count(*) from pg_catalog.pg_ls_archive_statusdir() \
                       where name ~ '^[0-9A-F]{24}[.]ready$'";

/// The archiver of the member that leads.
pub(super) struct Archiver {
    sql: Sql,
    host: HostName,
}

impl Archiver {
    pub(super) async fn of_leader(tools: &Tools<'_>, clients: &Arc<Clients>) -> Result<Self> {
        let survey = patroni::survey(&tools.http, &tools.cluster).await;
        let leader = patroni::leader_of(&survey)
            .ok_or_else(|| Error::new(Code::NoLeader, "the cluster has no leader"))?;
        let sql = clients.open(&Target::Member(leader.clone())).await;
        let sql = sql.map_err(|error| {
            Error::new(Code::PostgresqlUnreachable, "cannot ask the leader")
                .on(leader)
                .cause(error.to_string())
        })?;
        Ok(Self {
            sql,
            host: leader.clone(),
        })
    }

    /// Ends the present segment, so that it is archived; returns its name.
    pub(super) async fn end_segment(&self) -> Result<String> {
        let ended = "select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())";
        self.ask(ended).await
    }

    /// How many segments wait.
    pub(super) async fn waiting(&self) -> Result<u64> {
        Ok(self.ask(WAITING).await?.parse().unwrap_or_default())
    }

    /// Whether PostgreSQL was told that a segment is archived. They are sent in order.
    async fn has_sent(&self, segment: &str) -> Result<bool> {
        let sent = format!(
            "select coalesce(last_archived_wal >= '{segment}', false) from pg_catalog.pg_stat_archiver"
        );
        Ok(self.ask(&sent).await? == "t")
    }

    async fn ask(&self, statement: &str) -> Result<String> {
        let answer = self.sql.value(statement).await;
        answer.map_err(|error| error.on(&self.host))
    }
}

impl Outage {
    /// Waits until everything is sent that was written before now, and looks whether the repository has it without a
    /// hole. Returns whether everything was sent in time.
    pub(super) async fn end(&mut self, tools: &Tools<'_>, clients: &Arc<Clients>) -> Result<bool> {
        let archiver = Archiver::of_leader(tools, clients).await?;
        let last = archiver.end_segment().await?;
        let sent = poll::until(SENDING, LOOK, || async {
            match archiver.has_sent(&last).await {
                Ok(true) => Ok(()),
                _ => Err(()),
            }
        });
        if sent.await.is_err() {
            return Ok(false);
        }
        if let Some(repositories) = backup::ask(&tools.cluster, tools.remote.as_ref()).await {
            let repositories = repositories?;
            let missing = repositories.iter().flat_map(backup::Repository::holes_now);
            self.missing = missing.collect();
            if !repositories.iter().all(|it| it.has(&last)) {
                self.missing.push(last);
            }
        }
        Ok(true)
    }
}
