//! EC2 is eventually consistent: for some seconds, new things are missing from lists, or are listed without
//! their tags, and removed things are still listed
//! (<https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html>).

use std::time::Duration;

use super::failure::Failure;
use crate::poll::{self, Pauses};

/// How long to wait for such a thing.
pub(super) const LATE: Duration = Duration::from_secs(10);

/// Looks again and again until something is seen; `None` if that takes longer than `timeout`.
pub(super) async fn seen<T, F>(
    timeout: Duration,
    look: impl FnMut() -> F,
) -> Result<Option<T>, Failure>
where
    F: Future<Output = Result<Option<T>, Failure>>,
{
    let pauses = Pauses::growing(Duration::from_millis(250), Duration::from_secs(2));
    poll::until_found(timeout, pauses, look).await
}
