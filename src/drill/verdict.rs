//! Decides whether the cluster passed a drill.

use std::{collections::BTreeMap, path::Path};

use super::{
    Scenario,
    record::{Drill, FILE, FORMAT, Limits, Measured, Outage, Pooled, Record, Settings, Summary},
};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::Role,
    quantity::{agree, count, duration},
    workspace,
};

/// Why the cluster does not pass; empty if it does.
pub fn judge(scenario: Scenario, measured: &Measured, limits: &Limits) -> Vec<String> {
    let mut failures = Vec::new();
    if measured.missing > limits.max_lost {
        failures.push(format!(
            "{} of {} {} missing",
            measured.missing,
            count(measured.acknowledged, "acknowledged commit"),
            agree(measured.missing, "is", "are")
        ));
    }
    if let Some(conflict) = measured.two_leaders.first() {
        let member = conflict.member.as_deref().unwrap_or("an earlier leader");
        failures.push(format!(
            "two leaders accepted writes: {member} still did on timeline {} when there was timeline {}",
            conflict.timeline, conflict.newer
        ));
    }
    if let Some(limit) = limits.max_outage
        && measured.write_outage > limit
    {
        failures.push(format!(
            "no write was acknowledged for {:.1} s; the limit is {limit:.1} s",
            measured.write_outage
        ));
    }
    if let Some(pooled) = &measured.pooled
        && scenario == Scenario::Switchover
        && !pooled.errors.is_empty()
    {
        failures.push(format!(
            "clients of the poolers got errors in a planned change of leader: {}",
            client_errors(&pooled.errors)
        ));
    }
    if measured.acknowledged == 0 {
        failures.push("no write was acknowledged at all".into());
    }
    // A drill that only watches does not know when the cluster should be whole.
    if measured.whole.is_none() && scenario != Scenario::Watch {
        failures.push("the cluster did not become whole again in time".into());
    }
    failures
}

/// Such as `3 closed, 1 timeout`.
pub fn client_errors(errors: &BTreeMap<String, u64>) -> String {
    let said: Vec<String> = errors
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    said.join(", ")
}

impl Pooled {
    /// One line for a person.
    pub fn in_words(&self) -> String {
        let errors = match self.errors.is_empty() {
            true => "no errors".to_owned(),
            false => client_errors(&self.errors),
        };
        format!(
            "{} of the poolers: {} acknowledged, {} at the longest without one, {errors}",
            count(self.clients as u64, "client"),
            count(self.acknowledged, "commit"),
            duration(self.worst_client)
        )
    }
}

impl Outage {
    /// Why the backups did not stand it; empty if they did.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.waited == 0 {
            failures.push("no WAL waited: the repository was not cut off".into());
        }
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            failures.push(format!("WAL is missing in the repository: {missing}"));
        }
        failures
    }
}

impl Settings {
    pub fn of(cluster: &Cluster) -> Self {
        let patroni = &cluster.inventory.patroni;
        Self {
            ttl: patroni.ttl,
            loop_wait: patroni.loop_wait,
            retry_timeout: patroni.retry_timeout,
            synchronous: patroni.synchronous,
            failsafe: patroni.failsafe,
            tls: cluster.tls.is_used(),
            members: cluster.with_role(Role::Postgres).count(),
            etcd: cluster.with_role(Role::Etcd).count(),
        }
    }
}

impl Record {
    /// The record of drills with their verdicts.
    pub fn of(
        cluster: &Cluster,
        begun: jiff::Timestamp,
        limits: Limits,
        drills: Vec<Drill>,
    ) -> Self {
        Self {
            format: FORMAT,
            cluster: cluster.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            begun,
            settings: Settings::of(cluster),
            limits,
            summaries: Summary::of(&drills),
            passed: drills.iter().all(|drill| drill.failures.is_empty()),
            drills,
        }
    }

    /// Writes the document into a run's folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_string(self).map_err(|error| {
            Error::new(
                Code::LocalFileFailed,
                format!("cannot write {}", path.display()),
            )
            .because(error)
        })?;
        workspace::private_file(&path, (text + "\n").as_bytes())
    }

    /// The error that names the failed drills; `None` if the cluster passed all.
    pub fn verdict(&self) -> Option<Error> {
        if self.passed {
            return None;
        }
        let what = format!("the cluster {} is not healthy", self.cluster);
        let mut error = Error::new(Code::DrillFailed, what);
        for drill in &self.drills {
            for failure in &drill.failures {
                error = error.cause(format!("{}, run {}: {failure}", drill.scenario, drill.run));
            }
        }
        if !self.settings.synchronous && self.drills.iter().any(|d| d.measured.missing > 0) {
            error = error.hint(
                "asynchronous replication can lose the last commits of a leader that dies; \
                 patroni: { synchronous: true } waits for a replica to have each",
            );
        }
        Some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Limits = Limits {
        max_outage: None,
        max_lost: 0,
    };

    fn good() -> Measured {
        Measured {
            acknowledged: 100,
            write_outage: 21.0,
            whole: Some(3.0),
            ..Measured::default()
        }
    }

    #[test]
    fn without_a_limit_an_outage_may_last() {
        assert_eq!(judge(Scenario::CrashHost, &good(), &NONE), [""; 0]);
        let limits = Limits {
            max_outage: Some(20.0),
            ..NONE
        };
        let failures = judge(Scenario::CrashHost, &good(), &limits);
        assert_eq!(
            failures,
            ["no write was acknowledged for 21.0 s; the limit is 20.0 s"]
        );
    }

    #[test]
    fn a_lost_commit_or_a_cluster_that_stays_broken_does_not_hold() {
        let measured = Measured {
            missing: 2,
            whole: None,
            ..good()
        };
        assert_eq!(judge(Scenario::CrashHost, &measured, &NONE).len(), 2);
        let limits = Limits {
            max_lost: 2,
            ..NONE
        };
        assert_eq!(judge(Scenario::CrashHost, &measured, &limits).len(), 1);
        assert_eq!(judge(Scenario::Watch, &measured, &limits), [""; 0]);
    }

    #[test]
    fn a_planned_change_of_leader_gives_clients_of_the_poolers_no_error() {
        let errors = BTreeMap::from([("closed".to_owned(), 2)]);
        let measured = Measured {
            pooled: Some(Pooled {
                errors,
                ..Pooled::default()
            }),
            ..good()
        };
        let failures = judge(Scenario::Switchover, &measured, &NONE);
        assert_eq!(failures.len(), 1);
        assert!(failures[0].ends_with("leader: 2 closed"), "{failures:?}");
        assert_eq!(judge(Scenario::KillLeader, &measured, &NONE), [""; 0]);
    }

    #[test]
    fn wal_that_is_missing_afterwards_is_named() {
        let good = Outage {
            waited: 5,
            missing: Vec::new(),
        };
        assert_eq!(good.failures(), [""; 0]);
        let lost = Outage {
            missing: vec!["000000010000000000000007".into()],
            ..good
        };
        assert_eq!(
            lost.failures(),
            ["WAL is missing in the repository: 000000010000000000000007"]
        );
        assert_eq!(Outage::default().failures().len(), 1);
    }

    #[test]
    fn the_document_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        let record = Record {
            format: FORMAT,
            cluster: "postgres".into(),
            version: "0.1.0".into(),
            begun: jiff::Timestamp::UNIX_EPOCH,
            settings: Settings {
                ttl: 30,
                loop_wait: 10,
                retry_timeout: 10,
                synchronous: false,
                failsafe: true,
                tls: true,
                members: 3,
                etcd: 1,
            },
            limits: NONE,
            drills: Vec::new(),
            summaries: Vec::new(),
            passed: true,
        };
        record.write(dir.path()).expect("written");
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(serde_json::from_str::<Record>(&text).ok(), Some(record));
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
