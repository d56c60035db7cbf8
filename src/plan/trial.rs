//! Tries PostgreSQL's parameters before the first database is created with them.
//!
//! If PostgreSQL cannot start with a parameter, a first bootstrap fails after `initdb`: one member after the
//! other creates a database of its own, and none of them ever runs.

use super::parameters;
use crate::{
    cluster::{Cluster, Node},
    facts::Facts,
    remote::quote,
};

const TRIAL: &str = include_str!("trial.sh");

/// The lines that try the inventory's parameters on a host that has no database yet.
///
/// `None` if there is nothing to try: a database exists, or all parameters are pgherd's own.
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
        .map(|(name, value)| parameters::line(name, value))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, cluster};

    /// PostgreSQL reads `\t` in quotes as a tab. Patroni writes an escaped form that stands for the value
    /// itself.
    #[test]
    fn a_value_is_tried_as_it_will_be_written() {
        let extra =
            r#"postgresql: { version: 16, parameters: { log_line_prefix: "C:\\temp it's " } }"#;
        let cluster = cluster(extra, FIVE);
        let node = cluster
            .nodes
            .values()
            .find(|node| node.postgresql.is_some());
        let script = lines(&cluster, node.unwrap()).unwrap();
        let conf = parameters::line("log_line_prefix", r"C:\temp it's ");
        assert_eq!(conf, "log_line_prefix = 'C:\\\\temp it''s '\n");
        assert!(script.contains(&quote(&conf)), "{script}");
    }
}
