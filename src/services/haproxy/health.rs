//! HAProxy's health: where its ports lead.

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    inventory::{HostName, Role},
    services::{
        haproxy::{self, Server},
        health::{Check, Health, Look, Mark, Rows, Shown, Ways},
        postgres::patroni,
    },
};

pub(crate) const HEALTH: &dyn Health = &FrontDoor;

struct FrontDoor;

#[async_trait]
impl Health for FrontDoor {
    fn role(&self) -> Role {
        Role::Haproxy
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let cluster = look.ways.cluster;
        let servers = haproxy::servers(look.ways.http, cluster).await;
        let of_json = [
            ("haproxy".to_owned(), json!(servers.as_ref().ok())),
            (
                "haproxy_error".to_owned(),
                json!(servers.as_ref().err().map(Error::to_string)),
            ),
        ];
        let shown = Shown {
            document: Map::<String, Value>::from_iter(of_json),
            ..Shown::default()
        };
        match servers {
            Ok(servers) => Shown {
                table: Some(table(cluster, servers)),
                ..shown
            },
            Err(error) => Shown {
                instead: Some(format!("HAProxy: {error}")),
                ..shown
            },
        }
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        self.standing(&look.ways).await
    }

    async fn standing(&self, ways: &Ways<'_>) -> Vec<Check> {
        let (survey, servers) =
            tokio::join!(ways.survey(), haproxy::servers(ways.http, ways.cluster));
        let leader = patroni::leader_of(&survey);
        vec![backends(ways.cluster, &servers, leader)]
    }
}

fn table(cluster: &Cluster, servers: Vec<Server>) -> Rows {
    let rows = servers.into_iter().map(|server| {
        let port = port(cluster, &server.listener).map_or(String::new(), |port| port.to_string());
        let mark = if server.is_up() {
            Mark::Plain
        } else {
            Mark::Idle
        };
        let sessions = server.sessions.to_string();
        let cells = vec![server.listener, port, server.name, server.status, sessions];
        (mark, cells)
    });
    Rows {
        title: None,
        head: vec!["HAProxy", "port", "backend", "status", "sessions"],
        body: rows.collect(),
    }
}

/// The port of a listener, where it is one of those that clients use.
fn port(cluster: &Cluster, listener: &str) -> Option<u16> {
    let ports = &cluster.inventory.haproxy;
    match listener {
        haproxy::WRITE => Some(ports.write_port),
        haproxy::READ => Some(ports.read_port),
        _ => None,
    }
}

/// The write port leads to the leader and to nobody else, the read port to all replicas.
fn backends(cluster: &Cluster, servers: &Result<Vec<Server>>, leader: Option<&HostName>) -> Check {
    let servers = match servers {
        Ok(servers) => servers,
        Err(error) => return Check::of("backends", vec![error.to_string()], String::new()),
    };
    let up = |listener: &str| -> Vec<&str> {
        let mut names: Vec<&str> = servers
            .iter()
            .filter(|server| server.listener == listener && server.is_up())
            .map(|server| server.name.as_str())
            .collect();
        names.sort_unstable();
        names
    };
    let mut wrong = Vec::new();
    let writes = up(haproxy::WRITE);
    if leader.is_none() {
        wrong.push("there is no leader for the write port".into());
    }
    if writes != leader.iter().map(|host| host.as_str()).collect::<Vec<_>>() {
        wrong.push(format!("the write port leads to {}", names(&writes)));
    }
    let mut replicas: Vec<&str> = cluster
        .with_role(Role::Postgres)
        .map(|node| node.name.as_str())
        .filter(|name| leader.is_none_or(|leader| leader.as_str() != *name))
        .collect();
    replicas.sort_unstable();
    let reads = up(haproxy::READ);
    if reads != replicas {
        wrong.push(format!(
            "the read port leads to {}, not {}",
            names(&reads),
            names(&replicas)
        ));
    }
    Check::of(
        "backends",
        wrong,
        format!(
            "the write port leads to {}, the read port to {}",
            names(&writes),
            names(&reads)
        ),
    )
}

fn names(list: &[&str]) -> String {
    if list.is_empty() {
        "nobody".into()
    } else {
        list.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, cluster};

    #[test]
    fn a_write_port_that_leads_to_nobody_does_not_hold() {
        let cluster = cluster("", FIVE);
        let check = backends(&cluster, &Ok(Vec::new()), None);
        assert!(
            check.detail.contains("there is no leader"),
            "{}",
            check.detail
        );
    }
}
