//! EC2 is eventually consistent: for some seconds, new things are missing from lists, or are listed without
//! their tags, and removed things are still listed
//! (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::Failure;

/// How long to wait for such a thing.
pub(super) const LATE: Duration = Duration::from_secs(10);

/// Looks again and again until something is seen; `None` if that takes longer than `timeout`.
pub(super) async fn seen<T, F>(
    timeout: Duration,
    mut look: impl FnMut() -> F,
) -> Result<Option<T>, Failure>
where
    F: Future<Output = Result<Option<T>, Failure>>,
{
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(250);
    loop {
        let found = look().await?;
        if found.is_some() || Instant::now() + pause >= deadline {
            return Ok(found);
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}
