//! Who changed a cluster, when, with what, and how it ended: lines that each host keeps (`remote/lease/hold.sh`).
//!
//! A run has two lines, one from its beginning and one from its end, on each host that it reached. The second one has
//! everything that the first has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{holder::Holder, inventory::HostName, mask::Masks, shell::quote};

/// The file on each host.
pub const HISTORY: &str = "/var/lib/pgherd/history.jsonl";

/// The longest text of a field, in characters.
const LONGEST: usize = 300;

/// A run that may change a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Distinguishes this run from all others.
    pub run: String,
    pub began: jiff::Timestamp,
    /// `user@machine`.
    pub by: String,
    /// The inventory, on that machine.
    pub inventory: String,
    pub verb: String,
    /// The verb with its options, as they were typed; secrets are masked.
    pub command: String,
    /// The version of pgherd.
    pub version: String,
    #[serde(default)]
    pub ended: Option<Ended>,
}

/// How a run has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub at: jiff::Timestamp,
    pub seconds: f64,
    /// The exit code, and the word of the error.
    pub exit_code: u8,
    #[serde(default)]
    pub error: Option<String>,
    /// The steps of its plans, and how many of them changed something.
    pub steps: usize,
    pub changes: usize,
}

impl Record {
    /// A run that begins. `words` are the arguments of the command line, without those before the verb.
    pub fn of(
        holder: &Holder,
        inventory: &str,
        words: impl Iterator<Item = String>,
        masks: &Masks,
    ) -> Self {
        let verb = &holder.verb;
        let mut words = words.skip_while(|word| word != verb).peekable();
        let command = match words.peek() {
            Some(_) => {
                let words: Vec<String> = words.map(|word| plain_or_quoted(&word)).collect();
                words.join(" ")
            }
            None => verb.clone(),
        };
        Self {
            run: holder.run.clone(),
            began: holder.since,
            by: holder.by.clone(),
            inventory: short(inventory),
            verb: verb.clone(),
            command: short(&masks.replace(command)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ended: None,
        }
    }

    /// One line of text without a line end.
    pub fn line(&self) -> String {
        // Serialising a struct of numbers and strings to JSON cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn plain_or_quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "@._+-/:=,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => quote(word),
    }
}

fn short(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    text.take(LONGEST).collect()
}

/// A run, and the hosts that know of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    #[serde(flatten)]
    pub record: Record,
    pub hosts: Vec<HostName>,
}

/// Joins what hosts have, the newest run first. Lines that are none of a run are left out.
pub fn merged<'a>(lines: impl Iterator<Item = (&'a HostName, &'a str)>) -> Vec<Told> {
    let mut runs: BTreeMap<String, Told> = BTreeMap::new();
    for (host, line) in lines {
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            continue;
        };
        let run = runs.entry(record.run.clone()).or_insert_with(|| Told {
            record: record.clone(),
            hosts: Vec::new(),
        });
        if !run.hosts.contains(host) {
            run.hosts.push(host.clone());
        }
        let at = |record: &Record| record.ended.as_ref().map(|ended| ended.at);
        if at(&record) > at(&run.record) {
            run.record = record;
        }
    }
    let mut runs: Vec<Told> = runs.into_values().collect();
    runs.sort_by(|one, other| {
        let key = |told: &Told| (told.record.began, told.record.run.clone());
        key(other).cmp(&key(one))
    });
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn record(verb: &str, words: &[&str]) -> Record {
        let masks = Masks::default();
        masks.add([&Secret::new("hunter22")]);
        let words = words.iter().map(|word| (*word).to_owned());
        Record::of(&Holder::now(verb), "/home/a/pgherd.yaml", words, &masks)
    }

    fn ended(record: &Record, second: i64, exit_code: u8) -> Record {
        let mut record = record.clone();
        record.ended = Some(Ended {
            at: jiff::Timestamp::from_second(1_790_000_000 + second).unwrap(),
            seconds: 1.5,
            exit_code,
            error: None,
            steps: 3,
            changes: 2,
        });
        record
    }

    #[test]
    fn a_command_is_told_as_it_was_typed_without_secrets() {
        let words = ["-i", "up.yaml", "up", "--yes", "--remove", "node 4"];
        assert_eq!(record("up", &words).command, "up --yes --remove 'node 4'");
        let words = ["restore", "--to", "hunter22\u{1b}[2J"];
        let told = record("restore", &words).command;
        assert!(told.contains("***") && !told.contains("hunter22"), "{told}");
        assert!(!told.contains('\u{1b}'));
        assert_eq!(record("rotate", &["something", "else"]).command, "rotate");
        let long = "x".repeat(1000);
        assert_eq!(record("up", &["up", &long]).command.len(), LONGEST);
    }

    #[test]
    fn lines_of_many_hosts_are_one_run_and_the_newest_comes_first() {
        let hosts = ["node1", "node2"].map(HostName::new);
        let mut first = record("up", &["up"]);
        first.began = jiff::Timestamp::from_second(1_790_000_000).unwrap();
        let mut second = record("drill", &["drill"]);
        second.began = jiff::Timestamp::from_second(1_790_000_100).unwrap();
        let (beside, done) = (ended(&first, 5, 1), ended(&first, 9, 0));
        let all = [
            (&hosts[0], first.line()),
            (&hosts[0], beside.line()),
            (&hosts[0], done.line()),
            (&hosts[1], done.line()),
            (&hosts[1], first.line()),
            (&hosts[1], second.line()),
            (&hosts[1], "{\"run\": 7}".to_owned()),
            (&hosts[1], String::new()),
        ];
        let told = merged(all.iter().map(|(host, line)| (*host, line.as_str())));
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].record, second, "it never ended");
        assert_eq!(told[0].hosts, hosts[1..]);
        assert_eq!(told[1].record, done, "the last word counts");
        assert_eq!(told[1].hosts, hosts);
    }
}
