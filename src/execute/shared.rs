//! One look at the members for all steps that wait at the same time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::{
    cluster::Cluster,
    error::Result,
    http::Http,
    inventory::HostName,
    services::postgres::patroni::{self, Status},
};

/// How old an answer may be. The members' own processors are better used for what is waited for.
const FRESH: Duration = Duration::from_millis(150);

type Survey = BTreeMap<HostName, Result<Status>>;
/// A survey, and when it was answered.
type Answered = (Instant, Arc<Survey>);

/// The latest survey.
#[derive(Clone, Default)]
pub struct SharedSurvey(Arc<Mutex<Option<Answered>>>);

impl SharedSurvey {
    /// What the members say now, or said a moment ago. Whoever asks while another does waits for the
    /// same answer.
    pub async fn get(&self, http: &Http, cluster: &Cluster) -> Arc<Survey> {
        let mut latest = self.0.lock().await;
        if let Some((answered, survey)) = latest.as_ref()
            && answered.elapsed() < FRESH
        {
            return survey.clone();
        }
        let survey = Arc::new(patroni::survey(http, cluster).await);
        *latest = Some((Instant::now(), survey.clone()));
        survey
    }
}
