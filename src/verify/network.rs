//! Checks that the members reach each other and etcd from their hosts.
//!
//! Nothing of this is visible from this machine: a firewall between two replicas is noticed only when one of
//! them leads. A member that does not reach etcd continues for a while, but can never lead.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;

use super::{Check, Prover};
use crate::{
    cluster::{Address, Node, PATRONI_PORT},
    error::Result,
    facts::Facts,
    inventory::{HostName, Role},
    remote::{Script, quote},
    services::postgres::patroni::Status,
};

const NAME: &str = "network";

/// How long a host may take to ask all others.
const ANSWER: Duration = Duration::from_secs(15);

pub(super) async fn look(
    prover: &Prover,
    survey: &BTreeMap<HostName, Result<Status>>,
    facts: &BTreeMap<HostName, Facts>,
) -> Check {
    let ttl = u64::from(prover.cluster.inventory.patroni.ttl);
    let mut wrong: Vec<String> = survey
        .iter()
        .filter_map(|(host, status)| {
            let epoch = facts.get(host)?.clock? / 1000;
            away(host, status.as_ref().ok()?, epoch, ttl)
        })
        .collect();
    // A member that does not run is reported by other checks.
    let runs = |host: &HostName| {
        survey
            .get(host)
            .is_some_and(|it| matches!(it, Ok(status) if status.is_running()))
    };
    let asked = survey
        .keys()
        .map(|host| async move { (host, ask(prover, host).await) });
    for (host, answer) in join_all(asked).await {
        // A host that cannot be asked is reported by `versions`.
        wrong.extend(unreached(host, &answer.unwrap_or_default(), prover, &runs));
    }
    Check::of(NAME, wrong, "the members reach each other, and etcd".into())
}

/// A member that does not reach etcd; `epoch` is the time by its own clock.
fn away(host: &HostName, status: &Status, epoch: i64, ttl: u64) -> Option<String> {
    let seen = i64::try_from(status.dcs_last_seen?).ok()?;
    let silent = u64::try_from(epoch - seen).ok()?;
    (seen > 0 && silent > ttl)
        .then(|| format!("the Patroni on {host} has not reached etcd for {silent} s"))
}

async fn ask(prover: &Prover, host: &HostName) -> Result<String> {
    let cluster = &prover.cluster;
    let targets: Vec<String> = cluster
        .with_role(Role::Postgres)
        .filter(|node| node.name != *host)
        .filter_map(target)
        .collect();
    if targets.is_empty() {
        return Ok(String::new());
    }
    let scheme = if cluster.tls.is_used() {
        "https"
    } else {
        "http"
    };
    let script = Script::probe(format!(
        "TARGETS={} PG_PORT={} REST_PORT={PATRONI_PORT} SCHEME={scheme}\n",
        quote(&targets.join(" ")),
        cluster.inventory.postgresql.port,
    ))
    .line(include_str!("network.sh"));
    let silent = |_, _: &str| {};
    let output = prover.remote.run(host, &script, ANSWER, &silent).await?;
    Ok(output.stdout)
}

fn target(node: &Node) -> Option<String> {
    match node.address {
        Address::Known(address) => Some(format!("{}={address}", node.name)),
        Address::Pending(_) => None,
    }
}

fn unreached(
    host: &HostName,
    answer: &str,
    prover: &Prover,
    runs: &dyn Fn(&HostName) -> bool,
) -> Vec<String> {
    let port = prover.cluster.inventory.postgresql.port;
    let nodes: Vec<&HostName> = prover
        .cluster
        .with_role(Role::Postgres)
        .map(|node| &node.name)
        .collect();
    read(answer)
        .into_iter()
        .filter(|(_, to, _)| nodes.iter().any(|name| name.as_str() == *to && runs(name)))
        .map(|(service, to, said)| {
            let (called, port) = match service {
                "postgres" => ("PostgreSQL", port),
                _ => ("Patroni", PATRONI_PORT),
            };
            let said = if said.is_empty() {
                String::new()
            } else {
                format!(": {said}")
            };
            format!("{host} does not reach {called} on {to} (port {port}){said}")
        })
        .collect()
}

/// Service, host and answer.
fn read(answer: &str) -> Vec<(&str, &str, &str)> {
    answer
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let service = words
                .next()
                .filter(|it| matches!(*it, "postgres" | "patroni"))?;
            Some((service, words.next()?, words.next().unwrap_or_default()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_lost_etcd_is_told_by_its_own_clock() {
        let host = HostName::new("node2");
        let status = |seen: u64| -> Status {
            serde_json::from_value(serde_json::json!({"dcs_last_seen": seen})).unwrap()
        };
        let told = away(&host, &status(1000), 1031, 30).unwrap();
        assert_eq!(told, "the Patroni on node2 has not reached etcd for 31 s");
        for (seen, now) in [(1000, 1030), (1000, 900), (0, 5000)] {
            assert_eq!(away(&host, &status(seen), now, 30), None, "{seen} {now}");
        }
        assert_eq!(away(&host, &Status::default(), 1000, 30), None);
    }

    #[test]
    fn what_a_host_says_of_the_others_is_read() {
        let said = "postgres node3\npatroni node3 [Errno 113] No route to host\n\nbash: warning\n";
        assert_eq!(
            read(said),
            [
                ("postgres", "node3", ""),
                ("patroni", "node3", "[Errno 113] No route to host"),
            ]
        );
    }
}
