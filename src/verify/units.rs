//! Checks that every unit runs, starts at boot, and listens.

use std::collections::BTreeMap;

use super::Check;
use crate::{
    cluster::Cluster,
    facts::Facts,
    inventory::HostName,
    services::health::{silent_ports, unit_state},
};

pub(super) fn units(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Check {
    let unread = Facts::default();
    let mut wrong = Vec::new();
    let mut count = 0;
    for node in cluster.nodes.values() {
        let (host, facts) = (&node.name, facts.get(&node.name).unwrap_or(&unread));
        for role in &node.roles {
            let unit = role.unit();
            let fact = facts.unit(unit);
            count += 1;
            if !fact.is_active() {
                let state = unit_state(*role, cluster, facts);
                wrong.push(format!("{unit} on {host} is {state}"));
            } else if !fact.is_enabled() {
                wrong.push(format!("{unit} on {host} does not start at boot"));
            } else {
                let silent = silent_ports(*role, cluster, facts).into_iter();
                wrong.extend(
                    silent.map(|port| format!("{unit} on {host} does not listen on port {port}")),
                );
            }
        }
    }
    Check::of(
        "units",
        wrong,
        format!("{count} units active, and enabled at boot"),
    )
}
