//! etcd's health: whether each member is healthy, and whether all are one store of the inventory's members.

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};

use crate::{
    error::{Code, Result},
    inventory::{HostName, Role},
    services::{
        etcd::{self, Etcd},
        health::{Check, Health, Look, Mark, Rows, Seen, Shown, Ways, silent},
    },
};

mod alarms;
mod store;

pub(crate) const HEALTH: &dyn Health = &Members;

struct Members;

#[async_trait]
impl Health for Members {
    fn role(&self) -> Role {
        Role::Etcd
    }

    async fn ready(&self, host: &HostName, ways: &Ways<'_>) -> Seen {
        match Etcd::on(ways.http, host).health().await {
            Ok(health) if health.healthy => Seen::Met,
            Ok(_) => Seen::Not(ailing(host, ways).await),
            Err(error) if error.code() == Code::SshForwardingRefused => Seen::Never(error),
            Err(error) => Seen::Not(silent("etcd", &error)),
        }
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let ways = &look.ways;
        let asked = ways.cluster.with_role(Role::Etcd).map(|node| async {
            let health = Etcd::on(ways.http, &node.name).health().await;
            (node.name.clone(), health)
        });
        let (members, raised) = tokio::join!(join_all(asked), alarms::raised(ways));
        let raised: Vec<alarms::Raised> = raised.into_iter().collect();
        Shown {
            table: Some(table(&members, &raised)),
            warnings: raised.iter().map(alarms::told).collect(),
            document: document(&members, &raised, look),
            ..Shown::default()
        }
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let (store, alarms) = tokio::join!(store::look(&look.ways), alarms::look(&look.ways));
        vec![store, alarms]
    }

    async fn standing(&self, ways: &Ways<'_>) -> Vec<Check> {
        vec![store::look(ways).await]
    }
}

/// What an unhealthy etcd lacks, although it answers. An alarm, which stays, is one reason.
async fn ailing(host: &HostName, ways: &Ways<'_>) -> String {
    let alarms = Etcd::on(ways.http, host).alarms().await;
    let kinds: Vec<String> = alarms
        .unwrap_or_default()
        .into_iter()
        .map(|alarm| alarm.kind)
        .filter(|kind| !kind.is_empty())
        .collect();
    if kinds.is_empty() {
        return "etcd has no leader yet".into();
    }
    let kinds = kinds.join(", ");
    format!("etcd has an alarm ({kinds}), which stays until it is disarmed: docs/verify.md#alarms")
}

/// A host, and its etcd's own report.
type Member = (HostName, Result<etcd::Health>);

fn table(members: &[Member], raised: &[alarms::Raised]) -> Rows {
    let rows = members.iter().map(|(host, health)| {
        let (mark, word) = match health {
            Ok(health) if health.healthy => (Mark::Plain, "healthy".to_owned()),
            Ok(health) => (Mark::Bad, ailment(host, health, raised)),
            Err(error) => (Mark::Bad, error.what().to_owned()),
        };
        (mark, vec![host.to_string(), word])
    });
    Rows {
        title: None,
        head: vec!["etcd", "health"],
        body: rows.collect(),
    }
}

fn document(members: &[Member], raised: &[alarms::Raised], look: &Look<'_>) -> Map<String, Value> {
    let etcd: Vec<Value> = members
        .iter()
        .map(|(host, health)| {
            let view = look.found.stores.get(host);
            let members = view.map(|view| {
                let members = view.members.iter();
                members.map(|member| &member.name).collect::<Vec<_>>()
            });
            json!({
                "name": host,
                "healthy": health.as_ref().is_ok_and(|health| health.healthy),
                "error": match health {
                    Ok(health) if health.healthy => None,
                    Ok(health) => Some(ailment(host, health, raised)),
                    Err(error) => Some(error.to_string()),
                },
                "cluster_id": view.map(|view| &view.cluster_id),
                "member_id": view.map(|view| &view.member_id),
                "members": members,
            })
        })
        .collect();
    Map::from_iter([
        ("etcd".to_owned(), etcd.into()),
        ("etcd_alarms".to_owned(), json!(raised)),
    ])
}

/// Why an etcd is unhealthy, according to itself.
fn ailment(host: &HostName, health: &etcd::Health, raised: &[alarms::Raised]) -> String {
    let name = host.as_str();
    let alarm = raised
        .iter()
        .filter(|alarm| alarm.member.is_empty() || alarm.member == name)
        .map(|alarm| format!("alarm {}", alarm.kind))
        .next();
    match (alarm, health.reason.as_str()) {
        (Some(alarm), _) => alarm,
        // All members are unhealthy while one has an alarm, and while there is no leader.
        (None, "") if raised.is_empty() => "without a leader".into(),
        (None, "") => "not healthy".into(),
        (None, reason) => reason.to_owned(),
    }
}
