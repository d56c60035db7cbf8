//! Finds the lines of a unit's journal that say what is wrong, rather than the last ones.
//!
//! A journal often ends with a traceback, or with what followed from the failure. The cause stands before it,
//! in a line that PostgreSQL or Patroni marks as severe.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    inventory::HostName,
    remote::{Remote, Script, quote},
};

/// How long a host may take to print the journal.
const ANSWER: Duration = Duration::from_secs(5);
/// How many of the severe lines are shown; without severe lines, how many of the last lines.
const MOST: usize = 10;
const LAST: usize = 12;

/// The end of a unit's journal, and of PostgreSQL's own log if it writes one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    /// `ActiveState=… SubState=… Result=… NRestarts=…`
    pub(crate) state: String,
    pub(crate) lines: Vec<String>,
}

/// Reads the journal; `None` if the host does not answer. `data_dir` is the data directory of a PostgreSQL in
/// the unit, which may write its log there (`logging_collector`).
pub(crate) async fn read(
    remote: &dyn Remote,
    host: &HostName,
    unit: &str,
    data_dir: Option<&str>,
) -> Option<Journal> {
    let unit = quote(unit);
    let mut script = Script::probe(format!(
        "systemctl show -p ActiveState,SubState,Result,NRestarts {unit} | tr '\\n' ' '; echo\n\
         journalctl --no-pager -q -o short-iso --since -30min -n 400 -u {unit} 2>/dev/null | cut -c 1-300\n"
    ));
    if let Some(dir) = data_dir {
        let dir = quote(dir);
        script = script.line(format!(
            "sed -n 's/^stderr //p' {dir}/current_logfiles 2>/dev/null | while read -r f; do\n\
             case $f in /*) ;; *) f={dir}/$f ;; esac\n\
             tail -n 100 \"$f\" | cut -c 1-300; done"
        ));
    }
    let silent = |_, _: &str| {};
    let output = remote.run(host, &script, ANSWER, &silent).await.ok()?;
    Some(Journal::parse(&output.stdout))
}

impl Journal {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(str::to_owned);
        Self {
            state: lines.next().unwrap_or_default().trim().to_owned(),
            lines: lines.collect(),
        }
    }

    /// Whether the unit runs and its journal has no severe line.
    pub(crate) fn is_calm(&self) -> bool {
        self.state.contains("ActiveState=active") && self.telling().is_empty()
    }

    /// The unit's state, and the lines that say what is wrong; without such lines, the last ones.
    pub(crate) fn excerpt(&self) -> String {
        let mut shown = vec![self.state.as_str()];
        let telling = self.telling();
        if telling.is_empty() {
            let from = self.lines.len().saturating_sub(LAST);
            shown.extend(self.lines[from..].iter().map(String::as_str));
        } else {
            shown.extend(telling);
        }
        shown.join("\n")
    }

    /// The latest severe lines in their order, each only once.
    fn telling(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let mut telling: Vec<&str> = self
            .lines
            .iter()
            .rev()
            .map(String::as_str)
            .filter(|line| is_severe(line) && seen.insert(gist(line)))
            .take(MOST)
            .collect();
        telling.reverse();
        telling
    }

    /// Why a replica can never follow its leader again with its present data.
    pub(crate) fn needs_reinit(&self) -> Option<&str> {
        let lines = self.lines.iter().rev().map(String::as_str);
        lines
            .take(120)
            .find(|line| LOST.iter().any(|it| line.contains(it)))
            .map(text_of)
    }

    /// The latest severe line, without time and process id.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.telling().last().map(|line| text_of(line))
    }
}

/// Messages of PostgreSQL and `pg_rewind` about data that no longer match the leader's.
const LOST: [&str; 10] = [
    "is not in this server's history",
    "is ahead of the WAL flush position of this server",
    "is not a child of this server's history",
    "has already been removed",
    "could not locate required checkpoint record",
    "could not locate a valid checkpoint record",
    "database system identifier differs between the primary and standby",
    "could not find common ancestor of the source and target cluster's timelines",
    "invalid checkpoint record",
    "WAL was generated with wal_level=minimal",
];

/// Lines that are marked as severe, but do not name a cause.
const IDLE: [&str; 9] = [
    // Patroni's line, which follows the message of PostgreSQL or pg_basebackup.
    "postmaster is not running",
    "Error when fetching backup: pg_basebackup exited with code",
    "failed to bootstrap from leader",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is not yet accepting connections",
    "terminating connection due to administrator command",
    "terminating walreceiver process due to administrator command",
    "terminating walreceiver due to administrator command",
];

fn is_severe(line: &str) -> bool {
    let marked = [
        "FATAL:",
        "PANIC:",
        "ERROR:",
        "CRITICAL:",
        "FATAL ",
        "CRITICAL ",
        "Error:",
        "Exception:",
        "error:",
        "fatal:",
        "panic:",
        "No space left on device",
        "Out of memory",
        "\"level\":\"fatal\"",
        "[ALERT]",
    ];
    marked.iter().any(|mark| line.contains(mark)) && !IDLE.iter().any(|it| line.contains(it))
}

/// The form by which two lines count as equal: without numbers.
fn gist(line: &str) -> String {
    text_of(line)
        .chars()
        .filter(|c| !c.is_ascii_digit())
        .collect()
}

/// A line of the journal, from its severity on.
fn text_of(line: &str) -> &str {
    let marks = ["PANIC:", "FATAL:", "ERROR:", "CRITICAL:", "LOG:"];
    match marks.iter().filter_map(|mark| line.find(mark)).min() {
        Some(at) => &line[at..],
        // `2026-11-26T13:05:14+0000 node1 patroni[123]: …`
        None => line.split_once("]: ").map_or(line, |(_, rest)| rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEBACK: &str = "\
ActiveState=activating SubState=auto-restart Result=exit-code NRestarts=3
2026-11-26T13:05:10+0000 node2 patroni[99]: 2026-11-26 13:05:10 UTC [101] FATAL:  could not map anonymous shared memory: Cannot allocate memory
2026-11-26T13:05:10+0000 node2 patroni[99]: 2026-11-26 13:05:10 UTC [101] HINT:  This error usually means something.
2026-11-26T13:05:11+0000 node2 patroni[99]: 2026-11-26 13:05:11 UTC [102] FATAL:  the database system is starting up
2026-11-26T13:05:12+0000 node2 patroni[99]: 2026-11-26 13:05:12 UTC [103] FATAL:  could not map anonymous shared memory: Cannot allocate memory
2026-11-26T13:05:13+0000 node2 patroni[99]: Traceback (most recent call last):
2026-11-26T13:05:13+0000 node2 patroni[99]:   File \"/opt/patroni/bin/patroni\", line 7, in <module>
2026-11-26T13:05:13+0000 node2 patroni[99]:     sys.exit(main())
2026-11-26T13:05:13+0000 node2 patroni[99]: patroni.exceptions.PatroniFatalException: Failed to bootstrap cluster
";

    #[test]
    fn the_cause_is_shown_and_not_the_end_of_a_traceback() {
        let journal = Journal::parse(TRACEBACK);
        let excerpt = journal.excerpt();
        assert_eq!(
            excerpt.matches("could not map anonymous").count(),
            1,
            "{excerpt}"
        );
        assert!(excerpt.starts_with("ActiveState=activating"), "{excerpt}");
        assert!(
            !excerpt.contains("sys.exit") && !excerpt.contains("starting up"),
            "{excerpt}"
        );
        assert!(excerpt.contains("Failed to bootstrap"), "{excerpt}");
        assert!(!journal.is_calm());
    }

    #[test]
    fn what_patroni_says_after_the_cause_is_not_the_cause() {
        let text = "ActiveState=active\n\
            t node2 patroni[9]: 2026-11-26 16:49:53.766 UTC [99] FATAL:  could not extend file \"base/5/16395\"\n\
            t node2 patroni[9]: 2026-11-26 16:49:54,837 ERROR: postmaster is not running\n";
        let cause = Journal::parse(text).cause().map(str::to_owned);
        assert!(cause.is_some_and(|it| it.contains("could not extend file")));
    }

    #[test]
    fn where_nothing_is_severe_the_last_lines_are_shown() {
        let lines: String = (0..30)
            .map(|n| format!("t node1 etcd[1]: line {n}\n"))
            .collect();
        let journal = Journal::parse(&format!("ActiveState=active SubState=running\n{lines}"));
        assert!(journal.is_calm());
        let excerpt = journal.excerpt();
        assert!(
            excerpt.contains("line 29") && !excerpt.contains("line 5\n"),
            "{excerpt}"
        );
        assert_eq!(excerpt.lines().count(), 1 + LAST);
    }

    #[test]
    fn a_replica_that_can_never_follow_again_is_recognised() {
        for said in [
            "FATAL:  requested starting point 0/5000000 on timeline 1 is not in this server's history",
            "ERROR:  requested starting point 0/9000000 is ahead of the WAL flush position of this server 0/8000000",
            "FATAL:  could not receive data from WAL stream: ERROR:  requested WAL segment 000000010000000000000003 has already been removed",
            "FATAL:  requested timeline 2 is not a child of this server's history",
            "FATAL:  database system identifier differs between the primary and standby",
            "PANIC:  could not locate a valid checkpoint record",
        ] {
            let text = format!("ActiveState=active\nt node2 patroni[9]: 2026-11-26 [7] {said}\n");
            let journal = Journal::parse(&text);
            assert_eq!(journal.needs_reinit(), Some(said));
        }
        assert_eq!(Journal::parse(TRACEBACK).needs_reinit(), None);
    }
}
