//! Conditions about members that steps wait for.

use crate::{
    error::Result,
    inventory::{HostName, Role},
    services::{
        etcd::Etcd,
        health::{Seen, Ways, silent},
        postgres::patroni::{self, Patroni, Status},
    },
};

/// Whether one member is primary and accepts writes.
pub(crate) async fn leader(ways: &Ways<'_>) -> Seen {
    let survey = ways.survey().await;
    let states: Vec<String> = survey
        .iter()
        .map(|(host, status)| format!("{host}: {}", describe(status)))
        .collect();
    let Some(host) = patroni::leader_of(&survey) else {
        return Seen::Not(states.join("; "));
    };
    match Patroni::on(ways.http, host).is_leader().await {
        Ok(true) => Seen::Met,
        _ => Seen::Not(states.join("; ")),
    }
}

/// Whether the leader streams to `host`.
pub(crate) async fn streaming(host: &HostName, ways: &Ways<'_>) -> Seen {
    let survey = ways.survey().await;
    match patroni::leader_of(&survey) {
        Some(leader) if leader == host => return Seen::Met,
        Some(leader) => {
            let streams = survey[leader]
                .as_ref()
                .is_ok_and(|status| status.streams_to(host));
            if streams {
                return Seen::Met;
            }
        }
        None => {}
    }
    let Some(status) = survey.get(host) else {
        return Seen::Not("no such host".into());
    };
    let state = describe(status);
    let working = status
        .as_ref()
        .is_ok_and(|status| status.state.contains("creating replica"));
    if working {
        Seen::Working(state)
    } else {
        Seen::Not(state)
    }
}

/// Whether Patroni answers on `host` and has told the DCS its present address.
pub(super) async fn registered(host: &HostName, ways: &Ways<'_>) -> Seen {
    let status = Patroni::on(ways.http, host).status().await;
    let running = status.as_ref().is_ok_and(Status::is_running);
    if !running {
        return Seen::Not(describe(&status));
    }
    let Some(node) = ways.cluster.node(host) else {
        return Seen::Not("no such host".into());
    };
    let address = format!("://{}:", node.address);
    for etcd in ways.cluster.with_role(Role::Etcd) {
        let keys = Etcd::on(ways.http, &etcd.name)
            .patroni_keys(ways.cluster.name())
            .await;
        let Ok(keys) = keys else { continue };
        let told = keys
            .members
            .get(host.as_str())
            .and_then(|member| member["conn_url"].as_str())
            .is_some_and(|url| url.contains(&address));
        if told {
            return Seen::Met;
        }
    }
    Seen::Not("the DCS has no address for it yet".into())
}

fn describe(status: &Result<Status>) -> String {
    match status {
        Ok(status) if status.state.is_empty() => "Patroni does not report its state".into(),
        Ok(status) if status.role.is_empty() => status.state.clone(),
        Ok(status) => format!("{}, {}", status.role, status.state),
        Err(error) => silent("Patroni", error),
    }
}
