//! Ports, names of roles, and folders that are the same in every cluster and cannot be chosen.

pub const PATRONI_PORT: u16 = 8008;
pub const ETCD_CLIENT_PORT: u16 = 2379;
pub const ETCD_PEER_PORT: u16 = 2380;
/// Where each etcd answers `/health` and `/metrics` to its own host, without a certificate.
pub const ETCD_METRICS_PORT: u16 = 2381;

/// The names of the database's own roles; not secret.
pub const SUPERUSER: &str = "postgres";
pub const REPLICATION_USER: &str = "replicator";
pub const REWIND_USER: &str = "rewind";
/// What members use for a moment while the passwords of the two above change.
pub const INTERIM_REPLICATION_USER: &str = "replicator_interim";
pub const INTERIM_REWIND_USER: &str = "rewind_interim";
pub const REST_USER: &str = "patroni";
pub const STATS_USER: &str = "pgherd";

/// Where etcd keeps this cluster's data; fresh, so that nothing of a package's own start is in it.
pub fn etcd_dir(cluster: &str) -> String {
    format!("/var/lib/etcd/pgherd-{cluster}")
}

/// Patroni's config, which holds PostgreSQL's.
pub const PATRONI_CONFIG: &str = "/etc/patroni.yml";
/// etcd's config.
pub const ETCD_CONFIG: &str = "/etc/default/etcd";
/// What Patroni's venv is made from; beside it, for `/opt/patroni` is replaced as a whole.
pub const REQUIREMENTS: &str = "/etc/pgherd/patroni-requirements.txt";

/// The file that says whose host this is.
pub const MARKER: &str = "/etc/pgherd/cluster";
