//! Collations that have another version than the indexes that were built by them.

use std::{collections::BTreeMap, time::Duration};

use super::connected::Connected;
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::HostName,
    plan::collations::{self, Old},
    remote::Script,
    services::postgres::patroni,
};

const ANSWER: Duration = Duration::from_secs(120);

impl Connected<'_> {
    /// What is old in each database, and the member that leads; `None` while none leads.
    pub(super) async fn collations(
        &self,
        cluster: &Cluster,
    ) -> Result<Option<(HostName, BTreeMap<String, Old>)>> {
        let survey = patroni::survey(&self.http, cluster).await;
        let Some(leader) = patroni::leader_of(&survey) else {
            return Ok(None);
        };
        let names = self.asked(leader, &collations::databases(cluster)).await?;
        let names: Vec<String> = serde_json::from_str(&names).map_err(|error| {
            Error::new(
                Code::AnswerUnusable,
                "PostgreSQL does not say which databases there are",
            )
            .on(leader)
            .because(error)
        })?;
        let said = self
            .asked(leader, &collations::look(cluster, &names))
            .await?;
        Ok(Some((leader.clone(), collations::parse(&said)?)))
    }

    async fn asked(&self, host: &HostName, script: &Script) -> Result<String> {
        let quiet = |_, _: &str| {};
        let said = self.remote.run(host, script, ANSWER, &quiet).await?;
        match said.success() {
            true => Ok(said.stdout),
            false => Err(Error::new(
                Code::StatementFailed,
                "PostgreSQL does not say which versions its collations have",
            )
            .on(host)
            .excerpt("stderr", said.stderr)),
        }
    }
}
