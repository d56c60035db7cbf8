//! `pgherd status` and `pgherd verify`: verbs that look and answer.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::{Global, certificates::Certificates};
use crate::{
    cluster::Cluster,
    engine::{
        context::{self, Base, Sight, Site},
        drill::repair,
        hosts::Outlook,
        rotate,
    },
    error::{Error, Result},
    etcd::{Etcd, Health},
    event::Events,
    haproxy,
    inventory::{HostName, Role},
    patroni::{self, Topology},
    plan::membership::{self, Finding, Left},
    report::{Table, Terminal, Tone},
    verify::{Proof, alarms, settings},
};

/// How long lag may take to vanish, and HAProxy to notice what has just changed.
const BOUND: Duration = Duration::from_secs(5);

pub(super) async fn verify(global: &Global, terminal: &Terminal) -> Result<()> {
    let base = Base::there(global).await?;
    terminal.conceal(base.workspace.secrets()?.values());
    repair::notice(&base, terminal)?;
    let outlook = base.outlook().await?;
    let machines = outlook.complete(&base.inventory)?;
    let (events, _quiet) = Events::channel();
    let site = base.connect(machines, &events).await?;
    let proof = prove(&site).await;
    site.close().await;
    let proof = proof?;
    if terminal.json {
        terminal.print_json(&proof);
    } else {
        let mut table = Table::new(["", "check", "what was seen"]);
        for check in &proof.checks {
            let (tone, mark) = if check.passed {
                (Tone::Plain, "ok")
            } else {
                (Tone::Bad, "FAILED")
            };
            table.toned_row(tone, [mark, check.name, &check.detail]);
        }
        table.print(terminal);
    }
    proof.error(&base.inventory.cluster).map_or(Ok(()), Err)
}

async fn prove(site: &Site<'_>) -> Result<Proof> {
    let sight = site.look().await?.whole()?;
    site.prove(sight, BOUND).await
}

/// The cluster's hosts, at least one of which runs.
pub(super) async fn hosts(global: &Global, terminal: &Terminal) -> Result<(Base, Outlook)> {
    let base = Base::there(global).await?;
    terminal.conceal(base.workspace.secrets()?.values());
    repair::notice(&base, terminal)?;
    let outlook = base.outlook().await?;
    if outlook.running.is_empty() {
        return Err(context::no_hosts(&base.inventory));
    }
    Ok((base, outlook))
}

pub(super) async fn status(global: &Global, terminal: &Terminal) -> Result<()> {
    let (base, outlook) = hosts(global, terminal).await?;
    let (events, _quiet) = Events::channel();
    let site = base.connect(&outlook.running, &events).await?;
    let status = gather(&site, &outlook.strangers).await;
    site.close().await;
    let status = status?;
    if terminal.json {
        terminal.print_json(&status.document(&base, &outlook.absent()));
    } else {
        status.print(&base, &outlook.absent(), terminal);
        rotate::say_unfinished(&base, terminal)?;
    }
    Ok(())
}

/// Everything that `status` shows.
struct Status {
    sight: Sight,
    survey: std::collections::BTreeMap<HostName, Result<patroni::Status>>,
    topology: Option<Topology>,
    etcd: Vec<(HostName, Result<Health>)>,
    /// Hosts that belong to the cluster and are not in the inventory.
    left: Vec<Left>,
    /// In what the members differ from those that are declared.
    differs: Vec<Finding>,
    alarms: BTreeSet<alarms::Raised>,
    /// Settings that PostgreSQL runs with and that are not the inventory's.
    settings: Vec<String>,
    servers: Result<Vec<haproxy::Server>>,
    certificates: Certificates,
}

async fn gather(site: &Site<'_>, strangers: &[HostName]) -> Result<Status> {
    let sight = site.look().await?;
    let cluster: &Cluster = &sight.cluster;
    let etcd = futures_util::future::join_all(cluster.with_role(Role::Etcd).map(|node| async {
        let health = Etcd::on(&site.http, &node.name).health().await;
        (node.name.clone(), health)
    }));
    let prover = site.prover(&sight);
    let members = async {
        let survey = patroni::survey(&site.http, cluster).await;
        let settings = settings::differences(&prover, &survey, &sight.found).await;
        (survey, settings)
    };
    let ((survey, settings), etcd, alarms, servers) = tokio::join!(
        members,
        etcd,
        alarms::raised(&prover),
        haproxy::servers(&site.http, cluster),
    );
    let topology = patroni::overview(&site.http, &survey).await;
    Ok(Status {
        left: membership::left(&site.base.inventory, &sight.found, strangers),
        differs: membership::findings(cluster, &sight.found),
        certificates: Certificates::of(site.base, &sight, &site.http.lapsed())?,
        topology,
        survey,
        etcd,
        alarms,
        settings,
        servers,
        sight,
    })
}

struct MemberRow {
    name: String,
    address: String,
    role: String,
    state: String,
    timeline: Option<u64>,
    lag: Option<Value>,
    pending_restart: bool,
    error: Option<String>,
}

impl Status {
    fn members(&self) -> Vec<MemberRow> {
        self.sight
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

    fn print(&self, base: &Base, absent: &[HostName], terminal: &Terminal) {
        let mut table = Table::new(["member", "host", "role", "state", "TL", "lag (bytes)"])
            .title(format!("cluster {}", base.inventory.cluster));
        for member in self.members() {
            let lag = member.lag.map_or(String::new(), |lag| {
                lag.to_string().trim_matches('"').to_owned()
            });
            let mut state = member.state;
            if member.pending_restart {
                state.push_str(" (restart pending)");
            }
            let tone = match (&member.error, member.role.as_str()) {
                (Some(_), _) => Tone::Bad,
                (None, "leader") => Tone::Good,
                _ => Tone::Plain,
            };
            let timeline = member
                .timeline
                .map_or(String::new(), |timeline| timeline.to_string());
            table.toned_row(
                tone,
                [
                    member.name,
                    member.address,
                    member.role,
                    state,
                    timeline,
                    lag,
                ],
            );
        }
        for left in self.left.iter().filter(|left| left.role.is_some()) {
            let address = left.address.map(|address| address.to_string());
            table.toned_row(
                Tone::Bad,
                [
                    left.name.to_string(),
                    address.unwrap_or_default(),
                    format!("{} (undeclared)", left.role.as_deref().unwrap_or_default()),
                    left.state.clone().unwrap_or_default(),
                    String::new(),
                    String::new(),
                ],
            );
        }
        table.print(terminal);
        let mut table = Table::new(["etcd", "health"]);
        for (host, health) in &self.etcd {
            let (tone, word) = match health {
                Ok(health) if health.healthy => (Tone::Plain, "healthy".to_owned()),
                Ok(health) => (Tone::Bad, self.ailment(host, health)),
                Err(error) => (Tone::Bad, error.what().to_owned()),
            };
            table.toned_row(tone, [host.to_string(), word]);
        }
        table.print(terminal);
        match &self.servers {
            Ok(servers) => {
                let mut table = Table::new(["HAProxy", "port", "backend", "status", "sessions"]);
                for server in servers {
                    let port = match server.listener.as_str() {
                        haproxy::WRITE => base.inventory.haproxy.write_port.to_string(),
                        haproxy::READ => base.inventory.haproxy.read_port.to_string(),
                        _ => String::new(),
                    };
                    let tone = if server.is_up() {
                        Tone::Plain
                    } else {
                        Tone::Dim
                    };
                    table.toned_row(
                        tone,
                        [
                            server.listener.clone(),
                            port,
                            server.name.clone(),
                            server.status.clone(),
                            server.sessions.to_string(),
                        ],
                    );
                }
                table.print(terminal);
            }
            Err(error) => terminal.say(&format!("HAProxy: {error}")),
        }
        for finding in &self.differs {
            terminal.say(&format!("! {}; {}", finding.what, finding.instead));
        }
        for left in self.left.iter().filter(|left| !left.member) {
            terminal.say(&format!("host {left}; `down` takes it along"));
        }
        if self
            .topology
            .as_ref()
            .is_some_and(|topology| topology.pause)
        {
            let resume = context::typed(&base.inventory.path, "resume");
            terminal.say(&format!(
                "Patroni is paused: nothing fails over until it is resumed: {resume}"
            ));
        }
        for alarm in &self.alarms {
            terminal.say(&alarms::told(alarm));
        }
        for difference in &self.settings {
            terminal.say(&format!("settings: {difference}"));
        }
        if let Some(text) = self.certificates.sentence(base, jiff::Timestamp::now()) {
            terminal.say(&text);
        }
        if !base.inventory.tls.enabled {
            terminal.say(context::PLAINTEXT);
        }
        for host in absent {
            let up = context::typed(&base.inventory.path, "up");
            terminal.say(&format!("{host} does not run; start it: {up}"));
        }
        for error in &self.sight.dark {
            terminal.say(&error.to_string());
        }
    }

    /// Why an etcd is not healthy, by its own word.
    fn ailment(&self, host: &HostName, health: &Health) -> String {
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

    fn document(&self, base: &Base, absent: &[HostName]) -> Value {
        let members: Vec<Value> = self
            .members()
            .into_iter()
            .map(|member| {
                json!({
                    "name": member.name, "address": member.address, "role": member.role,
                    "state": member.state, "timeline": member.timeline, "lag_bytes": member.lag,
                    "pending_restart": member.pending_restart, "error": member.error,
                })
            })
            .collect();
        let etcd: Vec<Value> = self
            .etcd
            .iter()
            .map(|(host, health)| {
                let view = self.sight.found.stores.get(host);
                let members = view.map(|view| {
                    let members = view.members.iter();
                    members.map(|member| &member.name).collect::<Vec<_>>()
                });
                json!({
                    "name": host,
                    "healthy": health.as_ref().is_ok_and(|health| health.healthy),
                    "error": match health {
                        Ok(health) if health.healthy => None,
                        Ok(health) => Some(self.ailment(host, health)),
                        Err(error) => Some(error.to_string()),
                    },
                    "cluster_id": view.map(|view| &view.cluster_id),
                    "member_id": view.map(|view| &view.member_id),
                    "members": members,
                })
            })
            .collect();
        json!({
            "cluster": base.inventory.cluster,
            "members": members,
            "paused": self.topology.as_ref().is_some_and(|topology| topology.pause),
            "etcd": etcd,
            "etcd_alarms": self.alarms,
            "settings_differ": self.settings,
            "haproxy": self.servers.as_ref().ok(),
            "haproxy_error": self.servers.as_ref().err().map(Error::to_string),
            "tls": base.inventory.tls.enabled,
            "certificates": self.certificates.document(),
            "left_inventory": self.left,
            "membership": self.differs.iter().map(|finding| &finding.what).collect::<Vec<_>>(),
            "not_running": absent,
            "unreachable": self.sight.dark.iter().map(Error::to_string).collect::<Vec<_>>(),
        })
    }
}
