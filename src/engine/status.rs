//! What there is of a cluster, for those who only look: its members, its store, its front door.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    at_work::{self, AtWork},
    certificates::Certificates,
    connected::Connected,
    context::Context,
    hosts::HostStatus,
    observe::Observed,
};
use crate::{
    cluster::Cluster,
    error::Result,
    event::Events,
    facts::UnitFact,
    inventory::{HostName, Role},
    plan::membership::{self, Finding, Left},
    services::{
        Rows,
        etcd::{Etcd, Health},
        haproxy,
        postgres::patroni::{self, Topology},
    },
    verify::{alarms, settings},
};

/// Everything that `status` shows.
pub(crate) struct Status {
    pub observed: Observed,
    survey: BTreeMap<HostName, Result<patroni::Status>>,
    topology: Option<Topology>,
    pub etcd: Vec<(HostName, Result<Health>)>,
    /// Hosts that belong to the cluster and are not in the inventory.
    pub left: Vec<Left>,
    /// In what the members differ from those that are declared.
    pub differs: Vec<Finding>,
    pub alarms: BTreeSet<alarms::Raised>,
    /// Settings that PostgreSQL runs with and that are not the inventory's.
    pub settings: Vec<String>,
    pub servers: Result<Vec<haproxy::Server>>,
    pub certificates: Certificates,
}

/// Looks at a cluster of which at least one host runs.
pub(crate) async fn look(context: &Context, hosts: &HostStatus) -> Result<Status> {
    let (events, _quiet) = Events::channel();
    context
        .on(hosts.some(context)?, &events, async |connected| {
            gather(connected, &hosts.strangers).await
        })
        .await
}

async fn gather(connected: &Connected<'_>, strangers: &[HostName]) -> Result<Status> {
    let observed = connected.look().await?;
    let cluster: &Cluster = &observed.cluster;
    let etcd = futures_util::future::join_all(cluster.with_role(Role::Etcd).map(|node| async {
        let health = Etcd::on(&connected.http, &node.name).health().await;
        (node.name.clone(), health)
    }));
    let prover = connected.prover(&observed);
    let members = async {
        let survey = patroni::survey(&connected.http, cluster).await;
        let settings = settings::differences(&prover, &survey, &observed.found).await;
        (survey, settings)
    };
    let ((survey, settings), etcd, alarms, servers) = tokio::join!(
        members,
        etcd,
        alarms::raised(&prover),
        haproxy::servers(&connected.http, cluster),
    );
    let topology = patroni::overview(&connected.http, &survey).await;
    Ok(Status {
        left: membership::left(&connected.context.inventory, &observed.found, strangers),
        differs: membership::findings(cluster, &observed.found),
        certificates: Certificates::of(connected.context, &observed, &connected.http.lapsed())?,
        topology,
        survey,
        etcd,
        alarms,
        settings,
        servers,
        observed,
    })
}

/// A member, by its own word and by that of the others.
pub(crate) struct MemberRow {
    pub name: String,
    pub address: String,
    pub role: String,
    pub state: String,
    pub timeline: Option<u64>,
    pub lag: Option<Value>,
    pub pending_restart: bool,
    pub error: Option<String>,
}

/// A service on a host, by the word of systemd.
pub(crate) struct UnitRow {
    pub service: &'static str,
    pub host: String,
    pub active: bool,
    pub state: String,
}

impl Status {
    pub(crate) fn members(&self) -> Vec<MemberRow> {
        self.observed
            .cluster
            .with_role(Role::Postgres)
            .map(|node| {
                let known = self.topology.as_ref().and_then(|topology| {
                    topology
                        .members
                        .iter()
                        .find(|member| member.name == node.name.as_str())
                });
                let own = self.survey.get(&node.name);
                let error = own
                    .and_then(|own| own.as_ref().err())
                    .map(|error| error.what().to_owned())
                    .or_else(|| own.is_none().then(|| "the host does not run".into()));
                let own = own.and_then(|own| own.as_ref().ok());
                MemberRow {
                    name: node.name.to_string(),
                    address: node.address.to_string(),
                    role: known
                        .map(|member| member.role.clone())
                        .or(own.map(|own| own.role.clone()))
                        .unwrap_or_default(),
                    state: match (&error, known, own) {
                        (Some(_), ..) => "unreachable".into(),
                        (None, Some(member), _) => member.state.clone(),
                        (None, None, Some(own)) => own.state.clone(),
                        (None, None, None) => String::new(),
                    },
                    timeline: known
                        .and_then(|member| member.timeline)
                        .or(own.and_then(|own| own.timeline)),
                    lag: known.and_then(|member| member.lag.clone()),
                    pending_restart: own.is_some_and(|own| own.pending_restart),
                    error,
                }
            })
            .collect()
    }

    /// The services of which `status` shows no more than how their units are.
    pub(crate) fn units(&self) -> Vec<UnitRow> {
        let mut rows = Vec::new();
        for role in Role::ALL {
            if role.service().status != Rows::Unit {
                continue;
            }
            for node in self.observed.cluster.with_role(role) {
                let facts = self.observed.found.facts.get(&node.name);
                let unit = facts.map(|facts| facts.unit(role.unit()));
                rows.push(UnitRow {
                    service: role.service().title,
                    host: node.name.to_string(),
                    active: unit.as_ref().is_some_and(UnitFact::is_active),
                    state: match unit {
                        None => "unreachable".into(),
                        Some(unit) if unit.active.is_empty() => "not there".into(),
                        Some(unit) => unit.active,
                    },
                });
            }
        }
        rows
    }

    /// Why an etcd is not healthy, by its own word.
    pub(crate) fn ailment(&self, host: &HostName, health: &Health) -> String {
        let name = host.as_str();
        let raised = self.alarms.iter();
        let alarm = raised
            .filter(|alarm| alarm.member.is_empty() || alarm.member == name)
            .map(|alarm| format!("alarm {}", alarm.kind))
            .next();
        match (alarm, health.reason.as_str()) {
            (Some(alarm), _) => alarm,
            // All members are unwell while one has an alarm, and without a leader.
            (None, "") if self.alarms.is_empty() => "without a leader".into(),
            (None, "") => "not healthy".into(),
            (None, reason) => reason.to_owned(),
        }
    }

    /// The run that has the hosts.
    pub(crate) fn at_work(&self) -> Option<AtWork> {
        at_work::seen(&self.observed.found.facts)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.topology
            .as_ref()
            .is_some_and(|topology| topology.pause)
    }
}

/// The port of a listener of HAProxy's, where it is one of those that clients use.
pub(crate) fn port(context: &Context, listener: &str) -> Option<u16> {
    let ports = &context.inventory.haproxy;
    match listener {
        haproxy::WRITE => Some(ports.write_port),
        haproxy::READ => Some(ports.read_port),
        _ => None,
    }
}
