//! Checks ports, and finds those that would collide on one host.

use super::{
    super::{
        HostName, Inventory, Role,
        bounds::Limit,
        placed::{Span, span_of},
        problem::Problem,
        schema::{Document, Number},
    },
    Problems,
};
use crate::services::{self, Setting, port::Port};

/// A port within bounds, or the default.
pub(super) fn port(
    problems: &mut Problems,
    written: Option<&Number>,
    Limit { bounds, default }: Limit<u16>,
) -> u16 {
    let Some(number) = written else {
        return default;
    };
    bounds.take(number.value).unwrap_or_else(|| {
        problems.add(
            Problem::new(span_of(number), format!("{} is not a port", number.value))
                .label(bounds.to_string()),
        );
        default
    })
}

/// What listens on a port, and where the inventory sets the port.
struct Listener {
    port: u16,
    who: &'static str,
    written: Option<Span>,
}

/// Finds services on the same host that use the same port.
pub(super) fn check(problems: &mut Problems, document: &Document, inventory: &Inventory) {
    let listeners = listeners(document, inventory);
    let mut told: Vec<(usize, usize)> = Vec::new();
    for (name, host) in &inventory.hosts {
        let here: Vec<(usize, &Listener)> = listeners
            .iter()
            .enumerate()
            .filter(|(_, (role, _))| role.is_none_or(|role| host.roles.contains(&role)))
            .map(|(index, (_, listener))| (index, listener))
            .collect();
        for (place, (later, second)) in here.iter().enumerate() {
            for (earlier, first) in &here[..place] {
                // The same two settings collide on every host that has both; one message is enough.
                if first.port == second.port && !told.contains(&(*earlier, *later)) {
                    told.push((*earlier, *later));
                    problems.add(collision(document, name, first, second));
                }
            }
        }
    }
}

fn listeners(document: &Document, inventory: &Inventory) -> Vec<(Option<Role>, Listener)> {
    let of_ssh = document.ssh.as_ref();
    let of_postgresql = document.postgresql.as_ref();
    let of_haproxy = document.haproxy.as_ref();
    let of_pgbouncer = document.pgbouncer.as_ref();
    let ssh = Listener {
        port: inventory.ssh.port,
        who: "SSH (`ssh.port`)",
        written: of_ssh.and_then(|it| it.port.as_ref()).map(span_of),
    };
    let listener = |port: &'static Port| {
        let written = match port.number {
            services::Number::Fixed(_) => None,
            services::Number::Set(setting) => match setting {
                Setting::Postgresql => of_postgresql.and_then(|it| it.port.as_ref()),
                Setting::HaproxyWrite => of_haproxy.and_then(|it| it.write_port.as_ref()),
                Setting::HaproxyRead => of_haproxy.and_then(|it| it.read_port.as_ref()),
                Setting::HaproxyStats => of_haproxy.and_then(|it| it.stats_port.as_ref()),
                Setting::Pgbouncer => of_pgbouncer.and_then(|it| it.value.port.as_ref()),
            },
        };
        Listener {
            port: inventory.port(port.number),
            who: port.listener,
            written: written.map(span_of),
        }
    };
    let of_services = Role::ALL.into_iter().flat_map(|role| {
        let ports = role.service().ports.iter();
        ports.map(move |port| (Some(role), listener(port)))
    });
    std::iter::once((None, ssh)).chain(of_services).collect()
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
        "port {port} on host {host} is needed by both {} and {}",
        first.who, second.who
    );
    // Marks a place that can be changed: the later of the two settings, or else the host with both roles.
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
