//! The rules of each security group.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    IpPermission, IpRange, Ipv6Range, PrefixListId, SecurityGroup, UserIdGroupPair,
};
use ipnet::Ipv4Net;

use crate::{
    inventory::{Inventory, Role},
    services::{self, Caller},
};

/// The source of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source<G> {
    Network(String),
    Network6(String),
    Prefixes(String),
    Group(G),
}

/// One source and one range of ports. A permission of EC2 may contain many of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rule<G> {
    protocol: String,
    from: i32,
    to: i32,
    source: Source<G>,
}

fn rule<G>(port: u16, source: Source<G>) -> Rule<G> {
    Rule {
        protocol: "tcp".to_owned(),
        from: port.into(),
        to: port.into(),
        source,
    }
}

/// The networks for the rules that do not come from the inventory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sources<'a> {
    /// The operators' networks. If they are unknown, the rules that let operators in stay as they are.
    pub(super) operators: Option<&'a [Ipv4Net]>,
    /// The networks from which a load balancer checks its targets.
    pub(super) balancer: &'a [Ipv4Net],
}

/// The roles that have a group: those that hosts have.
pub(super) fn needed(inventory: &Inventory) -> impl Iterator<Item = Role> {
    let roles = Role::ALL.into_iter();
    roles.filter(|role| inventory.with_role(*role).next().is_some() && has_group(*role))
}

/// Whether a role has rules, or is in a rule. An instance can be in five groups, so what only listens on loopback has none.
fn has_group(role: Role) -> bool {
    let named = Caller::Hosts(role);
    let service = role.service();
    let mut all = services::all().flat_map(|service| service.ports);
    !service.watches
        || service.ports.iter().any(|port| !port.from.is_empty())
        || all.any(|port| port.from.contains(&named))
}

/// Which connections the hosts of each role must accept.
///
/// All of them accept SSH, from operators alone.
fn desired(inventory: &Inventory, sources: Sources<'_>) -> BTreeMap<Role, BTreeSet<Rule<Role>>> {
    let operators = sources.operators.unwrap_or_default();
    // No rule of its own for a network from which clients are allowed anyway.
    let allow = &inventory.postgresql.allow;
    let balancer = sources.balancer.iter();
    let balancer = balancer.filter(|it| !allow.iter().any(|all| all.contains(*it)));
    let clients: Vec<Ipv4Net> = allow.iter().chain(balancer).copied().collect();
    let scrapers = inventory.monitoring.as_ref();
    let scrapers = scrapers.map_or(&[][..], |it| &it.allow);
    let networks = |networks: &[Ipv4Net]| -> Vec<Source<Role>> {
        let networks = networks.iter();
        networks
            .map(|network| Source::Network(network.to_string()))
            .collect()
    };
    let sources = |caller: &Caller| match caller {
        Caller::Hosts(role) => vec![Source::Group(*role)],
        Caller::Clients => networks(&clients),
        Caller::Operators => networks(operators),
        Caller::Scrapers => networks(scrapers),
    };
    let of_role = |role: Role| {
        let mut rules = BTreeSet::new();
        for port in role.service().ports {
            let number = inventory.port(port.number);
            let from = port.from.iter().flat_map(sources);
            rules.extend(from.map(|source| rule(number, source)));
        }
        let ssh = networks(operators).into_iter();
        rules.extend(ssh.map(|source| rule(inventory.ssh.port, source)));
        (role, rules)
    };
    needed(inventory).map(of_role).collect()
}

/// The rules that a group lacks, and those that it should not have, as EC2's permissions.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    pub(super) missing: Vec<IpPermission>,
    pub(super) extra: Vec<IpPermission>,
}

impl Difference {
    /// `opens 22 to 203.0.113.8/32; closes 22 to 203.0.113.7/32`; `shown` names a group by its id.
    pub(super) fn in_words(&self, shown: impl Fn(&str) -> String) -> String {
        let all = |permissions: &[IpPermission]| {
            let rules = permissions.iter().flat_map(rules);
            let rules: Vec<String> = rules.map(|rule| rule.in_words(&shown)).collect();
            rules.join(", ")
        };
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("opens {}", all(&self.missing)));
        }
        if !self.extra.is_empty() {
            parts.push(format!("closes {}", all(&self.extra)));
        }
        parts.join("; ")
    }
}

impl Rule<String> {
    fn in_words(&self, shown: impl Fn(&str) -> String) -> String {
        let source = match &self.source {
            Source::Network(text) | Source::Network6(text) | Source::Prefixes(text) => text.clone(),
            Source::Group(id) => shown(id),
        };
        let ports = match (self.from, self.to) {
            _ if self.protocol == "-1" => "everything".to_owned(),
            (from, to) if from == to => from.to_string(),
            (from, to) => format!("{from}-{to}"),
        };
        match self.protocol.as_str() {
            "tcp" | "-1" => format!("{ports} to {source}"),
            protocol => format!("{protocol} {ports} to {source}"),
        }
    }

    /// Whether the rule lets operators in.
    fn is_for_operators(&self, inventory: &Inventory) -> bool {
        let for_operators = services::all()
            .flat_map(|service| service.ports)
            .filter(|port| port.from.contains(&Caller::Operators))
            .map(|port| inventory.port(port.number));
        let mut ports = std::iter::once(inventory.ssh.port).chain(for_operators);
        self.protocol == "tcp"
            && self.from == self.to
            && ports.any(|port| i32::from(port) == self.from)
            && !matches!(self.source, Source::Group(_))
    }
}

/// How the rules of a role's group differ from the desired ones; `None` if they do not.
///
/// `ids` are the existing groups; a rule for a group that does not exist yet is left out. Without `operators`,
/// existing rules for operators stay.
pub(super) fn difference(
    inventory: &Inventory,
    sources: Sources<'_>,
    role: Role,
    group: &SecurityGroup,
    ids: &BTreeMap<Role, String>,
) -> Option<Difference> {
    let found: BTreeSet<_> = group.ip_permissions().iter().flat_map(rules).collect();
    let mut wanted: BTreeSet<_> = desired(inventory, sources)
        .remove(&role)?
        .iter()
        .filter_map(|rule| named(rule, ids))
        .collect();
    if sources.operators.is_none() {
        let kept = found.iter().filter(|it| it.is_for_operators(inventory));
        wanted.extend(kept.cloned());
    }
    let missing: Vec<_> = wanted.difference(&found).map(permission).collect();
    let extra: Vec<_> = found.difference(&wanted).map(permission).collect();
    (!missing.is_empty() || !extra.is_empty()).then_some(Difference { missing, extra })
}

/// The rule with the group's id instead of its role, if that group exists.
fn named(rule: &Rule<Role>, ids: &BTreeMap<Role, String>) -> Option<Rule<String>> {
    let Rule {
        protocol,
        from,
        to,
        source,
    } = rule.clone();
    let source = match source {
        Source::Group(role) => Source::Group(ids.get(&role)?.clone()),
        Source::Network(network) => Source::Network(network),
        Source::Network6(network) => Source::Network6(network),
        Source::Prefixes(list) => Source::Prefixes(list),
    };
    Some(Rule {
        protocol,
        from,
        to,
        source,
    })
}

/// The rules that name other groups. They keep those groups from being deleted.
pub(super) fn references(group: &SecurityGroup) -> Vec<IpPermission> {
    group
        .ip_permissions()
        .iter()
        .flat_map(rules)
        .filter(|rule| matches!(rule.source, Source::Group(_)))
        .map(|rule| permission(&rule))
        .collect()
}

/// The rules in a permission.
fn rules(permission: &IpPermission) -> Vec<Rule<String>> {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let networks = permission
        .ip_ranges()
        .iter()
        .map(|it| Source::Network(text(it.cidr_ip())));
    let networks6 = permission.ipv6_ranges().iter();
    let networks6 = networks6.map(|it| Source::Network6(text(it.cidr_ipv6())));
    let lists = permission.prefix_list_ids().iter();
    let lists = lists.map(|it| Source::Prefixes(text(it.prefix_list_id())));
    let groups = permission.user_id_group_pairs().iter();
    let groups = groups.map(|it| Source::Group(text(it.group_id())));
    networks
        .chain(networks6)
        .chain(lists)
        .chain(groups)
        .map(|source| Rule {
            protocol: text(permission.ip_protocol()),
            from: permission.from_port().unwrap_or(-1),
            to: permission.to_port().unwrap_or(-1),
            source,
        })
        .collect()
}

fn permission(rule: &Rule<String>) -> IpPermission {
    let builder = IpPermission::builder()
        .ip_protocol(&rule.protocol)
        .from_port(rule.from)
        .to_port(rule.to);
    match &rule.source {
        Source::Network(network) => builder.ip_ranges(IpRange::builder().cidr_ip(network).build()),
        Source::Network6(network) => {
            builder.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(network).build())
        }
        Source::Prefixes(list) => {
            builder.prefix_list_ids(PrefixListId::builder().prefix_list_id(list).build())
        }
        Source::Group(id) => {
            builder.user_id_group_pairs(UserIdGroupPair::builder().group_id(id).build())
        }
    }
    .build()
}

/// The rules as lines for tests: `etcd 2380 <- etcd`.
#[cfg(test)]
pub(crate) fn shown(inventory: &Inventory, operators: &[Ipv4Net]) -> Vec<String> {
    let of_role = |(role, rules): (Role, BTreeSet<Rule<Role>>)| {
        rules.into_iter().map(move |rule| {
            assert_eq!((rule.protocol.as_str(), rule.from), ("tcp", rule.to));
            let source = match rule.source {
                Source::Network(network) => network,
                Source::Group(role) => role.as_str().to_owned(),
                _ => unreachable!("no service asks for it"),
            };
            format!("{} {} <- {source}", role.as_str(), rule.from)
        })
    };
    let sources = Sources {
        operators: Some(operators),
        balancer: &[],
    };
    let desired = desired(inventory, sources).into_iter();
    desired.flat_map(of_role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let text = "cluster: pg\nprovider: { kind: aws }\npostgresql: { allow: [10.9.0.0/16] }\nhosts:\n  \
                    n1: { roles: [postgres] }\n  n4: { roles: [etcd] }\n  door: { roles: [haproxy] }\n";
        Inventory::parse(std::path::Path::new("pgherd.yaml"), text).unwrap()
    }

    #[test]
    fn each_role_hears_what_it_must_and_no_more() {
        let operators = ["203.0.113.7/32".parse().unwrap()];
        let shown = shown(&inventory(), &operators);
        assert_eq!(
            shown,
            [
                "postgres 22 <- 203.0.113.7/32",
                "postgres 5432 <- postgres",
                "postgres 5432 <- haproxy",
                "postgres 8008 <- postgres",
                "postgres 8008 <- haproxy",
                "etcd 22 <- 203.0.113.7/32",
                "etcd 2379 <- postgres",
                "etcd 2380 <- etcd",
                "haproxy 22 <- 203.0.113.7/32",
                "haproxy 5000 <- 10.9.0.0/16",
                "haproxy 5001 <- 10.9.0.0/16",
                "haproxy 7000 <- 203.0.113.7/32",
            ]
        );
    }

    #[test]
    fn a_permission_taken_apart_is_the_same_put_together() {
        let both = IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(22)
            .to_port(22)
            .ip_ranges(
                IpRange::builder()
                    .cidr_ip("10.0.0.0/8")
                    .description("x")
                    .build(),
            )
            .user_id_group_pairs(
                UserIdGroupPair::builder()
                    .group_id("sg-1")
                    .user_id("1")
                    .build(),
            )
            .ipv6_ranges(Ipv6Range::builder().cidr_ipv6("::/0").build())
            .build();
        let apart = rules(&both);
        assert_eq!(apart.len(), 3);
        let again: Vec<_> = apart
            .iter()
            .map(permission)
            .flat_map(|it| rules(&it))
            .collect();
        assert_eq!(apart, again);
    }

    fn group(rules: &[Rule<String>]) -> SecurityGroup {
        SecurityGroup::builder()
            .group_id("sg-h")
            .set_ip_permissions(Some(rules.iter().map(permission).collect()))
            .build()
    }

    fn network(port: u16, network: &str) -> Rule<String> {
        rule(port, Source::Network(network.to_owned()))
    }

    #[test]
    fn what_is_wrong_is_told_and_nothing_else() {
        let inventory = inventory();
        let ids = BTreeMap::from([(Role::Haproxy, "sg-h".to_owned())]);
        let operators: [Ipv4Net; 1] = ["203.0.113.7/32".parse().unwrap()];
        let wrong = |operators: Option<&[Ipv4Net]>, rules: &[Rule<String>]| {
            let sources = Sources {
                operators,
                balancer: &[],
            };
            let wrong = difference(&inventory, sources, Role::Haproxy, &group(rules), &ids);
            wrong.map(|it| it.in_words(str::to_owned))
        };
        let right = [
            network(22, "203.0.113.7/32"),
            network(5000, "10.9.0.0/16"),
            network(5001, "10.9.0.0/16"),
            network(7000, "203.0.113.7/32"),
        ];
        assert_eq!(wrong(Some(&operators), &right), None);
        let mut drifted = right.to_vec();
        drifted[0] = network(22, "0.0.0.0/0");
        drifted[1] = network(9999, "10.9.0.0/16");
        assert_eq!(
            wrong(Some(&operators), &drifted).unwrap(),
            "opens 22 to 203.0.113.7/32, 5000 to 10.9.0.0/16; \
             closes 22 to 0.0.0.0/0, 9999 to 10.9.0.0/16"
        );
        // The operators' networks are unknown.
        assert_eq!(
            wrong(None, &drifted).unwrap(),
            "opens 5000 to 10.9.0.0/16; closes 9999 to 10.9.0.0/16"
        );
        assert_eq!(wrong(None, &right), None);
    }

    /// Whether or not clients are allowed from those networks.
    #[test]
    fn checks_of_a_load_balancer_are_let_in() {
        let inventory = inventory();
        let balancer = ["172.31.16.0/20", "10.9.4.0/24"].map(|it| it.parse().unwrap());
        let sources = Sources {
            operators: Some(&[]),
            balancer: &balancer,
        };
        let right = [network(5000, "10.9.0.0/16"), network(5001, "10.9.0.0/16")];
        let wrong = difference(
            &inventory,
            sources,
            Role::Haproxy,
            &group(&right),
            &BTreeMap::new(),
        );
        assert_eq!(
            wrong.unwrap().in_words(str::to_owned),
            "opens 5000 to 172.31.16.0/20, 5001 to 172.31.16.0/20",
            "the other network is among the clients'"
        );
    }

    #[test]
    fn a_group_that_is_not_there_yet_is_not_named() {
        let ids = BTreeMap::from([(Role::Etcd, "sg-e".to_owned())]);
        let sources = Sources {
            operators: Some(&[]),
            balancer: &[],
        };
        let wrong = difference(&inventory(), sources, Role::Etcd, &group(&[]), &ids);
        let words = wrong.unwrap().in_words(str::to_owned);
        assert_eq!(words, "opens 2380 to sg-e", "and nothing of postgres");
    }
}
