//! PostgreSQL's parameters, tried before the first database is made with them.
//!
//! With a parameter that PostgreSQL cannot start with, a first bootstrap fails after `initdb`: one member
//! after the other makes a database of its own, and none of them ever runs.

use crate::{
    cluster::{Cluster, Node},
    facts::Facts,
    remote::quote,
};

const TRIAL: &str = include_str!("trial.sh");

/// The lines that try the inventory's parameters on a host that has no database yet.
///
/// `None` where there is nothing to try: a database is there, or every parameter is pgherd's own.
pub(super) fn before_the_first_start(
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
) -> Option<String> {
    let empty = facts.data.as_ref().is_none_or(|data| data.entries == 0);
    empty.then(|| lines(cluster, node)).flatten()
}

pub(super) fn lines(cluster: &Cluster, node: &Node) -> Option<String> {
    let parameters = &cluster.inventory.postgresql.parameters;
    let version = node.postgresql?;
    if parameters.is_empty() {
        return None;
    }
    let conf: String = parameters
        .iter()
        .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
        .collect();
    let libraries: Vec<&str> = parameters
        .get("shared_preload_libraries")
        .map(|list| {
            let names = list.split(',').map(|name| name.trim().trim_matches('"'));
            names.filter(|name| !name.is_empty()).collect()
        })
        .unwrap_or_default();
    Some(format!(
        "VERSION={version}\nCONF={}\nLIBRARIES={}\n{TRIAL}try_parameters",
        quote(&conf),
        quote(&libraries.join(" "))
    ))
}
