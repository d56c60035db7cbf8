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

/// Looks at once, and then again after every `pause`, until a look returns `Ok`.
///
/// If waiting cannot help, a look also returns `Ok`: `Ok(Err(error))`.
///
/// # Errors
/// The last look, which ended after `limit`, returned `Err`.
pub(crate) async fn until<T, S, L>(
    limit: Duration,
    pause: Duration,
    look: impl Fn() -> L,
) -> Result<T, TimedOut<S>>
where
    L: Future<Output = Result<T, S>>,
{
    let begin = Instant::now();
    loop {
        let last = match look().await {
            Ok(found) => return Ok(found),
            Err(last) => last,
        };
        let after = begin.elapsed();
        if after > limit {
            return Err(TimedOut { last, after });
        }
        sleep(pause).await;
    }
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
}
