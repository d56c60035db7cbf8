//! From what was seen to numbers.
//!
//! Pure: the same recording gives the same numbers.

use std::collections::BTreeMap;

use super::{
    ledger::Balance,
    record::{Band, Conflict, GAP, Mark, Measured, Samples, Seen, Span},
    tape::{Attempt, Kind, Probe, Recording},
};
use crate::event::Moment;

/// Milliseconds of one sample.
const STEP: u32 = 100;
/// Conflicts that are listed.
const CONFLICTS: usize = 50;

/// The numbers of a load during which, at `fault`, something was done to the cluster.
///
/// Whether and when the cluster became whole is not for clients to see: that is left empty.
pub fn measure(recording: &Recording, fault: f64, balance: &Balance) -> Measured {
    let writes = Side::of(recording, Kind::Write);
    let reads = Side::of(recording, Kind::Read);
    let leads = |probe: &&Probe| probe.seen == Seen::Leader;
    let before = recording
        .probes
        .iter()
        .filter(leads)
        .rfind(|probe| probe.to <= fault);
    let after = recording.probes.iter().rfind(leads);
    let timeline_before = before.and_then(|probe| probe.timeline);
    let name = |probe: &Probe| probe.member.to_string();
    Measured {
        write_outage: writes.outage(fault),
        read_outage: reads.outage(fault),
        worst_writer: writes.worst_client(fault),
        worst_reader: reads.worst_client(fault),
        write_baseline: writes.baseline(fault),
        read_baseline: reads.baseline(fault),
        write_gaps: writes.gaps(),
        read_gaps: reads.gaps(),
        write_errors: writes.errors,
        read_errors: reads.errors,
        acknowledged: balance.acknowledged,
        missing: balance.missing,
        unexpected: balance.unexpected,
        missing_rows: balance
            .missing_rows
            .iter()
            .map(|(writer, number)| format!("{writer}/{number}"))
            .collect(),
        new_leader: timeline_before.and_then(|before| new_leader(recording, fault, before)),
        whole: None,
        leader_before: before.map(name),
        leader_after: after.map(name),
        timeline_before,
        timeline_after: acceptances(recording)
            .iter()
            .map(|acceptance| acceptance.timeline)
            .max(),
        two_leaders: conflicts(recording),
    }
}

/// One kind of attempts.
struct Side {
    /// When each was acknowledged, in order.
    acknowledged: Vec<f64>,
    by_client: BTreeMap<u32, Vec<f64>>,
    errors: BTreeMap<String, u64>,
    end: f64,
}

impl Side {
    fn of(recording: &Recording, kind: Kind) -> Self {
        let mut side = Self {
            acknowledged: Vec::new(),
            by_client: BTreeMap::new(),
            errors: BTreeMap::new(),
            end: recording.length,
        };
        for attempt in recording.attempts.iter().filter(|a| a.kind == kind) {
            let client = side.by_client.entry(attempt.client).or_default();
            match &attempt.result {
                Ok(_) => {
                    client.push(attempt.to);
                    side.acknowledged.push(attempt.to);
                }
                Err(trouble) => *side.errors.entry(trouble.to_string()).or_default() += 1,
            }
        }
        side
    }

    fn outage(&self, fault: f64) -> f64 {
        longest(&self.acknowledged, fault, self.end)
    }

    fn worst_client(&self, fault: f64) -> f64 {
        self.by_client
            .values()
            .map(|acknowledged| longest(acknowledged, fault, self.end))
            .fold(0.0, f64::max)
    }

    fn baseline(&self, fault: f64) -> f64 {
        spans(&self.acknowledged)
            .filter(|span| span.to <= fault)
            .map(|span| span.to - span.from)
            .fold(0.0, f64::max)
    }

    fn gaps(&self) -> Vec<Span> {
        let last = self.acknowledged.last().copied().unwrap_or(0.0);
        let open = Span {
            from: last,
            to: self.end,
        };
        spans(&self.acknowledged)
            .chain([open])
            .filter(|span| span.to - span.from > GAP)
            .collect()
    }
}

/// From each acknowledgement to the next.
fn spans(times: &[f64]) -> impl Iterator<Item = Span> + '_ {
    times.windows(2).map(|pair| Span {
        from: pair[0],
        to: pair[1],
    })
}

/// The longest time without an acknowledgement that reaches beyond `fault`; one that never came back
/// lasts until the end.
fn longest(times: &[f64], fault: f64, end: f64) -> f64 {
    let last = times.last().copied().unwrap_or(0.0);
    // Whoever was about to be answered when everybody stopped was not refused.
    let open = if end - last > GAP { end - last } else { 0.0 };
    spans(times)
        .filter(|span| span.to > fault)
        .map(|span| span.to - span.from)
        .fold(open, f64::max)
}

/// A write that was accepted, wherever it was sent.
struct Acceptance<'a> {
    from: f64,
    to: f64,
    timeline: u32,
    member: Option<&'a str>,
}

fn acceptances(recording: &Recording) -> Vec<Acceptance<'_>> {
    let written = recording.attempts.iter().filter_map(|attempt: &Attempt| {
        Some(Acceptance {
            from: attempt.from,
            to: attempt.to,
            timeline: (*attempt.result.as_ref().ok()?)?,
            member: None,
        })
    });
    let probed = recording.probes.iter().filter_map(|probe| {
        Some(Acceptance {
            from: probe.from,
            to: probe.to,
            timeline: probe.timeline?,
            member: Some(probe.member.as_str()),
        })
    });
    let mut all: Vec<Acceptance<'_>> = written.chain(probed).collect();
    all.sort_by(|a, b| a.to.total_cmp(&b.to));
    all
}

fn new_leader(recording: &Recording, fault: f64, before: u32) -> Option<f64> {
    acceptances(recording)
        .iter()
        .find(|acceptance| acceptance.to > fault && acceptance.timeline > before)
        .map(|acceptance| acceptance.to - fault)
}

/// Writes that prove a second leader: begun on an older timeline after a newer one had accepted a
/// write, or accepted by two members on one timeline.
///
/// A leader that steps down in order leaves none, however often leaders change: each promotion is a
/// timeline of its own.
fn conflicts(recording: &Recording) -> Vec<Conflict> {
    // Of each timeline, the first acceptance and whom a prober found there first.
    let mut firsts: BTreeMap<u32, (f64, Option<&str>)> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for acceptance in acceptances(recording) {
        let newest = firsts
            .range(acceptance.timeline + 1..)
            .rfind(|(_, (first, _))| *first < acceptance.from);
        let usurper = newest.map(|(timeline, (_, member))| (*timeline, *member));
        let first = firsts
            .entry(acceptance.timeline)
            .or_insert((acceptance.to, None));
        let twin = match (first.1, acceptance.member) {
            (Some(first), Some(member)) if first != member => Some(first),
            (None, Some(member)) => {
                first.1 = Some(member);
                None
            }
            _ => None,
        };
        let newer = usurper.or(twin.map(|twin| (acceptance.timeline, Some(twin))));
        if let Some((newer, newer_member)) = newer
            && conflicts.len() < CONFLICTS
        {
            conflicts.push(Conflict {
                t: acceptance.from,
                member: acceptance.member.map(str::to_owned),
                timeline: acceptance.timeline,
                newer,
                newer_member: newer_member.map(str::to_owned),
            });
        }
    }
    conflicts
}

/// What clients noticed of what was done at `fault`, in order.
pub fn marks(recording: &Recording, fault: f64) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mark = |t, moment, host| Mark { t, moment, host };
    let writes = Side::of(recording, Kind::Write);
    let outage = writes
        .gaps()
        .into_iter()
        .filter(|gap| gap.to > fault)
        .max_by(|a, b| (a.to - a.from).total_cmp(&(b.to - b.from)));
    if let Some(outage) = outage {
        let refused = recording
            .attempts
            .iter()
            .filter(|attempt| attempt.kind == Kind::Write && attempt.result.is_err())
            .map(|attempt| attempt.to)
            .find(|t| *t > outage.from.max(fault) && *t < outage.to);
        marks.push(mark(
            refused.unwrap_or(outage.from.max(fault)),
            Moment::Refused,
            None,
        ));
        if writes.acknowledged.contains(&outage.to) {
            marks.push(mark(outage.to, Moment::Accepted, None));
        }
    }
    let before = recording
        .probes
        .iter()
        .rfind(|probe| probe.to <= fault && probe.timeline.is_some())
        .and_then(|probe| probe.timeline);
    if let Some(before) = before
        && let Some(after) = new_leader(recording, fault, before)
    {
        let host = recording
            .probes
            .iter()
            .find(|probe| probe.to > fault && probe.timeline > Some(before))
            .map(|probe| probe.member.to_string());
        marks.push(mark(fault + after, Moment::NewLeader, host));
    }
    marks.sort_by(|a, b| a.t.total_cmp(&b.t));
    marks
}

/// What clients got, per tenth of a second.
pub fn samples(recording: &Recording) -> Samples {
    let step = f64::from(STEP) / 1000.0;
    let count = (recording.length / step).ceil().max(0.0) as usize;
    let empty = || vec![0u32; count];
    let mut samples = Samples {
        step_ms: STEP,
        writes_ok: empty(),
        writes_failed: empty(),
        reads_ok: empty(),
        reads_failed: empty(),
    };
    for attempt in &recording.attempts {
        let list = match (attempt.kind, attempt.result.is_ok()) {
            (Kind::Write, true) => &mut samples.writes_ok,
            (Kind::Write, false) => &mut samples.writes_failed,
            (Kind::Read, true) => &mut samples.reads_ok,
            (Kind::Read, false) => &mut samples.reads_failed,
        };
        let at = (attempt.to / step).max(0.0) as usize;
        if let Some(sample) = list.get_mut(at) {
            *sample += 1;
        }
    }
    samples
}

/// What each member was seen to be, over time.
pub fn bands(recording: &Recording) -> Vec<Band> {
    let mut members: BTreeMap<&str, Vec<Band>> = BTreeMap::new();
    for probe in &recording.probes {
        let bands = members.entry(probe.member.as_str()).or_default();
        match bands.last_mut() {
            Some(last) if last.role == probe.seen => last.to = probe.to,
            last => {
                // Nobody knows when it changed; it was this by the time of this question.
                let from = match last {
                    Some(last) => {
                        last.to = probe.from;
                        probe.from
                    }
                    None => 0.0,
                };
                bands.push(Band {
                    member: probe.member.to_string(),
                    role: probe.seen,
                    from,
                    to: probe.to,
                });
            }
        }
    }
    let mut all = Vec::new();
    for mut bands in members.into_values() {
        if let Some(last) = bands.last_mut() {
            last.to = recording.length.max(last.to);
        }
        all.append(&mut bands);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drill::trouble::Trouble, inventory::HostName};

    fn write(client: u32, from: f64, to: f64, timeline: u32) -> Attempt {
        Attempt {
            client,
            kind: Kind::Write,
            from,
            to,
            result: Ok(Some(timeline)),
        }
    }

    fn refused(client: u32, to: f64) -> Attempt {
        Attempt {
            client,
            kind: Kind::Write,
            from: to - 0.01,
            to,
            result: Err(Trouble::Closed),
        }
    }

    fn probe(member: &str, from: f64, seen: Seen, timeline: Option<u32>) -> Probe {
        Probe {
            member: HostName::new(member),
            from,
            to: from + 0.01,
            seen,
            timeline,
        }
    }

    /// Two writers; the fault at 1.0 costs the first its connection until 4.0.
    fn failover() -> Recording {
        Recording {
            attempts: vec![
                write(1, 0.0, 0.1, 1),
                write(2, 0.4, 0.5, 1),
                write(1, 0.8, 0.9, 1),
                write(2, 0.9, 1.1, 1),
                refused(2, 1.5),
                refused(2, 2.0),
                write(2, 2.9, 3.1, 2),
                write(2, 3.2, 3.3, 2),
                write(1, 3.9, 4.0, 2),
            ],
            probes: vec![
                probe("node1", 0.5, Seen::Leader, Some(1)),
                probe("node2", 0.5, Seen::Replica, None),
                probe("node1", 1.5, Seen::Down, None),
                probe("node2", 1.6, Seen::Replica, None),
                probe("node2", 3.0, Seen::Leader, Some(2)),
            ],
            length: 4.1,
        }
    }

    #[test]
    fn an_outage_is_from_the_last_write_to_the_next() {
        let measured = measure(&failover(), 1.0, &Balance::default());
        assert!((measured.write_outage - 2.0).abs() < 1e-9);
        assert!((measured.worst_writer - 3.1).abs() < 1e-9);
        assert!((measured.write_baseline - 0.4).abs() < 1e-9);
        assert_eq!(
            measured.write_errors,
            BTreeMap::from([("closed".into(), 2)])
        );
        assert_eq!(measured.leader_before.as_deref(), Some("node1"));
        assert_eq!(measured.leader_after.as_deref(), Some("node2"));
        assert_eq!(
            (measured.timeline_before, measured.timeline_after),
            (Some(1), Some(2))
        );
        assert!((measured.new_leader.unwrap_or_default() - 2.01).abs() < 1e-9);
        assert_eq!(measured.two_leaders, []);
    }

    #[test]
    fn what_clients_noticed_is_in_order() {
        let marks = marks(&failover(), 1.0);
        let told: Vec<(Moment, Option<&str>)> = marks
            .iter()
            .map(|mark| (mark.moment, mark.host.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                (Moment::Refused, None),
                (Moment::NewLeader, Some("node2")),
                (Moment::Accepted, None),
            ]
        );
        assert!((marks[0].t - 1.5).abs() < 1e-9);
    }

    #[test]
    fn writes_that_never_come_back_are_an_outage_until_the_end() {
        let mut recording = failover();
        recording.attempts.truncate(4);
        recording.length = 60.0;
        let measured = measure(&recording, 1.0, &Balance::default());
        assert!((measured.write_outage - 58.9).abs() < 1e-9);
        assert_eq!(measured.write_gaps.last().map(|gap| gap.to), Some(60.0));
    }

    #[test]
    fn a_leader_that_writes_after_its_successor_is_found() {
        let mut recording = failover();
        // Under way when the new leader began: nothing can be said against it.
        recording.attempts.push(write(3, 2.9, 3.2, 1));
        assert_eq!(conflicts(&recording), []);
        // Begun after that.
        recording
            .probes
            .push(probe("node1", 3.5, Seen::Leader, Some(1)));
        let found = conflicts(&recording);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].member.as_deref(), Some("node1"));
        assert_eq!((found[0].timeline, found[0].newer), (1, 2));
    }

    #[test]
    fn two_members_on_one_timeline_are_two_leaders() {
        let mut recording = failover();
        recording
            .probes
            .push(probe("node3", 3.5, Seen::Leader, Some(2)));
        let found = conflicts(&recording);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].newer_member.as_deref(), Some("node2"));
    }

    #[test]
    fn leadership_may_go_back_on_a_timeline_of_its_own() {
        let mut recording = failover();
        recording
            .probes
            .push(probe("node1", 5.0, Seen::Leader, Some(3)));
        recording.attempts.push(write(1, 5.1, 5.2, 3));
        assert_eq!(conflicts(&recording), []);
    }

    #[test]
    fn samples_count_by_the_moment_of_the_answer() {
        let samples = samples(&failover());
        assert_eq!(samples.writes_ok.len(), 41);
        assert_eq!(samples.writes_ok.iter().sum::<u32>(), 7);
        assert_eq!(samples.writes_failed[15], 1);
        assert_eq!(samples.reads_ok.iter().sum::<u32>(), 0);
    }

    #[test]
    fn bands_have_no_holes() {
        let bands = bands(&failover());
        let node2: Vec<(Seen, f64, f64)> = bands
            .iter()
            .filter(|band| band.member == "node2")
            .map(|band| (band.role, band.from, band.to))
            .collect();
        assert_eq!(node2, [(Seen::Replica, 0.0, 3.0), (Seen::Leader, 3.0, 4.1)]);
    }
}
