//! Computes the results of a drill from what its clients saw.
//!
//! Pure: the same recording gives the same numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ledger::{Balance, Row},
    record::{Band, Conflict, GAP, Mark, Measured, Pooled, Samples, Seen, Span},
    recording::{Attempt, Kind, Probe, Recording},
};
use crate::{event::Moment, quantity};

/// The length of a sample, in milliseconds.
const STEP: u32 = 100;
/// How many conflicts are listed.
const CONFLICTS: usize = 50;
/// How many missing commits are named.
const NAMED: usize = 20;

/// The numbers of a load during which something was done to the cluster at `fault`.
///
/// Clients do not see when the cluster became whole; these fields are left empty.
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
        writers_refused: writers_refused(recording, fault),
        acknowledged: balance.acknowledged,
        missing: balance.missing,
        unexpected: balance.unexpected,
        missing_rows: balance
            .missing_rows
            .iter()
            .take(NAMED)
            .map(|(writer, number)| format!("{writer}/{number}"))
            .collect(),
        missing_span: missing_span(recording, &balance.missing_rows),
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
        pooled: pooled(recording, fault),
    }
}

/// How often a writer got no connection to the write port after the fault.
fn writers_refused(recording: &Recording, fault: f64) -> u64 {
    let attempts = recording.attempts.iter();
    let refused = attempts.filter(|it| it.kind == Kind::Write && it.refused && it.to > fault);
    refused.count() as u64
}

/// What clients of the poolers saw, if there were any.
fn pooled(recording: &Recording, fault: f64) -> Option<Pooled> {
    let side = Side::of(recording, Kind::Pooled);
    (!side.by_client.is_empty()).then(|| Pooled {
        clients: side.by_client.len(),
        acknowledged: side.acknowledged.len() as u64,
        outage: side.outage(fault),
        worst_client: side.worst_client(fault),
        errors: side.errors,
    })
}

/// From the first to the last acknowledgement of these commits.
fn missing_span(recording: &Recording, missing: &[Row]) -> Option<Span> {
    let missing: BTreeSet<&Row> = missing.iter().collect();
    let told: Vec<f64> = recording
        .attempts
        .iter()
        .filter(|attempt| attempt.kind != Kind::Read && attempt.result.is_ok())
        .filter(|attempt| missing.contains(&(attempt.client, attempt.number)))
        .map(|attempt| attempt.to)
        .collect();
    Some(Span {
        from: *told.first()?,
        to: *told.last()?,
    })
}

/// The longest time without an acknowledged write between two moments.
pub fn longest_wait(recording: &Recording, within: Span) -> f64 {
    let writes = Side::of(recording, Kind::Write);
    let inside = |t: &f64| (within.from..within.to).contains(t);
    let mut times = vec![within.from];
    times.extend(writes.acknowledged.iter().copied().filter(inside));
    times.push(within.to);
    spans(&times)
        .map(|span| span.to - span.from)
        .fold(0.0, f64::max)
}

/// One kind of attempt.
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
                Err(error) => *side.errors.entry(error.to_string()).or_default() += 1,
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

/// The times between one acknowledgement and the next.
fn spans(times: &[f64]) -> impl Iterator<Item = Span> + '_ {
    times.windows(2).map(|pair| Span {
        from: pair[0],
        to: pair[1],
    })
}

/// The longest time without an acknowledgement that ends after `fault`. If none came again, it lasts until the
/// end.
fn longest(times: &[f64], fault: f64, end: f64) -> f64 {
    let last = times.last().copied().unwrap_or(0.0);
    // A client that was waiting for its answer when all clients stopped was not refused.
    let open = if end - last > GAP { end - last } else { 0.0 };
    spans(times)
        .filter(|span| span.to > fault)
        .map(|span| span.to - span.from)
        .fold(open, f64::max)
}

/// An accepted write, wherever it was sent.
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

/// Writes that prove a second leader: begun on an older timeline after a newer one had accepted a write, or
/// accepted by two members on one timeline.
///
/// A leader that steps down properly leaves none, however often leaders change: each promotion begins a new
/// timeline.
fn conflicts(recording: &Recording) -> Vec<Conflict> {
    // For each timeline, the first accepted write, and the member at which a prober first found it.
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

/// What clients noticed after `fault`, in order.
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

/// What clients got, in each tenth of a second.
pub fn samples(recording: &Recording) -> Samples {
    let step = f64::from(STEP) / 1000.0;
    let whole = |steps: f64| usize::try_from(quantity::whole(steps)).unwrap_or(usize::MAX);
    let count = whole((recording.length / step).ceil());
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
            (Kind::Pooled, _) => continue,
        };
        let at = whole(attempt.to / step);
        if let Some(sample) = list.get_mut(at) {
            *sample += 1;
        }
    }
    samples
}

/// The state of each member over time, as probers saw it.
pub fn bands(recording: &Recording) -> Vec<Band> {
    let mut members: BTreeMap<&str, Vec<Band>> = BTreeMap::new();
    for probe in &recording.probes {
        let bands = members.entry(probe.member.as_str()).or_default();
        match bands.last_mut() {
            Some(last) if last.role == probe.seen => last.to = probe.to,
            last => {
                // It is unknown when the state changed. At the time of this look it was this one.
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
mod tests;
