//! Front doors that leave give up the cluster's address before anything else changes.
//!
//! Once the other front doors have their new configs, they no longer advertise to a front door that leaves. Its
//! keepalived would then keep the address, or take it although another one has it.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId, belongings};
use crate::{
    cluster::Cluster,
    inventory::{HostName, Role},
    remote::Script,
};

/// How long keepalived may take to stop.
const STOPPING: Duration = Duration::from_secs(120);

/// Stops and disables keepalived on the front doors that leave. It announces that it stops, and another front door
/// takes the address at once.
pub(super) fn plan<'a>(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    leaving: impl Iterator<Item = &'a HostName>,
) -> Vec<StepId> {
    let unit = Role::Keepalived.unit();
    let mut steps = Vec::new();
    for host in leaving {
        let Some(facts) = found.facts.get(host) else {
            continue;
        };
        let state = facts.unit(unit);
        let runs = state.is_active() || state.enabled == "enabled";
        if !(runs && belongings::is_taken(cluster, facts, Role::Keepalived)) {
            continue;
        }
        steps.push(
            plan.push(Step {
                host: host.clone(),
                name: "retire-keepalived",
                why: "another front door must have the cluster's address alone".into(),
                after: Vec::new(),
                changes: vec![Change::Other(format!("{unit} is stopped and disabled"))],
                action: Action::Run(
                    Script::new()
                        .alone("retire-keepalived")
                        .line(format!("systemctl disable --quiet --now {unit}")),
                ),
                limit: STOPPING,
                units: vec![unit],
            }),
        );
    }
    steps
}
