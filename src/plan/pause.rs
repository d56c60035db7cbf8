//! A paused cluster.
//!
//! While Patroni is paused, it elects no leader and starts no PostgreSQL. Restarting its unit would stop
//! PostgreSQL (`KillMode=mixed`), and nothing would start it again. So no step touches Patroni in such a
//! cluster. Steps for etcd, HAProxy and the host's own files are harmless, and may be the repair for which the
//! cluster was paused.

use serde_json::Value;

use super::{Change, Found, Plan, Step, members::TAKE_OVER, packages::INSTALL_PATRONI};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Inventory},
    services::postgres::PATRONI,
};

/// What does not happen in a paused cluster, as the one sentence for all messages.
pub const PAUSED: &str = "the cluster is paused: Patroni promotes no member and starts no PostgreSQL until it is resumed";

/// The paths of certificates on hosts.
const CERTIFICATES: &str = "/etc/pgherd/tls/";

impl Found {
    /// Whether Patroni is paused, according to its configuration in the DCS, or to the members while no etcd
    /// answers.
    pub fn is_paused(&self) -> bool {
        let config = self.dcs.as_ref().and_then(|keys| keys.config.as_ref());
        match config {
            Some(config) => is_truth(&config["pause"]),
            None => self.paused,
        }
    }
}

/// The values that count as true in Python, because that is how Patroni reads the key.
fn is_truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(keys) => !keys.is_empty(),
    }
}

impl Plan {
    /// Refuses steps that would touch Patroni while the cluster is paused, and names them.
    pub fn refuse_while_paused(&self, inventory: &Inventory) -> Result<()> {
        let mut refused: Vec<String> = Vec::new();
        let refused_steps = self
            .steps
            .iter()
            .filter(|step| touches_patroni(step) && !self.renews_certificates(step));
        for step in refused_steps {
            refused.push(format!("{} {}", step.host, step.name));
        }
        if !self.paused || refused.is_empty() {
            return Ok(());
        }
        Err(paused(inventory).cause(format!(
            "these steps would touch Patroni or PostgreSQL: {}",
            refused.join(", ")
        )))
    }
}

impl Plan {
    /// Whether a step only makes Patroni and PostgreSQL read other certificates, which stops and starts
    /// nothing. The cluster may need that before it can be resumed.
    fn renews_certificates(&self, step: &Step) -> bool {
        let is_certificate = |change: &Change| matches!(change, Change::File { path, .. } if path.starts_with(CERTIFICATES));
        let renewed = |host: &HostName| {
            let mut steps = self.steps.iter();
            let configured = steps.find(|it| it.host == *host && it.name == PATRONI.configure);
            configured.is_some_and(|it| it.changes.iter().all(is_certificate))
        };
        let mut reloads = self.steps.iter().filter(|it| it.name == PATRONI.reload);
        if step.name == PATRONI.configure || step.name == PATRONI.reload {
            renewed(&step.host)
        } else {
            step.name == TAKE_OVER && reloads.all(|it| renewed(&it.host))
        }
    }
}

/// The error of a run that finds steps which a pause forbids.
pub fn paused(inventory: &Inventory) -> Error {
    refusal(Code::ClusterPaused, inventory)
}

/// The error of a verb that is not possible while the cluster is paused.
pub fn not_while_paused(inventory: &Inventory) -> Error {
    refusal(Code::NotPossibleNow, inventory)
}

fn refusal(code: Code, inventory: &Inventory) -> Error {
    Error::new(code, PAUSED)
        .left("nothing was changed")
        .hint(how_to_resume(inventory))
        .hint("Patroni does not note who paused it: ask before you resume it")
}

/// The command that ends a pause.
pub fn how_to_resume(inventory: &Inventory) -> String {
    format!("resume it: {}", inventory.command("resume"))
}

/// Whether a step changes Patroni or its PostgreSQL.
fn touches_patroni(step: &Step) -> bool {
    step.changes_something()
        && (step.units.contains(&"patroni")
            || [PATRONI.configure, INSTALL_PATRONI].contains(&step.name))
}
