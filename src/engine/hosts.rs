//! Finds out which of the inventory's hosts exist, and at which addresses.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use super::{context::Context, ownership};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    machine::{Machine, MachineState},
    plan::{
        Found,
        membership::{self, Left},
    },
};

/// A host that runs with another address than the inventory's.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub host: HostName,
    /// `None` if an earlier move was interrupted, and the host has no address at all.
    pub from: Option<Ipv4Addr>,
    pub to: Ipv4Addr,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, from, to } = self;
        match from {
            Some(from) => write!(f, "~ host {host} moves from {from} to {to}"),
            None => write!(f, "~ host {host}, which has no address, gets {to}"),
        }
    }
}

/// Which of the inventory's hosts exist.
#[derive(Debug, Default)]
pub(crate) struct HostStatus {
    pub running: Vec<Machine>,
    pub stopped: Vec<Machine>,
    pub missing: Vec<HostName>,
    /// The hosts among `running` that need another address first.
    pub moving: Vec<Move>,
    /// Hosts with the cluster's label that are not in the inventory.
    pub undeclared: Vec<HostName>,
    /// Those hosts, and the hosts that earlier runs knew.
    pub left: Vec<Left>,
}

impl HostStatus {
    /// The running machines; an error if none runs.
    pub(crate) fn some(&self, context: &Context) -> Result<&[Machine]> {
        if self.running.is_empty() {
            return Err(context.no_hosts());
        }
        Ok(&self.running)
    }

    /// The hosts that must be created or started.
    pub(crate) fn absent(&self) -> Vec<HostName> {
        let stopped = self.stopped.iter().map(|machine| machine.host.clone());
        stopped.chain(self.missing.iter().cloned()).collect()
    }

    /// The machines; an error unless all hosts of the inventory run.
    pub(super) fn complete(&self, context: &Context) -> Result<&[Machine]> {
        let absent = self.absent();
        if absent.is_empty() {
            return Ok(&self.running);
        }
        self.some(context)?;
        let names: Vec<&str> = absent.iter().map(HostName::as_str).collect();
        Err(Error::new(
            Code::HostNotRunning,
            format!("hosts that do not run: {}", names.join(", ")),
        )
        .hint(format!("make or start them: {}", context.command("up"))))
    }
}

impl Context {
    /// Splits the inventory's hosts into those that run and those that `up` must create or start.
    pub(crate) async fn host_status(&self) -> Result<HostStatus> {
        let machines = self.provider.discover().await?;
        ownership::of_machines(self, &machines)?;
        let mut machines: BTreeMap<HostName, Machine> = machines
            .into_iter()
            .map(|machine| (machine.host.clone(), machine))
            .collect();
        let mut hosts = HostStatus::default();
        for host in self.inventory.hosts.keys() {
            match machines.remove(host) {
                Some(machine) if machine.state == MachineState::Running => {
                    hosts.running.push(machine);
                }
                Some(machine) => hosts.stopped.push(machine),
                None => hosts.missing.push(host.clone()),
            }
        }
        hosts.undeclared = machines.into_keys().collect();
        let told = Found {
            known: self.workspace.members()?,
            ..Found::default()
        };
        hosts.left = membership::left(&self.inventory, &told, &hosts.undeclared);
        for (host, to) in self.provider.moves(&hosts.running)? {
            let machine = hosts.running.iter_mut().find(|it| it.host == host);
            let Some(machine) = machine else { continue };
            let from = machine.address;
            hosts.moving.push(Move { host, from, to });
            // Files use the future address; SSH still uses the present one.
            machine.ssh_address = machine.ssh_address.or(from);
            machine.address = Some(to);
        }
        Ok(hosts)
    }
}
