//! Patroni: its program, its unit, its config, and who its members are.

use serde_json::Value;

use super::{
    Differences, Fate, PatroniConfig, Scene, Seen, convert::NAMESPACE, is_editable, must_be,
};
use crate::{
    contract::{PATRONI_PORT, REPLICATION_USER, REST_USER, REWIND_USER, SUPERUSER},
    inventory::{HostName, PatroniSource, Role},
    plan::{Change, config_patch},
};

/// Parts of Patroni's config that pgherd's has no place for.
const NOT_KEPT: [(&[&str], &str); 9] = [
    (&["citus"], "pgherd makes no Citus clusters"),
    (&["standby_cluster"], "pgherd makes no standby clusters"),
    (
        &["postgresql", "callbacks"],
        "nothing would call them any more",
    ),
    (
        &["postgresql", "create_replica_methods"],
        "replicas would be made by pg_basebackup",
    ),
    (
        &["postgresql", "custom_conf"],
        "PostgreSQL would not read it any more",
    ),
    (
        &["postgresql", "recovery_conf"],
        "PostgreSQL would not get it any more",
    ),
    (
        &["postgresql", "pre_promote"],
        "nothing would run it any more",
    ),
    (
        &["postgresql", "before_stop"],
        "nothing would run it any more",
    ),
    (
        &["postgresql", "pg_ident"],
        "names would not be mapped any more",
    ),
];

/// Other stores than etcd.
const OTHER_STORES: [(&str, &str); 5] = [
    ("consul", "Consul"),
    ("zookeeper", "ZooKeeper"),
    ("exhibitor", "Exhibitor"),
    ("kubernetes", "Kubernetes"),
    ("raft", "Raft"),
];

type Config<'a> = (&'a HostName, &'a Seen, PatroniConfig);

pub(super) fn members(scene: &Scene<'_>, configs: &[Config<'_>], all: &mut Differences) {
    for (host, seen) in scene.with_role(Role::Postgres) {
        runs(host, seen, all);
    }
    for (host, seen, config) in configs {
        names(scene, host, config, all);
        store(scene, host, config, all);
        interface(host, config, all);
        logins(host, config, all);
        not_kept(host, config, all);
        program(scene, host, seen, all);
        if !is_editable(seen) && all.0.iter().all(|row| row.what != "store") {
            all.refuse(
                Some(*host),
                "config",
                "its layout cannot be changed line by line",
                "write its sections restapi and etcd as blocks, one key on each line",
            );
        }
    }
    if let Some((_, _, first)) = configs.first() {
        for (host, _, config) in &configs[1..] {
            for purpose in ["superuser", "replication", "rewind"] {
                if config.login(purpose) != first.login(purpose) {
                    let found = format!("{purpose} differs between the members");
                    all.refuse(
                        Some(*host),
                        "passwords",
                        found,
                        "correct the wrong one first",
                    );
                }
            }
        }
    }
    declared(scene, all);
    cluster_wide(scene, all);
}

fn runs(host: &HostName, seen: &Seen, all: &mut Differences) {
    let unit = seen.unit("patroni");
    if let Some(other) = seen.elsewhere().filter(|_| !seen.runs("patroni")) {
        let found = format!("Patroni runs in {other}");
        let to_do =
            "pgherd's unit is patroni.service: give it that name, with PostgreSQL left running";
        all.refuse(Some(host), "unit", found, to_do);
    } else if !seen.runs("patroni") {
        all.refuse(
            Some(host),
            "unit",
            "patroni.service does not run",
            "start it: systemctl start patroni",
        );
    } else if seen.config().is_none() {
        all.refuse(
            Some(host),
            "config",
            "Patroni was not started with the path of one YAML file",
            "start it with one: patroni /etc/patroni.yml",
        );
    } else if seen.settings_of_patroni().is_none() {
        all.refuse(
            Some(host),
            "config",
            "it is no YAML that pgherd can read",
            "correct it",
        );
    } else if seen.leads().is_none() {
        all.refuse(
            Some(host),
            "PostgreSQL",
            "it does not answer root's user postgres over its socket",
            "let it: a line `local all postgres peer` in pg_hba.conf",
        );
    } else if seen.answer("patroni").is_null() {
        let found = "Patroni's REST interface does not answer over HTTP";
        all.refuse(
            Some(host),
            "REST interface",
            found,
            "this version takes in no Patroni with TLS: turn it off first",
        );
    }
    if let Some(unit) = unit.filter(|it| !it.drop_ins.is_empty()) {
        let to_do = "what they set would apply to pgherd's unit too: write it into the unit";
        all.refuse(Some(host), "unit", unit.drop_ins.to_owned(), to_do);
    }
    let variables = seen.variables();
    if !variables.is_empty() {
        let to_do = "pgherd's unit has none: write them into the config";
        all.refuse(Some(host), "environment", variables.join(", "), to_do);
    }
}

fn names(scene: &Scene<'_>, host: &HostName, config: &PatroniConfig, all: &mut Differences) {
    let text = |key: &str| config.value(&[key]).as_str().unwrap_or_default().to_owned();
    let (scope, name) = (text("scope"), text("name"));
    let cluster = &scene.inventory.cluster;
    let to_do = format!("write into the inventory: cluster: {scope}");
    must_be(all, host, "cluster", (&scope, cluster), to_do);
    if name != host.as_str() {
        let to_do = format!("call this host {name} in the inventory");
        all.refuse(Some(host), "member", format!("its name is {name}"), to_do);
    }
    let namespace = config.value(&["namespace"]).as_str().unwrap_or("/service/");
    if namespace.trim_matches('/') == NAMESPACE.trim_matches('/') {
        all.keep(Some(host), "namespace", NAMESPACE);
    } else {
        let becomes = format!("{NAMESPACE}, under a pause: PostgreSQL keeps running");
        all.add(
            Fate::Converged,
            Some(host),
            "namespace",
            (namespace, becomes),
        );
    }
}

fn store(scene: &Scene<'_>, host: &HostName, config: &PatroniConfig, all: &mut Differences) {
    let has = |key: &str| !config.value(&[key]).is_null();
    if let Some((_, title)) = OTHER_STORES.iter().find(|(key, _)| has(key)) {
        let to_do = "pgherd's clusters use etcd: move Patroni to etcd first, under a pause";
        return all.refuse(Some(host), "store", *title, to_do);
    }
    let section = match (has("etcd"), has("etcd3")) {
        (true, false) => "etcd",
        (false, true) => "etcd3",
        _ => {
            let to_do = "write one section etcd3";
            return all.refuse(
                Some(host),
                "store",
                "no section etcd or etcd3, or both",
                to_do,
            );
        }
    };
    let protocol = config.value(&[section, "protocol"]).as_str();
    let secured = ["cacert", "cert", "username"];
    if protocol == Some("https")
        || secured
            .iter()
            .any(|key| !config.value(&[section, key]).is_null())
    {
        let to_do = "this version takes in no etcd with TLS or passwords: turn them off first";
        return all.refuse(Some(host), "store", "etcd with TLS or passwords", to_do);
    }
    let strange = config.etcd_in(section).into_iter().find(|address| {
        let (name, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let mut etcds = scene.inventory.with_role(Role::Etcd);
        port != "2379" || !etcds.any(|etcd| scene.is_at(etcd, name))
    });
    if let Some(address) = strange {
        let to_do =
            "give its host the role etcd and this address in the inventory; its port must be 2379";
        return all.refuse(Some(host), "store", format!("etcd at {address}"), to_do);
    }
    match section {
        "etcd3" => all.keep(Some(host), "store", "etcd, API version 3"),
        _ => {
            let becomes = "API version 3 of the same etcd, under a pause: PostgreSQL keeps running";
            all.add(
                Fate::Converged,
                Some(host),
                "store",
                ("etcd, API version 2", becomes),
            );
        }
    }
}

fn interface(host: &HostName, config: &PatroniConfig, all: &mut Differences) {
    let what = "REST interface";
    let of = |key: &str| config.value(&["restapi", key]).as_str().unwrap_or_default();
    let port = |address: &str| {
        address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok())
    };
    if !of("certfile").is_empty() {
        return all.refuse(
            Some(host),
            what,
            "with TLS",
            "this version takes in no Patroni with TLS: turn it off first",
        );
    }
    for key in ["listen", "connect_address"] {
        if port(of(key)) != Some(PATRONI_PORT) {
            let to_do = format!("its port must be {PATRONI_PORT}");
            return all.refuse(Some(host), what, format!("{key}: {}", of(key)), to_do);
        }
    }
    let user = config
        .value(&["restapi", "authentication", "username"])
        .as_str();
    let found = match user {
        None => "everybody may change the cluster".to_owned(),
        Some(user) => format!("changes need the password of {user}"),
    };
    let becomes = format!(
        "changes need pgherd's password, of {REST_USER}, and come from the cluster's hosts"
    );
    all.add(Fate::Converged, Some(host), what, (found, becomes));
}

fn logins(host: &HostName, config: &PatroniConfig, all: &mut Differences) {
    for (purpose, ours) in [
        ("superuser", SUPERUSER),
        ("replication", REPLICATION_USER),
        ("rewind", REWIND_USER),
    ] {
        match config.login(purpose) {
            Some((name, _)) if name == ours => {
                let found = format!("{purpose}: {name}, with its password from the config");
                all.keep(Some(host), "passwords", found);
            }
            Some((name, _)) => {
                let to_do = format!(
                    "pgherd's is {ours}: rename the role, and write the name into each config"
                );
                all.refuse(Some(host), "passwords", format!("{purpose}: {name}"), to_do);
            }
            None if purpose == "rewind" => {
                let becomes = format!("a role of its own for pg_rewind, {ours}");
                all.add(
                    Fate::Converged,
                    Some(host),
                    "passwords",
                    ("rewind: the superuser's", becomes),
                );
            }
            None => {
                let to_do = "pgherd needs the role's password in Patroni's config";
                all.refuse(
                    Some(host),
                    "passwords",
                    format!("{purpose}: none in the config"),
                    to_do,
                );
            }
        }
    }
}

fn not_kept(host: &HostName, config: &PatroniConfig, all: &mut Differences) {
    for (path, why) in NOT_KEPT {
        if !config.value(path).is_null() {
            all.refuse(Some(host), "config", path.join("."), why);
        }
    }
    for tag in config.keys(&["tags"]) {
        let value = config.value(&["tags", tag]);
        if *value != Value::Bool(false) {
            let found = format!("tags.{tag}: {value}");
            all.refuse(
                Some(host),
                "config",
                found,
                "pgherd gives no member this tag",
            );
        }
    }
}

fn program(scene: &Scene<'_>, host: &HostName, seen: &Seen, all: &mut Differences) {
    let Some((program, version)) = seen.patroni() else {
        return;
    };
    let found = format!("{program} {version}");
    match scene.inventory.patroni.source {
        PatroniSource::Distro if program == "/usr/bin/patroni" => {
            all.keep(Some(host), "Patroni", found);
        }
        PatroniSource::Distro => {
            let becomes = "the distribution's, /usr/bin/patroni; the old one stays on the disk";
            all.add(Fate::HandOver, Some(host), "Patroni", (found, becomes));
        }
        PatroniSource::Pypi => {
            let becomes = "pgherd's, in /opt/patroni; the old one stays on the disk";
            all.add(Fate::HandOver, Some(host), "Patroni", (found, becomes));
        }
    }
    if let Some(unit) = seen.unit("patroni") {
        let becomes = "pgherd's unit: it starts at boot and ends PostgreSQL with Patroni";
        all.add(Fate::HandOver, Some(host), "unit", (unit.file, becomes));
    }
}

/// Patroni's members must be the inventory's, and all be well.
fn declared(scene: &Scene<'_>, all: &mut Differences) {
    let what = "members";
    let Some((leader, seen)) = scene.leader() else {
        return all.refuse(
            None,
            what,
            "no member accepts writes",
            "the cluster must have a leader first",
        );
    };
    let answer = seen.answer("cluster");
    let members = answer["members"].as_array().map_or(&[][..], Vec::as_slice);
    let mut well = Vec::new();
    for member in members {
        let text = |key: &str| member[key].as_str().unwrap_or_default();
        let name = text("name");
        let host = scene
            .inventory
            .with_role(Role::Postgres)
            .find(|host| host.as_str() == name);
        match host {
            None => {
                let to_do = format!(
                    "add it to the inventory: {name}: {{ roles: [postgres], address: {} }}",
                    text("host")
                );
                all.refuse(None, what, format!("{name} is not in the inventory"), to_do);
            }
            Some(_) if !matches!(text("state"), "running" | "streaming") => {
                let found = format!("{name} is {}", text("state"));
                all.refuse(None, what, found, "every member must be well first");
            }
            Some(host) if !scene.is_at(host, text("host")) => {
                let found = format!("{name} is at {}", text("host"));
                all.refuse(
                    None,
                    what,
                    found,
                    "the inventory has another address for it",
                );
            }
            Some(_) => well.push(format!("{name} ({})", text("role"))),
        }
    }
    for host in scene.inventory.with_role(Role::Postgres) {
        let listed = members.iter().any(|it| it["name"] == host.as_str());
        // While an adoption is under way, members that were not exchanged yet are in the other store.
        if !listed && seen.adopting().is_none() {
            all.refuse(
                Some(host),
                what,
                "Patroni does not know this member",
                "it must be a member first: add hosts later",
            );
        }
    }
    if seen.answer("config")["pause"] == true && seen.adopting().is_none() {
        let to_do = "somebody is at work on it; end the pause first: patronictl resume";
        all.refuse(None, what, "the cluster is paused", to_do);
    }
    if !well.is_empty() {
        all.keep(None, what, format!("{}; {leader} leads", well.join(", ")));
    }
}

/// The settings in the DCS.
fn cluster_wide(scene: &Scene<'_>, all: &mut Differences) {
    let Some((_, seen)) = scene.leader() else {
        return;
    };
    let found = seen.answer("config");
    if !found["standby_cluster"].is_null() {
        all.refuse(
            None,
            "settings",
            "standby_cluster",
            "pgherd makes no standby clusters",
        );
    }
    if !found["use_pg_rewind"].is_null() {
        let becomes = "taken away: Patroni reads it below `postgresql` only";
        let found = "use_pg_rewind, not below `postgresql`";
        all.add(Fate::Converged, None, "settings", (found, becomes));
    }
    let live = seen.settings();
    let (_, changes) = config_patch(Some(&found), scene.config);
    for change in changes {
        let Change::Setting { key, from, to } = change else {
            continue;
        };
        let shown = |value: Option<Value>| match value {
            None => "not set".to_owned(),
            Some(Value::String(text)) => text,
            Some(value) => value.to_string(),
        };
        let name = key.strip_prefix("postgresql.parameters.");
        let setting = name.and_then(|name| live.iter().find(|it| it.name == name));
        let to_text = to.clone().map(|it| shown(Some(it)));
        let runs_so = setting.is_some_and(|it| Some(it.value) == to_text.as_deref());
        let fate = match setting {
            _ if runs_so => Fate::Converged,
            Some(setting) if setting.at_start => Fate::HandOver,
            _ => Fate::Converged,
        };
        let becomes = match (&to, name) {
            (None, Some(name)) => {
                format!("dropped; to keep it, write it into postgresql.parameters: {name}")
            }
            _ => shown(to),
        };
        all.add(
            fate,
            None,
            "settings",
            (format!("{key}: {}", shown(from)), becomes),
        );
    }
}
