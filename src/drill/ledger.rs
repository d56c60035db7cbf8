//! The ledger of acknowledged commits, and its comparison with the table after the drill.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::clients::{Clients, Target};
use crate::{
    contract::POOLER_USER,
    error::{Code, Error, Result},
    inventory::HostName,
    services::postgres::{self, Sql},
    sql::literal,
};

/// The ledger's name in a run's folder.
pub(super) const FILE: &str = "acknowledged";

/// How many rows are fetched at a time.
const PAGE: usize = 50_000;

/// The table that is dropped on purpose. Only a run that has taken the cluster uses it.
pub(super) const DROPPED: &str = "pgherd.drill_dropped";

/// Removes what is left of it.
pub(super) fn removal_of_dropped() -> String {
    format!("set client_min_messages = warning; drop table if exists {DROPPED}")
}

/// A commit: the writer's number, and the row's number.
pub type Row = (u32, u64);

/// An append-only file with a line, `writer number`, for every acknowledged commit.
///
/// A line is written as soon as the answer is there, and before the writer continues. It is not synced, because
/// only the cluster's machines may die, not this one.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
}

impl Ledger {
    /// Begins a ledger at `path`, or continues an existing one.
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

    /// Records an acknowledged commit.
    pub fn acknowledge(&self, (writer, number): Row) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write for the whole line, so that lines of two writers never mix.
        file.write_all(format!("{writer} {number}\n").as_bytes())
            .map_err(|error| failed("cannot write", &self.path, error))
    }

    /// Every commit that was acknowledged.
    pub fn rows(&self) -> Result<BTreeSet<Row>> {
        read(&self.path)
    }
}

/// Reads a ledger. An incomplete last line does not count.
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

/// The result of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    pub acknowledged: u64,
    /// Acknowledged, and missing.
    pub missing: u64,
    /// Present, and never acknowledged.
    pub unexpected: u64,
    /// All missing commits, in order.
    pub missing_rows: Vec<Row>,
}

impl Balance {
    /// Compares the acknowledged commits with the present ones.
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

/// Whether a load belongs to a run that has taken the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does: there is at most one at any time.
    Leased,
    /// It only watches, and there may be several.
    Watching,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Standing::Leased => "run",
            Standing::Watching => "watch",
        }
    }
}

/// After this time without a write to its tables, a load counts as dead, if nothing else is known.
const SILENCE: &str = "15 minutes";

/// The tables of one load, in pgherd's own schema: several loads may run at once.
#[derive(Debug, Clone)]
pub struct Tables {
    /// Every commit that a writer tried.
    pub ledger: String,
    /// When a prober was last at each member.
    pub probe: String,
}

impl Tables {
    /// The tables for a load that begins now.
    fn new(standing: Standing) -> Self {
        Self::named(&format!(
            "{}_{:016x}",
            standing.as_str(),
            rand::random::<u64>()
        ))
    }

    fn named(load: &str) -> Self {
        Self {
            ledger: format!("pgherd.drill_{load}"),
            probe: format!("pgherd.drill_probe_{load}"),
        }
    }

    /// Creates empty tables. Tables of killed loads are removed.
    pub async fn create(clients: &Clients, standing: Standing) -> Result<Self> {
        let own_schema = postgres::own_schema();
        postgres::refuse_strange(&clients.ask(&own_schema).await?)?;
        // What cannot be removed now is removed next time.
        drop(Self::clear(clients, standing).await);
        let tables = Self::new(standing);
        let Self { ledger, probe } = &tables;
        // Default privileges may give others access to the new tables, so this is checked before anything is
        // written there.
        let made = clients
            .ask(&format!(
                "create table if not exists {ledger} (writer int, number bigint, primary key (writer, number)); \
                 create table if not exists {probe} (member text primary key, number bigint, \
                 at timestamptz not null default clock_timestamp()); \
                 {own_schema}"
            ))
            .await?;
        if let Err(error) = postgres::refuse_strange(&made) {
            // The removal may fail; the first error is what matters.
            let _ = tables.drop(clients).await;
            return Err(error);
        }
        let pooled = match clients.pool() {
            Some(_) => format!(
                "grant usage on schema pgherd to {POOLER_USER}; grant insert on {ledger} to {POOLER_USER}; "
            ),
            None => String::new(),
        };
        clients
            .ask(&format!(
                "{pooled}insert into {probe} (member, number) values ('', 0) on conflict do nothing"
            ))
            .await?;
        Ok(tables)
    }

    /// Removes the tables of killed loads.
    ///
    /// There is only one load whose run has taken the cluster, so tables of others of that kind can go. For
    /// loads that only watch, the time decides.
    pub async fn clear(clients: &Clients, standing: Standing) -> Result<()> {
        // Asked once: another run may have removed tables in the meantime.
        let sql = clients.open(&Target::Write).await.map_err(|trouble| {
            Error::new(Code::StatementFailed, "cannot look for tables").cause(trouble.to_string())
        })?;
        let found = sql
            .query(
                "select relname from pg_class where relnamespace = 'pgherd'::regnamespace \
                 and relkind = 'r' and relname ~ '^drill(_probe)?(_(run|watch)_[0-9a-f]{16})?$'",
            )
            .await?;
        let found = found.iter().filter_map(|row| row.get(0));
        let loads: BTreeSet<&str> = found.filter_map(load_of).collect();
        if standing == Standing::Leased {
            sql.query(&removal_of_dropped()).await?;
        }
        for load in loads {
            // Tables of earlier versions have no load's name.
            let tables = match load {
                "" => Tables {
                    ledger: "pgherd.drill".into(),
                    probe: "pgherd.drill_probe".into(),
                },
                load => Tables::named(load),
            };
            let is_left = match standing {
                Standing::Leased if !load.starts_with(Standing::Watching.as_str()) => true,
                _ if load.is_empty() => false,
                // A table that is no load's is left alone, whatever its name.
                _ => is_silent(&sql, &tables).await.unwrap_or(false),
            };
            if is_left {
                sql.query(&tables.removal()).await?;
            }
        }
        Ok(())
    }

    pub async fn drop(&self, clients: &Clients) -> Result<()> {
        clients.ask(&self.removal()).await.map(|_| ())
    }

    fn removal(&self) -> String {
        let Self { ledger, probe } = self;
        format!("set client_min_messages = warning; drop table if exists {ledger}, {probe}")
    }

    /// A prober's write on `member`.
    pub fn touch(&self, member: &HostName) -> String {
        let (probe, member) = (&self.probe, literal(member.as_str()));
        format!(
            "insert into {probe} as probe (member, number) values ({member}, 1) on conflict (member) \
             do update set number = probe.number + 1, at = clock_timestamp()"
        )
    }

    /// All rows that exist, according to the leader.
    pub async fn rows(&self, clients: &Clients) -> Result<BTreeSet<Row>> {
        let ledger = &self.ledger;
        let mut rows = BTreeSet::new();
        // In pages: a long load leaves more rows than one answer should have.
        let mut last: Row = (0, 0);
        loop {
            let (writer, number) = last;
            let page = clients
                .ask(&format!(
                    "select writer, number from {ledger} where (writer, number) > ({writer}, {number}) \
                     order by writer, number limit {PAGE}"
                ))
                .await?;
            for row in &page {
                let field = |at: usize| row.get(at).unwrap_or_default();
                let (Ok(writer), Ok(number)) = (field(0).parse(), field(1).parse()) else {
                    return Err(Error::new(
                        Code::StatementFailed,
                        "a row of the ledger's table that makes no sense",
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

/// The load that a table belongs to, by the table's name.
fn load_of(table: &str) -> Option<&str> {
    let rest = table.strip_prefix("drill")?;
    let rest = rest.strip_prefix("_probe").unwrap_or(rest);
    Some(rest.strip_prefix('_').unwrap_or(rest))
}

/// Whether nothing has been written to the tables of a load for long. One of the two may be missing after an
/// interrupted removal.
async fn is_silent(sql: &Sql, tables: &Tables) -> Result<bool> {
    let probe = literal(&tables.probe);
    let there = format!("select 1 from pg_class where oid = to_regclass({probe})");
    if sql.query(&there).await?.is_empty() {
        return Ok(true);
    }
    let probe = &tables.probe;
    let late = format!(
        "select 1 from {probe} where at > clock_timestamp() - interval '{SILENCE}' limit 1"
    );
    Ok(sql.query(&late).await?.is_empty())
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
        // The process was killed in the middle of a line, and another one continues the file.
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
    fn every_load_has_tables_of_its_own_and_they_are_known_by_their_names() {
        let (one, other) = (Tables::new(Standing::Leased), Tables::new(Standing::Leased));
        assert_ne!(one.ledger, other.ledger);
        assert_ne!(one.probe, other.probe);
        for standing in [Standing::Leased, Standing::Watching] {
            let tables = Tables::new(standing);
            for table in [&tables.ledger, &tables.probe] {
                let name = table.strip_prefix("pgherd.").expect("in the schema");
                let load = load_of(name).expect("a load");
                assert!(load.starts_with(standing.as_str()), "{load}");
                assert_eq!(Tables::named(load).ledger, tables.ledger);
            }
        }
        assert_eq!(load_of("drill_probe"), Some(""), "of earlier versions");
        assert_eq!(load_of("proof"), None);
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
