//! Rehearsals of a restore, and what they have shown.
//!
//! A unit of the host rehearses, so that nothing depends on pgherd's connection: by a timer, or because pgherd starts it.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::{
    cluster::Cluster,
    contract::REHEARSAL,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    remote::{Remote, Script},
};

/// Restores a moment in an instance of its own, and checks it.
pub(crate) const PROGRAM: &str = "/etc/pgherd/archive/rehearse";
/// Its unit.
pub(crate) const UNIT: &str = "pgherd-rehearse";
/// How long a host may take to show its verdict.
const ANSWER: Duration = Duration::from_secs(20);

/// What a rehearsal has shown. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub(crate) struct Verdict {
    /// The host on which it was.
    #[serde(default)]
    pub host: String,
    pub begun: i64,
    pub ended: i64,
    /// The moment that was restored; `None` for the newest state.
    pub moment: Option<i64>,
    /// The label of the backup.
    pub backup: Option<String>,
    /// What was restored, before recovery.
    pub bytes: Option<u64>,
    /// How long each phase took.
    pub seconds: BTreeMap<String, f64>,
    /// How many heartbeats are in the restored ledger, as in the running one.
    pub heartbeats: Option<u64>,
    /// For the newest state: the age of its newest heartbeat, which is what would have been lost.
    pub lost_seconds: Option<i64>,
    /// What is wrong, a sentence each. Empty if the restore is proven.
    pub wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_proof(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// What the hosts of a cluster say about rehearsals.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rehearsals {
    /// The newest verdict of all.
    pub last: Option<Verdict>,
    /// The newest one without a fault.
    pub proof: Option<Verdict>,
    /// The host on which one is at work.
    pub at_work: Option<HostName>,
}

/// The verdicts, each as one line of JSON, and the state of the unit.
const ASK: &str = r#"show() { [ ! -e "$1" ] || printf '%s\t%s\n' "$2" "$(cat "$1")"; }
show "$PLACE/verdict.json" last
show "$PLACE/proof.json" proof
printf 'unit\t%s\n' "$(systemctl show -P ActiveState "$UNIT")""#;

/// What one host says.
pub(crate) async fn on(host: &HostName, remote: &dyn Remote) -> Result<Rehearsals> {
    let script = Script::probe(format!("PLACE={REHEARSAL} UNIT={UNIT}\n{ASK}"));
    let quiet = |_, _: &str| {};
    let said = remote.run(host, &script, ANSWER, &quiet).await?.stdout;
    read(host, &said)
}

fn read(host: &HostName, said: &str) -> Result<Rehearsals> {
    let mut it = Rehearsals::default();
    for (what, text) in said.lines().filter_map(|line| line.split_once('\t')) {
        match what {
            "last" => it.last = Some(verdict(host, text)?),
            "proof" => it.proof = Some(verdict(host, text)?),
            "unit" if matches!(text, "activating" | "deactivating") => {
                it.at_work = Some(host.clone());
            }
            _ => {}
        }
    }
    Ok(it)
}

fn verdict(host: &HostName, text: &str) -> Result<Verdict> {
    let mut verdict: Verdict = serde_json::from_str(text).map_err(|error| {
        Error::new(
            Code::AnswerUnusable,
            format!("a verdict in {REHEARSAL} cannot be read"),
        )
        .on(host)
        .cause(error.to_string())
    })?;
    verdict.host = host.to_string();
    Ok(verdict)
}

/// What all hosts say that answer.
pub(crate) async fn everywhere(cluster: &Cluster, remote: &dyn Remote) -> Rehearsals {
    let hosts = cluster.with_role(Role::Archive);
    let asked = join_all(hosts.map(|node| on(&node.name, remote))).await;
    let mut all = Rehearsals::default();
    let newer = |one: Option<Verdict>, other: Option<Verdict>| {
        one.into_iter().chain(other).max_by_key(|it| it.ended)
    };
    for it in asked.into_iter().filter_map(Result::ok) {
        all.last = newer(all.last, it.last);
        all.proof = newer(all.proof, it.proof);
        all.at_work = all.at_work.or(it.at_work);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVEN: &str = r#"{"begun": 100, "ended": 130, "seconds": {"restore": 2.5}, "wrong": [], "moment": 90, "bytes": 7}"#;

    #[test]
    fn what_a_host_says_is_read() {
        let host = HostName::new("db2");
        let failed = PROVEN.replace("[]", "[\"recovery failed\"]");
        let said = format!("last\t{failed}\nproof\t{PROVEN}\nunit\tactivating\n");
        let it = read(&host, &said).unwrap();
        assert_eq!(it.at_work, Some(host.clone()));
        let last = it.last.unwrap();
        assert!(!last.is_proof() && last.host == "db2", "{last:?}");
        assert!(it.proof.unwrap().is_proof());
        let none = read(&host, "unit\tinactive\n").unwrap();
        assert_eq!(none, Rehearsals::default());
        assert!(read(&host, "last\t{}\n").is_err());
    }
}
