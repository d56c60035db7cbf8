//! One request to the members, shared by everything that asks at the same time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::patroni::{self, Status};
use crate::{cluster::Cluster, error::Result, http::Http, inventory::HostName};

/// How old an answer may be while steps wait. The members' own processors are better used for what is
/// waited for.
const FRESH: Duration = Duration::from_millis(150);

/// What every member said, or why it did not.
pub type Survey = BTreeMap<HostName, Result<Status>>;
/// A survey, and when it was answered.
type Answered = (Instant, Arc<Survey>);

/// The latest survey.
#[derive(Clone)]
pub struct SharedSurvey {
    latest: Arc<Mutex<Option<Answered>>>,
    fresh: Duration,
}

impl Default for SharedSurvey {
    /// For those that ask again and again.
    fn default() -> Self {
        Self {
            latest: Arc::default(),
            fresh: FRESH,
        }
    }
}

impl SharedSurvey {
    /// For one look: every question gets the same answer.
    pub fn once() -> Self {
        Self {
            fresh: Duration::MAX,
            ..Self::default()
        }
    }

    /// What the members say now, or said a moment ago. Whoever asks while another does waits for the
    /// same answer.
    pub async fn get(&self, http: &Http, cluster: &Cluster) -> Arc<Survey> {
        let mut latest = self.latest.lock().await;
        if let Some((answered, survey)) = latest.as_ref()
            && answered.elapsed() < self.fresh
        {
            return survey.clone();
        }
        let survey = Arc::new(patroni::survey(http, cluster).await);
        *latest = Some((Instant::now(), survey.clone()));
        survey
    }
}
