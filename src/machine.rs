//! A host that exists, from any provider.

use std::net::Ipv4Addr;

use crate::host::HostName;

/// What a host is doing, as its provider sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    Running,
    /// There, but not running; `up` starts it.
    Stopped,
}

/// A host that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub host: HostName,
    /// The provider's own name for it: a container id, an instance id.
    pub id: String,
    pub state: MachineState,
    /// The address by which the cluster's hosts know each other. A stopped machine may have none.
    pub address: Option<Ipv4Addr>,
    /// Where SSH goes, if that is another address.
    pub ssh_address: Option<Ipv4Addr>,
    /// The host's public key (`ssh-ed25519 AAAA…`), where the provider can vouch for it.
    pub host_key: Option<String>,
    /// Addresses or names of this machine by which clients elsewhere reach the host's published
    /// ports, such as `127.0.0.1` for a container.
    pub published_on: Option<Ipv4Addr>,
    /// The id of the cluster that it was made for, where it says so.
    pub cluster_id: Option<String>,
}
