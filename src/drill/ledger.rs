//! The ledger of acknowledged commits, and its comparison with what the cluster has afterwards.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::clients::Clients;
use crate::{
    error::{Code, Error, Result},
    services::postgres,
};

/// The ledger's name in a run's folder.
pub(super) const FILE: &str = "acknowledged";

/// Rows that are fetched at a time.
const PAGE: usize = 50_000;

/// A commit: the writer's number, and the number that it gave to the row.
pub type Row = (u32, u64);

/// An append-only file with a line, `writer number`, for every commit that was acknowledged.
///
/// A line is written the moment the answer is there, and before the writer goes on. It is not synced:
/// the machines that may die are the cluster's, not this one.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

impl Ledger {
    /// Begins a ledger at `path`, or goes on with the one that is there.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed("cannot open", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
        })
    }

    /// Takes down an acknowledged commit.
    pub fn acknowledge(&self, (writer, number): Row) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that no line is ever half of one and half of another.
        file.write_all(format!("{writer} {number}\n").as_bytes())
            .map_err(|error| failed("cannot write", &self.path, error))
    }

    /// Every commit that was acknowledged.
    pub fn rows(&self) -> Result<BTreeSet<Row>> {
        read(&self.path)
    }
}

/// Reads a ledger; a last line that was cut off was never finished, and does not count.
fn read(path: &Path) -> Result<BTreeSet<Row>> {
    let file = File::open(path).map_err(|error| failed("cannot read", path, error))?;
    let mut rows = BTreeSet::new();
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        line.clear();
        let read = reader
            .read_line(&mut line)
            .map_err(|error| failed("cannot read", path, error))?;
        if read == 0 || !line.ends_with('\n') {
            return Ok(rows);
        }
        let row = line
            .trim_end()
            .split_once(' ')
            .and_then(|(writer, number)| Some((writer.parse().ok()?, number.parse().ok()?)));
        rows.extend(row);
    }
}

fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    Error::new(
        Code::LocalFileFailed,
        format!("{what} the ledger {}", path.display()),
    )
    .because(error)
}

/// What became of the commits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    pub acknowledged: u64,
    /// Acknowledged, and not there.
    pub missing: u64,
    /// There, and never acknowledged.
    pub unexpected: u64,
    /// All of the missing, in order.
    pub missing_rows: Vec<Row>,
}

impl Balance {
    /// Compares what was acknowledged with what is there.
    pub fn of(acknowledged: &BTreeSet<Row>, there: &BTreeSet<Row>) -> Self {
        let missing: Vec<Row> = acknowledged.difference(there).copied().collect();
        Self {
            acknowledged: acknowledged.len() as u64,
            missing: missing.len() as u64,
            unexpected: there.difference(acknowledged).count() as u64,
            missing_rows: missing,
        }
    }
}

/// The tables that a load writes, in the schema that is pgherd's own.
pub struct Tables;

impl Tables {
    /// Makes them, empty. What a load that was killed has left goes.
    pub async fn create(clients: &Clients) -> Result<()> {
        let own_schema = postgres::own_schema();
        postgres::refuse_strange(&clients.ask(&own_schema).await?)?;
        // What others may do to the new tables, default privileges decide: it is asked before anything is
        // written there.
        let made = clients
            .ask(&format!(
                "set client_min_messages = warning; \
                 drop table if exists pgherd.drill, pgherd.drill_probe; \
                 create table pgherd.drill (writer int, number bigint, primary key (writer, number)); \
                 create table pgherd.drill_probe (member text primary key, number bigint); \
                 {own_schema}"
            ))
            .await?;
        postgres::refuse_strange(&made)
    }

    pub async fn drop(clients: &Clients) -> Result<()> {
        clients
            .ask(
                "set client_min_messages = warning; \
                 drop table if exists pgherd.drill, pgherd.drill_probe",
            )
            .await
            .map(|_| ())
    }

    /// Every row that is there, as the leader has it.
    pub async fn rows(clients: &Clients) -> Result<BTreeSet<Row>> {
        let mut rows = BTreeSet::new();
        // Page by page: a long load leaves more than one answer should hold.
        let mut last: Row = (0, 0);
        loop {
            let (writer, number) = last;
            let page = clients
                .ask(&format!(
                    "select writer, number from pgherd.drill where (writer, number) > ({writer}, {number}) \
                     order by writer, number limit {PAGE}"
                ))
                .await?;
            for row in &page {
                let field = |at: usize| row.get(at).unwrap_or_default();
                let (Ok(writer), Ok(number)) = (field(0).parse(), field(1).parse()) else {
                    return Err(Error::new(
                        Code::StatementFailed,
                        "a row of pgherd.drill that makes no sense",
                    ));
                };
                last = (writer, number);
                rows.insert(last);
            }
            if page.len() < PAGE {
                return Ok(rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_acknowledged_is_read_back_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE);
        let ledger = Ledger::open(&path).expect("a ledger");
        for row in [(1, 1), (2, 1), (1, 2)] {
            ledger.acknowledge(row).expect("a line");
        }
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(ledger);
        // The process was killed in the middle of a line, and another goes on with the file.
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"1 30"))
            .expect("a torn line");
        let rows = Ledger::open(&path).and_then(|ledger| ledger.rows());
        assert_eq!(
            rows.expect("rows"),
            BTreeSet::from([(1, 1), (1, 2), (2, 1)])
        );
    }

    #[test]
    fn a_row_that_nobody_was_told_of_is_no_loss() {
        let told = BTreeSet::from([(1, 1), (1, 2), (2, 1)]);
        let there = BTreeSet::from([(1, 1), (2, 1), (2, 2)]);
        let balance = Balance::of(&told, &there);
        assert_eq!(balance.acknowledged, 3);
        assert_eq!((balance.missing, balance.unexpected), (1, 1));
        assert_eq!(balance.missing_rows, [(1, 2)]);
    }
}
