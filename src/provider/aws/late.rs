//! EC2 is eventually consistent: for some seconds, what was made is missing from lists, or is listed without
//! its tags, and what was removed is still listed
//! (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::Failure;

/// How long such a thing is waited for.
pub(super) const LATE: Duration = Duration::from_secs(10);

/// Looks again and again until something is seen; nothing if it is not within `timeout`.
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
