//! Joins what the inventory says about hosts with what is known only in a run.

use std::{collections::BTreeMap, net::Ipv4Addr};

use indexmap::IndexMap;

use super::{Address, Certificate, Cluster, Node, Secrets, TlsStage, pending_data_volume};
use crate::{
    error::Result,
    inventory::{HostName, Inventory, Role},
    machine::{Machine, MachineState},
    tuning::Size,
};

/// The names and addresses that a host's certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub host: HostName,
    /// `None` while the host has no address.
    pub address: Option<Ipv4Addr>,
    /// Other names and addresses by which clients reach the host.
    pub names: Vec<String>,
    /// Whether these are all. A front door that does not run does not show by which addresses clients reach it.
    pub whole: bool,
}

/// The input that is joined with an inventory and its machines.
#[derive(Debug)]
pub struct Joining {
    pub secrets: Secrets,
    pub tls: TlsStage,
    /// The certificate of the cluster's authority, PEM; `None` while TLS is off.
    pub ca: Option<String>,
    pub certificates: BTreeMap<HostName, Certificate>,
    /// The certificates in the `ca_bundle`, PEM.
    pub ca_bundle: Option<String>,
    /// What the hosts have, as far as it is known.
    pub sizes: BTreeMap<HostName, Size>,
    /// The addresses that hosts had which have none now.
    pub former: Former,
}

/// The addresses of hosts in the last run.
pub type Former = BTreeMap<HostName, Ipv4Addr>;

/// The present, future or last address of a host.
pub(crate) fn address_of(
    inventory: &Inventory,
    machines: &[Machine],
    former: &Former,
    host: &HostName,
) -> Option<Ipv4Addr> {
    machines
        .iter()
        .find(|machine| machine.host == *host)
        .and_then(|machine| machine.address)
        .or(inventory.hosts.get(host).and_then(|host| host.address))
        .or(former.get(host).copied())
}

/// What a machine has, whatever the inventory says now: the data of a running host do not move to another disk.
fn data_volume_of(inventory: &Inventory, machines: &[Machine], host: &HostName) -> Option<String> {
    match machines.iter().find(|machine| machine.host == *host) {
        Some(machine) => machine.data_volume.clone(),
        None => inventory
            .data_volume(host)
            .map(|_| pending_data_volume(host)),
    }
}

/// The names and addresses for the certificates of a cluster, one subject for each host.
pub fn subjects(inventory: &Inventory, machines: &[Machine], former: &Former) -> Vec<Subject> {
    let doors = door_names(inventory, machines, former);
    let runs = |host: &HostName| {
        let mut running = machines
            .iter()
            .filter(|machine| machine.state == MachineState::Running);
        running.any(|machine| machine.host == *host)
    };
    let doors_run = inventory.with_role(Role::Haproxy).all(runs);
    let subject = |(name, host): (&HostName, &crate::inventory::Host)| {
        let address = address_of(inventory, machines, former, name);
        // Clients reach the databases through HAProxy, which passes TLS through unchanged.
        let faces_clients = host.roles.iter().any(|role| role.service().faces_clients);
        Subject {
            host: name.clone(),
            address,
            names: if faces_clients {
                doors.clone()
            } else {
                vec!["localhost".into(), "127.0.0.1".into()]
            },
            whole: address.is_some() && (doors_run || !faces_clients),
        }
    };
    inventory.hosts.iter().map(subject).collect()
}

/// The names and addresses by which clients may call HAProxy.
fn door_names(inventory: &Inventory, machines: &[Machine], former: &Former) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(inventory.haproxy.vip.map(|vip| vip.to_string()));
    names.extend(machines.iter().filter_map(|it| it.balancer.clone()));
    for host in inventory.with_role(Role::Haproxy) {
        names.push(host.to_string());
        let address = address_of(inventory, machines, former, host);
        names.extend(address.map(|address| address.to_string()));
        names.extend(
            machines
                .iter()
                .filter(|machine| machine.host == *host)
                .flat_map(|machine| [machine.ssh_address, machine.published_on])
                .flatten()
                .map(|address| address.to_string()),
        );
    }
    names.sort();
    names.dedup();
    names
}

impl Cluster {
    /// The cluster as it should be, on these machines.
    ///
    /// A host without a machine keeps its last address; one that never had any gets a placeholder. `postgresql`
    /// gives the major version on a host with a database, and `arch` a host's architecture.
    pub fn join(
        inventory: &Inventory,
        machines: &[Machine],
        mut joining: Joining,
        postgresql: impl Fn(&HostName) -> Result<u16>,
        arch: impl Fn(&HostName) -> String,
    ) -> Result<Self> {
        let mut nodes = IndexMap::new();
        for (name, host) in &inventory.hosts {
            let has_database = host.roles.contains(&Role::Postgres);
            let node = Node {
                name: name.clone(),
                roles: host.roles.clone(),
                address: address_of(inventory, machines, &joining.former, name)
                    .map_or_else(|| Address::Pending(name.clone()), Address::Known),
                postgresql: has_database.then(|| postgresql(name)).transpose()?,
                arch: arch(name),
                certificate: joining.certificates.remove(name),
                data_volume: data_volume_of(inventory, machines, name).filter(|_| has_database),
                size: joining.sizes.get(name).copied(),
            };
            nodes.insert(name.clone(), node);
        }
        Ok(Self {
            inventory: inventory.clone(),
            nodes,
            secrets: joining.secrets,
            tls: joining.tls,
            ca: joining.ca,
            ca_bundle: joining.ca_bundle,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::machine::MachineState;

    const HOSTS: &str = "cluster: pg\nprovider: { kind: existing }\ntls: { enabled: true }\nhosts:\n  \
                         db1: { roles: [postgres], address: 192.0.2.1 }\n  \
                         kv: { roles: [etcd], address: 192.0.2.2 }\n  \
                         door: { roles: [haproxy], address: 192.0.2.3 }\n";

    fn door() -> Machine {
        Machine {
            host: HostName::new("door"),
            id: "door".into(),
            state: MachineState::Running,
            address: Some(Ipv4Addr::new(10, 0, 0, 3)),
            ssh_address: Some(Ipv4Addr::new(198, 51, 100, 3)),
            host_key: None,
            published_on: Some(Ipv4Addr::LOCALHOST),
            balancer: None,
            cluster_id: None,
            data_volume: None,
        }
    }

    #[test]
    fn clients_may_call_a_database_whatever_they_call_haproxy() {
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), HOSTS).unwrap();
        let all = subjects(&inventory, &[door()], &Former::new());
        let of = |host: &str| all.iter().find(|it| it.host.as_str() == host).unwrap();
        let names = ["10.0.0.3", "127.0.0.1", "198.51.100.3", "door", "localhost"];
        assert_eq!(of("db1").names, names);
        assert_eq!(of("door").names, names);
        assert_eq!(of("kv").names, ["localhost", "127.0.0.1"]);
        let balanced = Machine {
            balancer: Some("pg.elb.example".into()),
            ..door()
        };
        let all = subjects(&inventory, &[balanced], &Former::new());
        assert!(all[0].names.contains(&"pg.elb.example".to_owned()));
        assert!(!all[1].names.contains(&"pg.elb.example".to_owned()));
        let all = subjects(&inventory, &[door()], &Former::new());
        let of = |host: &str| all.iter().find(|it| it.host.as_str() == host).unwrap();
        // The machine's own address wins over the inventory's.
        assert_eq!(of("door").address, door().address);
        assert_eq!(of("kv").address, Some(Ipv4Addr::new(192, 0, 2, 2)));
        assert!(all.iter().all(|it| it.whole));
    }

    #[test]
    fn what_a_front_door_that_is_away_was_called_is_not_known() {
        let hosts = HOSTS.replace(", address: 192.0.2.3", "");
        // The first address of a subnet is the engine's own.
        let hosts = hosts
            .replace("existing", "docker")
            .replace("192.0.2.1 ", "192.0.2.11 ");
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), &hosts).unwrap();
        let former = Former::from([(HostName::new("door"), Ipv4Addr::new(10, 0, 0, 3))]);
        let stopped = Machine {
            state: MachineState::Stopped,
            ssh_address: None,
            published_on: None,
            ..door()
        };
        for machines in [vec![], vec![stopped]] {
            let all = subjects(&inventory, &machines, &former);
            let of = |host: &str| all.iter().find(|it| it.host.as_str() == host).unwrap();
            assert_eq!(of("door").address, Some(Ipv4Addr::new(10, 0, 0, 3)));
            assert!(of("db1").names.contains(&"10.0.0.3".to_owned()));
            assert!(!of("db1").whole && !of("door").whole && of("kv").whole);
        }
        let all = subjects(&inventory, &[door()], &former);
        assert!(all.iter().all(|it| it.whole));
    }
}
