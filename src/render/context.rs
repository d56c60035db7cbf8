//! The variables of templates: the cluster as plain values.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::files;
use crate::{
    cluster::{
        Cluster, ETCD_CLIENT_PORT, ETCD_METRICS_PORT, ETCD_PEER_PORT, INTERIM_REPLICATION_USER,
        INTERIM_REWIND_USER, MONITOR_USER, Node, PATRONI_PORT, POOLER_USER, REPLICATION_USER,
        REST_USER, REWIND_USER, STATS_USER, SUPERUSER, TlsStage,
    },
    contract,
    error::{Code, Error, Result},
    inventory::{PgVersion, Role},
    secret::Secret,
    services::{self, Number, Setting, When},
};

/// The TLS 1.2 ciphers that every service accepts, with OpenSSL's names. All have forward secrecy and
/// authentication, so there is no CBC, and none of CCM8's short tags. All TLS 1.3 ciphers are of this kind.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20";

/// PostgreSQL's own defaults.
const MAX_CONNECTIONS: u32 = 100;
const SUPERUSER_RESERVED_CONNECTIONS: u32 = 3;

/// Patroni's cluster-wide configuration for this inventory, for `/config`.
pub fn dcs_config(cluster: &Cluster) -> Value {
    let inventory = &cluster.inventory;
    let patroni = &inventory.patroni;
    // pg_rewind needs this or checksums. pgherd's data directories have checksums, but one from elsewhere might
    // not.
    let mut parameters = Map::from_iter([("wal_log_hints".to_owned(), json!("on"))]);
    for (name, value) in cluster.dcs_parameters() {
        parameters.insert(name, value.into());
    }
    json!({
        "ttl": patroni.ttl,
        "loop_wait": patroni.loop_wait,
        "retry_timeout": patroni.retry_timeout,
        "maximum_lag_on_failover": patroni.maximum_lag_on_failover,
        "failsafe_mode": patroni.failsafe,
        "synchronous_mode": patroni.synchronous,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": parameters,
        },
    })
}

/// The same with the short loop that a cluster begins with.
fn bootstrap_dcs(cluster: &Cluster) -> Value {
    let mut config = dcs_config(cluster);
    config["loop_wait"] = json!(1);
    config
}

/// The variables that are the same on every host.
pub(super) fn shared(cluster: &Cluster) -> Map<String, Value> {
    let inventory = &cluster.inventory;
    let hosts = |role: Option<Role>| -> Vec<Value> {
        let nodes = cluster.nodes.values();
        nodes
            .filter(|node| role.is_none_or(|role| node.roles.contains(&role)))
            .map(host)
            .collect()
    };
    let secrets = &cluster.secrets;
    let mut replication = (REPLICATION_USER, &secrets.replication);
    let mut rewind = (REWIND_USER, &secrets.rewind);
    // The access rules exist before the first login, and until after the last.
    let (mut all_replication, mut all_rewind) = (vec![REPLICATION_USER], vec![REWIND_USER]);
    if let Some(interim) = &secrets.interim {
        all_replication.push(INTERIM_REPLICATION_USER);
        all_rewind.push(INTERIM_REWIND_USER);
        if interim.used {
            replication = (INTERIM_REPLICATION_USER, &interim.replication);
            rewind = (INTERIM_REWIND_USER, &interim.rewind);
        }
    }
    let server_maxconn = client_connections(cluster);
    let members = hosts(Some(Role::Postgres));
    let most = u64::from(server_maxconn) * members.len() as u64;
    let context = json!({
        "cluster": {"name": cluster.name(), "id": secrets.cluster_id},
        "hosts": hosts(None),
        "members": members,
        "etcd": {
            "members": hosts(Some(Role::Etcd)),
            "data_dir": contract::etcd_dir(cluster.name()),
            "client_port": ETCD_CLIENT_PORT,
            "peer_port": ETCD_PEER_PORT,
            "metrics_port": ETCD_METRICS_PORT,
        },
        "postgresql": {
            "port": inventory.postgresql.port,
            "data_dir": inventory.postgresql.data_dir,
            "allow": networks(cluster),
        },
        "patroni": {
            "port": PATRONI_PORT,
            "synchronous": inventory.patroni.synchronous,
            "source": inventory.patroni.source.as_str(),
        },
        "bootstrap_dcs": bootstrap_dcs(cluster),
        "haproxy": {
            "write_port": inventory.haproxy.write_port,
            "read_port": inventory.haproxy.read_port,
            "stats_port": inventory.haproxy.stats_port,
            "server_maxconn": server_maxconn,
            // As many again may wait in the queues, and a few may read the stats.
            "maxconn": 2 * most + 100,
            "sources": sources(cluster),
            "own_sources": own_sources(cluster),
            "vip": inventory.haproxy.vip,
            "router_id": inventory.haproxy.vip.map(router_id),
            "connections_per_source": inventory
                .haproxy
                .connections_per_source
                .unwrap_or_else(|| (server_maxconn * 4 / 5).max(1)),
        },
        "pgbouncer": pooler(cluster, server_maxconn),
        "backup": backup(cluster),
        "monitoring": monitoring(cluster),
        "tls": tls(cluster),
        "ca_bundle": cluster.ca_bundle,
        "paths": paths(),
        "users": {
            "superuser": SUPERUSER,
            "replication": replication.0,
            "rewind": rewind.0,
            "all_replication": all_replication,
            "all_rewind": all_rewind,
            "rest_api": REST_USER,
            "stats": STATS_USER,
            "pooler": POOLER_USER,
            "monitor": MONITOR_USER,
        },
        "secrets": {
            "superuser": secrets.superuser.expose(),
            "replication": replication.1.expose(),
            "rewind": rewind.1.expose(),
            "rest_api": secrets.rest_api.expose(),
            "stats": secrets.stats.expose(),
            "pooler": secrets.pooler.as_ref().map(Secret::expose),
            "vrrp": secrets.vrrp.as_ref().map(Secret::expose),
            "backup": secrets.backup.as_ref().map(Secret::expose),
            "webhook": secrets.webhook.as_ref().map(Secret::expose),
            "s3_key": secrets.s3.as_ref().map(|it| it.0.expose()),
            "s3_secret": secrets.s3.as_ref().map(|it| it.1.expose()),
        },
    });
    match context {
        Value::Object(context) => context,
        _ => Map::new(),
    }
}

fn backup(cluster: &Cluster) -> Value {
    let backup = &cluster.inventory.backup;
    json!({
        "host": cluster.with_role(Role::Backup).next().map(|node| &node.name),
        "port": contract::BACKUP_PORT,
        "full": backup.full,
        "differential": backup.differential,
        "incremental": backup.incremental,
        "keep_full": backup.keep_full,
        "prove_within": backup.prove_within,
        "archiving": backup.archiving(),
        "places": (1..).zip(backup.places()).map(|(key, place)| json!({
            "key": key,
            "name": place.as_str(),
            "inside": place.inside(),
        })).collect::<Vec<_>>(),
        "s3": backup.s3.as_ref().map(|it| json!({
            "bucket": it.bucket,
            "region": it.region,
            "endpoint": it.endpoint,
            "port": it.port,
            "path": it.path,
            "path_style": it.path_style,
        })),
        "profile": cluster.inventory.bucket_profile(),
    })
}

/// The metrics, who may read them, and whom alerts reach.
fn monitoring(cluster: &Cluster) -> Value {
    let settings = cluster.inventory.monitoring.clone().unwrap_or_default();
    let hosts = cluster.with_role(Role::Monitoring);
    let sources: Vec<String> = std::iter::once("127.0.0.0/8".to_owned())
        .chain(hosts.map(|node| format!("{}/32", node.address)))
        .chain(settings.allow.iter().map(ToString::to_string))
        .collect();
    let email = settings.email;
    json!({
        "enabled": cluster.wants(When::Metrics),
        "port": contract::METRICS_PORT,
        "node_port": contract::NODE_EXPORTER_PORT,
        "postgres_port": contract::POSTGRES_EXPORTER_PORT,
        "prometheus_port": contract::PROMETHEUS_PORT,
        "alertmanager_port": contract::ALERTMANAGER_PORT,
        "sources": sources,
        "keep_days": settings.keep_days,
        "email": email.map(|it| json!({"to": it.to, "from": it.from, "smarthost": it.smarthost})),
        "targets": cluster.targets(),
    })
}

/// The poolers. `connections` is how many PostgreSQL has for clients.
///
/// All poolers together open at most half of these to the inventory's databases, so that clients of HAProxy's
/// ports find some too.
fn pooler(cluster: &Cluster, connections: u32) -> Value {
    let inventory = &cluster.inventory;
    let few = |count: usize| u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    let doors = few(inventory.with_role(Role::Haproxy).count());
    let databases = few(inventory.postgresql.databases.len());
    let share = (connections / 2 / doors / databases).max(2);
    let settings = inventory.pgbouncer.as_ref();
    json!({
        "enabled": settings.is_some(),
        "port": inventory.port(Number::Set(Setting::Pgbouncer)),
        "pool_mode": settings.map(|it| it.pool_mode.as_str()),
        "max_client_conn": settings.map(|it| it.max_client_conn),
        "max_db_connections": settings.and_then(|it| it.max_db_connections).unwrap_or(share),
        "reads": inventory.pooled_for_reading().collect::<Vec<_>>(),
    })
}

/// All variables of one host.
pub(super) fn of_host(
    mut context: Map<String, Value>,
    cluster: &Cluster,
    node: &Node,
) -> Result<Map<String, Value>> {
    let mut this = host(node);
    this["certificate"] = match (&node.certificate, cluster.tls.is_offered()) {
        (Some(certificate), true) => {
            json!({"cert": certificate.cert, "key": certificate.key.expose()})
        }
        (None, true) => {
            return Err(
                Error::new(Code::InternalError, "this host has no certificate").on(&node.name),
            );
        }
        (_, false) => Value::Null,
    };
    this["mount_point"] = json!(mount_point(cluster, node));
    this["units"] = units(node).into();
    context.insert("node".into(), this);
    let doors = cluster.with_role(Role::Haproxy);
    let others: Vec<Value> = doors
        .filter(|door| door.name != node.name)
        .map(host)
        .collect();
    context["haproxy"]["others"] = others.into();
    let major = match (node.postgresql, cluster.inventory.postgresql.version) {
        (Some(major), _) | (None, PgVersion::Major(major)) => major.to_string(),
        // Only a plan can get here before the host's architecture is known.
        (None, PgVersion::Distro) => "<version>".into(),
    };
    context["postgresql"]["parameters"] = parameters(cluster, node).into();
    context["postgresql"]["bin_dir"] = format!("/usr/lib/postgresql/{major}/bin").into();
    context["postgresql"]["version"] = major.into();
    Ok(context)
}

/// The units that a host's alerts are about: those of its services, and their timers.
fn units(node: &Node) -> Vec<String> {
    let timers = |role: Role| -> &[&str] {
        if role == Role::Archive {
            &["pgherd-heartbeat.timer", "pgherd-rehearse.timer"]
        } else if role == Role::Backup {
            &["pgherd-backup-full.timer", "pgherd-backup-diff.timer"]
        } else {
            &[]
        }
    };
    let roles = node.roles.iter();
    roles
        .flat_map(|role| {
            let service = format!("{}.service", role.unit());
            let timers = timers(*role).iter().map(ToString::to_string);
            std::iter::once(service).chain(timers)
        })
        .collect()
}

/// Paths on hosts that several files name: `etcd_tls` is the folder of etcd's certificates.
fn paths() -> Map<String, Value> {
    let folders = services::all().filter_map(|service| {
        let folder = service.tls?;
        Some((format!("{}_tls", service.name), folder.into()))
    });
    let others = [
        ("ca_bundle", files::CA_BUNDLE),
        ("backup_config", contract::BACKUP_CONFIG),
        ("archive_config", contract::ARCHIVE_CONFIG),
        ("rehearsal", contract::REHEARSAL),
        ("backups", contract::BACKUPS),
        ("metrics", contract::METRICS),
    ];
    let others = others.map(|(name, path)| (name.to_owned(), path.into()));
    folders.chain(others).collect()
}

/// How TLS is used. During a change, a cluster has both ways for a while.
fn tls(cluster: &Cluster) -> Value {
    let tls = cluster.tls;
    json!({
        "enabled": tls.is_offered(),
        "used": tls.is_used(),
        "required": tls == TlsStage::Required,
        "scheme": if tls.is_used() { "https" } else { "http" },
        "ciphers": CIPHERS,
        "hba": if tls == TlsStage::Required { "hostssl" } else { "host" },
        "ca": cluster.ca,
    })
}

fn host(node: &Node) -> Value {
    let roles: Vec<&str> = node.roles.iter().map(|role| role.as_str()).collect();
    json!({
        "name": node.name,
        "address": node.address.to_string(),
        "arch": node.arch,
        "roles": roles,
    })
}

/// Where a host's data volume is mounted, if it has one.
fn mount_point(cluster: &Cluster, node: &Node) -> Option<String> {
    let volume = node.data_volume.as_ref();
    volume.map(|_| cluster.inventory.mount_point().to_owned())
}

/// VRRP's number of the group of hosts that share an address; 1 to 255.
fn router_id(vip: Ipv4Addr) -> u8 {
    vip.octets()[3].max(1)
}

fn networks(cluster: &Cluster) -> Vec<String> {
    let allow = &cluster.inventory.postgresql.allow;
    allow.iter().map(ToString::to_string).collect()
}

/// The networks from which HAProxy accepts clients. PostgreSQL cannot distinguish them: all clients behind
/// HAProxy have HAProxy's address.
fn sources(cluster: &Cluster) -> Vec<String> {
    let allow = &cluster.inventory.postgresql.allow;
    if let Some(everybody) = allow.iter().find(|network| network.prefix_len() == 0) {
        return vec![everybody.to_string()];
    }
    let hosts = cluster.nodes.values().map(|node| node.address.to_string());
    let mut sources = vec!["127.0.0.0/8".to_owned()];
    sources.extend(hosts);
    // A program on a front door that connects to the address has it as its source.
    sources.extend(cluster.inventory.haproxy.vip.map(|vip| vip.to_string()));
    sources.extend(networks(cluster));
    sources
}

/// The sources from which HAProxy accepts any number of connections: its own host, through which pgherd
/// connects, and the members, which are trusted with everything anyway.
fn own_sources(cluster: &Cluster) -> Vec<String> {
    let members = cluster.with_role(Role::Postgres);
    std::iter::once("127.0.0.0/8".to_owned())
        .chain(members.map(|node| node.address.to_string()))
        .collect()
}

/// The parameters of a host's own file: pgherd's defaults, the inventory's, and those that pgherd needs with
/// certain values.
pub(crate) fn parameters(cluster: &Cluster, node: &Node) -> Map<String, Value> {
    let mut parameters = Map::from_iter([
        ("password_encryption".to_owned(), json!("scram-sha-256")),
        // A replica whose leader has moved asks once more at the old address, and then waits for this time.
        // PostgreSQL's default of 5 s would mean 5 s without a commit if the replica is the synchronous
        // standby.
        ("wal_retrieve_retry_interval".to_owned(), json!("1s")),
        // A client that connects and never logs in occupies a connection for at most this time.
        ("authentication_timeout".to_owned(), json!("15s")),
    ]);
    if cluster.tls.is_offered() {
        parameters.extend([
            ("ssl_min_protocol_version".to_owned(), json!("TLSv1.2")),
            ("ssl_ciphers".to_owned(), json!(CIPHERS)),
        ]);
    }
    for (name, value) in cluster.local_parameters(node) {
        parameters.insert(name, value.into());
    }
    // Where Debian's psql looks for it.
    let mut fixed = vec![("unix_socket_directories", "/var/run/postgresql".to_owned())];
    if cluster.wants(When::Backups) {
        fixed.extend(archive(cluster));
    }
    if cluster.tls.is_offered() {
        let folder = Role::Postgres.service().tls.unwrap_or_default();
        let file = |name: &str| format!("{folder}/{name}");
        fixed.extend([
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", file("server.crt")),
            ("ssl_key_file", file("server.key")),
        ]);
    }
    for (name, value) in fixed {
        parameters.insert(name.into(), value.into());
    }
    parameters.sort_keys();
    parameters
}

/// How PostgreSQL archives its WAL. A minute after a commit it is in the repository, however little else there is.
fn archive(cluster: &Cluster) -> [(&'static str, String); 3] {
    let (config, stanza) = (contract::ARCHIVE_CONFIG, cluster.name());
    [
        ("archive_mode", "on".to_owned()),
        (
            "archive_command",
            format!("/usr/bin/pgbackrest --config={config} --stanza={stanza} archive-push %p"),
        ),
        ("archive_timeout", "50s".to_owned()),
    ]
}

/// How many connections PostgreSQL has for users that are not superusers.
fn client_connections(cluster: &Cluster) -> u32 {
    let mut parameters = cluster.inventory.postgresql.parameters.clone();
    parameters.extend(cluster.dcs_parameters());
    let number = |name: &str, default: u32| {
        let value = parameters.get(name);
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    };
    number("max_connections", MAX_CONNECTIONS)
        .saturating_sub(number(
            "superuser_reserved_connections",
            SUPERUSER_RESERVED_CONNECTIONS,
        ))
        .saturating_sub(number("reserved_connections", 0))
        .max(1)
}

#[cfg(test)]
mod tests;
