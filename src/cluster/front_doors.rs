//! How clients name a cluster's front doors: the hosts whose HAProxy passes connections on to the database.

use std::net::Ipv4Addr;

use crate::{
    inventory::{Inventory, Role},
    machine::Machine,
};

/// Seconds that a client waits for one of several hosts before it tries the next one. A host that died does not
/// refuse a connection; without this limit, the client would wait for minutes.
pub const EACH: u32 = 3;

/// Where clients connect, in the inventory's order.
pub struct FrontDoors {
    addresses: Vec<String>,
    /// The address or name by which clients reach any of them.
    shared: Option<String>,
    /// The address that moves between them, by which clients reach all of their ports.
    vip: Option<String>,
}

impl FrontDoors {
    /// The addresses at which this machine reaches the front doors; a host's name if it has no address yet.
    pub fn of(inventory: &Inventory, machines: &[Machine]) -> Self {
        let address = |host: &crate::host::HostName| -> Option<Ipv4Addr> {
            let machine = machines.iter().find(|machine| machine.host == *host);
            let of_machine = machine.and_then(|machine| {
                machine
                    .published_on
                    .or(machine.ssh_address)
                    .or(machine.address)
            });
            of_machine.or(inventory.hosts.get(host)?.address)
        };
        let doors = inventory.with_role(Role::Haproxy);
        let addresses = doors
            .map(|host| address(host).map_or_else(|| host.to_string(), |it| it.to_string()))
            .collect();
        let balancer = machines.iter().find_map(|it| it.balancer.clone());
        let vip = inventory.haproxy.vip.map(|vip| vip.to_string());
        Self {
            addresses,
            shared: vip.clone().or(balancer),
            vip,
        }
    }

    /// Each front door by itself.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.addresses.iter().map(String::as_str)
    }

    /// What clients name, in this order; for a pooler, a load balancer leads nowhere.
    pub fn hosts(&self, pooler: bool) -> Vec<&str> {
        let shared = if pooler { &self.vip } else { &self.shared };
        match shared {
            Some(shared) => vec![shared],
            None => self.addresses().collect(),
        }
    }

    /// libpq's connection string to the leader, through the write port.
    pub fn to_write(&self, port: u16) -> String {
        self.at(port, " target_session_attrs=read-write")
    }

    /// libpq's connection string to a replica, through the read port.
    pub fn to_read(&self, port: u16) -> String {
        self.at(port, "")
    }

    /// libpq's connection string to a pooler. A load balancer does not lead to it.
    pub fn to_pooler(&self, port: u16) -> String {
        self.by(self.vip.as_deref(), port, "")
    }

    fn at(&self, port: u16, wanted: &str) -> String {
        self.by(self.shared.as_deref(), port, wanted)
    }

    /// Without one name or address for all front doors, a client tries one after the other.
    fn by(&self, shared: Option<&str>, port: u16, wanted: &str) -> String {
        if let Some(shared) = shared {
            return format!("host={shared} port={port}");
        }
        let hosts = self.addresses.join(",");
        if self.addresses.len() < 2 {
            return format!("host={hosts} port={port}");
        }
        let ports = vec![port.to_string(); self.addresses.len()].join(",");
        format!("host={hosts} port={ports}{wanted} connect_timeout={EACH}")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{host::HostName, machine::MachineState};

    fn doors(extra: &str) -> FrontDoors {
        FrontDoors::of(&inventory(extra), &[])
    }

    fn inventory(extra: &str) -> Inventory {
        let text = format!(
            "cluster: pg\nprovider: {{ kind: existing }}\nhosts:\n  \
             db1: {{ roles: [postgres, etcd], address: 192.0.2.1 }}\n  \
             door1: {{ roles: [haproxy], address: 192.0.2.3 }}\n{extra}"
        );
        Inventory::parse(Path::new("pgherd.yaml"), &text).unwrap()
    }

    #[test]
    fn one_front_door_needs_no_more_than_its_address() {
        assert_eq!(doors("").to_write(5000), "host=192.0.2.3 port=5000");
        assert_eq!(doors("").to_read(5001), "host=192.0.2.3 port=5001");
    }

    #[test]
    fn an_address_that_moves_is_all_that_clients_need() {
        let door = "  door2: { roles: [haproxy], address: 192.0.2.4 }\n";
        let doors = doors(&format!("{door}haproxy: {{ vip: 192.0.2.100 }}\n"));
        assert_eq!(doors.to_write(5000), "host=192.0.2.100 port=5000");
        assert_eq!(doors.addresses().count(), 2);
    }

    #[test]
    fn the_name_of_a_load_balancer_is_all_that_clients_need() {
        let door = "  door2: { roles: [haproxy], address: 192.0.2.4 }\n";
        let inventory = inventory(door);
        let machine = Machine {
            host: HostName::new("door1"),
            id: "i-1".into(),
            state: MachineState::Running,
            address: Some(Ipv4Addr::new(192, 0, 2, 3)),
            ssh_address: None,
            host_key: None,
            published_on: None,
            balancer: Some("pg.elb.example".into()),
            cluster_id: None,
            data_volume: None,
        };
        let doors = FrontDoors::of(&inventory, &[machine]);
        assert_eq!(doors.to_write(5000), "host=pg.elb.example port=5000");
        assert_eq!(doors.to_read(5001), "host=pg.elb.example port=5001");
        assert_eq!(
            doors.to_pooler(6432),
            "host=192.0.2.3,192.0.2.4 port=6432,6432 connect_timeout=3"
        );
    }

    #[test]
    fn several_are_all_named() {
        let doors = doors("  door2: { roles: [haproxy], address: 192.0.2.4 }\n");
        assert_eq!(
            doors.to_write(5000),
            "host=192.0.2.3,192.0.2.4 port=5000,5000 target_session_attrs=read-write connect_timeout=3"
        );
        assert_eq!(
            doors.to_read(5001),
            "host=192.0.2.3,192.0.2.4 port=5001,5001 connect_timeout=3"
        );
        assert_eq!(
            doors.to_pooler(6432),
            "host=192.0.2.3,192.0.2.4 port=6432,6432 connect_timeout=3"
        );
    }
}
