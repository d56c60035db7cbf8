//! The ports of services, and who may connect.

use super::Role;

/// A port that a service listens on.
pub struct Port {
    pub number: Number,
    /// Who listens, as an inventory's mistakes say it.
    pub listener: &'static str,
    /// Who may connect from other hosts; nobody to one on loopback.
    pub from: &'static [Caller],
    /// pgherd itself asks something there.
    pub asked: bool,
    /// Who answers there, where an answer tells that a cluster is at work.
    pub tells: Option<&'static str>,
}

impl Port {
    /// A port to which nobody connects from elsewhere.
    pub const fn new(number: Number, listener: &'static str) -> Self {
        Self {
            number,
            listener,
            from: &[],
            asked: false,
            tells: None,
        }
    }
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The hosts with a role.
    Hosts(Role),
    /// The networks of `postgresql.allow`.
    Clients,
    /// The people who run pgherd.
    Operators,
}

/// A port's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The same in every cluster.
    Fixed(u16),
    /// As the inventory has it.
    Set(Setting),
}

/// A key of the inventory that is a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Postgresql,
    HaproxyWrite,
    HaproxyRead,
    HaproxyStats,
}

impl Setting {
    /// As an inventory has it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql.port",
            Self::HaproxyWrite => "haproxy.write_port",
            Self::HaproxyRead => "haproxy.read_port",
            Self::HaproxyStats => "haproxy.stats_port",
        }
    }
}
