//! Whether the metrics of each host can be read through its door.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Job, jobs_of, path};
use crate::{
    contract::METRICS_PORT,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    quantity::count,
    services::health::{Check, Health, Look, Seen, Ways, silent},
};

pub(crate) const HEALTH: &dyn Health = &Door;

const NAME: &str = "metrics";
/// How long a host may take to show the metrics of one job.
const ANSWER: Duration = Duration::from_secs(10);

struct Door;

#[async_trait]
impl Health for Door {
    fn role(&self) -> Role {
        Role::Metrics
    }

    async fn ready(&self, host: &HostName, ways: &Ways<'_>) -> Seen {
        match ways.http.get(host, METRICS_PORT, "/", None).await {
            Ok(answer) if answer.status.is_success() => Seen::Met,
            Ok(answer) => Seen::Not(format!("it answers {}", answer.status)),
            Err(error) => Seen::Not(silent("the door to the metrics", &error)),
        }
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let nodes: Vec<_> = look.ways.cluster.with_role(self.role()).collect();
        let asked = nodes.iter().flat_map(|node| {
            let jobs = jobs_of(&node.roles);
            jobs.map(move |job| read(&node.name, job, &look.ways))
        });
        let asked = join_all(asked).await;
        let all = asked.len();
        let wrong = asked.into_iter().filter_map(Result::err);
        let wrong = wrong.map(|error| error.to_string()).collect();
        let right = format!(
            "{} on {} can be read",
            count(all, "target"),
            count(nodes.len(), "host")
        );
        vec![Check::of(NAME, wrong, right)]
    }
}

/// Reads what the door shows of one job, as Prometheus does.
async fn read(host: &HostName, job: &Job, ways: &Ways<'_>) -> Result<()> {
    let what = |why: String| {
        let what = format!("the metrics `{}` cannot be read: {why}", job.name);
        Error::new(Code::ServiceRefused, what).on(host)
    };
    let path = path(job);
    let answer = ways.http.get(host, METRICS_PORT, &path, None);
    let answer = timeout(ANSWER, answer)
        .await
        .map_err(|_| what(format!("no answer in {} s", ANSWER.as_secs())))??;
    if !answer.status.is_success() {
        return Err(what(format!(
            "the answer is {}: {}",
            answer.status,
            answer.text().trim()
        )));
    }
    match shows(&answer.text(), job) {
        true => Ok(()),
        false => Err(what(format!(
            "there is no `{}` in them",
            job.sign.trim_end()
        ))),
    }
}

fn shows(text: &str, job: &Job) -> bool {
    text.lines().any(|line| line.starts_with(job.sign))
}

#[cfg(test)]
mod tests {
    use super::{super::jobs::JOBS, *};

    #[test]
    fn an_exporter_that_reaches_nothing_is_told() {
        let postgres = JOBS.iter().find(|job| job.name == "postgres").unwrap();
        assert!(shows("# TYPE pg_up gauge\npg_up 1\n", postgres));
        assert!(!shows("# pg_up 1\npg_up 0\n", postgres));
    }
}
