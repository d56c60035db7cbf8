//! English names of the identifiers in events.

use crate::{
    error::Kind,
    event::{HostState, Moment, Outcome},
};

pub(super) fn host_state(state: HostState) -> &'static str {
    match state {
        HostState::Creating => "creating",
        HostState::Starting => "starting",
        HostState::Created => "created",
        HostState::Changed => "changed",
        HostState::Moved => "moved",
        HostState::Connecting => "connecting",
        HostState::Waiting => "waiting",
        HostState::Connected => "connected",
        HostState::Removing => "removing",
        HostState::Removed => "removed",
    }
}

/// Whether a state is final, not one on the way.
pub(super) fn is_reached(state: HostState) -> bool {
    match state {
        HostState::Created
        | HostState::Changed
        | HostState::Moved
        | HostState::Connected
        | HostState::Removed => true,
        HostState::Creating
        | HostState::Starting
        | HostState::Connecting
        | HostState::Waiting
        | HostState::Removing => false,
    }
}

pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Changed => "changed",
        Outcome::Done => "done",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

/// A moment of a drill; a change of leader that was `planned` breaks nothing.
pub(super) fn moment(moment: Moment, planned: bool) -> &'static str {
    match moment {
        Moment::Fault if planned => "a change of leader is asked for",
        Moment::Load => "writers and readers at work",
        Moment::HeldUp => "replication is held up",
        Moment::Fault => "broken now",
        Moment::Refused => "writes are refused",
        Moment::NewLeader => "takes writes, on a new timeline",
        Moment::Accepted => "writes are accepted again",
        Moment::Repair => "put right",
        Moment::Whole => "whole again",
        Moment::End => "writers and readers stopped",
    }
}

/// The identifier of a kind in JSON; part of the contract with scripts.
pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Failed => "failed",
        Kind::Input => "input",
        Kind::Broken => "broken",
        Kind::Pending => "pending",
        Kind::Interrupted => "interrupted",
    }
}
