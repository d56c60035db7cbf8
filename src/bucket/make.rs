//! Makes a bucket, step by step: a run that is cut off after any of them is completed by the next one.

use std::time::Duration;

use hyper::Method;

use super::{Bucket, Call, Found, Seen, look::Ours, refusal::Failure, setting::Setting};
use crate::{
    error::{Error, Result},
    event::{Events, HostState},
    poll::{self, Pauses},
};

/// How long parts of a store may not know a bucket that it has just made.
const LATE: Duration = Duration::from_secs(60);

/// The region in which S3 wants none to be named.
const FIRST_REGION: &str = "us-east-1";

impl Bucket {
    /// What [`Bucket::make`] would do, for the plan; `None` if nothing is to do.
    pub fn to_make(&self, seen: &Seen) -> Option<String> {
        let list = |settings: &[Setting]| {
            let words: Vec<String> = settings.iter().map(|it| it.in_words()).collect();
            words.join("; ")
        };
        match seen {
            Seen::Missing => Some(format!(
                "{} is made: {}; `down` keeps it",
                self.in_words(),
                list(&Setting::ALL)
            )),
            Seen::There(Found { missing, .. }) if missing.is_empty() => None,
            Seen::There(Found { missing, .. }) => Some(format!(
                "{} gets what it lacks yet: {}",
                self.in_words(),
                list(missing)
            )),
        }
    }

    /// Makes the bucket, or completes it. `note` is called before anything is made; if the run is cut off between that
    /// and the tags, the next one says that it was `begun`. Returns what the store does not know.
    ///
    /// A bucket of somebody else is not touched.
    pub async fn make(
        &self,
        begun: bool,
        note: impl AsyncFnOnce() -> Result<()>,
        events: &Events,
    ) -> Result<Vec<String>> {
        let seen = self.look(begun, 0).await?;
        let (missing, done) = match seen {
            Seen::Missing => {
                note().await?;
                self.tell(events, HostState::Creating);
                self.create().await.map_err(|it| self.explain(it))?;
                (Setting::ALL.to_vec(), HostState::Created)
            }
            Seen::There(found) => (found.missing, HostState::Changed),
        };
        let mut unknown = Vec::new();
        for setting in &missing {
            let said = self.insist(*setting).await.map_err(|it| self.half(it))?;
            unknown.extend(said.map(|said| {
                format!(
                    "the store does not take a setting of the bucket {} ({}): {said}",
                    self.name(),
                    setting.in_words()
                )
            }));
        }
        if !missing.is_empty() {
            self.tell(events, done);
        }
        Ok(unknown)
    }

    /// Whether pgherd has made the bucket for this cluster.
    pub async fn is_of_this_cluster(&self) -> Result<bool> {
        let ours = self.is_ours(false).await.map_err(|it| self.explain(it))?;
        Ok(ours == Ours::Yes)
    }

    async fn create(&self) -> Result<(), Failure> {
        let region = &self.place.region;
        let body = match region == FIRST_REGION {
            true => String::new(),
            false => format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>{region}\
                 </LocationConstraint></CreateBucketConfiguration>"
            ),
        };
        let call = Call {
            doing: "make it (s3:CreateBucket)",
            method: Method::PUT,
            query: &[],
            body,
        };
        match self.call(&call).await {
            // It was not there a moment ago: an attempt that got no answer has made it.
            Err(failure) if failure.is(&["BucketAlreadyOwnedByYou"]) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Sets it, again while parts of the store do not know the new bucket.
    async fn insist(&self, setting: Setting) -> Result<Option<String>, Failure> {
        let pauses = Pauses::growing(Duration::from_millis(200), Duration::from_secs(3));
        let done = poll::until(LATE, pauses, || async {
            match self.set(setting).await {
                Err(failure) if failure.is(&["NoSuchBucket"]) => Err(failure),
                done => Ok(done),
            }
        });
        done.await.unwrap_or_else(|over| Err(over.last))
    }

    fn half(&self, failure: Failure) -> Error {
        self.explain(failure).left(format!(
            "the bucket {} is there, without all of its settings; the next `up` completes it",
            self.name()
        ))
    }
}
