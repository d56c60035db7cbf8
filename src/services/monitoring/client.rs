//! Prometheus' own interface, on its host.

use serde::Deserialize;

use crate::{
    contract::PROMETHEUS_PORT,
    error::{Code, Error, Result},
    http::Http,
    inventory::HostName,
};

/// What a Prometheus says of what it reads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Target {
    pub labels: Labels,
    pub health: String,
    #[serde(rename = "lastError", default)]
    pub last_error: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Labels {
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub job: String,
}

#[derive(Debug, Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Debug, Deserialize)]
struct Targets {
    #[serde(rename = "activeTargets")]
    active: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// A rule, as Prometheus has loaded it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Rule {
    pub name: String,
    pub health: String,
    /// `firing`, `pending` or `inactive`.
    #[serde(default)]
    pub state: String,
}

#[derive(Debug, Deserialize)]
struct Managers {
    #[serde(rename = "activeAlertmanagers")]
    active: Vec<serde::de::IgnoredAny>,
}

async fn ask<T: for<'a> Deserialize<'a>>(http: &Http, host: &HostName, path: &str) -> Result<T> {
    let answer = http.get(host, PROMETHEUS_PORT, path, None).await?;
    if !answer.status.is_success() {
        let what = format!("Prometheus answered {} to {path}", answer.status);
        return Err(Error::new(Code::ServiceRefused, what).on(host));
    }
    Ok(answer.json::<Answer<T>>()?.data)
}

/// Whether it is ready, with what it says if it is not.
pub(super) async fn ready(http: &Http, host: &HostName) -> Result<Option<String>> {
    let answer = http.get(host, PROMETHEUS_PORT, "/-/ready", None).await?;
    Ok((!answer.status.is_success()).then(|| answer.text().trim().to_owned()))
}

pub(super) async fn targets(http: &Http, host: &HostName) -> Result<Vec<Target>> {
    let path = "/api/v1/targets?state=active";
    Ok(ask::<Targets>(http, host, path).await?.active)
}

pub(super) async fn rules(http: &Http, host: &HostName) -> Result<Vec<Rule>> {
    let groups = ask::<Groups>(http, host, "/api/v1/rules?type=alert").await?;
    Ok(groups.groups.into_iter().flat_map(|it| it.rules).collect())
}

/// How many Alertmanagers it sends alerts to.
pub(super) async fn managers(http: &Http, host: &HostName) -> Result<usize> {
    let managers = ask::<Managers>(http, host, "/api/v1/alertmanagers").await?;
    Ok(managers.active.len())
}
