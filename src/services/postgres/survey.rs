//! One request to the members, shared by everything that asks at the same time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::patroni::{self, Status};
use crate::{cluster::Cluster, error::Result, http::Http, inventory::HostName};

/// How old an answer may be while steps wait. The members' processors have more important work.
const FRESH: Duration = Duration::from_millis(150);

/// The answer of every member, or why it did not answer.
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
    /// For code that asks again and again.
    fn default() -> Self {
        Self {
            latest: Arc::default(),
            fresh: FRESH,
        }
    }
}

impl SharedSurvey {
    /// For one observation: every question gets the same answer.
    pub fn once() -> Self {
        Self {
            fresh: Duration::MAX,
            ..Self::default()
        }
    }

    /// The members' answers, at most a moment old. Questions at the same time share one request.
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
