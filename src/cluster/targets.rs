//! What a Prometheus scrapes, as its `file_sd` wants it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    contract::METRICS_PORT,
    inventory::{HostName, Inventory, Role},
    services::metrics::{Job, jobs_of},
};

/// One set of metrics of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// One address with its port.
    pub targets: [String; 1],
    pub labels: BTreeMap<&'static str, String>,
}

/// The targets of all hosts, in the inventory's order. `address` has a host's address, as whoever scrapes knows it.
pub fn targets(inventory: &Inventory, address: impl Fn(&HostName) -> String) -> Vec<Target> {
    let hosts = inventory.hosts.iter();
    let hosts = hosts.filter(|(_, host)| host.roles.contains(&Role::Metrics));
    hosts
        .flat_map(|(name, host)| {
            let at = format!("{}:{METRICS_PORT}", address(name));
            let jobs = jobs_of(&host.roles);
            jobs.map(move |job| Target {
                targets: [at.clone()],
                labels: labels(inventory, name, &host.roles, job),
            })
        })
        .collect()
}

fn labels(
    inventory: &Inventory,
    host: &HostName,
    roles: &[Role],
    job: &Job,
) -> BTreeMap<&'static str, String> {
    let given = roles.iter().filter(|role| Role::GIVEN.contains(role));
    let given: Vec<&str> = given.map(|role| role.as_str()).collect();
    BTreeMap::from([
        ("cluster", inventory.cluster.clone()),
        ("host", host.to_string()),
        ("instance", host.to_string()),
        ("job", job.name.to_owned()),
        ("role", given.join(",")),
        // Which of the host's metrics the door is asked for.
        ("__param_module", job.name.to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_host_has_a_target_for_each_of_its_jobs() {
        let text = "cluster: pg\nprovider: { kind: existing }\nmonitoring: {}\nhosts:\n  \
                    db: { roles: [postgres, etcd], address: 192.0.2.1 }\n  \
                    door: { roles: [haproxy], address: 192.0.2.2 }\n";
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
        let all = targets(&inventory, |host| format!("{host}.example"));
        let told: Vec<String> = all
            .iter()
            .map(|it| {
                format!(
                    "{} {} {}",
                    it.targets[0], it.labels["job"], it.labels["role"]
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "db.example:9998 node postgres,etcd",
                "db.example:9998 postgres postgres,etcd",
                "db.example:9998 patroni postgres,etcd",
                "db.example:9998 etcd postgres,etcd",
                "door.example:9998 node haproxy",
                "door.example:9998 haproxy haproxy",
            ]
        );
        assert!(
            all.iter()
                .all(|it| it.labels["__param_module"] == it.labels["job"])
        );
        let none = text.replace("monitoring: {}\n", "");
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), &none).unwrap();
        assert!(targets(&inventory, ToString::to_string).is_empty());
    }
}
