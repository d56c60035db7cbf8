//! Hosts that the user already has.

use async_trait::async_trait;

use super::{Access, Arrivals, Machine, MachineState, Preflight, Provider, Resource};
use crate::{
    error::Result,
    event::Events,
    inventory::{HostName, Inventory},
};

/// Takes the hosts from the inventory; creates and removes none.
pub(super) struct ExistingProvider {
    machines: Vec<Machine>,
}

impl ExistingProvider {
    pub(super) fn new(inventory: &Inventory) -> Self {
        let machines = inventory
            .hosts
            .iter()
            .map(|(name, host)| Machine {
                host: name.clone(),
                id: name.to_string(),
                state: MachineState::Running,
                address: host.address,
                ssh_address: None,
                host_key: None,
                published_on: None,
                balancer: None,
                cluster_id: None,
                data_volume: None,
            })
            .collect();
        Self { machines }
    }
}

#[async_trait]
impl Provider for ExistingProvider {
    async fn discover(&self) -> Result<Vec<Machine>> {
        Ok(self.machines.clone())
    }

    async fn preflight(&self, _hosts: &[HostName], _public_key: &str) -> Result<Preflight> {
        Ok(Preflight::default())
    }

    async fn launch_telling(
        &self,
        hosts: &[HostName],
        _access: &Access,
        _events: &Events,
        _arrivals: &Arrivals,
    ) -> Result<Vec<Machine>> {
        Ok(self
            .machines
            .iter()
            .filter(|machine| hosts.contains(&machine.host))
            .cloned()
            .collect())
    }

    async fn resources(&self) -> Result<Vec<Resource>> {
        Ok(Vec::new())
    }

    async fn remove(&self, _resources: &[Resource], _events: &Events) -> Result<()> {
        Ok(())
    }

    fn owns_hosts(&self) -> bool {
        false
    }
}
