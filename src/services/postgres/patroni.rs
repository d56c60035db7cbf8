//! Patroni's REST interface.
//!
//! Source: Patroni 4.1.5, `docs/rest_api.rst`. Patroni 3.x of the distributions answers in the same format, but
//! calls the primary `master`.

use std::collections::BTreeMap;

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    cluster::{Cluster, PATRONI_PORT, REST_USER},
    error::{Code, Error, Result},
    http::Http,
    inventory::HostName,
    liberal,
};

/// What a member says of itself (`GET /patroni`).
///
/// A field that is null, absent or of another type counts as absent (`liberal`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Empty if it is absent.
    #[serde(deserialize_with = "liberal::text")]
    pub state: String,
    /// Absent until PostgreSQL has run.
    #[serde(deserialize_with = "liberal::text")]
    pub role: String,
    #[serde(deserialize_with = "liberal::number")]
    pub timeline: Option<u64>,
    #[serde(deserialize_with = "liberal::number")]
    pub server_version: Option<u32>,
    /// On the primary: the replicas that stream from it.
    #[serde(deserialize_with = "liberal::list")]
    pub replication: Vec<Replication>,
    /// On a replica, in PostgreSQL 9.6 and later: `streaming` or `in archive recovery`.
    #[serde(deserialize_with = "liberal::maybe_text")]
    pub replication_state: Option<String>,
    #[serde(deserialize_with = "liberal::part")]
    pub xlog: Xlog,
    #[serde(deserialize_with = "liberal::flag")]
    pub pending_restart: bool,
    /// The parameters, each with `old_value` and `new_value` (Patroni 3.3 and later).
    #[serde(deserialize_with = "liberal::map")]
    pub pending_restart_reason: BTreeMap<String, Value>,
    #[serde(deserialize_with = "liberal::maybe_text")]
    pub database_system_identifier: Option<String>,
    /// When its PostgreSQL was started, as text; empty while it does not run.
    #[serde(deserialize_with = "liberal::maybe_text")]
    pub postmaster_start_time: Option<String>,
    /// A leader without etcd contacted this member at most `ttl` ago. The member takes it for the leader until
    /// then, even if it has gone meanwhile (Patroni 4.1.5, `ha.py`, `Failsafe.leader`).
    #[serde(deserialize_with = "liberal::flag")]
    pub failsafe_mode_is_active: bool,
    /// When its loop last saw the DCS, in whole seconds of its own clock.
    #[serde(deserialize_with = "liberal::number")]
    pub dcs_last_seen: Option<u64>,
    #[serde(deserialize_with = "liberal::flag")]
    pub pause: bool,
    /// Its tags that are not off.
    #[serde(deserialize_with = "liberal::map")]
    pub tags: BTreeMap<String, Value>,
    /// This Patroni itself: `version`, `scope`, `name`.
    #[serde(deserialize_with = "liberal::map")]
    pub patroni: BTreeMap<String, Value>,
}

impl Status {
    pub fn is_primary(&self) -> bool {
        matches!(self.role.as_str(), "primary" | "master") && self.state == "running"
    }

    /// Whether its PostgreSQL runs. Patroni 4 calls a running replica `streaming`.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "streaming")
    }

    /// The version of the Patroni that answered.
    pub fn patroni_version(&self) -> Option<String> {
        let version = self.patroni.get("version").and_then(liberal::as_text);
        version.filter(|version| !version.is_empty())
    }

    /// Whether this primary streams to `member`.
    pub fn streams_to(&self, member: &HostName) -> bool {
        self.replication.iter().any(|replica| {
            replica.application_name == member.as_str() && replica.state == "streaming"
        })
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Xlog {
    /// On a primary, bytes.
    #[serde(deserialize_with = "liberal::number")]
    pub location: Option<u64>,
    #[serde(deserialize_with = "liberal::number")]
    pub received_location: Option<u64>,
    #[serde(deserialize_with = "liberal::number")]
    pub replayed_location: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Replication {
    #[serde(deserialize_with = "liberal::text")]
    pub application_name: String,
    #[serde(deserialize_with = "liberal::text")]
    pub state: String,
    #[serde(deserialize_with = "liberal::text")]
    pub sync_state: String,
    /// The role with which the replica logged in; null when that role is gone.
    #[serde(deserialize_with = "liberal::text")]
    pub usename: String,
}

/// The cluster as one member sees it (`GET /cluster`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Topology {
    #[serde(deserialize_with = "liberal::list")]
    pub members: Vec<Member>,
    #[serde(deserialize_with = "liberal::flag")]
    pub pause: bool,
}

impl Topology {
    pub fn leader(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| matches!(member.role.as_str(), "leader" | "standby_leader"))
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Member {
    #[serde(deserialize_with = "liberal::text")]
    pub name: String,
    /// `leader`, `replica`, `sync_standby`, …
    #[serde(deserialize_with = "liberal::text")]
    pub role: String,
    #[serde(deserialize_with = "liberal::text")]
    pub state: String,
    #[serde(deserialize_with = "liberal::text")]
    pub host: String,
    #[serde(deserialize_with = "liberal::number")]
    pub timeline: Option<u64>,
    /// Bytes, or `unknown`.
    pub lag: Option<Value>,
    #[serde(deserialize_with = "liberal::flag")]
    pub pending_restart: bool,
}

/// A client of the Patroni on one host.
pub struct Patroni<'a> {
    http: &'a Http,
    host: &'a HostName,
}

impl<'a> Patroni<'a> {
    pub fn on(http: &'a Http, host: &'a HostName) -> Self {
        Self { http, host }
    }

    /// The member's own state. Patroni answers 503 with the same document when PostgreSQL does not run.
    pub async fn status(&self) -> Result<Status> {
        self.read("/patroni").await
    }

    pub async fn topology(&self) -> Result<Topology> {
        self.read("/cluster").await
    }

    /// The cluster-wide configuration in the DCS; `None` before the first bootstrap.
    pub async fn config(&self) -> Result<Option<Value>> {
        let answer = self
            .http
            .get(self.host, PATRONI_PORT, "/config", None)
            .await?;
        if answer.status.is_success() {
            answer.json().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether this member holds the leader lock and accepts writes.
    pub async fn is_leader(&self) -> Result<bool> {
        let answer = self
            .http
            .get(self.host, PATRONI_PORT, "/primary", None)
            .await?;
        Ok(answer.status == StatusCode::OK)
    }

    /// Merges `patch` into the cluster-wide configuration; `null` removes a key.
    pub async fn patch_config(&self, cluster: &Cluster, patch: &Value) -> Result<()> {
        self.write(cluster, Method::PATCH, "/config", patch)
            .await
            .map(|_| ())
    }

    /// Hands the leadership to `candidate`; returns when Patroni reports that it has happened.
    pub async fn switchover(
        &self,
        cluster: &Cluster,
        leader: &HostName,
        candidate: &HostName,
    ) -> Result<()> {
        let body = serde_json::json!({"leader": leader, "candidate": candidate});
        self.write(cluster, Method::POST, "/switchover", &body)
            .await
            .map(|_| ())
    }

    /// Restarts PostgreSQL on this member; returns when it has restarted.
    pub async fn restart(&self, cluster: &Cluster) -> Result<()> {
        self.write(cluster, Method::POST, "/restart", &serde_json::json!({}))
            .await
            .map(|_| ())
    }

    /// The same, unless it is not a replica when the restart begins.
    pub async fn restart_replica(&self, cluster: &Cluster) -> Result<()> {
        let body = serde_json::json!({"role": "replica"});
        self.write(cluster, Method::POST, "/restart", &body)
            .await
            .map(|_| ())
    }

    /// Makes the members leave the leader as it is, whatever happens to it (pause), or watch it again.
    pub async fn set_pause(&self, cluster: &Cluster, paused: bool) -> Result<()> {
        let value = if paused {
            Value::Bool(true)
        } else {
            Value::Null
        };
        self.patch_config(cluster, &serde_json::json!({"pause": value}))
            .await
    }

    /// Makes this member remove its data and copy the leader's; returns when it has begun.
    pub async fn reinitialize(&self, cluster: &Cluster) -> Result<()> {
        let body = serde_json::json!({"force": true});
        self.write(cluster, Method::POST, "/reinitialize", &body)
            .await
            .map(|_| ())
    }

    /// Gives the leadership to `candidate`, whatever happens to the leader. Patroni answers when it knows the
    /// outcome, or knows that it does not know it yet.
    pub async fn failover(&self, cluster: &Cluster, candidate: &HostName) -> Result<()> {
        let body = serde_json::json!({"candidate": candidate});
        self.write(cluster, Method::POST, "/failover", &body)
            .await
            .map(|_| ())
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.http
            .get(self.host, PATRONI_PORT, path, None)
            .await?
            .json()
            .map_err(|error| error.on(self.host))
    }

    async fn write(
        &self,
        cluster: &Cluster,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<String> {
        let login = (REST_USER, &cluster.secrets.rest_api);
        let answer = self
            .http
            .send(
                self.host,
                PATRONI_PORT,
                method,
                path,
                Some(login),
                Some(body),
            )
            .await?;
        if answer.status.is_success() {
            return Ok(answer.text());
        }
        let said = answer.text();
        Err(Error::new(
            refusal(&said),
            format!("Patroni answered {} to {path}", answer.status),
        )
        .on(self.host)
        .cause(said))
    }
}

/// Interprets a refusal of Patroni: its answer is text, with a status that it uses for many things.
fn refusal(said: &str) -> Code {
    if said.contains("in progress") {
        Code::PatroniBusy
    } else if said.contains("unknown") {
        Code::FailoverUndecided
    } else if said.contains("does not match with sync_standby") {
        Code::NoCandidate
    } else {
        Code::ServiceRefused
    }
}

/// The reports of all database hosts, asked in parallel; an error for a host that does not answer.
pub async fn survey(http: &Http, cluster: &Cluster) -> BTreeMap<HostName, Result<Status>> {
    let asked = cluster
        .with_role(crate::inventory::Role::Postgres)
        .map(|node| async move {
            let status = Patroni::on(http, &node.name).status().await;
            (node.name.clone(), status)
        });
    futures_util::future::join_all(asked)
        .await
        .into_iter()
        .collect()
}

/// The whole cluster according to the leader, or to any member that answers.
pub async fn overview(
    http: &Http,
    survey: &BTreeMap<HostName, Result<Status>>,
) -> Option<Topology> {
    let answering = survey
        .iter()
        .filter(|(_, status)| status.is_ok())
        .map(|(host, _)| host);
    for host in leader_of(survey).into_iter().chain(answering) {
        if let Ok(topology) = Patroni::on(http, host).topology().await {
            return Some(topology);
        }
    }
    None
}

/// The host that reports to be the primary, if exactly one does.
pub fn leader_of(survey: &BTreeMap<HostName, Result<Status>>) -> Option<&HostName> {
    let mut primaries = survey
        .iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(Status::is_primary))
        .map(|(host, _)| host);
    let first = primaries.next()?;
    primaries.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
