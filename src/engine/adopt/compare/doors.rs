//! HAProxy, where clients connect.

use super::{Differences, Fate, Scene, Seen};
use crate::{
    configs::{Proxy, proxies},
    contract::HAPROXY_CONFIG,
    inventory::{HostName, Role},
};

const WHAT: &str = "HAProxy";

/// Paths at which Patroni answers on the leader alone, and on replicas.
const LEADS: [&str; 5] = ["/", "/primary", "/master", "/leader", "/read-write"];
const FOLLOWS: [&str; 4] = ["/replica", "/read-only", "/sync", "/async"];

pub(super) fn doors(scene: &Scene<'_>, all: &mut Differences) {
    for (host, seen) in scene.with_role(Role::Haproxy) {
        if !seen.runs("haproxy") {
            let becomes = "pgherd's HAProxy";
            all.add(
                Fate::Converged,
                Some(host),
                WHAT,
                ("haproxy.service does not run", becomes),
            );
            continue;
        }
        if seen
            .unit("haproxy")
            .is_some_and(|unit| !unit.drop_ins.is_empty())
        {
            all.refuse(
                Some(host),
                WHAT,
                "drop-ins of its unit",
                "take them away: pgherd has one of its own",
            );
        }
        door(scene, host, seen, all);
    }
}

fn door(scene: &Scene<'_>, host: &HostName, seen: &Seen, all: &mut Differences) {
    let haproxy = &scene.inventory.haproxy;
    let ours = scene
        .file(host, HAPROXY_CONFIG)
        .map(proxies)
        .unwrap_or_default();
    let found = seen.proxies();
    for proxy in &found {
        listener(scene, host, proxy, &ours, all);
    }
    let serves = |port: u16| found.iter().any(|it| it.ports().any(|at| at == port));
    for (name, port) in [("write", haproxy.write_port), ("read", haproxy.read_port)] {
        if !serves(port) {
            let becomes = format!("a {name} port, {port}");
            all.add(
                Fate::Converged,
                Some(host),
                WHAT,
                (format!("nothing listens on port {port}"), becomes),
            );
        }
    }
    let becomes = "pgherd's config, by a reload: connections stay";
    all.add(
        Fate::Converged,
        Some(host),
        WHAT,
        ("its limits and checks", becomes),
    );
}

fn listener(
    scene: &Scene<'_>,
    host: &HostName,
    proxy: &Proxy,
    ours: &[Proxy],
    all: &mut Differences,
) {
    let haproxy = &scene.inventory.haproxy;
    let port = scene.inventory.postgresql.port;
    let named = format!("{} at {}", proxy.name, proxy.binds.join(", "));
    let ports: Vec<u16> = proxy.ports().collect();
    if ours
        .iter()
        .any(|it| it.name == proxy.name && it.binds == proxy.binds && it.servers == proxy.servers)
    {
        return all.keep(Some(host), WHAT, named);
    }
    if proxy.stats && proxy.servers.is_empty() {
        let becomes = format!(
            "the page is at port {}, and needs a password",
            haproxy.stats_port
        );
        return all.add(Fate::Converged, Some(host), WHAT, (named, becomes));
    }
    let leads_to = |address: &String| {
        let mut members = scene.inventory.with_role(Role::Postgres);
        address.rsplit_once(':').is_some_and(|(name, at)| {
            at == port.to_string() && members.any(|member| scene.is_at(member, name))
        })
    };
    if proxy.servers.is_empty() || !proxy.servers.iter().all(leads_to) {
        let to_do = "it would be lost: move it to another host, or add it to the template of haproxy.cfg (--templates)";
        return all.refuse(Some(host), WHAT, named, to_do);
    }
    if proxy.ends_tls {
        let to_do =
            "pgherd's HAProxy passes TLS on to PostgreSQL: clients must verify another certificate";
        return all.refuse(Some(host), WHAT, format!("{named}, which ends TLS"), to_do);
    }
    let check = proxy.check.as_deref().unwrap_or_default();
    let check = check.split('?').next().unwrap_or_default();
    let (key, wanted) = if LEADS.contains(&check) {
        ("write_port", haproxy.write_port)
    } else if FOLLOWS.contains(&check) {
        ("read_port", haproxy.read_port)
    } else {
        let to_do =
            "pgherd has a port for the leader and one for replicas: give its clients one of them";
        return all.refuse(
            Some(host),
            WHAT,
            format!("{named}, which checks {check:?}"),
            to_do,
        );
    };
    match ports.iter().find(|at| **at != wanted) {
        Some(other) => {
            let to_do =
                format!("clients use it: write into the inventory: haproxy: {{ {key}: {other} }}");
            all.refuse(Some(host), WHAT, named, to_do);
        }
        None => all.keep(
            Some(host),
            WHAT,
            format!("{named}, the {}", key.replace('_', " ")),
        ),
    }
}
