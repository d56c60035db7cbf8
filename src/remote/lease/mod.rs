//! The lease of a run: held on each host for as long as the connection to the host lasts.
//!
//! The workspace's lock is a local file, which an operator with a copy of the workspace does not see. So a
//! process as root on each host holds a lock there (`flock`). It ends when the run's connection ends, or after
//! [`SILENCE`] without a sign of life. After a run that died, nothing has to be cleaned up.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openssh::Session;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(super) use self::host::Held;
use self::{
    host::{Answer, Asking, SILENCE, Sign, ask, is_fresh},
    watch::{Next, Watch},
};
use crate::{
    error::{Code, Error},
    event::{Events, HostState},
    holder::{AT_WORK, Holder},
    inventory::HostName,
};

mod host;
mod watch;

/// How often to ask for a lease that another run has, how often while waiting for that run, and how often to
/// report it.
const OFTEN: Duration = Duration::from_millis(200);
const WAITING: Duration = Duration::from_millis(500);
const TELLING: Duration = Duration::from_secs(10);

/// What a run takes on every host that it connects to.
#[derive(Debug)]
pub struct Lease {
    cluster: String,
    holder: Holder,
    listener: Listener,
    /// When each host that holds it last got a sign of life.
    beats: Mutex<Vec<Arc<AtomicU64>>>,
    /// Whether every host that answered has granted it.
    settled: AtomicBool,
    /// The run cannot continue: another one has the cluster.
    given_up: CancellationToken,
    /// The host that said so, and the holder.
    lost: OnceLock<(HostName, Option<Holder>)>,
    /// Why hosts could not say whether the lease is free.
    unheld: Mutex<BTreeMap<HostName, String>>,
    story: Arc<Story>,
}

/// What each host writes into its history of runs, one line each. The lease carries it, so that it costs no round trip.
#[derive(Debug, Default)]
pub struct Story {
    /// Who the run is, written when it begins.
    pub begins: String,
    /// How it has ended, written when the lease is given back; nothing if it is not set.
    pub ends: OnceLock<String>,
}

/// Receives the news that a run waits: the events of its session.
pub type Listener = Arc<Mutex<Option<Events>>>;

/// The result of taking it on one host.
pub(super) enum Taken {
    Held(Held),
    Refused(Error),
    /// The host could not say; the next action on it will say why.
    Unknown,
}

impl Lease {
    pub fn new(cluster: &str, holder: Holder, listener: Listener) -> Self {
        Self {
            cluster: cluster.to_owned(),
            holder,
            listener,
            beats: Mutex::default(),
            settled: AtomicBool::new(false),
            given_up: CancellationToken::new(),
            lost: OnceLock::new(),
            unheld: Mutex::default(),
            story: Arc::default(),
        }
    }

    /// From now on, hosts write `story` into their history.
    #[must_use]
    pub fn telling(mut self, story: Arc<Story>) -> Self {
        self.story = story;
        self
    }

    fn unknown(&self, host: &HostName, why: String) -> Taken {
        let mut unheld = self.unheld.lock().unwrap_or_else(PoisonError::into_inner);
        unheld.insert(host.clone(), why);
        Taken::Unknown
    }

    /// Why the run must not begin although hosts answer: none of them holds the lease for this run, so another
    /// one could work at the same time.
    pub(super) fn nowhere(&self) -> Option<Error> {
        if self.settled.load(Ordering::Relaxed) || self.holding() > 0 {
            return None;
        }
        let unheld = self.unheld.lock().unwrap_or_else(PoisonError::into_inner);
        let error = Error::new(Code::LeaseNotTaken, "this run has the lease on no host");
        let error = unheld.iter().fold(error, |error, (host, why)| {
            error.cause(format!("{host}: {why}"))
        });
        Some(
            error
                .left("nothing was changed")
                .hint("without it, another run could work at the same time")
                .hint("it is a lock on /run/pgherd.lease; try it on a host: sudo bash -c 'exec 9<>/run/pgherd.lease && flock -n 9 && echo free'"),
        )
    }

    /// Why nothing may be done any more; `None` if it may.
    pub(super) fn given_up(&self) -> Option<Error> {
        let (host, other) = self.lost.get()?;
        Some(self.refused(host, other.as_ref()))
    }

    /// Releases everything that is held.
    fn give_up(&self, host: &HostName, other: Option<Holder>) -> Taken {
        let (host, other) = self.lost.get_or_init(|| (host.clone(), other));
        self.given_up.cancel();
        Taken::Refused(self.refused(host, other.as_ref()))
    }

    /// The number of hosts that hold it, as far as this side can know.
    fn holding(&self) -> usize {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.retain(|beaten| is_fresh(beaten));
        beats.len()
    }

    /// From now on, losing a host does not mean losing the cluster.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    fn holds_elsewhere(&self) -> bool {
        self.settled.load(Ordering::Relaxed) && self.holding() > 0
    }

    /// Whether to end the process that holds it for `other`. A run has one connection to a host: a lease that
    /// it has there over another one belongs to a connection that broke, or that led to the host's former
    /// address.
    fn is_over(&self, other: &Holder) -> bool {
        other.run == self.holder.run || other.has_died_here()
    }

    /// Takes it over `session`, or returns the holder. Waits for a run that gives no sign of life.
    pub(super) async fn take(&self, host: &HostName, session: &Arc<Session>) -> Taken {
        let mut watch = Watch::default();
        let mut dead = String::new();
        let mut told: Option<Instant> = None;
        // Not `poll::until`: how long to wait, and how often to ask, depends on the answers.
        loop {
            if let Some(error) = self.given_up() {
                return Taken::Refused(error);
            }
            let asking = Asking {
                holder: &self.holder,
                dead: &dead,
                story: &self.story,
                given_up: &self.given_up,
            };
            let answer = ask(session, asking).await;
            let (other, sign) = match answer {
                Answer::Held(held, last) => return self.granted(host, *held, last),
                Answer::By(other, sign) => (other, sign),
                Answer::Unknown(why) => return self.unknown(host, why),
            };
            watch.note(other.as_ref(), sign);
            let gone = other
                .as_ref()
                .filter(|it| it.run != dead && self.is_over(it));
            if let Some(gone) = gone {
                dead.clone_from(&gone.run);
                continue;
            }
            let own = other.as_ref().is_some_and(|it| it.run == self.holder.run);
            let first = other.as_ref().is_some_and(|it| self.holder.goes_before(it));
            match watch.next(own || self.holds_elsewhere(), first) {
                Next::Ask => sleep(OFTEN).await,
                Next::Wait => {
                    if told.is_none_or(|told| told.elapsed() >= TELLING) {
                        self.tell(host, other.as_ref(), sign);
                        told = Some(Instant::now());
                    }
                    sleep(WAITING).await;
                }
                Next::Leave => return self.unknown(host, "it is held already".to_owned()),
                Next::GiveUp => return self.give_up(host, other),
            }
        }
    }

    /// Reports that this run waits, how long, and for which run.
    fn tell(&self, host: &HostName, other: Option<&Holder>, sign: Sign) {
        let left = SILENCE.as_secs().saturating_sub(sign.ago).max(1);
        let whose = other.map_or_else(
            || "another run".to_owned(),
            |it| format!("`{}` by {}", it.verb, it.by),
        );
        let detail = format!(
            "up to {left} s for the lease of {whose}, last seen {} s ago",
            sign.ago
        );
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = listener.as_ref() {
            events.host(host, HostState::Waiting, Some(detail));
        }
    }

    /// What was held everywhere else may have been lost meanwhile, and another run may have come and gone.
    fn granted(&self, host: &HostName, held: Held, last: Option<Holder>) -> Taken {
        self.beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(held.beaten.clone());
        let alone = self.holding() <= 1;
        let other = last.filter(|it| it.run != self.holder.run);
        match other {
            Some(other) if self.settled.load(Ordering::Relaxed) && alone => {
                self.give_up(host, Some(other))
            }
            _ => Taken::Held(held),
        }
    }

    fn refused(&self, host: &HostName, other: Option<&Holder>) -> Error {
        if self.settled.load(Ordering::Relaxed)
            && let Some(other) = other
        {
            return self.overtaken(host, other);
        }
        let error = Error::new(Code::LeaseHeld, format!("{AT_WORK} `{}`", self.cluster));
        let error = match other {
            Some(other) => error.cause(format!("{host} says: {other}")),
            None => error.cause(format!(
                "{host} says so, and does not say yet which run it is"
            )),
        };
        error
            .left("nothing was changed")
            .hint("wait until it has ended, or stop it with Ctrl-C where it runs")
            .hint(format!(
                "if its machine has crashed or is cut off, the hosts release the lease after {} s, and the next run waits for that",
                SILENCE.as_secs()
            ))
    }

    fn overtaken(&self, host: &HostName, other: &Holder) -> Error {
        Error::new(
            Code::LeaseLost,
            format!(
                "for a while no host held the lease for this run, and {AT_WORK} `{}` since",
                self.cluster
            ),
        )
        .cause(format!("{host} says: {other}"))
        .left("steps already running on a host will finish; no further step begins")
        .hint("see what it has done, and run this again: pgherd does nothing twice")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        host::{DOUBT, now},
        *,
    };

    fn lease() -> Lease {
        Lease::new("pg", Holder::now("up"), Listener::default())
    }

    fn held() -> Held {
        Held {
            beaten: Arc::new(AtomicU64::new(now())),
            stop: CancellationToken::new(),
            task: None,
        }
    }

    #[test]
    fn a_host_that_is_lost_is_no_loss_and_a_run_in_between_is_one() {
        let lease = lease();
        let host = HostName::new("node1");
        let other = Holder::now("down");
        // What is granted counts as held too.
        let granted = |elsewhere: &[u64], last| {
            let beats = elsewhere.iter();
            let beats = beats.map(|age| Arc::new(AtomicU64::new(now() - age)));
            *lease.beats.lock().unwrap() = beats.collect();
            lease.granted(&host, held(), last)
        };
        assert!(
            matches!(granted(&[], Some(other.clone())), Taken::Held(_)),
            "at the beginning it does not matter who was before"
        );
        lease.settle();
        let kept = granted(&[DOUBT - 1], Some(other.clone()));
        assert!(matches!(kept, Taken::Held(_)));
        assert!(lease.given_up().is_none());
        assert!(
            matches!(granted(&[DOUBT], None), Taken::Held(_)),
            "the host restarted"
        );
        let own = Some(lease.holder.clone());
        assert!(matches!(granted(&[DOUBT], own), Taken::Held(_)));
        let Taken::Refused(error) = granted(&[DOUBT], Some(other)) else {
            panic!("another run has been there");
        };
        assert_eq!(error.code(), Code::LeaseLost, "{error}");
        assert!(lease.given_up.is_cancelled(), "what is held is given back");
        assert!(lease.given_up().is_some(), "and nothing goes on elsewhere");
    }

    #[test]
    fn what_the_run_itself_has_left_behind_is_not_waited_for() {
        let lease = lease();
        assert!(
            lease.is_over(&lease.holder),
            "over a connection that is gone"
        );
        assert!(!lease.is_over(&Holder::now("up")), "another run that lives");
    }

    #[test]
    fn a_lease_that_no_host_holds_is_an_obstacle() {
        let lease = lease();
        let host = HostName::new("node1");
        let why = "bash: line 1: flock: command not found";
        assert!(matches!(lease.unknown(&host, why.into()), Taken::Unknown));
        let error = lease.nowhere().expect("no host holds it");
        assert_eq!(error.causes(), [format!("node1: {why}")]);
        assert_eq!(error.left_behind(), Some("nothing was changed"));
        let taken = lease.granted(&host, held(), None);
        assert!(lease.nowhere().is_none(), "one is enough");
        drop(taken);
        lease.settle();
        assert!(lease.nowhere().is_none(), "its loss is another matter");
    }

    #[test]
    fn who_is_waited_for_is_told() {
        let (events, mut told) = Events::channel();
        let listener = Arc::new(Mutex::new(Some(events)));
        let lease = Lease::new("pg", Holder::now("up"), listener);
        let other = Holder::now("rotate");
        let sign = Sign { ago: 12, at: 100 };
        lease.tell(&HostName::new("node1"), Some(&other), sign);
        let said = format!("{:?}", told.try_recv().unwrap());
        let whose = format!("up to 18 s for the lease of `rotate` by {}", other.by);
        assert!(
            said.contains("Waiting") && said.contains(&whose) && said.contains("12 s ago"),
            "{said}"
        );
    }
}
