//! The ports of services, and who may connect.

use super::Role;

/// A port that a service listens on.
pub struct Port {
    pub number: Number,
    /// The listener's name in messages about the inventory.
    pub listener: &'static str,
    /// Who may connect from other hosts; empty for a port on loopback.
    pub from: &'static [Caller],
    /// Whether pgherd itself connects to it.
    pub asked: bool,
    /// The service that answers there, if an answer shows that a cluster is at work.
    pub tells: Option<&'static str>,
}

impl Port {
    /// A port without connections from elsewhere.
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
    /// The networks of `monitoring.allow`.
    Scrapers,
}

/// A port's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// The same in every cluster.
    Fixed(u16),
    /// Set in the inventory.
    Set(Setting),
}

/// A key of the inventory that is a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Postgresql,
    HaproxyWrite,
    HaproxyRead,
    HaproxyStats,
    Pgbouncer,
}

impl Setting {
    /// The key in the inventory.
    pub fn key(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql.port",
            Self::HaproxyWrite => "haproxy.write_port",
            Self::HaproxyRead => "haproxy.read_port",
            Self::HaproxyStats => "haproxy.stats_port",
            Self::Pgbouncer => "pgbouncer.port",
        }
    }
}
