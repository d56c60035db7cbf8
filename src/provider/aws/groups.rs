//! Security groups: one a role, each with the least that its hosts need to hear.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{
    Client,
    types::{
        IpPermission, IpRange, Ipv6Range, PrefixListId, ResourceType, SecurityGroup,
        UserIdGroupPair,
    },
};
use futures_util::future;
use ipnet::Ipv4Net;

use super::{
    Tags,
    failure::{Doing, Failure, NOT_YET, insist},
    instance::{filter, of_cluster, tag},
};
use crate::{
    error::{Error, Result},
    inventory::{Inventory, Role},
    provider::CLUSTER_LABEL,
};

/// The tag that says which role's group it is.
const ROLE: &str = "pgherd:role";

/// Patroni's REST interface.
const PATRONI: u16 = 8008;
const ETCD_CLIENT: u16 = 2379;
const ETCD_PEER: u16 = 2380;

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source<G> {
    Network(String),
    Network6(String),
    Prefixes(String),
    Group(G),
}

/// One source to one range of ports; what EC2 shows as a permission may be many of these.
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

/// What each role's hosts must hear, and from whom.
///
/// SSH goes to all of them, from the operator alone.
fn desired(inventory: &Inventory, operators: &[Ipv4Net]) -> BTreeMap<Role, BTreeSet<Rule<Role>>> {
    let group = |role| Source::Group(role);
    let networks = |networks: &[Ipv4Net], port| -> Vec<Rule<Role>> {
        let networks = networks.iter();
        networks
            .map(|network| rule(port, Source::Network(network.to_string())))
            .collect()
    };
    let haproxy = &inventory.haproxy;
    let database = inventory.postgresql.port;
    Role::ALL
        .into_iter()
        .map(|role| {
            let mut rules: BTreeSet<_> = match role {
                Role::Postgres => [Role::Postgres, Role::Haproxy]
                    .into_iter()
                    .flat_map(|from| [rule(database, group(from)), rule(PATRONI, group(from))])
                    .collect(),
                Role::Etcd => BTreeSet::from([
                    rule(ETCD_CLIENT, group(Role::Postgres)),
                    rule(ETCD_PEER, group(Role::Etcd)),
                ]),
                Role::Haproxy => [haproxy.write_port, haproxy.read_port]
                    .into_iter()
                    .flat_map(|port| networks(&inventory.postgresql.allow, port))
                    .chain(networks(operators, haproxy.stats_port))
                    .collect(),
            };
            rules.extend(networks(operators, inventory.ssh.port));
            (role, rules)
        })
        .collect()
}

pub(super) fn name(cluster: &str, role: Role) -> String {
    format!("pgherd-{cluster}-{}", role.as_str())
}

/// The cluster's groups in a VPC, by role.
pub(super) async fn find(
    ec2: &Client,
    cluster: &str,
    vpc: &str,
) -> Result<BTreeMap<Role, SecurityGroup>, Failure> {
    let groups = ec2
        .describe_security_groups()
        .filters(of_cluster(cluster))
        .filters(filter("vpc-id", [vpc]))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the cluster's security groups")?;
    Ok(groups
        .into_iter()
        .filter_map(|group| {
            let role = tag(group.tags(), ROLE)?.to_owned();
            let role = Role::ALL.into_iter().find(|it| it.as_str() == role)?;
            Some((role, group))
        })
        .collect())
}

/// Makes the groups that are missing and puts the rules of all of them right; returns their ids.
pub(super) async fn ensure(
    ec2: &Client,
    inventory: &Inventory,
    vpc: &str,
    operators: &[Ipv4Net],
    tags: &Tags<'_>,
) -> Result<BTreeMap<Role, String>> {
    let cluster = &inventory.cluster;
    let there = find(ec2, cluster, vpc).await?;
    let made = Role::ALL
        .into_iter()
        .filter(|role| !there.contains_key(role))
        .map(|role| create(ec2, cluster, role, vpc, tags));
    let made: BTreeMap<Role, SecurityGroup> =
        future::try_join_all(made).await?.into_iter().collect();
    let all: BTreeMap<Role, SecurityGroup> = there.into_iter().chain(made).collect();
    let ids: BTreeMap<Role, String> = all
        .iter()
        .filter_map(|(role, group)| Some((*role, group.group_id()?.to_owned())))
        .collect();
    let wanted = desired(inventory, operators);
    let amended = all.iter().filter_map(|(role, group)| {
        let rules = wanted.get(role)?.iter().map(|rule| named(rule, &ids));
        Some(amend(ec2, group, rules.collect()))
    });
    future::try_join_all(amended).await?;
    Ok(ids)
}

async fn create(
    ec2: &Client,
    cluster: &str,
    role: Role,
    vpc: &str,
    tags: &Tags<'_>,
) -> Result<(Role, SecurityGroup)> {
    let name = name(cluster, role);
    let made = ec2
        .create_security_group()
        .group_name(&name)
        .description(format!(
            "pgherd: {} hosts of the cluster {cluster}",
            role.as_str()
        ))
        .vpc_id(vpc)
        .tag_specifications(tags.with(ResourceType::SecurityGroup, [(ROLE, role.as_str())]))
        .send()
        .await
        .doing(format!("make the security group {name}"));
    match made {
        Ok(made) => {
            let group = SecurityGroup::builder()
                .set_group_id(made.group_id)
                .group_name(name)
                .build();
            Ok((role, group))
        }
        Err(failure) if failure.is(&["InvalidGroup.Duplicate"]) => {
            taken(ec2, cluster, role, vpc).await
        }
        Err(failure) => Err(failure.into()),
    }
}

/// A group of that name that a moment ago was not listed as the cluster's.
async fn taken(
    ec2: &Client,
    cluster: &str,
    role: Role,
    vpc: &str,
) -> Result<(Role, SecurityGroup)> {
    let name = name(cluster, role);
    let groups = ec2
        .describe_security_groups()
        .filters(filter("group-name", [name.as_str()]))
        .filters(filter("vpc-id", [vpc]))
        .send()
        .await
        .doing("look at a security group")?;
    let group = groups
        .security_groups
        .unwrap_or_default()
        .into_iter()
        .next();
    match group {
        // Made by a run that died the moment before.
        Some(group) if tag(group.tags(), CLUSTER_LABEL) == Some(cluster) => Ok((role, group)),
        _ => Err(Error::failed(format!("the name {name} is taken in {vpc}"))
            .cause("that security group is none of this cluster's")
            .hint("remove it, or give the cluster another name")),
    }
}

fn named(rule: &Rule<Role>, ids: &BTreeMap<Role, String>) -> Rule<String> {
    let Rule {
        protocol,
        from,
        to,
        source,
    } = rule.clone();
    let source = match source {
        Source::Group(role) => Source::Group(ids.get(&role).cloned().unwrap_or_default()),
        Source::Network(network) => Source::Network(network),
        Source::Network6(network) => Source::Network6(network),
        Source::Prefixes(list) => Source::Prefixes(list),
    };
    Rule {
        protocol,
        from,
        to,
        source,
    }
}

/// Takes away what is too much, and adds what is missing; a group that is right costs no call.
async fn amend(ec2: &Client, group: &SecurityGroup, wanted: BTreeSet<Rule<String>>) -> Result<()> {
    let found: BTreeSet<_> = group.ip_permissions().iter().flat_map(rules).collect();
    let id = group.group_id().unwrap_or_default();
    let name = group.group_name().unwrap_or(id);
    let missing: Vec<_> = wanted.difference(&found).map(permission).collect();
    let extra: Vec<_> = found.difference(&wanted).map(permission).collect();
    if !missing.is_empty() {
        let added = insist(&NOT_YET, super::SETTLING, || {
            let call = ec2
                .authorize_security_group_ingress()
                .group_id(id)
                .set_ip_permissions(Some(missing.clone()));
            let doing = format!("add rules to the security group {name}");
            async move { call.send().await.doing(doing) }
        })
        .await;
        // Another run, or this one's own retry, has been faster.
        match added {
            Err(failure) if !failure.is(&["InvalidPermission.Duplicate"]) => {
                return Err(failure.into());
            }
            _ => {}
        }
    }
    if !extra.is_empty() {
        revoke(ec2, id, name, extra).await?;
    }
    Ok(())
}

pub(super) async fn revoke(
    ec2: &Client,
    id: &str,
    name: &str,
    permissions: Vec<IpPermission>,
) -> Result<(), Failure> {
    let revoked = ec2
        .revoke_security_group_ingress()
        .group_id(id)
        .set_ip_permissions(Some(permissions))
        .send()
        .await
        .doing(format!("take rules from the security group {name}"));
    match revoked {
        Err(failure) if failure.is(&["InvalidPermission.NotFound", "InvalidGroup.NotFound"]) => {
            Ok(())
        }
        revoked => revoked.map(|_| ()),
    }
}

/// The part of a group's rules that names other groups, and so keeps those from being deleted.
pub(super) fn references(group: &SecurityGroup) -> Vec<IpPermission> {
    group
        .ip_permissions()
        .iter()
        .flat_map(rules)
        .filter(|rule| matches!(rule.source, Source::Group(_)))
        .map(|rule| permission(&rule))
        .collect()
}

/// A permission taken apart.
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
        let shown: Vec<String> = desired(&inventory(), &operators)
            .into_iter()
            .flat_map(|(role, rules)| {
                rules.into_iter().map(move |rule| {
                    assert_eq!((rule.protocol.as_str(), rule.from), ("tcp", rule.to));
                    let source = match rule.source {
                        Source::Network(network) => network,
                        Source::Group(role) => role.as_str().to_owned(),
                        _ => unreachable!(),
                    };
                    format!("{} {} <- {source}", role.as_str(), rule.from)
                })
            })
            .collect();
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
}
