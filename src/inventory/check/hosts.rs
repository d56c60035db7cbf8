//! Checks the hosts: their names, their roles and their addresses.

use std::{collections::BTreeMap, net::Ipv4Addr};

use indexmap::IndexMap;
use ipnet::Ipv4Net;

use super::{
    super::{
        Docker, Host, HostName, Provider, Role, limits,
        placed::{Placed, Span, span_of},
        problem::{Problem, alternatives, quoted},
        schema::{self, Word},
        source::Source,
    },
    Problems, net, one_of,
};
use crate::{
    quantity::{agree, count},
    services::Hosts,
};

type Written = IndexMap<Word, Option<schema::Host>>;

/// Checks names, roles and addresses: each by itself, and against each other.
pub(super) fn check(
    problems: &mut Problems,
    source: &Source<'_>,
    start: &Span,
    written: Option<&Placed<Written>>,
) -> IndexMap<HostName, Host> {
    let example = "for example `hosts: {node1: {roles: [postgres]}, …}`; `pgherd init` writes five";
    let Some(written) = written else {
        problems.add(Problem::new(start.clone(), "the inventory has no `hosts`").hint(example));
        return IndexMap::new();
    };
    if written.value.is_empty() {
        problems.add(Problem::new(span_of(written), "`hosts` is empty").hint(example));
        return IndexMap::new();
    }
    let mut hosts = IndexMap::new();
    let mut holders: BTreeMap<Ipv4Addr, (&str, Span)> = BTreeMap::new();
    let before = problems.0.len();
    for (name, host) in &written.value {
        let checked = problems.keep(host_name(name));
        let roles = roles(problems, name, host.as_ref());
        let address = host.as_ref().and_then(|host| host.address.as_ref());
        let address = address.and_then(|word| {
            let address = problems.keep(net::host_address(word))?;
            match holders.get(&address) {
                Some((holder, at)) => problems.add(
                    Problem::new(
                        span_of(word),
                        format!("{address} is the address of two hosts"),
                    )
                    .label("again here")
                    .also(at.clone(), format!("of {holder} already")),
                ),
                None => {
                    holders.insert(address, (&name.value, span_of(word)));
                }
            }
            Some(address)
        });
        if let Some(name) = checked {
            hosts.insert(name, Host { roles, address });
        }
    }
    // If a role is wrong, it is not known yet which hosts have which role.
    if problems.0.len() == before {
        let section = source.top_level_key("hosts");
        let section = section.unwrap_or_else(|| span_of(written));
        count_roles(problems, &section, &written.value, &hosts);
    }
    hosts
}

/// A name that `/etc/hosts`, certificates, etcd and Patroni all accept unchanged.
fn host_name(name: &Word) -> Result<HostName, Problem> {
    let value = name.value.as_str();
    let problem = Problem::new(
        span_of(name),
        format!("{} cannot name a host", quoted(value)),
    );
    let label = if limits::HOST_NAME.is_taken(value) {
        "already means something on every host"
    } else if value.len() > 63 {
        "longer than 63 characters"
    } else if value.contains('.') {
        "one label, without a domain"
    } else if value.contains(|c: char| c.is_ascii_uppercase()) {
        "lowercase only"
    } else if !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        // DNS would allow a digit first, but resolvers read `10` or `0x1f` as addresses.
        "must start with a letter"
    } else if value.ends_with('-') {
        "must not end with a dash"
    } else if !limits::HOST_NAME.fits(value) {
        "letters, digits and dashes only"
    } else {
        return Ok(HostName::new(value));
    };
    Err(problem
        .label(label)
        .hint("a host's name is up to 63 of a-z, 0-9 and `-`, a letter first, such as `node1`"))
}

fn roles(problems: &mut Problems, name: &Word, host: Option<&schema::Host>) -> Vec<Role> {
    let all = Role::GIVEN.iter().map(|role| role.as_str());
    let Some(written) = host.and_then(|host| host.roles.as_ref()) else {
        problems.add(
            Problem::new(
                span_of(name),
                format!("host {} has no roles", quoted(&name.value)),
            )
            .hint(format!(
                "add `roles:` with at least one of {}",
                alternatives(all.clone())
            )),
        );
        return Vec::new();
    };
    if written.value.is_empty() {
        problems.add(
            Problem::new(
                span_of(written),
                format!("host {} has no roles", quoted(&name.value)),
            )
            .label(format!("at least one of {}", alternatives(all))),
        );
    }
    let mut roles: Vec<Role> = Vec::new();
    for word in &written.value {
        let Some(role) = problems.keep(one_of(word)) else {
            continue;
        };
        if roles.contains(&role) {
            problems.add(
                Problem::new(
                    span_of(word),
                    format!(
                        "host {} has the role `{}` twice",
                        quoted(&name.value),
                        role.as_str()
                    ),
                )
                .label("the second one"),
            );
        } else {
            roles.push(role);
        }
    }
    roles.sort_unstable();
    roles
}

/// A cluster needs each role, and of some roles certain numbers.
fn count_roles(
    problems: &mut Problems,
    section: &Span,
    written: &Written,
    hosts: &IndexMap<HostName, Host>,
) {
    for role in Role::ALL {
        let with_role: Vec<&HostName> = hosts
            .iter()
            .filter(|(_, host)| host.roles.contains(&role))
            .map(|(name, _)| name)
            .collect();
        let name = role.as_str();
        let allowed = role.service().hosts;
        if allowed.allow(with_role.len()) {
            continue;
        }
        let wanted = allowed.in_words();
        let Some(last) = with_role.last() else {
            problems.add(
                Problem::new(
                    section.clone(),
                    format!("no host has the role `{name}`; {wanted} must"),
                )
                .hint(format!("add `{name}` to the roles of a host")),
            );
            continue;
        };
        let at = written
            .iter()
            .find(|(name, _)| name.value == last.as_str())
            .and_then(|(_, host)| host.as_ref()?.roles.as_ref())
            .and_then(|roles| roles.value.iter().find(|word| word.value == name))
            .map_or_else(|| section.clone(), span_of);
        let problem = Problem::new(
            at,
            format!(
                "{} {} the role `{name}`; {wanted} must",
                count(with_role.len(), "host"),
                agree(with_role.len(), "has", "have")
            ),
        );
        problems.add(match allowed {
            Hosts::Odd => problem.hint(
                "two or four members tolerate no more failures than one or three, and commit slower",
            ),
            Hosts::Any | Hosts::One | Hosts::AtMostOne | Hosts::OneOrMore => problem,
        });
    }
}

/// Checks the addresses against what the provider supports.
///
/// Docker gives fixed addresses only in a configured subnet. If the inventory has addresses and no subnet, the
/// /24 around them is used.
pub(super) fn check_addresses(
    problems: &mut Problems,
    provider: &mut Provider,
    written_provider: Option<&Placed<schema::Provider>>,
    written: &Placed<Written>,
) {
    let hosts = written.value.iter().map(|(name, host)| {
        let word = host.as_ref().and_then(|host| host.address.as_ref());
        (name, word)
    });
    let addresses = hosts.clone().filter_map(|(name, word)| {
        let word = word?;
        Some((name, word, word.value.parse::<Ipv4Addr>().ok()?))
    });
    match provider {
        Provider::Existing => {
            let without = hosts.filter(|(_, word)| word.is_none());
            problems
                .0
                .extend(without_address(without.map(|(name, _)| name)));
        }
        Provider::Docker(docker) => {
            let at = written_provider
                .and_then(|provider| provider.value.subnet.as_ref())
                .map(span_of);
            if docker.subnet.is_none()
                && at.is_none()
                && let Some((_, _, first)) = addresses.clone().next()
            {
                docker.subnet = Ipv4Net::new(first, 24).ok().map(|net| net.trunc());
            }
            for (_, word, address) in addresses {
                problems
                    .0
                    .extend(outside(docker, at.as_ref(), word, address));
            }
        }
        Provider::Aws(_) => {}
    }
}

/// One problem for all hosts without an address.
fn without_address<'a>(mut hosts: impl Iterator<Item = &'a Word>) -> Option<Problem> {
    let first = hosts.next()?;
    let others: Vec<&Word> = hosts.collect();
    let what = match others.len() {
        0 => format!("host {} has no `address`", quoted(&first.value)),
        more => format!("{} have no `address`", count(more + 1, "host")),
    };
    let problem = Problem::new(span_of(first), what)
        .label("`existing` hosts are found by theirs")
        .hint("add `address:` with the one by which the other hosts reach it");
    Some(
        others
            .iter()
            .fold(problem, |problem, name| problem.also(span_of(name), "")),
    )
}

fn outside(docker: &Docker, at: Option<&Span>, word: &Word, address: Ipv4Addr) -> Option<Problem> {
    let network = docker.subnet?;
    let reason = net::taken(network, address)?;
    let problem = Problem::new(
        span_of(word),
        format!("{address} is not free for a host in {network}"),
    )
    .label(reason);
    Some(match at {
        Some(at) => problem.also(at.clone(), "the subnet"),
        None => problem.hint(
            "without `provider.subnet`, the /24 around the first host's address is taken; set it to \
             have another",
        ),
    })
}
