//! What `status` shows of the members.

use serde_json::{Map, Value, json};

use super::{archive, settings};
use crate::{
    cluster::{Address, Cluster},
    inventory::Role,
    plan::membership,
    services::{
        health::{Look, Mark, Rows, Shown},
        postgres::{
            Survey,
            patroni::{self, Topology},
        },
    },
};

pub(super) async fn look(look: &Look<'_>) -> Shown {
    let ways = &look.ways;
    let survey = ways.survey().await;
    let (topology, settings, archives) = tokio::join!(
        patroni::overview(ways.http, &survey),
        settings::differences(look, &survey),
        archive::look(look, &survey),
    );
    let members = members(ways.cluster, &survey, topology.as_ref());
    let paused = topology.is_some_and(|topology| topology.pause);
    let resume = ways.cluster.inventory.command("resume");
    let warning = format!("Patroni is paused: nothing fails over until it is resumed: {resume}");
    let mut document = document(&members, paused, &settings);
    document.insert("archive".to_owned(), archives.document);
    let archives = archives.wrong.iter().map(|it| format!("! archive: {it}"));
    Shown {
        document,
        table: Some(table(members, look)),
        warnings: paused
            .then_some(warning)
            .into_iter()
            .chain(archives)
            .collect(),
        differences: settings
            .iter()
            .map(|it| format!("settings: {it}"))
            .collect(),
        ..Shown::default()
    }
}

/// A member, according to itself and to the others.
struct MemberRow {
    name: String,
    /// `None` if it is not known.
    address: Option<String>,
    role: String,
    state: String,
    timeline: Option<u64>,
    lag: Option<Value>,
    pending_restart: bool,
    error: Option<String>,
}

fn members(cluster: &Cluster, survey: &Survey, topology: Option<&Topology>) -> Vec<MemberRow> {
    cluster
        .with_role(Role::Postgres)
        .map(|node| {
            let known = topology.and_then(|topology| {
                topology
                    .members
                    .iter()
                    .find(|member| member.name == node.name.as_str())
            });
            let own = survey.get(&node.name);
            let error = own
                .and_then(|own| own.as_ref().err())
                .map(|error| error.what().to_owned())
                .or_else(|| own.is_none().then(|| "the host does not run".into()));
            let own = own.and_then(|own| own.as_ref().ok());
            MemberRow {
                name: node.name.to_string(),
                address: match node.address {
                    Address::Known(address) => Some(address.to_string()),
                    Address::Pending(_) => None,
                },
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

fn table(members: Vec<MemberRow>, look: &Look<'_>) -> Rows {
    let mut rows = Vec::new();
    for member in members {
        let lag = member.lag.map_or(String::new(), |lag| {
            lag.to_string().trim_matches('"').to_owned()
        });
        let mut state = member.state;
        if member.pending_restart {
            state.push_str(" (restart pending)");
        }
        let mark = match (&member.error, member.role.as_str()) {
            (Some(_), _) => Mark::Bad,
            (None, "leader") => Mark::Good,
            _ => Mark::Plain,
        };
        let timeline = member
            .timeline
            .map_or(String::new(), |timeline| timeline.to_string());
        let cells = [
            member.name,
            member.address.unwrap_or_default(),
            member.role,
            state,
            timeline,
            lag,
        ];
        rows.push((mark, cells.to_vec()));
    }
    let inventory = &look.ways.cluster.inventory;
    for left in membership::left(inventory, look.found, &[]) {
        // A host that is not one of Patroni's members has no role there.
        let Some(role) = left.role else { continue };
        let address = left.address.map(|address| address.to_string());
        let cells = [
            left.name.to_string(),
            address.unwrap_or_default(),
            format!("{role} (undeclared)"),
            left.state.unwrap_or_default(),
            String::new(),
            String::new(),
        ];
        rows.push((Mark::Bad, cells.to_vec()));
    }
    Rows {
        title: Some(format!("cluster {}", inventory.cluster)),
        head: vec!["member", "host", "role", "state", "TL", "lag (bytes)"],
        body: rows,
    }
}

fn document(members: &[MemberRow], paused: bool, settings: &[String]) -> Map<String, Value> {
    let members: Vec<Value> = members
        .iter()
        .map(|member| {
            json!({
                "name": member.name, "address": member.address, "role": member.role,
                "state": member.state, "timeline": member.timeline, "lag_bytes": member.lag,
                "pending_restart": member.pending_restart, "error": member.error,
            })
        })
        .collect();
    Map::from_iter([
        ("members".to_owned(), members.into()),
        ("paused".to_owned(), paused.into()),
        ("settings_differ".to_owned(), json!(settings)),
    ])
}
