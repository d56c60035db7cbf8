//! The cluster: the inventory joined with addresses, secrets and certificates.

use std::{collections::BTreeMap, net::Ipv4Addr};

use indexmap::IndexMap;

use crate::{
    inventory::{HostName, Inventory, Role, Tuning},
    secret::{Secret, never_shown},
    services::When,
    tuning::{self, Place, Size, Tuned},
};

mod front_doors;
mod join;
mod targets;

pub use front_doors::{EACH, FrontDoors};
pub(crate) use join::address_of;
pub use join::{Former, Joining, Subject, subjects};
pub use targets::{Target, targets};

pub use crate::contract::{
    ETCD_CLIENT_PORT, ETCD_METRICS_PORT, ETCD_PEER_PORT, INTERIM_REPLICATION_USER,
    INTERIM_REWIND_USER, MONITOR_USER, PATRONI_PORT, POOLER_USER, REPLICATION_USER, REST_USER,
    REWIND_USER, STATS_USER, SUPERUSER,
};

/// An address, or a placeholder until the host exists for the first time.
///
/// `plan` shows the files of hosts that do not exist yet. `to_string` gives the address, or `<node1's
/// address>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Known(Ipv4Addr),
    Pending(HostName),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Known(address) => write!(f, "{address}"),
            Address::Pending(host) => write!(f, "<{host}'s address>"),
        }
    }
}

/// The text with `instead` in the place of an address that is not known; `None` if there is none in it.
pub(crate) fn with_address(text: &str, instead: &str) -> Option<String> {
    let (before, rest) = text.split_once('<')?;
    let (host, after) = rest.split_once("'s address>")?;
    let is_name = !host.contains(|it: char| it.is_whitespace() || it == '<');
    is_name.then(|| format!("{before}{instead}{after}"))
}

never_shown!(Cluster, Node, Certificate, Secrets, Interim);

/// One host of the cluster.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: HostName,
    pub roles: Vec<Role>,
    pub address: Address,
    /// PostgreSQL's major version on this host; `None` if it is unknown, or the host has no database.
    pub postgresql: Option<u16>,
    /// The architecture, as `uname -m` prints it; empty if it is unknown.
    pub arch: String,
    /// This host's certificate and key; `None` while `tls` is off.
    pub certificate: Option<Certificate>,
    /// The provider's name of the disk that the database is on, or a placeholder while the host does not exist.
    /// `None` if the database is on the host's first disk.
    pub data_volume: Option<String>,
    /// `None` if it is unknown.
    pub size: Option<Size>,
}

/// The placeholder for the name of a host's data volume.
pub fn pending_data_volume(host: &HostName) -> String {
    format!("<{host}'s data volume>")
}

/// A certificate with its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub cert: String,
    pub key: Secret,
}

/// The passwords of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Distinguishes this cluster from another one of the same name; not secret.
    pub cluster_id: String,
    /// PostgreSQL's `postgres`.
    pub superuser: Secret,
    /// PostgreSQL's `replicator`.
    pub replication: Secret,
    /// PostgreSQL's `rewind`.
    pub rewind: Secret,
    /// Patroni's REST interface, user `patroni`.
    pub rest_api: Secret,
    /// HAProxy's stats page, user `pgherd`.
    pub stats: Secret,
    /// keepalived's password, which the front doors share; `None` without `haproxy.vip`.
    pub vrrp: Option<Secret>,
    /// The key of the backups; `None` if no host has the role `backup`.
    pub backup: Option<Secret>,
    /// The access key of the bucket with the backups, and its secret; `None` if there is no bucket.
    pub s3: Option<(Secret, Secret)>,
    /// PostgreSQL's `pgherd_pooler`; `None` without `pgbouncer`.
    pub pooler: Option<Secret>,
    /// The address that alerts are sent to, which whoever knows it can write to; `None` without
    /// `monitoring.webhook_file`.
    pub webhook: Option<Secret>,
    /// The passwords of `postgresql.users`, by name.
    pub users: BTreeMap<String, Secret>,
    /// Set while the passwords of `replicator` and `rewind` change.
    pub interim: Option<Interim>,
}

/// Roles that stand in for `replicator` and `rewind` during a change of passwords. With them, each member has a
/// login at every moment that the database accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interim {
    /// Whether the members use these roles to log in.
    pub used: bool,
    pub replication: Secret,
    pub rewind: Secret,
}

impl Secrets {
    /// All values that must be masked in all output.
    pub fn values(&self) -> Vec<&Secret> {
        let mut values = vec![
            &self.superuser,
            &self.replication,
            &self.rewind,
            &self.rest_api,
            &self.stats,
        ];
        values.extend(&self.vrrp);
        values.extend(&self.backup);
        values.extend(self.s3.iter().flat_map(|(key, secret)| [key, secret]));
        values.extend(&self.pooler);
        values.extend(&self.webhook);
        values.extend(self.users.values());
        values.extend(
            self.interim
                .iter()
                .flat_map(|interim| [&interim.replication, &interim.rewind]),
        );
        values
    }
}

/// How far the cluster uses TLS.
///
/// An inventory can ask for `Off` and `Required`. A running cluster goes through the two stages between them.
/// Hosts in neighbouring stages can work together, so hosts change one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsStage {
    /// Plaintext; there are no certificates.
    Off,
    /// Every host has a certificate and trusts those of the others. All connections still use plaintext.
    Offered,
    /// Connections between members use TLS. Clients may use it.
    Used,
    /// Only TLS, and every certificate is verified.
    Required,
}

impl TlsStage {
    pub fn of(inventory: &Inventory) -> Self {
        if inventory.tls.enabled {
            Self::Required
        } else {
            Self::Off
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Offered => "offered",
            Self::Used => "used",
            Self::Required => "required",
        }
    }

    /// Whether this is a stage on the way from one to the other.
    pub fn is_migrating(self) -> bool {
        matches!(self, Self::Offered | Self::Used)
    }

    /// Whether hosts have certificates.
    pub fn is_offered(self) -> bool {
        self >= Self::Offered
    }

    /// Whether members talk to each other over TLS.
    pub fn is_used(self) -> bool {
        self >= Self::Used
    }

    /// The next stage on the way to `end`.
    pub fn towards(self, end: Self) -> Self {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match (self, self.cmp(&end)) {
            (_, Equal) => self,
            (Self::Off, Less) | (Self::Used, Greater) => Self::Offered,
            (Self::Offered, Less) | (Self::Required, Greater) => Self::Used,
            (Self::Offered | Self::Off, Greater) => Self::Off,
            (Self::Used | Self::Required, Less) => Self::Required,
        }
    }
}

/// A host in the workspace's list, from earlier runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHost {
    pub name: HostName,
    /// `None` if only its name is known.
    pub roles: Vec<Role>,
    pub address: Option<Ipv4Addr>,
    /// By which its parameters were tuned.
    pub size: Option<Size>,
    /// Whether a run with this host ended well, so that the host is a member.
    pub joined: bool,
}

/// All input of rendering and planning that cannot be derived from other input.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub inventory: Inventory,
    pub nodes: IndexMap<HostName, Node>,
    pub secrets: Secrets,
    pub tls: TlsStage,
    /// The cluster's own certificate authority, PEM; `None` while TLS is off.
    pub ca: Option<String>,
    /// The certificates in the `ca_bundle`, PEM.
    pub ca_bundle: Option<String>,
}

/// PostgreSQL's own default.
pub const MAX_CONNECTIONS: (&str, u64) = ("max_connections", 100);

fn owned<'a>(
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
) -> impl Iterator<Item = (String, String)> {
    parameters.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

impl Cluster {
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes
            .values()
            .filter(move |node| node.roles.contains(&role))
    }

    /// Whether something belongs to the cluster now; during a change of TLS, this differs from the inventory.
    pub fn wants(&self, when: When) -> bool {
        match when {
            When::Tls => self.tls.is_offered(),
            When::CaBundle => self.ca_bundle.is_some(),
            _ => self.inventory.wants(when),
        }
    }

    /// What a Prometheus scrapes.
    pub(crate) fn targets(&self) -> Vec<Target> {
        targets(&self.inventory, |host| {
            let node = self.nodes.get(host);
            node.map_or_else(String::new, |node| node.address.to_string())
        })
    }

    /// The parameters that all members share, in the DCS: the inventory's, and those that follow from the hosts' sizes.
    pub fn dcs_parameters(&self) -> BTreeMap<String, String> {
        let tuned = self.agreed().into_iter();
        let tuned = tuned.map(|it| (it.name.to_owned(), it.value));
        tuned
            .chain(owned(self.inventory.postgresql.dcs_parameters()))
            .collect()
    }

    /// The parameters in a host's own file.
    pub fn local_parameters(&self, node: &Node) -> BTreeMap<String, String> {
        let tuned = self.of_host(node).into_iter();
        let tuned = tuned.map(|it| (it.name.to_owned(), it.value));
        tuned
            .chain(owned(self.inventory.postgresql.local_parameters()))
            .collect()
    }

    /// What follows from the hosts' sizes, without what the inventory sets: first what all members share, then what
    /// each has for itself.
    pub fn tuning(&self) -> Vec<(Vec<HostName>, Vec<Tuned>)> {
        let set = &self.inventory.postgresql.parameters;
        let members = self.with_role(Role::Postgres);
        let members: Vec<HostName> = members.map(|node| node.name.clone()).collect();
        let mut tuning = vec![(members, self.agreed())];
        for node in self.with_role(Role::Postgres) {
            let tuned = self.of_host(node);
            match tuning[1..].iter_mut().find(|it| it.1 == tuned) {
                Some((hosts, _)) => hosts.push(node.name.clone()),
                None => tuning.push((vec![node.name.clone()], tuned)),
            }
        }
        for (_, tuned) in &mut tuning {
            tuned.retain(|it| !set.contains_key(it.name));
        }
        tuning.retain(|(_, tuned)| !tuned.is_empty());
        tuning
    }

    /// A host of unknown size, which may not exist yet, changes nothing for the others.
    fn agreed(&self) -> Vec<Tuned> {
        let members = self.with_role(Role::Postgres);
        let places: Vec<Place> = members.filter_map(|node| self.place(node)).collect();
        tuning::agreed(&places)
    }

    fn of_host(&self, node: &Node) -> Vec<Tuned> {
        let Some(place) = self.place(node) else {
            return Vec::new();
        };
        let connections = self.dcs_parameters().get(MAX_CONNECTIONS.0).cloned();
        let connections = connections.and_then(|it| it.parse().ok());
        tuning::of_host(&place, connections.unwrap_or(MAX_CONNECTIONS.1))
    }

    /// What a member is tuned by; `None` if it is not.
    fn place(&self, node: &Node) -> Option<Place> {
        match self.inventory.postgresql.tuning {
            Tuning::Auto => Some(Place {
                size: node.size?,
                others: node.roles.len() as u64 - 1,
            }),
            Tuning::Defaults => None,
        }
    }

    pub fn node(&self, host: &HostName) -> Option<&Node> {
        self.nodes.get(host)
    }

    /// The known addresses, by host.
    pub fn addresses(&self) -> BTreeMap<HostName, Ipv4Addr> {
        self.nodes
            .values()
            .filter_map(|node| match node.address {
                Address::Known(address) => Some((node.name.clone(), address)),
                Address::Pending(_) => None,
            })
            .collect()
    }

    pub fn name(&self) -> &str {
        &self.inventory.cluster
    }
}
