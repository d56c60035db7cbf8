//! A host that exists, whatever its provider.

use std::net::Ipv4Addr;

use crate::host::HostName;

/// The state of a host, as its provider sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    Running,
    /// It exists and does not run; `up` starts it.
    Stopped,
}

/// A host that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub host: HostName,
    /// The provider's name for the host: a container id, an instance id.
    pub id: String,
    pub state: MachineState,
    /// The address that the cluster's hosts use for each other. A stopped machine may have none.
    pub address: Option<Ipv4Addr>,
    /// The address for SSH, if it is another one.
    pub ssh_address: Option<Ipv4Addr>,
    /// The host's public key (`ssh-ed25519 AAAA…`), if the provider knows it from a trusted source.
    pub host_key: Option<String>,
    /// Addresses or names of this machine by which clients elsewhere reach the host's published ports, such as
    /// `127.0.0.1` for a container.
    pub published_on: Option<Ipv4Addr>,
    /// The name of the load balancer before it, by which clients reach it and others like it.
    pub balancer: Option<String>,
    /// The provider's name of the disk of its own that the host's data is on, if there is one.
    pub data_volume: Option<String>,
    /// The id of the cluster that the host was made for, if the host has one.
    pub cluster_id: Option<String>,
}
