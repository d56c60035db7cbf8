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
    inventory::{HostName, Place, Role},
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
    /// Where the backup is kept. Verdicts from before there could be two places do not have it.
    #[serde(default)]
    pub place: Option<Place>,
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

/// What the hosts of a cluster say about rehearsals of what is kept in one place.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rehearsals {
    /// The newest verdict of all.
    pub last: Option<Verdict>,
    /// The newest one without a fault.
    pub proof: Option<Verdict>,
    /// The host on which one is at work, of any place.
    pub at_work: Option<HostName>,
}

/// What one host says: a verdict for each place, and for each way in which they were kept before.
#[derive(Debug, Default, PartialEq)]
struct Said {
    verdicts: Vec<Verdict>,
    proofs: Vec<Verdict>,
    at_work: Option<HostName>,
}

/// The verdicts, each as one line of JSON, and the state of the unit.
const ASK: &str = r#"show() {
  what=$1
  shift
  for f in "$@"; do [ ! -e "$f" ] || printf '%s\t%s\n' "$what" "$(cat "$f")"; done
}
show last "$FOLDER"/verdict*.json
show proof "$FOLDER"/proof*.json
printf 'unit\t%s\n' "$(systemctl show -P ActiveState "$UNIT")""#;

/// The newest verdict on a host.
pub(crate) async fn last_on(host: &HostName, remote: &dyn Remote) -> Result<Option<Verdict>> {
    let said = on(host, remote).await?;
    Ok(said.verdicts.into_iter().max_by_key(|it| it.ended))
}

async fn on(host: &HostName, remote: &dyn Remote) -> Result<Said> {
    let script = Script::probe(format!("FOLDER={REHEARSAL} UNIT={UNIT}\n{ASK}"));
    let quiet = |_, _: &str| {};
    let said = remote.run(host, &script, ANSWER, &quiet).await?.stdout;
    read(host, &said)
}

fn read(host: &HostName, said: &str) -> Result<Said> {
    let mut it = Said::default();
    for (what, text) in said.lines().filter_map(|line| line.split_once('\t')) {
        match what {
            "last" => it.verdicts.push(verdict(host, text)?),
            "proof" => it.proofs.push(verdict(host, text)?),
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

/// What all hosts say that answer, for each place.
pub(crate) async fn everywhere(cluster: &Cluster, remote: &dyn Remote) -> Vec<Rehearsals> {
    let hosts = cluster.with_role(Role::Archive);
    let asked = join_all(hosts.map(|node| on(&node.name, remote))).await;
    let said: Vec<Said> = asked.into_iter().filter_map(Result::ok).collect();
    let places = cluster.inventory.backup.places();
    let each = places
        .iter()
        .map(|place| of(*place, places.len() == 1, &said));
    each.collect()
}

/// What the hosts have said of one place. A verdict that does not name its place counts where there is only one.
fn of(place: Place, only: bool, said: &[Said]) -> Rehearsals {
    let newest = |which: fn(&Said) -> &Vec<Verdict>| {
        let all = said.iter().flat_map(which);
        let here = all.filter(|it| it.place.map_or(only, |it| it == place));
        here.max_by_key(|it| it.ended).cloned()
    };
    Rehearsals {
        last: newest(|it| &it.verdicts),
        proof: newest(|it| &it.proofs),
        at_work: said.iter().find_map(|it| it.at_work.clone()),
    }
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
        let last = &it.verdicts[0];
        assert!(!last.is_proof() && last.host == "db2", "{last:?}");
        assert!(it.proofs[0].is_proof());
        let none = read(&host, "unit\tinactive\n").unwrap();
        assert_eq!(none, Said::default());
        assert!(read(&host, "last\t{}\n").is_err());
    }

    #[test]
    fn a_proof_is_of_one_place_and_an_old_one_of_the_only_place() {
        let host = HostName::new("db2");
        let placed = |place: &str, ended: i64| {
            let place = format!("{{\"place\": \"{place}\", ");
            PROVEN
                .replacen('{', &place, 1)
                .replace("130", &ended.to_string())
        };
        let said = [
            format!("proof\t{PROVEN}\nproof\t{}\n", placed("disk", 120)),
            format!("proof\t{}\n", placed("bucket", 110)),
        ];
        let said: Vec<Said> = said.iter().map(|it| read(&host, it).unwrap()).collect();
        let ended = |place: Place, only: bool| of(place, only, &said).proof.map(|it| it.ended);
        assert_eq!(ended(Place::Disk, true), Some(130));
        assert_eq!(ended(Place::Disk, false), Some(120));
        assert_eq!(ended(Place::Bucket, false), Some(110));
        assert_eq!(of(Place::Bucket, false, &said).last, None);
    }
}
