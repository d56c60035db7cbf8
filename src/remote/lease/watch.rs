//! What a run does if another one has the lease: it is refused if that run is alive, and waits if that run
//! gives no sign of life.

use std::time::Duration;

use tokio::time::Instant;

use super::host::{BEAT, SILENCE, Sign};
use crate::holder::Holder;

/// How long to look for the holder's sign of life; by then two are missing.
const LISTENING: Duration = Duration::from_secs(5);
/// How long to repeat the question for a lease that this run has itself, here or elsewhere.
const OURS: Duration = Duration::from_secs(2);
/// How long to repeat the question if the other run is the younger one, which gives up when it sees that this
/// one lives.
const PRECEDENCE: Duration = Duration::from_secs(8);
/// How much longer than [`SILENCE`] to wait for a lease without a sign of life.
const MARGIN: Duration = Duration::from_secs(10);

const _: () = assert!(
    LISTENING.as_secs() > 2 * BEAT.as_secs(),
    "one that is late is no silence"
);

/// What to do about a lease that another run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It is not known yet whether that run is alive.
    Ask,
    /// It gives no sign of life: the host will release the lease soon.
    Wait,
    /// This run has it elsewhere, and no other run has it.
    Leave,
    GiveUp,
}

/// What has been seen of the holder of a host's lease.
#[derive(Default)]
pub(super) struct Watch {
    seen: Option<Seen>,
}

struct Seen {
    /// The run that has it; `None` if it has not said who it is.
    run: Option<String>,
    since: Instant,
    sign: Sign,
    lives: bool,
}

impl Watch {
    pub(super) fn note(&mut self, other: Option<&Holder>, sign: Sign) {
        let run = other.map(|it| it.run.clone());
        match self.seen.as_mut().filter(|seen| seen.run == run) {
            Some(seen) => {
                seen.lives |= sign.at != seen.sign.at;
                seen.sign = sign;
            }
            // The next holder is watched from the beginning.
            None => {
                self.seen = Some(Seen {
                    run,
                    since: Instant::now(),
                    sign,
                    lives: false,
                });
            }
        }
    }

    /// `ours` is whether this run has it itself or elsewhere; `first`, whether the other one gives way.
    pub(super) fn next(&self, ours: bool, first: bool) -> Next {
        match &self.seen {
            None => Next::Ask,
            Some(seen) => seen.next(seen.since.elapsed(), ours, first),
        }
    }
}

impl Seen {
    fn next(&self, watched: Duration, ours: bool, first: bool) -> Next {
        if ours {
            return if watched < OURS {
                Next::Ask
            } else {
                Next::Leave
            };
        }
        if self.lives {
            return if first && watched < PRECEDENCE {
                Next::Ask
            } else {
                Next::GiveUp
            };
        }
        if watched < LISTENING {
            Next::Ask
        } else if self.sign.ago > (SILENCE + MARGIN).as_secs() {
            Next::GiveUp
        } else {
            Next::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Watch {
        fn next_after(&self, watched: Duration, ours: bool, first: bool) -> Next {
            self.seen.as_ref().unwrap().next(watched, ours, first)
        }
    }

    fn sign(ago: u64, at: u64) -> Sign {
        Sign { ago, at }
    }

    #[test]
    fn who_lives_is_refused_at_once() {
        let other = Holder::now("up");
        let mut watch = Watch::default();
        assert_eq!(watch.next(false, false), Next::Ask);
        watch.note(Some(&other), sign(1, 100));
        assert_eq!(
            watch.next(false, false),
            Next::Ask,
            "it may have died just now"
        );
        watch.note(Some(&other), sign(0, 102));
        let second = Duration::from_secs(1);
        assert_eq!(watch.next_after(second, false, false), Next::GiveUp);
        assert_eq!(
            watch.next_after(second, false, true),
            Next::Ask,
            "it gives way"
        );
        assert_eq!(watch.next_after(PRECEDENCE, false, true), Next::GiveUp);
        // The next holder is watched from the beginning.
        watch.note(Some(&Holder::now("down")), sign(0, 110));
        assert_eq!(watch.next(false, false), Next::Ask);
    }

    #[test]
    fn who_is_silent_is_waited_for() {
        let other = Holder::now("up");
        let mut watch = Watch::default();
        watch.note(Some(&other), sign(1, 100));
        watch.note(Some(&other), sign(6, 100));
        assert_eq!(watch.next_after(LISTENING, false, false), Next::Wait);
        assert_eq!(
            watch.next_after(LISTENING, true, false),
            Next::Leave,
            "held elsewhere"
        );
        watch.note(Some(&other), sign(41, 100));
        assert_eq!(
            watch.next_after(LISTENING, false, false),
            Next::GiveUp,
            "the host does not let go"
        );
    }
}
