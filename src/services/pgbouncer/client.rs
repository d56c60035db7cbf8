//! Asks the console of PgBouncer on a host, over its Unix socket.

use std::{collections::BTreeMap, time::Duration};

use super::CONSOLE;
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    remote::{Remote, Script},
};

/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// What one PgBouncer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pools {
    /// `1.18.0`.
    pub version: String,
    pub clients: u64,
    /// Clients that wait for a connection to PostgreSQL.
    pub waiting: u64,
    /// For how many seconds the first of them has waited.
    pub longest_wait: u64,
    /// Connections to PostgreSQL.
    pub servers: u64,
}

impl Pools {
    /// Whether clients can prepare statements while they share connections.
    pub(super) fn prepares(&self) -> bool {
        let mut numbers = self.version.split('.').map(|it| it.parse().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(1), Some(21))
    }

    /// Reads the answers to `SHOW VERSION` and `SHOW POOLS`; `None` if they are something else.
    fn parse(text: &str) -> Option<Self> {
        let (version, pools) = text.split_once("\n\n")?;
        let version = version.lines().nth(1)?.strip_prefix("PgBouncer ")?;
        let mut read = Self {
            version: version.to_owned(),
            ..Self::default()
        };
        let mut lines = pools.lines();
        let names: Vec<&str> = lines.next()?.split('\t').collect();
        for line in lines.filter(|line| !line.is_empty()) {
            let row: BTreeMap<&str, &str> = names.iter().copied().zip(line.split('\t')).collect();
            // The console's own.
            if row.get("database") == Some(&"pgbouncer") {
                continue;
            }
            let number =
                |name: &str| -> Option<u64> { row.get(name).and_then(|it| it.parse().ok()) };
            let waiting = number("cl_waiting")?;
            read.waiting += waiting;
            read.clients += waiting + number("cl_active")?;
            read.longest_wait = read.longest_wait.max(number("maxwait").unwrap_or_default());
            for state in ["sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login"] {
                read.servers += number(state).unwrap_or_default();
            }
        }
        Some(read)
    }
}

pub(super) async fn ask(remote: &dyn Remote, host: &HostName) -> Result<Pools> {
    let script = Script::probe(format!("{CONSOLE} 'SHOW VERSION' 'SHOW POOLS'"));
    let quiet = |_, _: &str| {};
    let output = remote.run(host, &script, ANSWER, &quiet).await?;
    Pools::parse(&output.stdout).ok_or_else(|| {
        let said = output.stderr.lines().last().unwrap_or_default();
        let error = Error::new(Code::ServiceRefused, "PgBouncer's console says nothing");
        match said {
            "" => error,
            said => error.cause(said),
        }
        .on(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "version\nPgBouncer 1.18.0\n\n\
        database\tuser\tcl_active\tcl_waiting\tsv_active\tsv_idle\tsv_used\tsv_tested\tsv_login\tmaxwait\n\
        shop\tshop\t3\t2\t1\t2\t0\t0\t1\t7\n\
        shop\tpgherd_pooler\t0\t0\t0\t1\t0\t0\t0\t0\n\
        pgbouncer\tpgbouncer\t1\t0\t0\t0\t0\t0\t0\t0\n\n";

    #[test]
    fn clients_and_connections_are_counted_without_the_console() {
        let pools = Pools::parse(SAID).unwrap();
        let expected = Pools {
            version: "1.18.0".into(),
            clients: 5,
            waiting: 2,
            longest_wait: 7,
            servers: 5,
        };
        assert_eq!(pools, expected);
    }

    #[test]
    fn statements_are_prepared_from_1_21_on() {
        for (version, prepares) in [
            ("1.18.0", false),
            ("1.20.1", false),
            ("1.21.0", true),
            ("1.24.1", true),
            ("2.0", true),
            ("", false),
        ] {
            let pools = Pools {
                version: version.into(),
                ..Pools::default()
            };
            assert_eq!(pools.prepares(), prepares, "{version}");
        }
    }

    #[test]
    fn another_answer_is_none() {
        for text in ["", "\n\n", "version\nPgBouncer 1.18.0\n\n", "x\ny\n\nz\n"] {
            assert_eq!(Pools::parse(text), None, "{text:?}");
        }
        let broken = SAID.replace("\t3\t2\t", "\tx\ty\t");
        assert_eq!(Pools::parse(&broken), None);
    }
}
