//! etcd.

use super::{Differences, Fate, PatroniConfig, Scene, Seen};
use crate::{
    contract::etcd_dir,
    inventory::{HostName, Role},
    quantity::count,
};

/// Where etcd's data is if nothing else is said: the package's folder.
pub(in super::super) fn data_dir(seen: &Seen) -> Option<&str> {
    seen.etcd("ETCD_DATA_DIR")
        .filter(|dir| dir.starts_with('/'))
}

pub(super) fn stores(
    scene: &Scene<'_>,
    configs: &[(&HostName, &Seen, PatroniConfig)],
    all: &mut Differences,
) {
    let members = scene.inventory.with_role(Role::Etcd).count();
    if members > 1 {
        let to_do = "this version takes in clusters with one etcd; more can join afterwards";
        all.refuse(None, "etcd", count(members, "member"), to_do);
    }
    let old = configs
        .iter()
        .any(|(_, _, config)| !config.value(&["etcd"]).is_null());
    for (host, seen) in scene.with_role(Role::Etcd) {
        store(scene, host, seen, old, all);
    }
}

fn store(scene: &Scene<'_>, host: &HostName, seen: &Seen, old: bool, all: &mut Differences) {
    let what = "etcd";
    if !seen.runs("etcd") {
        let to_do = "pgherd's unit is etcd.service: it must run, with that name";
        return all.refuse(Some(host), what, "etcd.service does not run", to_do);
    }
    if let Some(file) = seen.etcd("ETCD_CONFIG_FILE") {
        let to_do = "pgherd's is configured by /etc/default/etcd: write the settings there";
        return all.refuse(Some(host), what, format!("it reads {file}"), to_do);
    }
    let unit = seen.unit("etcd").map(|unit| unit.file).unwrap_or_default();
    if unit.starts_with("/etc/") {
        let to_do = "pgherd uses its package's unit: take this one away, with the package etcd-server installed";
        all.refuse(Some(host), what, unit, to_do);
    }
    if seen
        .unit("etcd")
        .is_some_and(|unit| !unit.drop_ins.is_empty())
    {
        all.refuse(
            Some(host),
            what,
            "drop-ins of its unit",
            "write what they set into /etc/default/etcd",
        );
    }
    let Some(dir) = data_dir(seen) else {
        let to_do = "name it with its whole path: ETCD_DATA_DIR";
        return all.refuse(Some(host), what, "its data directory is not known", to_do);
    };
    let name = seen.etcd("ETCD_NAME").unwrap_or("default");
    if name == host.as_str() {
        all.keep(
            Some(host),
            what,
            format!("member {name}, {}", seen.etcd_version().unwrap_or_default()),
        );
    } else if seen.has_etcd_option("--name") {
        let to_do = format!("its name must be the host's, {host}: --name");
        all.refuse(Some(host), what, format!("member {name}"), to_do);
    } else {
        all.add(
            Fate::Converged,
            Some(host),
            what,
            (
                format!("member {name}"),
                format!("member {host}; etcd starts again"),
            ),
        );
    }
    let linked = etcd_dir(&scene.inventory.cluster);
    let found = format!("its data in {dir}");
    match dir == linked {
        true => all.keep(Some(host), what, found),
        false => all.keep(
            Some(host),
            what,
            format!("{found}, which {linked} leads to"),
        ),
    }
    let urls = seen.etcd("ETCD_LISTEN_CLIENT_URLS").unwrap_or_default();
    let becomes = "pgherd's config; etcd starts again, which Patroni waits for";
    all.add(
        Fate::Converged,
        Some(host),
        what,
        (format!("listens at {urls}"), becomes),
    );
    if old && urls.contains("https:") {
        all.refuse(
            Some(host),
            what,
            "TLS",
            "this version takes in no etcd with TLS: turn it off first",
        );
    }
}
