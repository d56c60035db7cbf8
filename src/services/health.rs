//! The health of services: when one is ready, what `status` shows, and what `verify` checks of it alone.
//!
//! Each service implements the trait [`Health`] in its own folder, in `health.rs`. [`of`] returns the
//! implementation for a role; it is made from the table that lists the services. Checks about several services
//! are in `verify`: a row that is written through one port and read from every replica, certificates,
//! connections between hosts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    postgres::{SharedSurvey, Survey},
    table,
};
use crate::{
    cluster::Cluster,
    error::{Error, Result},
    facts::{Facts, Listener},
    http::Http,
    inventory::{HostName, Role},
    plan::Found,
    remote::{Remote, Script},
    render::Files,
};

/// Makes [`of`] from the table.
macro_rules! healths {
    ($($(#[$attribute:meta])* $role:ident = $folder:ident,)*) => {
        /// The health of a service.
        pub(crate) fn of(role: Role) -> &'static dyn Health {
            match role {
                $($(#[$attribute])* Role::$role => crate::services::$folder::health::HEALTH,)*
            }
        }
    };
}
table!(healths);

/// How long a host may take to report a unit's state.
const ANSWER: Duration = Duration::from_secs(10);

/// The health of one service. The default methods use its unit.
#[async_trait]
pub(crate) trait Health: Sync {
    fn role(&self) -> Role;

    /// Whether the service on `host` is ready, for a step that waits for it ([`super::Wait`]).
    async fn ready(&self, host: &HostName, ways: &Ways<'_>) -> Seen {
        let unit = self.role().unit();
        match state(unit, host, ways).await {
            Ok(state) if state == "active" => Seen::Met,
            Ok(state) => Seen::Not(format!("{unit} is {state}")),
            Err(error) => Seen::Not(silent(unit, &error)),
        }
    }

    /// What `status` shows of it.
    async fn shown(&self, look: &Look<'_>) -> Shown {
        Shown {
            units: units(self.role(), look),
            ..Shown::default()
        }
    }

    /// What `verify` checks for this service only, in addition to the checks of every unit.
    async fn checks(&self, _look: &Look<'_>) -> Vec<Check> {
        Vec::new()
    }

    /// Those of its checks that a failover breaks, and that need no facts.
    async fn standing(&self, _ways: &Ways<'_>) -> Vec<Check> {
        Vec::new()
    }
}

/// How to ask a cluster's services.
#[derive(Clone, Copy)]
pub(crate) struct Ways<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) remote: &'a dyn Remote,
    pub(crate) http: &'a Http,
    /// What the members say of themselves, asked once for all.
    pub(crate) survey: &'a SharedSurvey,
}

impl Ways<'_> {
    pub(crate) async fn survey(&self) -> Arc<Survey> {
        self.survey.get(self.http, self.cluster).await
    }
}

/// One observation of a cluster whose hosts were read just now.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) ways: Ways<'a>,
    /// How to connect to PostgreSQL.
    pub(crate) tls: Option<&'a rustls::ClientConfig>,
    /// The files that should be on the hosts.
    pub(crate) files: &'a Files,
    pub(crate) found: &'a Found,
}

/// What a wait has seen.
pub(crate) enum Seen {
    Met,
    /// Waiting cannot help.
    Never(Error),
    /// Not yet; this is the present state.
    Not(String),
    /// Not yet, but there is progress.
    Working(String),
}

/// The message that a service does not answer, with the last cause: for example, nothing listens yet, or a
/// certificate is not valid.
pub(crate) fn silent(service: &str, error: &Error) -> String {
    match error.causes().last() {
        Some(cause) => format!("{service} does not answer yet ({cause})"),
        None => format!("{service} does not answer yet ({})", error.what()),
    }
}

async fn state(unit: &str, host: &HostName, ways: &Ways<'_>) -> Result<String> {
    let script = Script::probe(format!("systemctl is-active {unit}"));
    let quiet = |_, _: &str| {};
    let output = ways.remote.run(host, &script, ANSWER, &quiet).await?;
    Ok(match output.stdout.trim() {
        "" => "not known to systemd".to_owned(),
        state => state.to_owned(),
    })
}

/// Whether a failed check may succeed a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Settles {
    /// A settling cluster gets there by itself.
    #[default]
    Soon,
    /// Possibly, when Patroni applies its new settings in its next loop.
    InALoop,
    /// Only if somebody acts.
    Never,
}

/// One condition that must be true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    pub detail: String,
    #[serde(skip)]
    pub settles: Settles,
}

impl Check {
    /// A check that passes if nothing is wrong, with the text for that case.
    pub(crate) fn of(name: &'static str, wrong: Vec<String>, right: String) -> Self {
        let wrong = wrong.into_iter().reduce(|all, one| all + "; " + &one);
        Self {
            name,
            passed: wrong.is_none(),
            detail: wrong.unwrap_or(right),
            settles: Settles::default(),
        }
    }

    pub(crate) fn settles(self, settles: Settles) -> Self {
        Self { settles, ..self }
    }
}

/// What `status` shows of a service.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) table: Option<Rows>,
    /// A sentence instead of the table.
    pub(crate) instead: Option<String>,
    /// Rows in the common table of services without a table of their own.
    pub(crate) units: Vec<UnitRow>,
    /// What the service would not survive now, one sentence each.
    pub(crate) warnings: Vec<String>,
    /// Differences from the inventory, one sentence each.
    pub(crate) differences: Vec<String>,
    /// Its keys in `--json`.
    pub(crate) document: Map<String, Value>,
}

/// A table of `status`.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) title: Option<String>,
    pub(crate) head: Vec<&'static str>,
    pub(crate) body: Vec<(Mark, Vec<String>)>,
}

/// The emphasis of a row of `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Plain,
    Good,
    Bad,
    /// Not in use now.
    Idle,
}

/// A service on a host, according to systemd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitRow {
    pub(crate) service: &'static str,
    pub(crate) host: String,
    pub(crate) active: bool,
    pub(crate) state: String,
}

/// The rows of a service's units.
pub(crate) fn units(role: Role, look: &Look<'_>) -> Vec<UnitRow> {
    let nodes = look.ways.cluster.with_role(role);
    let rows = nodes.map(|node| {
        let facts = look.found.facts.get(&node.name);
        UnitRow {
            service: role.service().title,
            host: node.name.to_string(),
            active: facts.is_some_and(|facts| facts.unit(role.unit()).is_active()),
            state: facts.map_or_else(
                || "unreachable".into(),
                |facts| unit_state(role, look.ways.cluster, facts),
            ),
        }
    });
    rows.collect()
}

/// The state of a service's unit, and which program has its place if it does not run.
pub(crate) fn unit_state(role: Role, cluster: &Cluster, facts: &Facts) -> String {
    let unit = facts.unit(role.unit());
    let state = match unit.active.as_str() {
        "" => "not there",
        state => state,
    };
    if unit.is_active() || !role.service().ports_looked_at {
        return state.to_owned();
    }
    let mut others = listeners(role, cluster, facts);
    others.retain(|it| it.unit != format!("{}.service", role.unit()));
    let taken = others
        .iter()
        .map(|it| format!("; port {} is taken by {}", it.port, it.who()));
    format!("{state}{}", taken.collect::<String>())
}

/// The programs that listen on a service's ports.
fn listeners<'a>(role: Role, cluster: &Cluster, facts: &'a Facts) -> Vec<&'a Listener> {
    let ports = role.service().ports.iter();
    let ports: Vec<u16> = ports
        .map(|port| cluster.inventory.port(port.number))
        .collect();
    let mut found: Vec<&Listener> = facts.listeners.iter().collect();
    found.retain(|it| ports.contains(&it.port));
    // A process that listens on several addresses counts once.
    found.dedup_by_key(|it| (it.port, it.pid));
    found
}

/// The ports on which an observed service does not listen.
pub(crate) fn silent_ports(role: Role, cluster: &Cluster, facts: &Facts) -> Vec<u16> {
    let service = role.service();
    if !service.ports_looked_at {
        return Vec::new();
    }
    let unit = format!("{}.service", role.unit());
    let listens = |port: &u16| {
        let mut there = listeners(role, cluster, facts).into_iter();
        // In a container, the owner of another user's process may be unknown.
        there.any(|it| it.port == *port && (it.unit == unit || it.unit.is_empty()))
    };
    let ports = service.ports.iter();
    ports
        .map(|port| cluster.inventory.port(port.number))
        .filter(|port| !listens(port))
        .collect()
}
