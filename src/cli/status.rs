//! `pgherd status`.

use serde_json::{Value, json};

use super::{Global, PLAINTEXT, certificates, console::Console};
use crate::{
    engine::{
        at_work::{self, AtWork},
        context::Context,
        drill::repair,
        hosts::HostStatus,
        status::{self, Status},
        unfinished,
    },
    error::{Error, Result},
    inventory::HostName,
    report::{Table, Terminal, Tone},
    verify::alarms,
};

pub(super) async fn run(global: &Global, terminal: &Terminal) -> Result<()> {
    let (context, hosts) = hosts(global, terminal).await?;
    let status = status::look(&context, &hosts).await?;
    if terminal.json {
        terminal.print_json(&document(&status, &context, &hosts.absent()));
    } else {
        print(&status, &context, &hosts.absent(), terminal);
        for note in unfinished::notes(&context)? {
            terminal.say(&note);
        }
    }
    Ok(())
}

/// The cluster's hosts, at least one of which runs.
pub(super) async fn hosts(global: &Global, terminal: &Terminal) -> Result<(Context, HostStatus)> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    repair::notice(&context)?;
    let hosts = context.host_status().await?;
    hosts
        .some(&context)
        .map_err(|error| at_work::explain(&context, error))?;
    Ok((context, hosts))
}

fn print(status: &Status, context: &Context, absent: &[HostName], terminal: &Terminal) {
    let mut table = Table::new(["member", "host", "role", "state", "TL", "lag (bytes)"])
        .title(format!("cluster {}", context.inventory.cluster));
    for member in status.members() {
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
    for left in status.left.iter().filter(|left| left.role.is_some()) {
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
    if let Some(work) = status.at_work() {
        terminal.say(&work.to_string());
    }
    let mut table = Table::new(["etcd", "health"]);
    for (host, health) in &status.etcd {
        let (tone, word) = match health {
            Ok(health) if health.healthy => (Tone::Plain, "healthy".to_owned()),
            Ok(health) => (Tone::Bad, status.ailment(host, health)),
            Err(error) => (Tone::Bad, error.what().to_owned()),
        };
        table.toned_row(tone, [host.to_string(), word]);
    }
    table.print(terminal);
    match &status.servers {
        Ok(servers) => {
            let mut table = Table::new(["HAProxy", "port", "backend", "status", "sessions"]);
            for server in servers {
                let port = status::port(context, &server.listener)
                    .map_or(String::new(), |port| port.to_string());
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
    let units = status.units();
    if !units.is_empty() {
        let mut table = Table::new(["service", "host", "state"]);
        for unit in units {
            let tone = if unit.active { Tone::Plain } else { Tone::Bad };
            table.toned_row(tone, [unit.service.to_owned(), unit.host, unit.state]);
        }
        table.print(terminal);
    }
    for finding in &status.differs {
        terminal.say(&format!("! {}; {}", finding.what, finding.instead));
    }
    for left in status.left.iter().filter(|left| !left.member) {
        terminal.say(&format!("host {left}; `down` takes it along"));
    }
    if status.is_paused() {
        let resume = context.command("resume");
        terminal.say(&format!(
            "Patroni is paused: nothing fails over until it is resumed: {resume}"
        ));
    }
    for alarm in &status.alarms {
        terminal.say(&alarms::told(alarm));
    }
    for difference in &status.settings {
        terminal.say(&format!("settings: {difference}"));
    }
    if let Some(text) =
        certificates::sentence(&status.certificates, context, jiff::Timestamp::now())
    {
        terminal.say(&text);
    }
    if !context.inventory.tls.enabled {
        terminal.say(PLAINTEXT);
    }
    for host in absent {
        let up = context.command("up");
        terminal.say(&format!("{host} does not run; start it: {up}"));
    }
    for error in &status.observed.unreachable {
        terminal.say(&error.to_string());
    }
}

fn document(status: &Status, context: &Context, absent: &[HostName]) -> Value {
    let members: Vec<Value> = status
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
    let etcd: Vec<Value> = status
        .etcd
        .iter()
        .map(|(host, health)| {
            let view = status.observed.found.stores.get(host);
            let members = view.map(|view| {
                let members = view.members.iter();
                members.map(|member| &member.name).collect::<Vec<_>>()
            });
            json!({
                "name": host,
                "healthy": health.as_ref().is_ok_and(|health| health.healthy),
                "error": match health {
                    Ok(health) if health.healthy => None,
                    Ok(health) => Some(status.ailment(host, health)),
                    Err(error) => Some(error.to_string()),
                },
                "cluster_id": view.map(|view| &view.cluster_id),
                "member_id": view.map(|view| &view.member_id),
                "members": members,
            })
        })
        .collect();
    let mut document = json!({
        "cluster": context.inventory.cluster,
        "members": members,
        "at_work": status.at_work().as_ref().map(AtWork::document),
        "paused": status.is_paused(),
        "etcd": etcd,
        "etcd_alarms": status.alarms,
        "settings_differ": status.settings,
        "haproxy": status.servers.as_ref().ok(),
        "haproxy_error": status.servers.as_ref().err().map(Error::to_string),
        "tls": context.inventory.tls.enabled,
        "certificates": certificates::document(&status.certificates),
        "left_inventory": status.left,
        "membership": status.differs.iter().map(|finding| &finding.what).collect::<Vec<_>>(),
        "not_running": absent,
        "unreachable": status.observed.unreachable.iter().map(Error::to_string).collect::<Vec<_>>(),
    });
    let units: Vec<Value> = status
        .units()
        .into_iter()
        .map(|unit| json!({"service": unit.service, "host": unit.host, "state": unit.state}))
        .collect();
    if !units.is_empty() {
        document["services"] = units.into();
    }
    document
}
