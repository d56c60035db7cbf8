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
        let doors = haproxy::everywhere(look.ways.http, cluster).await;
        let silent: Vec<String> = failures(&doors)
            .map(|it| format!("HAProxy: {it}"))
            .collect();
        Shown {
            document: document(&doors),
            table: doors
                .iter()
                .any(|(_, it)| it.is_ok())
                .then(|| table(cluster, doors)),
            instead: (!silent.is_empty()).then(|| silent.join("\n")),
            ..Shown::default()
        }
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        self.standing(&look.ways).await
    }

    async fn standing(&self, ways: &Ways<'_>) -> Vec<Check> {
        let (survey, doors) =
            tokio::join!(ways.survey(), haproxy::everywhere(ways.http, ways.cluster));
        let leader = patroni::leader_of(&survey);
        vec![all_backends(ways.cluster, &doors, leader)]
    }
}

/// The servers according to the HAProxy of each front door.
type Doors = Vec<(HostName, Result<Vec<Server>>)>;

fn failures(doors: &Doors) -> impl Iterator<Item = &Error> {
    doors
        .iter()
        .filter_map(|(_, servers)| servers.as_ref().err())
}

/// `haproxy` is the answer of the first front door that answers, and `front_doors` has the answer of each.
fn document(doors: &Doors) -> Map<String, Value> {
    let first = doors.iter().find_map(|(_, servers)| servers.as_ref().ok());
    let each = doors.iter().map(|(host, servers)| {
        let error = servers.as_ref().err().map(Error::to_string);
        json!({"host": host, "servers": servers.as_ref().ok(), "error": error})
    });
    Map::from_iter([
        ("haproxy".to_owned(), json!(first)),
        (
            "haproxy_error".to_owned(),
            json!(failures(doors).map(Error::to_string).next()),
        ),
        ("front_doors".to_owned(), each.collect()),
    ])
}

fn table(cluster: &Cluster, doors: Doors) -> Rows {
    let several = doors.len() > 1;
    let all = doors.into_iter().flat_map(|(host, servers)| {
        let servers = servers.into_iter().flatten();
        servers.map(move |server| (host.clone(), server))
    });
    let rows = all.map(|(host, server)| {
        let port = port(cluster, &server.listener).map_or(String::new(), |port| port.to_string());
        let mark = if server.is_up() {
            Mark::Plain
        } else {
            Mark::Idle
        };
        let sessions = server.sessions.to_string();
        let mut cells = vec![server.listener, port, server.name, server.status, sessions];
        if several {
            cells.insert(0, host.to_string());
        }
        (mark, cells)
    });
    let mut head = vec!["HAProxy", "port", "backend", "status", "sessions"];
    if several {
        head.splice(..1, ["HAProxy", "listener"]);
    }
    Rows {
        title: None,
        head,
        body: rows.collect(),
    }
}

/// The port of a listener, if clients use it.
fn port(cluster: &Cluster, listener: &str) -> Option<u16> {
    let ports = &cluster.inventory.haproxy;
    match listener {
        haproxy::WRITE => Some(ports.write_port),
        haproxy::READ => Some(ports.read_port),
        _ => None,
    }
}

/// Checks that the ports of every front door lead where they should.
fn all_backends(cluster: &Cluster, doors: &Doors, leader: Option<&HostName>) -> Check {
    let mut wrong = Vec::new();
    if leader.is_none() {
        wrong.push("there is no leader for the write port".to_owned());
    }
    let mut right = String::new();
    for (host, servers) in doors {
        match servers {
            // The error names the host itself.
            Err(error) => wrong.push(error.to_string()),
            Ok(servers) => match backends(cluster, servers, leader) {
                Ok(detail) => right = detail,
                Err(of_one) => wrong.extend(of_one.into_iter().map(|text| match doors.len() {
                    1 => text,
                    _ => format!("at {host}, {text}"),
                })),
            },
        }
    }
    if doors.len() > 1 {
        right = format!("at each of {} front doors, {right}", doors.len());
    }
    Check::of("backends", wrong, right)
}

/// What is wrong with the ports. The write port must lead only to the leader, and the read port to all
/// replicas.
fn backends(
    cluster: &Cluster,
    servers: &[Server],
    leader: Option<&HostName>,
) -> Result<String, Vec<String>> {
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
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(format!(
        "the write port leads to {}, the read port to {}",
        names(&writes),
        names(&reads)
    ))
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
    use crate::{
        error::Code,
        plan::tests::world::{FIVE, cluster},
    };

    #[test]
    fn a_write_port_that_leads_to_nobody_does_not_hold() {
        let cluster = cluster("", FIVE);
        let doors = vec![(HostName::new("haproxy"), Ok(Vec::new()))];
        let check = all_backends(&cluster, &doors, None);
        assert!(
            check.detail.contains("there is no leader"),
            "{}",
            check.detail
        );
    }

    fn server(listener: &str, name: &str) -> Server {
        Server {
            listener: listener.into(),
            name: name.into(),
            status: "UP".into(),
            sessions: 0,
            check: String::new(),
        }
    }

    fn right() -> Vec<Server> {
        let reads = ["node2", "node3"].map(|name| server("read", name));
        [server("write", "node1")]
            .into_iter()
            .chain(reads)
            .collect()
    }

    #[test]
    fn each_front_door_must_lead_to_the_leader() {
        let cluster = cluster("", FIVE);
        let leader = HostName::new("node1");
        let check = |second: Result<Vec<Server>>| {
            let doors = vec![
                (HostName::new("door1"), Ok(right())),
                (HostName::new("door2"), second),
            ];
            all_backends(&cluster, &doors, Some(&leader))
        };
        let both = check(Ok(right()));
        assert!(both.passed, "{}", both.detail);
        assert_eq!(
            both.detail,
            "at each of 2 front doors, the write port leads to node1, the read port to node2, node3"
        );
        let astray = check(Ok(vec![server("write", "node2")]));
        assert!(!astray.passed);
        assert!(
            astray.detail.starts_with(
                "at door2, the write port leads to node2; at door2, the read port leads to nobody"
            ),
            "{}",
            astray.detail
        );
        let silent = check(Err(
            Error::new(Code::ServiceRefused, "no answer").on(&leader)
        ));
        assert!(!silent.passed && silent.detail.contains("no answer"));
    }

    #[test]
    fn programs_find_every_front_door() {
        let error = Error::new(Code::ServiceRefused, "no answer");
        let doors = vec![
            (HostName::new("door1"), Err(error)),
            (HostName::new("door2"), Ok(right())),
        ];
        let document = document(&doors);
        assert_eq!(document["haproxy"][0]["name"], "node1");
        assert_eq!(document["haproxy_error"], "no answer");
        assert_eq!(document["front_doors"][0]["host"], "door1");
        assert_eq!(document["front_doors"][0]["error"], "no answer");
        assert_eq!(document["front_doors"][1]["servers"][0]["name"], "node1");
        let rows = table(&cluster("", FIVE), doors);
        assert_eq!(rows.head[..2], ["HAProxy", "listener"]);
        assert!(rows.body.iter().all(|(_, cells)| cells[0] == "door2"));
    }
}
