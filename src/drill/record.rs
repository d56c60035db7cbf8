//! What a drill measured, as `runs/<time>/drill.json` keeps it and `--json` prints it.
//!
//! All times named `t`, `from` and `to` are seconds since the drill's load began; everything else in
//! seconds is a duration. `docs/drills.md` documents the file for its readers: a change here is a
//! change there, and another [`FORMAT`] unless all that readers knew is still there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::event::Moment;

/// The version of the document's shape.
pub const FORMAT: u32 = 1;

/// The name of the document in a run's folder.
pub const FILE: &str = "drill.json";

/// One `pgherd drill`: every scenario that was run, as often as it was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub cluster: String,
    /// pgherd's own version.
    pub version: String,
    pub begun: jiff::Timestamp,
    pub settings: Settings,
    pub limits: Limits,
    /// In the order in which they were run.
    pub drills: Vec<Drill>,
    /// Per scenario, over its runs.
    pub summaries: Vec<Summary>,
    /// Whether every drill held.
    pub passed: bool,
}

/// The settings of the inventory that decide how long a failover takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Seconds, as the next two.
    pub ttl: u32,
    pub loop_wait: u32,
    pub retry_timeout: u32,
    pub synchronous: bool,
    pub failsafe: bool,
    pub tls: bool,
    pub members: usize,
    pub etcd: usize,
}

/// What a drill must not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds of refused writes; no limit where there is none.
    pub max_outage: Option<f64>,
    /// Acknowledged commits that may be missing.
    pub max_lost: u64,
}

/// One scenario, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    pub scenario: Scenario,
    /// Counts from 1.
    pub run: usize,
    /// The hosts that were broken.
    pub hosts: Vec<String>,
    /// When `t` was 0.
    pub begun: jiff::Timestamp,
    /// How clients got to HAProxy.
    pub route: Route,
    /// Seconds that writes may be refused by what the timing settings say.
    pub bound: f64,
    /// How replication was held up before the fault, where it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<Hold>,
    pub measured: Measured,
    /// Why it does not hold; empty when it does.
    pub failures: Vec<String>,
    pub samples: Samples,
    pub marks: Vec<Mark>,
    /// What each member was seen to be, asked directly: sorted by member, then time, without gaps
    /// from the member's first answer to the end.
    pub bands: Vec<Band>,
}

/// The way from here to a port of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A connection to the address that clients use.
    Direct,
    /// Through the host's SSH connection, where no port can be reached from here.
    Ssh,
}

/// The numbers of one drill.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The longest time, from the fault on, in which no write at all was acknowledged: from the last
    /// one before to the first one after.
    pub write_outage: f64,
    pub read_outage: f64,
    /// The same for whichever single client had it worst: one may hang on a dead connection while
    /// others work.
    pub worst_writer: f64,
    pub worst_reader: f64,
    /// The longest time without an acknowledged write before the fault: what is noise here.
    pub write_baseline: f64,
    pub read_baseline: f64,
    /// Every time without an acknowledged write that was longer than [`GAP`].
    pub write_gaps: Vec<Span>,
    pub read_gaps: Vec<Span>,
    /// How often what went wrong, by kind (`refused`, `timeout`, `read_only`, …).
    pub write_errors: BTreeMap<String, u64>,
    pub read_errors: BTreeMap<String, u64>,
    /// Commits that the writers were told of.
    pub acknowledged: u64,
    /// Acknowledged, and not there afterwards.
    pub missing: u64,
    /// There, and never acknowledged: their answers were lost. Legitimate.
    pub unexpected: u64,
    /// The first few of the missing, as `writer/number`.
    pub missing_rows: Vec<String>,
    /// From the first acknowledgement of a missing commit to the last; none where none is missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missing_span: Option<Span>,
    /// Seconds from the fault until a write was acknowledged on a newer timeline, by whoever was
    /// promoted; none where the leader stayed.
    pub new_leader: Option<f64>,
    /// Seconds until all members stream and both ports lead where they should: from the moment the
    /// fault was lifted, or from the fault itself where there is nothing to lift. None where that
    /// never came.
    pub whole: Option<f64>,
    pub leader_before: Option<String>,
    pub leader_after: Option<String>,
    pub timeline_before: Option<u32>,
    pub timeline_after: Option<u32>,
    /// Writes that one member accepted although another had accepted writes as its successor.
    pub two_leaders: Vec<Conflict>,
}

/// Replication that was held up until the fault.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    pub from: f64,
    /// The fault: nobody lets replication go on before it.
    pub to: f64,
    /// Bytes of WAL that even the best replica did not have at the end of it.
    pub behind: u64,
    /// Bytes that a replica may lack and still take over: `maximum_lag_on_failover`.
    pub limit: u64,
    /// The longest time in it without an acknowledged commit.
    pub waited: f64,
}

/// Shorter times without an acknowledgement are not listed: seconds.
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
    /// Who accepted it; none when it went through HAProxy.
    pub member: Option<String>,
    pub timeline: u32,
    /// The timeline on which writes had been accepted before.
    pub newer: u32,
    pub newer_member: Option<String>,
}

/// What clients got, per `step_ms`; the lists are equally long, and the first begins at `t` = 0.
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

/// What one member was for some time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Band {
    pub member: String,
    pub role: Seen,
    pub from: f64,
    pub to: f64,
}

/// What a member shows itself to be, to a client that asks it directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It committed a write.
    Leader,
    /// It is no replica, but a write did not come to its end in time.
    Stalled,
    /// It answers and is in recovery.
    Replica,
    /// PostgreSQL says that it starts, stops or takes nobody.
    Refusing,
    /// The host answers that nobody listens, or there is no answer at all.
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
}

/// Seconds over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub worst: f64,
}

impl Spread {
    /// The spread of `values`; none of none.
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
    /// A summary per scenario, in the order in which scenarios were first run.
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
