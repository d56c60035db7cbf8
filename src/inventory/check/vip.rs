//! Checks the address that moves between the front doors.

use std::net::Ipv4Addr;

use indexmap::IndexMap;
use ipnet::Ipv4Net;

use super::{
    super::{
        Host, HostName, Provider, Role,
        placed::{Span, span_of},
        problem::Problem,
        schema::{self, Word},
    },
    Problems, net,
};

/// Checks the address against the provider, the network and the hosts.
pub(super) fn check(
    problems: &mut Problems,
    provider: &mut Provider,
    haproxy: &schema::Haproxy,
    document: &schema::Document,
    hosts: &IndexMap<HostName, Host>,
) {
    let Some(word) = &haproxy.vip else {
        return;
    };
    // An invalid address has been reported already.
    let Ok(vip) = net::host_address(word) else {
        return;
    };
    let kind = document
        .provider
        .as_ref()
        .and_then(|it| it.value.kind.as_ref());
    match provider {
        Provider::Aws(_) => {
            problems.add(no_address_floats(word, kind));
            return;
        }
        Provider::Docker(docker) => {
            let first = hosts.values().find_map(|host| host.address);
            if docker.subnet.is_none() && first.is_none() {
                docker.subnet = Ipv4Net::new(vip, 24).ok().map(|net| net.trunc());
            }
            let around = |first| Ipv4Net::new(first, 24).ok().map(|net| net.trunc());
            if let Some(network) = docker.subnet.or(first.and_then(around))
                && let Some(reason) = net::taken(network, vip)
            {
                let what = format!("{vip} is not free for `haproxy.vip` in {network}");
                problems.add(Problem::new(span_of(word), what).label(reason));
            }
        }
        Provider::Existing => {}
    }
    if let Some(at) = address_of_host(document, vip) {
        let what = format!("{vip} is the address of a host");
        problems.add(
            Problem::new(span_of(word), what)
                .label("must be nobody's")
                .also(at, "taken here"),
        );
    }
    let doors = hosts
        .values()
        .filter(|host| host.roles.contains(&Role::Haproxy));
    if doors.count() == 1 {
        problems.add(
            Problem::new(
                span_of(word),
                "`haproxy.vip` needs two hosts with the role `haproxy`",
            )
            .label("there is one: the address could not move")
            .hint("give another host the role `haproxy`, or leave the key out"),
        );
    }
}

fn no_address_floats(word: &Word, kind: Option<&Word>) -> Problem {
    let problem = Problem::new(span_of(word), "`kind: aws` has no `haproxy.vip`")
        .label("EC2 delivers no packet to an address that it has not assigned itself")
        .hint("leave it out: `up` prints a connection string that names every front door")
        .hint("or write `load_balancer: network` under `provider`: clients then need one name, with any driver");
    match kind {
        Some(kind) => problem.also(span_of(kind), "the kind"),
        None => problem,
    }
}

fn address_of_host(document: &schema::Document, vip: Ipv4Addr) -> Option<Span> {
    let hosts = document.hosts.iter().flat_map(|hosts| hosts.value.values());
    let mut words = hosts.filter_map(|host| host.as_ref()?.address.as_ref());
    let same = words.find(|word| word.value.parse() == Ok(vip));
    same.map(span_of)
}
