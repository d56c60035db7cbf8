//! Ports, role names and folders that are the same in every cluster and cannot be chosen.

pub const PATRONI_PORT: u16 = 8008;
pub const ETCD_CLIENT_PORT: u16 = 2379;
pub const ETCD_PEER_PORT: u16 = 2380;
/// The port at which each etcd answers `/health` and `/metrics` without a certificate, to its own host only.
pub const ETCD_METRICS_PORT: u16 = 2381;

/// The names of the database's own roles; not secret.
pub const SUPERUSER: &str = "postgres";
pub const REPLICATION_USER: &str = "replicator";
pub const REWIND_USER: &str = "rewind";
/// The roles that members use for a short time while the passwords of the two above change.
pub const INTERIM_REPLICATION_USER: &str = "replicator_interim";
pub const INTERIM_REWIND_USER: &str = "rewind_interim";
/// The role that PgBouncer finds verifiers of passwords with, and the schema of its function.
pub const POOLER_USER: &str = "pgherd_pooler";
/// The role that `postgres_exporter` looks with.
pub const MONITOR_USER: &str = "pgherd_monitor";
pub const REST_USER: &str = "patroni";
pub const STATS_USER: &str = "pgherd";

/// The folder of etcd's data for this cluster. It is new, so it holds nothing from the package's own first
/// start.
pub fn etcd_dir(cluster: &str) -> String {
    format!("/var/lib/etcd/pgherd-{cluster}")
}

/// Patroni's config, which contains PostgreSQL's.
pub const PATRONI_CONFIG: &str = "/etc/patroni.yml";
/// etcd's config.
pub const ETCD_CONFIG: &str = "/etc/default/etcd";
/// HAProxy's config.
pub const HAPROXY_CONFIG: &str = "/etc/haproxy/haproxy.cfg";
/// keepalived's config.
pub const KEEPALIVED_CONFIG: &str = "/etc/keepalived/keepalived.conf";
/// PgBouncer's list of users, which has only its own.
pub const POOLER_USERS: &str = "/etc/pgbouncer/userlist.txt";
/// The requirements of Patroni's venv. The file is beside `/opt/patroni`, because that folder is replaced as a
/// whole.
pub const REQUIREMENTS: &str = "/etc/pgherd/patroni-requirements.txt";

/// The file that says which cluster a host belongs to.
pub const MARKER: &str = "/etc/pgherd/cluster";

/// The port at which a host shows its metrics.
pub const METRICS_PORT: u16 = 9998;
/// The ports of what has no door of its own, on loopback.
pub const NODE_EXPORTER_PORT: u16 = 9100;
pub const POSTGRES_EXPORTER_PORT: u16 = 9187;
/// Prometheus and Alertmanager, on loopback.
pub const PROMETHEUS_PORT: u16 = 9090;
pub const ALERTMANAGER_PORT: u16 = 9093;
/// The folder in which a host's own metrics are written.
pub const METRICS: &str = "/var/lib/pgherd-metrics";

/// The port of pgBackRest's servers.
pub const BACKUP_PORT: u16 = 8432;
/// pgBackRest's config on the host that keeps the backups.
pub const BACKUP_CONFIG: &str = "/etc/pgherd/backup/pgbackrest.conf";
/// pgBackRest's config on the hosts of the databases.
pub const ARCHIVE_CONFIG: &str = "/etc/pgherd/archive/pgbackrest.conf";
/// The repository: backups and WAL.
pub const BACKUPS: &str = "/var/lib/pgherd-backups";
/// Where restores are rehearsed, on the hosts of the databases.
pub const REHEARSAL: &str = "/var/lib/pgherd-rehearsal";
/// A folder that is made in the repository once WAL has been seen to get there.
pub const ARCHIVING: &str = "/var/lib/pgherd-backups/.archiving";
/// Says how far a restore is, on its host.
pub const RESTORE_MARK: &str = "/var/lib/pgherd-rehearsal/restore";

/// The folder that keeps the data from before a restore.
pub fn kept_dir(data_dir: &str) -> String {
    format!("{}.before-restore", data_dir.trim_end_matches('/'))
}

/// The folder that keeps the old version's data after an upgrade of PostgreSQL.
pub fn old_version_dir(data_dir: &str) -> String {
    format!("{}.before-upgrade", data_dir.trim_end_matches('/'))
}

/// The folder in which an upgrade makes the new version's data.
pub fn new_version_dir(data_dir: &str) -> String {
    format!("{}.upgrade", data_dir.trim_end_matches('/'))
}
