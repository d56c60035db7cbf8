//! When what happened in a drill.

use super::{
    Fault,
    record::{Dropped, Mark, Outage},
};
use crate::event::Moment;

/// The times of events, in seconds of the load.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// When replication was delayed, and how far behind the best replica was at the end.
    pub held_up: Option<f64>,
    pub behind: u64,
    pub fault: Option<f64>,
    pub repair: Option<f64>,
    pub whole: Option<f64>,
    pub archive: Option<Outage>,
    pub dropped: Option<Dropped>,
}

pub(super) fn all_marks(fault: &Fault, times: &Times, noticed: Vec<Mark>, end: f64) -> Vec<Mark> {
    let host = fault.hosts.first().map(ToString::to_string);
    let known = [
        (Some(0.0), Moment::Load, None),
        (times.held_up, Moment::HeldUp, host.clone()),
        (times.fault, Moment::Fault, host),
        (times.repair, Moment::Repair, None),
        (times.whole, Moment::Whole, None),
        (Some(end), Moment::End, None),
    ];
    let mut all: Vec<Mark> = known
        .into_iter()
        .filter_map(|(t, moment, host)| {
            Some(Mark {
                t: t?,
                moment,
                host,
            })
        })
        .chain(noticed)
        .collect();
    all.sort_by(|a, b| a.t.total_cmp(&b.t));
    all
}
