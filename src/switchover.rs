//! A planned change of leader, with the preparation that makes it short.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    http::Http,
    inventory::HostName,
    plan, poll,
    remote::{Remote, Script},
    services::{
        haproxy, pgbouncer,
        postgres::patroni::{self, Patroni, Status},
    },
};

/// How long the candidate may take to become the leader.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How long the checkpoint before a hand-over may take.
pub const CHECKPOINT: Duration = Duration::from_secs(300);

/// How long Patroni may take to note a new synchronous standby: it looks once a loop, and is woken.
const NOTING: Duration = Duration::from_secs(15);
const NOTING_PAUSE: Duration = Duration::from_millis(500);

/// How long every HAProxy may take to lead to the new leader, before the poolers' clients go on.
const SEEN: Duration = Duration::from_secs(10);

/// The present leader and the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    pub from: HostName,
    pub to: HostName,
}

impl Handover {
    /// The handover to `wanted`, or to the best replica; `None` if `wanted` is already the leader.
    pub fn plan(
        survey: &BTreeMap<HostName, Result<Status>>,
        wanted: Option<&HostName>,
    ) -> Result<Option<Self>> {
        let from = patroni::leader_of(survey)
            .ok_or_else(|| Error::new(Code::NoLeader, "the cluster has no leader"))?;
        let status = survey[from].as_ref().map_err(|_| {
            Error::new(Code::PatroniUnreachable, "the leader does not answer").on(from)
        })?;
        if wanted == Some(from) {
            return Ok(None);
        }
        let to = match wanted {
            Some(wanted) => refuse_unfit(status, from, wanted)?,
            None => best(survey, status, from)?,
        };
        Ok(Some(Self {
            from: from.clone(),
            to: to.clone(),
        }))
    }

    /// An error if the plan is no longer possible.
    pub fn still(&self, survey: &BTreeMap<HostName, Result<Status>>) -> Result<()> {
        let changed = || {
            Error::new(
                Code::ClusterChanged,
                "the cluster has changed since you were asked",
            )
            .left("nothing was changed")
            .hint("run the same command again: it says what it would do now")
        };
        let now = Self::plan(survey, Some(&self.to)).map_err(|error| changed().because(error))?;
        match now {
            Some(now) if now == *self => Ok(()),
            Some(Self { from, .. }) => Err(changed().cause(format!(
                "{} led when you were asked, and {from} leads now",
                self.from
            ))),
            None => Err(changed().cause(format!("{} leads already", self.to))),
        }
    }

    /// Hands over, and returns when the candidate leads. All planned changes of leader go through this
    /// function.
    ///
    /// A clean stop waits for a checkpoint. This checkpoint is made before, while writes continue. If it fails,
    /// the hand-over only takes longer.
    ///
    /// New clients of HAProxy wait until it knows the new leader. Clients of poolers wait from the end of their
    /// transactions until every HAProxy leads to the candidate. If their transactions do not end, there is no
    /// hand-over.
    pub async fn run(
        &self,
        http: &Http,
        remote: &dyn Remote,
        cluster: &Cluster,
        limit: Duration,
    ) -> Result<()> {
        drop(checkpoint(&self.from, cluster, remote, CHECKPOINT).await);
        let held = pgbouncer::hold(cluster, remote, pgbouncer::AT_MOST).await?;
        let drained = haproxy::drain::drain(cluster, remote, &self.from).await;
        let done = self.change(http, cluster, limit).await;
        if done.is_ok() {
            seen(&self.to, http, cluster).await;
        }
        tokio::join!(held.release(), drained.release());
        done
    }
}

impl Handover {
    async fn change(&self, http: &Http, cluster: &Cluster, limit: Duration) -> Result<()> {
        match self.ask(http, cluster).await {
            // A stop may take longer than the time limit for an answer. It continues anyway.
            Err(error) if error.code() != Code::ServiceTimedOut => return Err(error),
            _ => {}
        }
        let leads = poll::until(limit, Duration::from_millis(100), || async {
            let status = Patroni::on(http, &self.to).status().await;
            match status.is_ok_and(|status| status.is_primary()) {
                true => Ok(()),
                false => Err(()),
            }
        });
        leads.await.map_err(|_| {
            Error::new(
                Code::NotPromoted,
                format!("{} did not become the leader", self.to),
            )
            .on(&self.from)
        })
    }
}

impl Handover {
    /// Asks Patroni for it. A standby that has just come is synchronous to PostgreSQL a loop before Patroni notes in
    /// the DCS that it may lead.
    async fn ask(&self, http: &Http, cluster: &Cluster) -> Result<()> {
        let leader = Patroni::on(http, &self.from);
        let asked = poll::until(NOTING, NOTING_PAUSE, || async {
            match leader.switchover(cluster, &self.from, &self.to).await {
                Err(error) if error.code() == Code::NoCandidate => {
                    let patch = json!({"loop_wait": cluster.inventory.patroni.loop_wait});
                    drop(leader.patch_config(cluster, &patch).await);
                    Err(error)
                }
                asked => Ok(asked),
            }
        });
        asked.await.unwrap_or_else(|over| Err(over.last))
    }
}

/// Waits until every HAProxy leads writes to a member. `verify` tells if one never does.
pub(crate) async fn seen(leader: &HostName, http: &Http, cluster: &Cluster) {
    let seen = poll::until(SEEN, Duration::from_millis(100), || async {
        let doors = haproxy::everywhere(http, cluster).await;
        let leads = |servers: &[haproxy::Server]| {
            let mut writes = servers.iter().filter(|it| it.listener == haproxy::WRITE);
            writes.all(|it| it.is_up() == (it.name == leader.as_str()))
        };
        // Clients cannot come through one that is dead.
        let mut answers = doors.iter().filter_map(|(_, it)| it.as_ref().ok());
        let all = answers.all(|it| leads(it));
        if all { Ok(()) } else { Err(()) }
    });
    drop(seen.await);
}

/// Makes PostgreSQL on `host` write its dirty buffers to disk, which a clean stop would have to wait for.
///
/// A large checkpoint takes long, and does no harm.
pub async fn checkpoint(
    host: &HostName,
    cluster: &Cluster,
    remote: &dyn Remote,
    limit: Duration,
) -> Result<()> {
    let script = plan::local_sql(Script::new(), cluster, "checkpoint");
    let silent = |_, _: &str| {};
    let output = remote.run(host, &script, limit, &silent).await?;
    if output.success() {
        return Ok(());
    }
    Err(Error::new(
        Code::StatementFailed,
        "the leader does not make a checkpoint",
    )
    .on(host)
    .excerpt("stderr", output.stderr))
}

/// Whether a standby has every acknowledged commit. In synchronous mode only such a standby may take over.
fn is_synchronous(leader: &Status, member: &HostName) -> bool {
    leader.replication.iter().any(|replica| {
        replica.application_name == member.as_str()
            && matches!(replica.sync_state.as_str(), "sync" | "quorum")
    })
}

fn has_synchronous(leader: &Status) -> bool {
    leader
        .replication
        .iter()
        .any(|replica| matches!(replica.sync_state.as_str(), "sync" | "quorum"))
}

fn refuse_unfit<'a>(
    leader: &Status,
    from: &HostName,
    wanted: &'a HostName,
) -> Result<&'a HostName> {
    if !leader.streams_to(wanted) {
        return Err(Error::new(
            Code::NoCandidate,
            format!("{from} does not stream to {wanted}"),
        )
        .hint("see who does: pgherd status"));
    }
    if has_synchronous(leader) && !is_synchronous(leader, wanted) {
        return Err(Error::new(
            Code::NoCandidate,
            format!(
                "{wanted} is not the synchronous standby, and Patroni promotes no other member"
            ),
        )
        .hint("leave --to out: then the synchronous standby becomes the leader"));
    }
    Ok(wanted)
}

/// The synchronous standby; without one, the replica with the least lag.
fn best<'a>(
    survey: &'a BTreeMap<HostName, Result<Status>>,
    leader: &Status,
    from: &HostName,
) -> Result<&'a HostName> {
    survey
        .iter()
        .filter(|(host, _)| *host != from && leader.streams_to(host))
        .max_by_key(|(host, status)| {
            let replayed = status
                .as_ref()
                .ok()
                .and_then(|status| status.xlog.replayed_location);
            (is_synchronous(leader, host), replayed)
        })
        .map(|(host, _)| host)
        .ok_or_else(|| {
            Error::new(Code::NoCandidate, "no replica that could take over streams").on(from)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::postgres::patroni::{Replication, Xlog};

    fn status(role: &str, replayed: u64) -> Status {
        Status {
            state: "running".into(),
            role: role.into(),
            timeline: Some(1),
            xlog: Xlog {
                replayed_location: Some(replayed),
                ..Xlog::default()
            },
            ..Status::default()
        }
    }

    fn streams(name: &str, sync_state: &str) -> Replication {
        Replication {
            application_name: name.into(),
            state: "streaming".into(),
            sync_state: sync_state.into(),
            usename: "replicator".into(),
        }
    }

    /// node1 leads; node2 is nearer than node3; node4 does not stream.
    fn survey(sync: &str) -> BTreeMap<HostName, Result<Status>> {
        let mut leader = status("primary", 0);
        leader.replication = vec![streams("node2", "async"), streams("node3", sync)];
        BTreeMap::from([
            (HostName::new("node1"), Ok(leader)),
            (HostName::new("node2"), Ok(status("replica", 200))),
            (HostName::new("node3"), Ok(status("replica", 100))),
            (HostName::new("node4"), Ok(status("replica", 300))),
        ])
    }

    fn to(survey: &BTreeMap<HostName, Result<Status>>, wanted: Option<&str>) -> Result<String> {
        let wanted = wanted.map(HostName::new);
        Ok(Handover::plan(survey, wanted.as_ref())?
            .map_or_else(|| "nobody".to_owned(), |handover| handover.to.to_string()))
    }

    #[test]
    fn the_nearest_replica_takes_over_unless_another_is_synchronous() {
        assert_eq!(to(&survey("async"), None).expect("one"), "node2");
        assert_eq!(to(&survey("sync"), None).expect("one"), "node3");
    }

    #[test]
    fn a_handover_is_refused_once_the_cluster_is_another() {
        let handover = Handover::plan(&survey("async"), None).unwrap().unwrap();
        assert!(handover.still(&survey("async")).is_ok());
        // node3 has less lag by now; node2, which the user agreed to, is still fit.
        let mut nearer = survey("async");
        nearer.insert(HostName::new("node3"), Ok(status("replica", 900)));
        assert!(handover.still(&nearer).is_ok());

        let mut failed_over = survey("async");
        let mut leader = status("primary", 0);
        leader.replication = vec![streams("node1", "async"), streams("node2", "async")];
        failed_over.insert(HostName::new("node3"), Ok(leader));
        failed_over.insert(HostName::new("node1"), Ok(status("replica", 0)));
        let mut leads = survey("async");
        leads.insert(
            HostName::new("node1"),
            Err(Error::new(Code::ServiceUnreachable, "no answer")),
        );
        leads.insert(HostName::new("node2"), Ok(status("primary", 0)));
        for (now, says) in [
            (failed_over, "node3 leads now"),
            (leads, "node2 leads already"),
            (survey("sync"), "not the synchronous standby"),
        ] {
            let error = handover.still(&now).expect_err(says);
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(error.left_behind(), Some("nothing was changed"));
        }
    }

    #[test]
    fn who_cannot_take_over_is_refused() {
        assert_eq!(to(&survey("async"), Some("node3")).expect("one"), "node3");
        assert_eq!(to(&survey("async"), Some("node1")).expect("one"), "nobody");
        let error = to(&survey("async"), Some("node4")).expect_err("it does not stream");
        assert!(error.what().contains("does not stream to node4"));
        let error = to(&survey("sync"), Some("node2")).expect_err("it may lack commits");
        assert!(error.what().contains("not the synchronous standby"));
    }
}
