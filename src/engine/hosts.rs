//! Which of the inventory's hosts exist, and where.

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

/// A host that runs under another address than the inventory gives it.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    pub host: HostName,
    /// `None` where an earlier move was cut off, and the host has no address at all.
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

/// Which of the inventory's hosts are there.
#[derive(Debug, Default)]
pub(crate) struct HostStatus {
    pub running: Vec<Machine>,
    pub stopped: Vec<Machine>,
    pub missing: Vec<HostName>,
    /// Those of `running` that are to have another address first.
    pub moving: Vec<Move>,
    /// Hosts that carry the cluster's label and are not in the inventory.
    pub undeclared: Vec<HostName>,
    /// Those, and those of which earlier runs were told.
    pub left: Vec<Left>,
}

impl HostStatus {
    /// The machines that run, if any does.
    pub(crate) fn some(&self, context: &Context) -> Result<&[Machine]> {
        if self.running.is_empty() {
            return Err(context.no_hosts());
        }
        Ok(&self.running)
    }

    /// The hosts that must be made or started.
    pub(crate) fn absent(&self) -> Vec<HostName> {
        let stopped = self.stopped.iter().map(|machine| machine.host.clone());
        stopped.chain(self.missing.iter().cloned()).collect()
    }

    /// The machines, if the whole inventory runs.
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
    /// Splits the inventory's hosts into those that run and those that `up` must make or start.
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
            // The files are to say where it will be; SSH still goes where it is.
            machine.ssh_address = machine.ssh_address.or(from);
            machine.address = Some(to);
        }
        Ok(hosts)
    }
}
