//! Tries changed parameters on each host before anything is written there. Otherwise PostgreSQL would refuse
//! them at the next restart, which may be a failover.
//!
//! For a database that does not exist yet, another step does it: [`super::trial`].

use std::time::Duration;

use serde_json::Value;

use super::{Action, Change, Found, Plan, Step, StepId, config_patch};
use crate::{
    cluster::{Cluster, Node},
    facts::Facts,
    inventory::Role,
    liberal,
    remote::{Script, quote},
    render::{self, Files, PATRONI_CONFIG},
};

const NAME: &str = "try-parameters";
const TRY: &str = include_str!("parameters.sh");

/// Plans a trial on every host with a database, if parameters change or wait for a restart.
///
/// No step changes anything before all trials have succeeded.
pub(super) fn of_databases(
    plan: &mut Plan,
    cluster: &Cluster,
    files: &Files,
    config: &Value,
    found: &Found,
) -> Vec<StepId> {
    if cluster.inventory.postgresql.parameters.is_empty() || !changes(cluster, files, config, found)
    {
        return Vec::new();
    }
    let databases: Vec<&Node> = cluster
        .with_role(Role::Postgres)
        .filter(|node| {
            let facts = found.facts.get(&node.name);
            facts.is_some_and(|facts| has_database(facts) && is_installed(node, facts))
        })
        .collect();
    databases
        .into_iter()
        .map(|node| {
            let why = "parameters change, and PostgreSQL must be able to start with them";
            push(plan, cluster, node, why)
        })
        .collect()
}

fn has_database(facts: &Facts) -> bool {
    facts
        .data
        .as_ref()
        .is_some_and(|data| data.entries > 0 && !data.is_half_made())
}

fn is_installed(node: &Node, facts: &Facts) -> bool {
    node.postgresql
        .is_some_and(|major| facts.packages.contains_key(&format!("postgresql-{major}")))
}

/// Whether any member will run with other parameters than now.
fn changes(cluster: &Cluster, files: &Files, config: &Value, found: &Found) -> bool {
    let known = found.dcs.as_ref().and_then(|keys| keys.config.as_ref());
    let in_the_dcs = known.is_some_and(|known| {
        let (_, changes) = config_patch(Some(known), config);
        changes.iter().any(|change| {
            matches!(change, Change::Setting { key, .. } if key.starts_with("postgresql.parameters."))
        })
    });
    let in_a_file = cluster.with_role(Role::Postgres).any(|node| {
        let old = found
            .facts
            .get(&node.name)
            .and_then(|facts| facts.files.get(PATRONI_CONFIG));
        let new = files
            .get(&node.name)
            .and_then(|files| files.iter().find(|file| file.path == PATRONI_CONFIG));
        match (old, new) {
            (Some(old), Some(new)) => render::parameters_differ(&old.content, &new.content),
            (None, Some(_)) => true,
            _ => false,
        }
    });
    in_the_dcs || in_a_file || waits_for_restart(cluster, found)
}

/// Whether a member has reported to the DCS that a parameter waits for a restart.
pub(super) fn waits_for_restart(cluster: &Cluster, found: &Found) -> bool {
    let Some(keys) = &found.dcs else {
        return false;
    };
    cluster.with_role(Role::Postgres).any(|node| {
        let member = keys.members.get(node.name.as_str());
        member.is_some_and(|member| liberal::is_yes(&member["pending_restart"]))
    })
}

fn push(plan: &mut Plan, cluster: &Cluster, node: &Node, why: &str) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: NAME,
        why: why.into(),
        after: Vec::new(),
        changes: Vec::new(),
        action: Action::TryParameters(script(cluster, node)),
        limit: Duration::from_secs(60),
        units: Vec::new(),
    })
}

/// A line of `postgresql.conf` as Patroni writes it (4.1.5, `postgresql/config.py`, `write_postgresql_conf`).
pub(super) fn line(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('\'', "''");
    format!("{name} = '{value}'\n")
}

fn script(cluster: &Cluster, node: &Node) -> Script {
    let postgresql = &cluster.inventory.postgresql;
    let config: String = cluster
        .local_parameters(node)
        .iter()
        .map(|(name, value)| line(name, value))
        .collect();
    // The parameters that Patroni passes on the command line, which wins over files.
    let options: Vec<String> = cluster
        .dcs_parameters()
        .iter()
        .map(|(name, value)| format!("-c {}", quote(&format!("{name}={value}"))))
        .collect();
    Script::new()
        .line(format!("MAJOR={}", node.postgresql.unwrap_or_default()))
        .line(format!("DATA_DIR={}", quote(&postgresql.data_dir)))
        .line(format!("CONFIG={}", quote(&config)))
        .line(format!("set -- {}", options.join(" ")))
        .line(TRY)
}

#[cfg(test)]
mod tests {
    use super::TRY;

    #[test]
    fn the_trial_is_a_valid_shell_script() {
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", TRY])
            .status()
            .expect("sh runs");
        assert!(status.success());
    }
}
