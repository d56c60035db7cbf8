//! Rehearsals of a restore, and what they have shown.

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

/// The verdict of the last rehearsal on a host; `None` if there was none.
pub(crate) async fn verdict(host: &HostName, remote: &dyn Remote) -> Result<Option<Verdict>> {
    let script = Script::probe(format!("cat {REHEARSAL}/verdict.json 2>/dev/null || true"));
    let quiet = |_, _: &str| {};
    let said = remote.run(host, &script, ANSWER, &quiet).await?.stdout;
    if said.trim().is_empty() {
        return Ok(None);
    }
    let mut verdict: Verdict = serde_json::from_str(&said).map_err(|error| {
        Error::new(
            Code::AnswerUnusable,
            format!("{REHEARSAL}/verdict.json cannot be read"),
        )
        .on(host)
        .cause(error.to_string())
    })?;
    verdict.host = host.to_string();
    Ok(Some(verdict))
}

/// The newest verdict of all hosts that answer.
pub(crate) async fn newest(cluster: &Cluster, remote: &dyn Remote) -> Option<Verdict> {
    let hosts = cluster.with_role(Role::Archive);
    let asked = join_all(hosts.map(|node| verdict(&node.name, remote))).await;
    let verdicts = asked.into_iter().filter_map(Result::ok).flatten();
    verdicts.max_by_key(|it| it.ended)
}
