//! What a drill measured: the content of `runs/<time>/drill.json` and the output of `--json`.
//!
//! All times named `t`, `from` and `to` are seconds since the drill's load began; all other seconds are
//! durations. `docs/drills.md` documents the file: a change here needs a change there, and another [`FORMAT`]
//! unless everything that readers knew is still there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::event::Moment;

/// The version of the document's structure.
pub const FORMAT: u32 = 1;

/// The name of the document in a run's folder.
pub const FILE: &str = "drill.json";

/// One `pgherd drill`: all scenarios that ran, with all their runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub cluster: String,
    /// pgherd's own version.
    pub version: String,
    pub begun: jiff::Timestamp,
    pub settings: Settings,
    pub limits: Limits,
    /// In the order in which they ran.
    pub drills: Vec<Drill>,
    /// For each scenario, over its runs.
    pub summaries: Vec<Summary>,
    /// Whether the cluster passed every drill.
    pub passed: bool,
}

/// The inventory's settings that decide how long a failover takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Seconds, like the next two.
    pub ttl: u32,
    pub loop_wait: u32,
    pub retry_timeout: u32,
    pub synchronous: bool,
    pub failsafe: bool,
    pub tls: bool,
    pub members: usize,
    pub etcd: usize,
}

/// The limits of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds of refused writes; `None` for no limit.
    pub max_outage: Option<f64>,
    /// How many acknowledged commits may be missing.
    pub max_lost: u64,
}

/// One run of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    pub scenario: Scenario,
    /// Counts from 1.
    pub run: usize,
    /// The hosts that were broken.
    pub hosts: Vec<String>,
    /// The time at which `t` was 0.
    pub begun: jiff::Timestamp,
    /// How clients reached HAProxy.
    pub route: Route,
    /// How many seconds the timing settings allow writes to be refused.
    pub bound: f64,
    /// How replication was delayed before the fault, if it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<Hold>,
    /// The WAL that waited for the repository, if the drill has cut that off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub archive: Option<Outage>,
    /// The table that the drill has dropped, if it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<Dropped>,
    pub measured: Measured,
    /// Why the cluster did not pass; empty if it passed.
    pub failures: Vec<String>,
    pub samples: Samples,
    pub marks: Vec<Mark>,
    /// The state of each member, asked directly: sorted by member, then time, without gaps from the member's
    /// first answer to the end.
    pub bands: Vec<Band>,
}

/// The way from this machine to a port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A connection to the address that clients use.
    Direct,
    /// Through the host's SSH connection, because the port cannot be reached from this machine.
    Ssh,
}

/// The numbers of one drill.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The longest time after the fault in which no write at all was acknowledged: from the last one before to
    /// the first one after.
    pub write_outage: f64,
    pub read_outage: f64,
    /// The same for the single client with the longest time: one may hang on a dead connection while others
    /// work.
    pub worst_writer: f64,
    pub worst_reader: f64,
    /// The longest time without an acknowledged write before the fault, which is the noise of the measurement.
    pub write_baseline: f64,
    pub read_baseline: f64,
    /// Every time without an acknowledged write that was longer than [`GAP`].
    pub write_gaps: Vec<Span>,
    pub read_gaps: Vec<Span>,
    /// How often each kind of error occurred (`refused`, `timeout`, `read_only`, …).
    pub write_errors: BTreeMap<String, u64>,
    pub read_errors: BTreeMap<String, u64>,
    /// How often a writer got no connection through the write port after the fault.
    #[serde(default)]
    pub writers_refused: u64,
    /// Commits that were acknowledged to the writers.
    pub acknowledged: u64,
    /// Acknowledged, and missing afterwards.
    pub missing: u64,
    /// Present, and never acknowledged: their answers were lost. This is no error.
    pub unexpected: u64,
    /// The first few missing commits, as `writer/number`.
    pub missing_rows: Vec<String>,
    /// From the first acknowledgement of a missing commit to the last; `None` if none is missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing_span: Option<Span>,
    /// Seconds from the fault until a write was acknowledged on a newer timeline, by any promoted member;
    /// `None` if the leader stayed.
    pub new_leader: Option<f64>,
    /// Seconds until all members stream and both ports lead to the right members: from the repair of the fault,
    /// or from the fault itself if there is nothing to repair. `None` if that never happened.
    pub whole: Option<f64>,
    pub leader_before: Option<String>,
    pub leader_after: Option<String>,
    pub timeline_before: Option<u32>,
    pub timeline_after: Option<u32>,
    /// Writes that one member accepted although another one had already accepted writes as its successor.
    pub two_leaders: Vec<Conflict>,
    /// What clients of the poolers saw; `None` without such clients.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pooled: Option<Pooled>,
}

/// Writers that connect through the poolers, in transaction mode.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pooled {
    pub clients: usize,
    /// Commits that were acknowledged to them. They count in [`Measured::acknowledged`] too.
    pub acknowledged: u64,
    /// The longest time after the fault in which none of them got an acknowledgement, in seconds.
    pub outage: f64,
    /// The longest time in which one of them got none.
    pub worst_client: f64,
    /// How often each kind of error occurred.
    pub errors: BTreeMap<String, u64>,
}

/// Replication that was delayed until the fault.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    pub from: f64,
    /// The time of the fault. The delay does not end before it.
    pub to: f64,
    /// Bytes of WAL that even the best replica lacked at the end of it.
    pub behind: u64,
    /// Bytes that a replica may lack and still take over: `maximum_lag_on_failover`.
    pub limit: u64,
    /// The longest time in it without an acknowledged commit.
    pub waited: f64,
}

/// WAL while the repository was away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outage {
    /// How many segments waited when it came back.
    pub waited: u64,
    /// The segments that are missing in it, once everything was sent.
    pub missing: Vec<String>,
}

/// A table of the drill's own that was dropped, and came back from the backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The moment that was restored: after the last row, and before the drop.
    pub moment: jiff::Timestamp,
    /// How many rows it had.
    pub rows: u64,
    /// How many of them did not come back.
    pub missing: u64,
    /// How many came back that it never had.
    pub unexpected: u64,
}

/// Shorter times without an acknowledgement are not listed; in seconds.
pub const GAP: f64 = 0.3;

/// From one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Span {
    pub from: f64,
    pub to: f64,
}

/// A write that should have been refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// When it was sent.
    pub t: f64,
    /// The member that accepted it; `None` if it went through HAProxy.
    pub member: Option<String>,
    pub timeline: u32,
    /// The timeline on which writes had been accepted before.
    pub newer: u32,
    pub newer_member: Option<String>,
}

/// What clients got, in steps of `step_ms`. The lists have the same length, and begin at `t` = 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Samples {
    pub step_ms: u32,
    pub writes_ok: Vec<u32>,
    pub writes_failed: Vec<u32>,
    pub reads_ok: Vec<u32>,
    pub reads_failed: Vec<u32>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    pub t: f64,
    pub moment: Moment,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
}

/// The state of a member for some time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Band {
    pub member: String,
    pub role: Seen,
    pub from: f64,
    pub to: f64,
}

/// The state of a member, as a client sees it that asks directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It committed a write.
    Leader,
    /// It is no replica, but a write was not completed in time.
    Stalled,
    /// It answers and is in recovery.
    Replica,
    /// PostgreSQL says that it is starting or stopping, or accepts no connections.
    Refusing,
    /// The host refuses the connection, or nothing answers at all.
    Down,
}

/// A scenario over all of its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub scenario: Scenario,
    pub runs: usize,
    pub passed: usize,
    pub bound: f64,
    pub write_outage: Spread,
    pub read_outage: Spread,
    /// Of the runs in which the leader changed.
    pub new_leader: Option<Spread>,
    pub whole: Option<Spread>,
    /// Over all runs together.
    pub acknowledged: u64,
    pub missing: u64,
    pub two_leaders: usize,
    /// The client of the poolers that waited longest in each run; `None` without such clients.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pooled_wait: Option<Spread>,
    /// The errors that clients of the poolers got, over all runs together.
    #[serde(default)]
    pub pooled_errors: u64,
    /// Connections of writers that failed, over all runs together.
    #[serde(default)]
    pub writers_refused: u64,
}

/// Seconds over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub worst: f64,
}

impl Spread {
    /// The spread of `values`; `None` for no values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let worst = *values.last()?;
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, worst })
    }
}

impl Summary {
    /// A summary for each scenario, in the order in which scenarios first ran.
    pub fn of(drills: &[Drill]) -> Vec<Self> {
        let mut scenarios: Vec<Scenario> = Vec::new();
        for drill in drills {
            if !scenarios.contains(&drill.scenario) {
                scenarios.push(drill.scenario);
            }
        }
        scenarios
            .into_iter()
            .filter_map(|scenario| {
                let runs: Vec<&Drill> = drills
                    .iter()
                    .filter(|drill| drill.scenario == scenario)
                    .collect();
                let spread = |value: fn(&Measured) -> Option<f64>| {
                    Spread::of(runs.iter().filter_map(|run| value(&run.measured)).collect())
                };
                Some(Self {
                    scenario,
                    runs: runs.len(),
                    passed: runs.iter().filter(|run| run.failures.is_empty()).count(),
                    bound: runs.first()?.bound,
                    write_outage: spread(|measured| Some(measured.write_outage))?,
                    read_outage: spread(|measured| Some(measured.read_outage))?,
                    new_leader: spread(|measured| measured.new_leader),
                    whole: spread(|measured| measured.whole),
                    acknowledged: runs.iter().map(|run| run.measured.acknowledged).sum(),
                    missing: runs.iter().map(|run| run.measured.missing).sum(),
                    two_leaders: runs.iter().map(|run| run.measured.two_leaders.len()).sum(),
                    writers_refused: runs.iter().map(|run| run.measured.writers_refused).sum(),
                    pooled_wait: spread(|measured| Some(measured.pooled.as_ref()?.worst_client)),
                    pooled_errors: runs
                        .iter()
                        .filter_map(|run| run.measured.pooled.as_ref())
                        .flat_map(|pooled| pooled.errors.values())
                        .sum(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(Spread::of(Vec::new()), None);
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!(
            spread,
            Some(Spread {
                median: 2.5,
                worst: 4.0
            })
        );
        assert_eq!(Spread::of(vec![9.0, 1.0, 2.0]).map(|s| s.median), Some(2.0));
    }
}
