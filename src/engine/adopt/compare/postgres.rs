//! PostgreSQL: its data, its parameters, and who may log in.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Differences, Fate, PatroniConfig, Scene, Seen, must_be};
use crate::{
    contract::{PATRONI_CONFIG, REPLICATION_USER, REWIND_USER, SUPERUSER},
    inventory::{HostName, PgVersion, Role},
    liberal::as_text,
};

type Config<'a> = (&'a HostName, &'a Seen, PatroniConfig);

pub(super) fn databases(scene: &Scene<'_>, configs: &[Config<'_>], all: &mut Differences) {
    for (host, seen, config) in configs {
        data(scene, host, seen, config, all);
        parameters(scene, host, seen, config, all);
        own_clusters(scene, host, seen, all);
    }
    let Some((_, leader)) = scene.leader() else {
        return;
    };
    roles(scene, leader, all);
    rules(scene, leader, all);
    if scene.inventory.tls.enabled {
        encryption(scene, leader, all);
    }
}

fn data(
    scene: &Scene<'_>,
    host: &HostName,
    seen: &Seen,
    config: &PatroniConfig,
    all: &mut Differences,
) {
    let wanted = &scene.inventory.postgresql;
    let dir = config.data_dir().unwrap_or_default();
    let to_do = format!("write into the inventory: postgresql: {{ data_dir: {dir} }}");
    must_be(all, host, "data", (dir, &wanted.data_dir), to_do);
    let Some((_, version)) = seen.data() else {
        return all.refuse(
            Some(host),
            "PostgreSQL",
            "no database in the data directory",
            "Patroni must have made one",
        );
    };
    let declared = match wanted.version {
        PgVersion::Major(major) => Some(major),
        PgVersion::Distro => seen.os().postgresql(),
    };
    let declared = declared.map_or("unknown".to_owned(), |major| major.to_string());
    let to_do = format!("write into the inventory: postgresql: {{ version: {version} }}");
    must_be(all, host, "PostgreSQL", (version, &declared), to_do);
    if let Some(port) = seen.port() {
        let to_do = format!("write into the inventory: postgresql: {{ port: {port} }}");
        must_be(
            all,
            host,
            "port",
            (&port.to_string(), &wanted.port.to_string()),
            to_do,
        );
    }
    let listen = config
        .value(&["postgresql", "listen"])
        .as_str()
        .unwrap_or_default();
    if !listen.starts_with("0.0.0.0:") {
        let becomes = "every address of the host, so that another one needs no restart";
        all.add(Fate::HandOver, Some(host), "listens at", (listen, becomes));
    }
}

/// Parameters in Patroni's own file.
fn parameters(
    scene: &Scene<'_>,
    host: &HostName,
    seen: &Seen,
    config: &PatroniConfig,
    all: &mut Differences,
) {
    let path = ["postgresql", "parameters"];
    let ours = scene
        .file(host, PATRONI_CONFIG)
        .and_then(PatroniConfig::parse);
    let live = seen.settings();
    let mut names: BTreeSet<&str> = config.keys(&path).into_iter().collect();
    if let Some(ours) = &ours {
        names.extend(ours.keys(&path));
    }
    for name in names {
        let at = [path[0], path[1], name];
        let text = |config: &PatroniConfig| as_text(config.value(&at));
        let (found, wanted) = (text(config), ours.as_ref().and_then(text));
        let setting = live.iter().find(|it| it.name == name);
        if found == wanted || (wanted.is_some() && setting.map(|it| it.value) == wanted.as_deref())
        {
            continue;
        }
        let at_start = setting.is_some_and(|it| it.at_start);
        let fate = if at_start {
            Fate::HandOver
        } else {
            Fate::Converged
        };
        let becomes = wanted.unwrap_or_else(|| {
            format!("dropped; to keep it, write it into postgresql.parameters: {name}")
        });
        let found = format!("{name}: {}", found.unwrap_or_else(|| "not set".to_owned()));
        all.add(fate, Some(host), "parameters", (found, becomes));
    }
    let elsewhere = |file: &str| file == "postgresql.base.conf" || file == "postgresql.auto.conf";
    let own: Vec<&str> = live
        .iter()
        .filter(|it| elsewhere(it.file))
        .map(|it| it.name)
        .collect();
    if !own.is_empty() {
        let found = format!(
            "{} of postgresql.conf and ALTER SYSTEM",
            crate::quantity::count(own.len(), "parameter")
        );
        all.keep(Some(host), "parameters", found);
    }
}

/// The package's own cluster, which the tutorial only stops: it would take the port at the next boot.
fn own_clusters(scene: &Scene<'_>, host: &HostName, seen: &Seen, all: &mut Differences) {
    let ours = scene.inventory.postgresql.port.to_string();
    for (version, name, port, start) in seen.own_clusters() {
        if start == "auto" && port == ours {
            let found = format!("{version}/{name} would start on port {port} at the next boot");
            let becomes = "it does not start by itself (start.conf); its data stays";
            all.add(
                Fate::Converged,
                Some(host),
                "other databases",
                (found, becomes),
            );
        } else {
            all.keep(Some(host), "other databases", format!("{version}/{name}"));
        }
    }
}

fn roles(scene: &Scene<'_>, leader: &Seen, all: &mut Differences) {
    let ours = [SUPERUSER, REPLICATION_USER, REWIND_USER];
    let roles = leader.roles();
    for (name, _) in roles
        .iter()
        .filter(|(name, md5)| *md5 && !ours.contains(name))
    {
        let to_do =
            "its password must be set again before `up` (\\password in psql): SCRAM takes no other";
        all.add(
            Fate::Clients,
            None,
            "roles",
            (format!("{name}: its password is stored as MD5"), to_do),
        );
    }
    for name in scene.inventory.postgresql.users.keys() {
        if roles.iter().any(|(role, _)| role == name) {
            let to_do = "`up` sets the password of secrets.yaml: give the one that applications have by secrets.file";
            all.add(
                Fate::Clients,
                None,
                "roles",
                (format!("{name} is in the inventory"), to_do),
            );
        }
    }
    let others: Vec<&str> = roles
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !ours.contains(name))
        .collect();
    if !others.is_empty() {
        all.keep(None, "roles", others.join(", "));
    }
    all.keep(None, "databases", leader.databases().join(", "));
}

/// The access rules. pgherd's rules admit logins with SCRAM from the cluster's hosts and from `postgresql.allow`.
fn rules(scene: &Scene<'_>, leader: &Seen, all: &mut Differences) {
    let what = "access";
    let mut local = false;
    for rule in leader.rules() {
        let from = if rule.address.is_empty() {
            "the socket"
        } else {
            rule.address
        };
        let found = format!(
            "{} {} from {from}: {}",
            rule.kind, rule.database, rule.method
        );
        let near = matches!(rule.address, "" | "127.0.0.1/32") || rule.address.starts_with("::1");
        match rule.method {
            "reject" | "scram-sha-256" | "md5" | "trust" | "peer" | "password" => {}
            method => {
                let to_do = format!("pgherd's rules have no {method}: those logins would end");
                all.refuse(None, what, found, to_do);
                continue;
            }
        }
        if near && matches!(rule.method, "trust" | "peer") {
            local = true;
        } else if rule.method == "trust" {
            all.add(
                Fate::Clients,
                None,
                what,
                (found, "every login needs a password"),
            );
        } else if !near
            && rule.method != "reject"
            && !rule.database.contains("replication")
            && !is_allowed(scene, rule.address)
        {
            let to_do = format!(
                "these clients are shut out; to admit them: postgresql: {{ allow: [{}] }}",
                rule.address
            );
            all.add(Fate::Clients, None, what, (found, to_do));
        }
    }
    if local {
        let becomes = "root and postgres over the socket; everybody else with a password";
        all.add(
            Fate::Clients,
            None,
            what,
            ("on the databases' own hosts, without a password", becomes),
        );
    }
    let networks: Vec<String> = scene
        .inventory
        .postgresql
        .allow
        .iter()
        .map(ToString::to_string)
        .collect();
    let becomes = format!(
        "SCRAM, from the cluster's hosts and {}",
        networks.join(", ")
    );
    all.add(
        Fate::Converged,
        None,
        what,
        ("rules for passwords", becomes),
    );
}

/// Whether pgherd's rules admit a network too.
fn is_allowed(scene: &Scene<'_>, address: &str) -> bool {
    let (number, length) = address.split_once('/').unwrap_or((address, "32"));
    let Ok(number) = number.parse::<Ipv4Addr>() else {
        return false;
    };
    // As PostgreSQL writes masks that are no length of a prefix's.
    let length = length.parse::<u8>().ok().or_else(|| {
        let mask = length.parse::<Ipv4Addr>().ok()?;
        u8::try_from(u32::from(mask).leading_ones()).ok()
    });
    let Some(network) = length.and_then(|length| Ipv4Net::new(number, length).ok()) else {
        return false;
    };
    let hosts = scene.addresses.values();
    let own = network.prefix_len() == 32 && hosts.into_iter().any(|host| *host == number);
    own || scene
        .inventory
        .postgresql
        .allow
        .iter()
        .any(|allowed| allowed.contains(&network.trunc()))
}

fn encryption(scene: &Scene<'_>, leader: &Seen, all: &mut Differences) {
    let becomes = "TLS for etcd, Patroni, replication and clients, in three stages, none of which cuts off a client";
    all.add(Fate::Converged, None, "TLS", ("off", becomes));
    let plain = leader.plain_clients();
    let doors: Vec<&HostName> = scene.inventory.with_role(Role::Haproxy).collect();
    let shown = match plain.len() {
        0 => "clients".to_owned(),
        _ => plain.into_iter().take(5).collect::<Vec<_>>().join(", "),
    };
    let found = match doors.is_empty() {
        true => shown,
        false => format!("{shown} (HAProxy hides the addresses)"),
    };
    let to_do = "after the last stage every login needs TLS: sslmode=disable ends; libpq's default does not";
    all.add(Fate::Clients, None, "TLS", (found, to_do));
}
