//! The services on the hosts: one folder for each, and the table that lists them.
//!
//! A service's `mod.rs` describes it ([`Service`]): data that needs no other module, so that all modules can
//! use it. Its folder also has its client, if it has one, and `health.rs` ([`health`]).

use serde::{Serialize, Serializer};

pub(crate) mod alertmanager;
pub(crate) mod archive;
pub(crate) mod backup;
pub mod etcd;
#[cfg(test)]
mod exercise;
pub mod file;
pub mod haproxy;
pub(crate) mod health;
pub(crate) mod keepalived;
pub(crate) mod metrics;
pub(crate) mod monitoring;
pub(crate) mod node_exporter;
pub(crate) mod pgbouncer;
pub mod port;
pub mod postgres;
pub(crate) mod postgres_exporter;
mod service;

pub use file::{Effect, Kind, Stage, Visibility};
pub use port::{Caller, Number, Setting};
pub use service::{Data, Hosts, Package, Service, Wait, When, asked_at, of_unit};

/// The table: one line for each service, with its role and its folder. Everything that depends on the list of
/// services is made from these lines.
macro_rules! table {
    ($made:ident) => {
        $made! {
            Postgres = postgres,
            Etcd = etcd,
            Haproxy = haproxy,
            Pgbouncer = pgbouncer,
            Keepalived = keepalived,
            Backup = backup,
            Archive = archive,
            Monitoring = monitoring,
            Alertmanager = alertmanager,
            NodeExporter = node_exporter,
            PostgresExporter = postgres_exporter,
            Metrics = metrics,
            #[cfg(test)]
            Exercise = exercise,
        }
    };
}
use table;

/// Makes [`Role`] from the table.
macro_rules! roles {
    ($($(#[$attribute:meta])* $role:ident = $folder:ident,)*) => {
        /// A role of a host: a service, as the inventory gives it to a host.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $($(#[$attribute])* $role,)*
        }

        impl Role {
            /// In the table's order, in which a host's roles are always shown.
            pub const ALL: [Role; [$($(#[$attribute])* Role::$role,)*].len()] =
                [$($(#[$attribute])* Role::$role,)*];

            /// The service's description.
            pub const fn service(self) -> &'static Service {
                match self {
                    $($(#[$attribute])* Role::$role => &$folder::SERVICE,)*
                }
            }
        }
    };
}
table!(roles);

/// The roles that an inventory gives, and their number.
const GIVEN: ([Role; Role::ALL.len()], usize) = {
    let (mut given, mut count, mut at) = (Role::ALL, 0, 0);
    while at < Role::ALL.len() {
        if Role::ALL[at].service().follows.is_none() {
            given[count] = Role::ALL[at];
            count += 1;
        }
        at += 1;
    }
    (given, count)
};

impl Role {
    /// The roles that an inventory gives to hosts. The others follow from a key
    /// ([`Service::follows`]).
    pub const GIVEN: &'static [Role] = GIVEN.0.split_at(GIVEN.1).0;

    /// Its word in the inventory.
    pub fn as_str(self) -> &'static str {
        self.service().name
    }

    /// Its systemd unit, without `.service`.
    pub fn unit(self) -> &'static str {
        self.service().unit.name
    }
}

impl Role {
    /// Whether its hosts have PostgreSQL's data.
    pub fn keeps_database(self) -> bool {
        matches!(self.service().data, Data::Database)
    }

    /// Whether its hosts have etcd's data.
    pub fn keeps_store(self) -> bool {
        matches!(self.service().data, Data::Store)
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The roles in the order in which their services need each other.
pub fn by_rank() -> [Role; Role::ALL.len()] {
    let mut roles = Role::ALL;
    roles.sort_by_key(|role| role.service().rank);
    roles
}

/// The descriptions of all services, in the table's order.
pub fn all() -> impl Iterator<Item = &'static Service> {
    Role::ALL.into_iter().map(Role::service)
}
