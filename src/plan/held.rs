//! Members that were held while their data was replaced start again.

use std::time::Duration;

use super::{Action, Change, Plan, Step, StepId};
use crate::{
    inventory::HostName,
    remote::{PENDING, Script},
    render::{File, PATRONI_CONFIG},
    services::postgres::{HELD, PATRONI},
};

/// Lets a member start again, and starts it. With `config`, Patroni's configuration is replaced before.
pub(super) fn release(
    plan: &mut Plan,
    host: &HostName,
    config: Option<&File>,
    why: &str,
    after: Vec<StepId>,
) -> StepId {
    let mut script = Script::new().alone("release-member");
    let mut changes = Vec::new();
    if let Some(file) = config {
        script = script.put(file);
        changes.push(Change::Other(format!("{PATRONI_CONFIG} names its version")));
    }
    changes.push(Change::Unit {
        unit: PATRONI.name,
        verb: "start",
    });
    // It is stopped, so it starts with the files that are there: nothing else must follow these.
    let script = script.line(format!(
        "rm -f {HELD}\nsystemctl daemon-reload\nsystemctl enable --quiet patroni\nsystemctl start patroni\nrm -f {PENDING}/patroni"
    ));
    plan.push(Step {
        host: host.clone(),
        name: "release-member",
        why: why.into(),
        after,
        changes,
        action: Action::Run(script),
        limit: Duration::from_secs(60),
        units: vec!["patroni"],
    })
}
