//! The drill's clients at work: writers with numbered commits, readers, and a prober for each member.
//!
//! They behave like clients: each reconnects when its connection fails, some keep their connections and some
//! open a new one every time, and all of them know only HAProxy's two ports. Only the probers ask the members
//! directly, so that HAProxy cannot hide a second leader.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    client_error::ClientError,
    clients::{Clients, Target},
    ledger::{Balance, Ledger, Standing, Tables},
    record::Seen,
    recording::{Attempt, Kind, Probe, Recorder, Recording, View},
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    services::postgres::Sql,
};

/// How long a client waits for an answer before it closes its connection. A client that gives up does not
/// cancel its statement: otherwise a commit that waits for a standby would be acknowledged although no standby
/// has it.
const ANSWER: Duration = Duration::from_secs(5);
/// The same for a client of the poolers, which hold it back in a planned change of leader.
const POOLED_ANSWER: Duration = Duration::from_secs(30);
/// How long a client waits after a failure.
const BACKOFF: Duration = Duration::from_millis(25);
/// The time between two looks at a member.
const PROBE: Duration = Duration::from_millis(100);
/// How long a member may take to commit a prober's write.
const PROBE_ANSWER: Duration = Duration::from_secs(3);

/// The timeline of a primary, as the first eight hexadecimal digits of its WAL file's name. Clients of poolers have
/// no search path of pgherd's.
const TIMELINE: &str = "pg_catalog.substr(pg_catalog.pg_walfile_name(\
     pg_catalog.pg_current_wal_insert_lsn()), 1, 8)";

/// The clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crew {
    /// Writers with persistent connections.
    pub writers: u32,
    /// Writers that open a new connection for every commit.
    pub new_writers: u32,
    pub readers: u32,
    pub new_readers: u32,
    /// Writers through the poolers, with persistent connections. Without poolers whose clients share connections,
    /// there are none.
    pub pooled: u32,
    /// How long each waits after an acknowledgement.
    pub pause: Duration,
}

impl Default for Crew {
    fn default() -> Self {
        Self {
            writers: 3,
            new_writers: 1,
            readers: 2,
            new_readers: 1,
            pooled: 4,
            pause: Duration::from_millis(5),
        }
    }
}

/// Clients at work. Dropping it stops them at once.
pub struct Load {
    clients: Arc<Clients>,
    ledger: Arc<Ledger>,
    tables: Tables,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// Creates the tables and starts the clients; `folder` gets the ledger.
    pub async fn start(
        clients: Arc<Clients>,
        folder: &Path,
        crew: &Crew,
        standing: Standing,
    ) -> Result<Self> {
        let tables = Tables::create(&clients, standing).await?;
        let ledger = Arc::new(Ledger::open(&folder.join(super::ledger::FILE))?);
        let recorder = Arc::new(Recorder::start());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut next = 0;
        let mut client = |target: &Target, keeps: bool| {
            next += 1;
            Client {
                number: next,
                tried: 0,
                target: target.clone(),
                keeps,
                pause: crew.pause,
                clients: clients.clone(),
                recorder: recorder.clone(),
                stop: stop.clone(),
                tables: tables.clone(),
                open: None,
                refused: false,
            }
        };
        for i in 0..crew.writers + crew.new_writers {
            tasks.spawn(write(
                client(&Target::Write, i < crew.writers),
                Kind::Write,
                ledger.clone(),
            ));
        }
        let pooled = if clients.pool().is_some() {
            crew.pooled
        } else {
            0
        };
        for _ in 0..pooled {
            let client = client(&Target::Pooled, true);
            tasks.spawn(write(client, Kind::Pooled, ledger.clone()));
        }
        for i in 0..crew.readers + crew.new_readers {
            tasks.spawn(read(client(&Target::Read, i < crew.readers)));
        }
        for member in clients.members() {
            let target = Target::Member(member.clone());
            tasks.spawn(probe(client(&target, true), member));
        }
        Ok(Self {
            clients,
            ledger,
            tables,
            recorder,
            stop,
            tasks,
        })
    }

    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub fn view(&self) -> View {
        self.recorder.view()
    }

    /// Lets all clients finish what they are doing, and returns what they saw.
    ///
    /// # Errors
    /// The ledger could not be written, so nothing is known about lost commits.
    pub async fn stop(mut self) -> Result<(Recording, Balance)> {
        self.stop.cancel();
        let mut failure = None;
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failure = Some(error),
                Err(error) => {
                    failure = Some(
                        Error::new(Code::DrillAborted, "a client of the drill ended early")
                            .because(error),
                    );
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let recording = self.recorder.recording();
        let there = self.tables.rows(&self.clients).await?;
        let balance = Balance::of(&self.ledger.rows()?, &there);
        self.tables.drop(&self.clients).await?;
        Ok((recording, balance))
    }
}

/// One client: a connection from time to time, and the requests over it.
struct Client {
    number: u32,
    /// The number of its attempts.
    tried: u64,
    target: Target,
    keeps: bool,
    pause: Duration,
    clients: Arc<Clients>,
    recorder: Arc<Recorder>,
    tables: Tables,
    stop: CancellationToken,
    open: Option<Sql>,
    /// Whether the last attempt got no connection.
    refused: bool,
}

impl Client {
    /// Makes one attempt, over the open connection or a new one.
    async fn ask(
        &mut self,
        statement: &str,
        limit: Duration,
    ) -> Result<Option<String>, ClientError> {
        let sql = match self.open.take() {
            Some(sql) => sql,
            None => {
                self.refused = true;
                self.clients.open(&self.target).await?
            }
        };
        self.refused = false;
        let answer = timeout(limit, sql.attempt(statement))
            .await
            .map_err(|_| ClientError::Timeout)?
            .map_err(|error| ClientError::of(&error))?;
        if self.keeps {
            self.open = Some(sql);
        }
        Ok(answer)
    }

    /// Records the result, and pauses.
    async fn note(&self, kind: Kind, from: f64, result: Result<Option<u32>, ClientError>) {
        let pause = if result.is_ok() { self.pause } else { BACKOFF };
        self.recorder.attempt(Attempt {
            client: self.number,
            number: self.tried,
            kind,
            from,
            to: self.recorder.now(),
            refused: self.refused && result.is_err(),
            result,
        });
        self.rest(pause).await;
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

async fn write(mut client: Client, kind: Kind, ledger: Arc<Ledger>) -> Result<()> {
    while !client.stop.is_cancelled() {
        // A number is never used twice: if the answer to a commit was lost, nobody knows whether the row
        // exists.
        client.tried += 1;
        let row @ (writer, number) = (client.number, client.tried);
        let ledger_table = &client.tables.ledger;
        let statement = format!(
            "insert into {ledger_table} (writer, number) values ({writer}, {number}) returning {TIMELINE}"
        );
        let from = client.recorder.now();
        let limit = if kind == Kind::Pooled {
            POOLED_ANSWER
        } else {
            ANSWER
        };
        let result = client.ask(&statement, limit).await;
        if result.is_ok() {
            ledger.acknowledge(row)?;
        }
        let result = result.map(|answer| timeline(answer.as_deref()));
        client.note(kind, from, result).await;
    }
    Ok(())
}

async fn read(mut client: Client) -> Result<()> {
    // The first writer's latest row, which the primary key finds at once even among many rows.
    let statement = format!(
        "select max(number) from {} where writer = 1",
        client.tables.ledger
    );
    while !client.stop.is_cancelled() {
        client.tried += 1;
        let from = client.recorder.now();
        let result = client.ask(&statement, ANSWER).await.map(|_| None);
        client.note(Kind::Read, from, result).await;
    }
    Ok(())
}

async fn probe(mut client: Client, member: HostName) -> Result<()> {
    let insert = format!("{} returning {TIMELINE}", client.tables.touch(&member));
    while !client.stop.is_cancelled() {
        let from = client.recorder.now();
        let (seen, timeline) = look(&mut client, &insert).await;
        client.recorder.probe(Probe {
            member: member.clone(),
            from,
            to: client.recorder.now(),
            seen,
            timeline,
        });
        client.rest(PROBE).await;
    }
    Ok(())
}

/// Tries to write on a member, unless the member says that it is a replica.
async fn look(client: &mut Client, insert: &str) -> (Seen, Option<u32>) {
    let unlike = |error: &ClientError| match error {
        error if error.is_answer() => Seen::Refusing,
        _ => Seen::Down,
    };
    match client.ask("select pg_is_in_recovery()", PROBE_ANSWER).await {
        Ok(answer) if answer.as_deref() == Some("t") => return (Seen::Replica, None),
        Ok(_) => {}
        Err(error) => return (unlike(&error), None),
    }
    match client.ask(insert, PROBE_ANSWER).await {
        Ok(answer) => (Seen::Leader, timeline(answer.as_deref())),
        Err(ClientError::Timeout) => (Seen::Stalled, None),
        Err(ClientError::ReadOnly) => (Seen::Replica, None),
        Err(error) => (unlike(&error), None),
    }
}

fn timeline(answer: Option<&str>) -> Option<u32> {
    u32::from_str_radix(answer?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_read_from_the_name_of_a_wal_file() {
        assert_eq!(timeline(Some("0000001A")), Some(26));
        assert_eq!(timeline(Some("")), None);
        assert_eq!(timeline(None), None);
    }
}
