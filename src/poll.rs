//! Polls until a condition is true or the time is over.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The time is over.
#[derive(Debug)]
pub(crate) struct TimedOut<S> {
    /// What the last look saw.
    pub last: S,
    /// How long the polling took. This is longer than the limit, because a look takes time too.
    pub after: Duration,
}

/// The pauses between looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Each pause is half as long again as the one before, up to `longest`.
    pub(crate) const fn growing(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.longest.min(pause * 3 / 2);
        pause
    }
}

/// All pauses are equal.
impl From<Duration> for Pauses {
    fn from(pause: Duration) -> Self {
        Self::growing(pause, pause)
    }
}

/// Looks at once, and then again after every pause, until a look returns `Ok`.
///
/// If waiting cannot help, a look also returns `Ok`: `Ok(Err(error))`.
///
/// # Errors
/// The last look, which ended after `limit`, returned `Err`.
pub(crate) async fn until<T, S, L>(
    limit: Duration,
    pauses: impl Into<Pauses>,
    mut look: impl FnMut() -> L,
) -> Result<T, TimedOut<S>>
where
    L: Future<Output = Result<T, S>>,
{
    let begin = Instant::now();
    let mut pauses = pauses.into();
    loop {
        let last = match look().await {
            Ok(found) => return Ok(found),
            Err(last) => last,
        };
        let after = begin.elapsed();
        if after > limit {
            return Err(TimedOut { last, after });
        }
        sleep(pauses.next()).await;
    }
}

/// Looks until a look finds something; `None` if the time is over.
///
/// # Errors
/// A look failed.
pub(crate) async fn until_found<T, E, L>(
    limit: Duration,
    pauses: impl Into<Pauses>,
    mut look: impl FnMut() -> L,
) -> Result<Option<T>, E>
where
    L: Future<Output = Result<Option<T>, E>>,
{
    let found = until(limit, pauses, || {
        let look = Box::pin(look());
        async { look.await.transpose().ok_or(()) }
    });
    found.await.ok().transpose()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn it_looks_until_it_is_so() {
        let (begin, looks) = (Instant::now(), Cell::new(0));
        let found = until(Duration::from_secs(60), PAUSE, || async {
            looks.set(looks.get() + 1);
            match looks.get() {
                3 => Ok("there"),
                _ => Err("not yet"),
            }
        });
        assert_eq!(found.await.unwrap(), "there");
        assert!(begin.elapsed() >= PAUSE * 2, "it pauses between two looks");
    }

    #[tokio::test]
    async fn in_the_end_it_says_what_it_saw_last() {
        let (limit, looks) = (Duration::from_millis(50), Cell::new(0));
        let never = until(limit, PAUSE, || async {
            looks.set(looks.get() + 1);
            Err::<(), u32>(looks.get())
        });
        let over = never.await.unwrap_err();
        assert_eq!(over.last, looks.get());
        assert!(over.last > 1 && over.after > limit, "{over:?}");
    }

    #[tokio::test]
    async fn it_looks_once_even_without_time() {
        let found = until(Duration::ZERO, PAUSE, || async { Ok::<_, ()>("there") });
        assert_eq!(found.await.unwrap(), "there");
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        let [first, longest] = [2, 4].map(Duration::from_secs);
        let mut pauses = Pauses::growing(first, longest);
        let all: Vec<u64> = (0..4).map(|_| pauses.next().as_secs()).collect();
        assert_eq!(all, [2, 3, 4, 4]);
        let mut pauses = Pauses::from(first);
        assert_eq!([pauses.next(), pauses.next()], [first, first]);
    }

    #[tokio::test]
    async fn a_look_finds_something_or_fails_or_the_time_is_over() {
        for (last, expected) in [
            (Ok(Some("there")), Ok(Some("there"))),
            (Err("broken"), Err("broken")),
            (Ok(None), Ok(None)),
        ] {
            let mut looks = 0;
            // Only the last case is to use up its time, and a busy machine is slow.
            let limit = match last {
                Ok(None) => PAUSE * 3,
                _ => Duration::from_secs(60),
            };
            let found = until_found(limit, PAUSE, || {
                looks += 1;
                let seen = if looks < 3 { Ok(None) } else { last };
                async move { seen }
            });
            assert_eq!(found.await, expected);
            assert!(looks >= 3 || (last == Ok(None) && looks > 0));
        }
    }
}
