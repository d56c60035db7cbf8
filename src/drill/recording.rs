//! Records what clients and probers see, as it happens.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::{client_error::ClientError, record::Seen};
use crate::inventory::HostName;

/// One attempt of a client. Times are seconds since the load began.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub client: u32,
    /// The number of this client's attempt, from 1; a writer uses it for its row.
    pub number: u64,
    pub kind: Kind,
    pub from: f64,
    pub to: f64,
    /// Whether it failed before the client was connected.
    pub refused: bool,
    /// For a write, the timeline on which it was committed.
    pub result: Result<Option<u32>, ClientError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write,
    Read,
    /// A write through the poolers.
    Pooled,
}

/// One direct look at a member. Times are seconds since the load began.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub member: HostName,
    pub from: f64,
    pub to: f64,
    pub seen: Seen,
    /// For a leader: the timeline on which it committed.
    pub timeline: Option<u32>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Sorted by their ends.
    pub attempts: Vec<Attempt>,
    /// Sorted by their ends.
    pub probes: Vec<Probe>,
    /// When it ended.
    pub length: f64,
}

/// What clients get now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Now.
    pub t: f64,
    /// Acknowledged so far.
    pub writes: u64,
    pub reads: u64,
    /// When the last write was acknowledged.
    pub last_write: f64,
    /// When the last write ended without an acknowledgement.
    pub last_refused: Option<f64>,
    /// The newest timeline on which a write was committed.
    pub timeline: Option<u32>,
    /// The member that last committed a write, and its timeline.
    pub leader: Option<(HostName, u32)>,
}

/// A clock, and everything seen since it was started.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    begun: jiff::Timestamp,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    recording: Recording,
    view: View,
}

impl Recorder {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            begun: jiff::Timestamp::now(),
            inner: Mutex::default(),
        }
    }

    /// Seconds since the start.
    pub fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// The calendar time of the start.
    pub fn begun(&self) -> jiff::Timestamp {
        self.begun
    }

    pub fn attempt(&self, attempt: Attempt) {
        let mut inner = self.inner();
        let view = &mut inner.view;
        match (attempt.kind, &attempt.result) {
            (Kind::Write, Ok(timeline)) => {
                view.writes += 1;
                view.last_write = attempt.to;
                view.timeline = view.timeline.max(*timeline);
            }
            (Kind::Write, Err(_)) => view.last_refused = Some(attempt.to),
            (Kind::Read, Ok(_)) => view.reads += 1,
            (Kind::Read, Err(_)) | (Kind::Pooled, _) => {}
        }
        inner.recording.attempts.push(attempt);
    }

    pub fn probe(&self, probe: Probe) {
        let mut inner = self.inner();
        if let (Seen::Leader, Some(timeline)) = (probe.seen, probe.timeline) {
            inner.view.leader = Some((probe.member.clone(), timeline));
            inner.view.timeline = inner.view.timeline.max(Some(timeline));
        }
        inner.recording.probes.push(probe);
    }

    pub fn view(&self) -> View {
        let mut view = self.inner().view.clone();
        view.t = self.now();
        view
    }

    /// Everything up to now.
    pub fn recording(&self) -> Recording {
        let mut recording = self.inner().recording.clone();
        recording.length = self.now();
        recording
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
