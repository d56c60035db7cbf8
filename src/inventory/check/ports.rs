//! Ports, and those of one host that would collide.

use indexmap::IndexMap;

use super::{
    super::{
        Haproxy, Host, HostName, Postgresql, Role, Ssh,
        problem::{Problem, Span, span_of},
        schema::{Document, Number},
    },
    Problems,
};
use crate::contract::{ETCD_CLIENT_PORT, ETCD_METRICS_PORT, ETCD_PEER_PORT, PATRONI_PORT};

/// A port from 1, or the default.
pub(super) fn port(problems: &mut Problems, written: Option<&Number>, default: u16) -> u16 {
    let Some(number) = written else {
        return default;
    };
    match u16::try_from(number.value).ok().filter(|port| *port > 0) {
        Some(port) => port,
        None => {
            problems.add(
                Problem::new(span_of(number), format!("{} is not a port", number.value))
                    .label("1 to 65535"),
            );
            default
        }
    }
}

/// Who listens on a port, and where the inventory says so.
struct Listener {
    port: u16,
    who: &'static str,
    written: Option<Span>,
}

/// Finds listeners of one host that want the same port.
pub(super) fn check(
    problems: &mut Problems,
    document: &Document,
    hosts: &IndexMap<HostName, Host>,
    ssh: &Ssh,
    postgresql: &Postgresql,
    haproxy: &Haproxy,
) {
    let listeners = listeners(document, ssh, postgresql, haproxy);
    let mut told: Vec<(usize, usize)> = Vec::new();
    for (name, host) in hosts {
        let here: Vec<(usize, &Listener)> = listeners
            .iter()
            .enumerate()
            .filter(|(_, (role, _))| role.is_none_or(|role| host.roles.contains(&role)))
            .map(|(index, (_, listener))| (index, listener))
            .collect();
        for (place, (later, second)) in here.iter().enumerate() {
            for (earlier, first) in &here[..place] {
                // The same two settings collide on every host that has both; once is enough.
                if first.port == second.port && !told.contains(&(*earlier, *later)) {
                    told.push((*earlier, *later));
                    problems.add(collision(document, name, first, second));
                }
            }
        }
    }
}

fn listeners(
    document: &Document,
    ssh: &Ssh,
    postgresql: &Postgresql,
    haproxy: &Haproxy,
) -> Vec<(Option<Role>, Listener)> {
    let at = |number: &Option<Number>| number.as_ref().map(span_of);
    let listener = |port, who, written| Listener { port, who, written };
    let of_ssh = document.ssh.as_ref().and_then(|ssh| at(&ssh.port));
    let of_postgresql = document.postgresql.as_ref().and_then(|it| at(&it.port));
    let of_haproxy = document.haproxy.as_ref();
    vec![
        (None, listener(ssh.port, "SSH (`ssh.port`)", of_ssh)),
        (
            Some(Role::Postgres),
            listener(
                postgresql.port,
                "PostgreSQL (`postgresql.port`)",
                of_postgresql,
            ),
        ),
        (
            Some(Role::Postgres),
            listener(PATRONI_PORT, "Patroni", None),
        ),
        (
            Some(Role::Etcd),
            listener(ETCD_CLIENT_PORT, "etcd's clients", None),
        ),
        (
            Some(Role::Etcd),
            listener(ETCD_PEER_PORT, "etcd's peers", None),
        ),
        (
            Some(Role::Etcd),
            // On loopback, but no other listener could take all addresses.
            listener(ETCD_METRICS_PORT, "etcd's metrics", None),
        ),
        (
            Some(Role::Haproxy),
            listener(
                haproxy.write_port,
                "HAProxy's `write_port`",
                of_haproxy.and_then(|it| at(&it.write_port)),
            ),
        ),
        (
            Some(Role::Haproxy),
            listener(
                haproxy.read_port,
                "HAProxy's `read_port`",
                of_haproxy.and_then(|it| at(&it.read_port)),
            ),
        ),
        (
            Some(Role::Haproxy),
            listener(
                haproxy.stats_port,
                "HAProxy's `stats_port`",
                of_haproxy.and_then(|it| at(&it.stats_port)),
            ),
        ),
    ]
}

fn collision(document: &Document, host: &HostName, first: &Listener, second: &Listener) -> Problem {
    let Listener { port, .. } = *second;
    let name = document.hosts.as_ref().and_then(|hosts| {
        hosts
            .value
            .keys()
            .find(|name| name.value == host.as_str())
            .map(span_of)
    });
    let what = format!(
        "port {port} on host {host} is wanted by both {} and {}",
        first.who, second.who
    );
    // Mark what can be changed: the later of the two settings, else the host that has both roles.
    let mut marks = [&second.written, &first.written]
        .into_iter()
        .filter_map(Clone::clone);
    let at = marks.next().or(name).unwrap_or_default();
    let problem = Problem::new(at, what).label("choose another port");
    match marks.next() {
        Some(other) => problem.also(other, "taken here"),
        None => problem,
    }
}
