//! Security groups: one for each role, with only the rules that its hosts need.

use std::collections::BTreeMap;

use aws_sdk_ec2::{
    Client,
    types::{IpPermission, ResourceType, SecurityGroup},
};
use futures_util::future;

use super::{
    Tags,
    failure::{Doing, Failure, NOT_YET, allowed, insist},
    instance::{filter, of_cluster, tag},
    late::{LATE, seen},
    rules::{self, Difference, Sources},
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Inventory, Role},
    provider::{CLUSTER_LABEL, Part},
};

/// The tag with the role of a group.
const ROLE: &str = "pgherd:role";

pub(super) fn name(cluster: &str, role: Role) -> String {
    format!("pgherd-{cluster}-{}", role.as_str())
}

/// All groups of the cluster.
pub(super) async fn list(ec2: &Client, cluster: &str) -> Result<Vec<SecurityGroup>, Failure> {
    ec2.describe_security_groups()
        .filters(of_cluster(cluster))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the cluster's security groups")
}

/// The cluster's groups, by VPC and role. A cluster has one VPC, but an interrupted run may have left groups in
/// another.
pub(super) async fn find_all(
    ec2: &Client,
    cluster: &str,
) -> Result<BTreeMap<String, BTreeMap<Role, SecurityGroup>>, Failure> {
    let groups = list(ec2, cluster).await?;
    let mut all: BTreeMap<String, BTreeMap<Role, SecurityGroup>> = BTreeMap::new();
    for group in groups {
        let role = tag(group.tags(), ROLE);
        let role = role.and_then(|role| Role::ALL.into_iter().find(|it| it.as_str() == role));
        if let (Some(role), Some(vpc)) = (role, group.vpc_id().map(str::to_owned)) {
            all.entry(vpc).or_default().insert(role, group);
        }
    }
    Ok(all)
}

/// The cluster's groups in a VPC, by role.
pub(super) async fn find(
    ec2: &Client,
    cluster: &str,
    vpc: &str,
) -> Result<BTreeMap<Role, SecurityGroup>, Failure> {
    let mut all = find_all(ec2, cluster).await?;
    Ok(all.remove(vpc).unwrap_or_default())
}

/// Creates missing groups, and adds missing rules to all groups; returns their ids.
pub(super) async fn ensure(
    ec2: &Client,
    inventory: &Inventory,
    vpc: &str,
    sources: Sources<'_>,
    tags: &Tags<'_>,
) -> Result<BTreeMap<Role, String>> {
    let cluster = &inventory.cluster;
    let there = find(ec2, cluster, vpc).await?;
    let made = rules::needed(inventory)
        .filter(|role| !there.contains_key(role))
        .map(|role| create(ec2, cluster, role, vpc, tags));
    let made: BTreeMap<Role, SecurityGroup> =
        future::try_join_all(made).await?.into_iter().collect();
    let all: BTreeMap<Role, SecurityGroup> = there.into_iter().chain(made).collect();
    let wrong = amendments(inventory, sources, &all);
    future::try_join_all(wrong.iter().map(|it| it.apply(ec2, Part::Missing))).await?;
    Ok(ids(&all))
}

fn ids(groups: &BTreeMap<Role, SecurityGroup>) -> BTreeMap<Role, String> {
    groups
        .iter()
        .filter_map(|(role, group)| Some((*role, group.group_id()?.to_owned())))
        .collect()
}

/// How the rules of existing groups differ from the desired ones.
///
/// If the operators' networks are unknown, the rules that let them in stay as they are.
pub(super) fn amendments(
    inventory: &Inventory,
    sources: Sources<'_>,
    groups: &BTreeMap<Role, SecurityGroup>,
) -> Vec<Amendment> {
    let ids = ids(groups);
    let cluster = &inventory.cluster;
    let shown = |id: &str| {
        let role = ids.iter().find(|(_, other)| *other == id);
        role.map_or_else(|| id.to_owned(), |(role, _)| name(cluster, *role))
    };
    groups
        .iter()
        .filter_map(|(role, group)| {
            let difference = rules::difference(inventory, sources, *role, group, &ids)?;
            let id = group.group_id()?.to_owned();
            let name = group.group_name().unwrap_or(&id).to_owned();
            Some(Amendment {
                line: format!("security group {name} {}", difference.in_words(shown)),
                id,
                name,
                difference,
            })
        })
        .collect()
}

/// The changes of one group.
#[derive(Debug, Clone)]
pub(super) struct Amendment {
    pub(super) id: String,
    pub(super) name: String,
    /// For people: `security group pgherd-pg-etcd opens 22 to 203.0.113.7/32`.
    pub(super) line: String,
    difference: Difference,
}

impl Amendment {
    /// Asks EC2 whether the changes are allowed; changes nothing.
    pub(super) async fn ask(&self, ec2: &Client) -> Vec<Result<Option<String>, Failure>> {
        let mut answers = Vec::new();
        if !self.difference.missing.is_empty() {
            let asked = ec2
                .authorize_security_group_ingress()
                .group_id(&self.id)
                .set_ip_permissions(Some(self.difference.missing.clone()))
                .dry_run(true)
                .send()
                .await;
            answers.push(allowed(asked.doing(format!(
                "add rules to {} (ec2:AuthorizeSecurityGroupIngress)",
                self.name
            ))));
        }
        if !self.difference.extra.is_empty() {
            let asked = ec2
                .revoke_security_group_ingress()
                .group_id(&self.id)
                .set_ip_permissions(Some(self.difference.extra.clone()))
                .dry_run(true)
                .send()
                .await;
            answers.push(allowed(asked.doing(format!(
                "take rules from {} (ec2:RevokeSecurityGroupIngress)",
                self.name
            ))));
        }
        answers
    }

    /// Adds what is missing, and then removes what is too much; returns whether there was anything to change.
    pub(super) async fn apply(&self, ec2: &Client, part: Part) -> Result<bool> {
        let Self {
            id,
            name,
            difference,
            ..
        } = self;
        if !difference.missing.is_empty() {
            let added = insist(&NOT_YET, super::SETTLING, || {
                let call = ec2
                    .authorize_security_group_ingress()
                    .group_id(id)
                    .set_ip_permissions(Some(difference.missing.clone()));
                let doing = format!("add rules to the security group {name}");
                async move { call.send().await.doing(doing) }
            })
            .await;
            // Another run, or a retry of this call, has already added it.
            match added {
                Err(failure) if !failure.is(&["InvalidPermission.Duplicate"]) => {
                    return Err(failure.into());
                }
                _ => {}
            }
        }
        let takes = part == Part::All && !difference.extra.is_empty();
        if takes {
            revoke(ec2, id, name, difference.extra.clone()).await?;
        }
        Ok(takes || !difference.missing.is_empty())
    }
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

/// The group that has the name already, although it was not listed as the cluster's a moment ago.
///
/// A run that died just before may have created it: then it is listed with its tags a little later.
async fn taken(
    ec2: &Client,
    cluster: &str,
    role: Role,
    vpc: &str,
) -> Result<(Role, SecurityGroup)> {
    let name = name(cluster, role);
    let tagged = seen(LATE, || async {
        let groups = ec2
            .describe_security_groups()
            .filters(filter("group-name", [name.as_str()]))
            .filters(filter("vpc-id", [vpc]))
            .send()
            .await
            .doing("look at a security group")?;
        let groups = groups.security_groups.unwrap_or_default();
        Ok(groups.into_iter().find(|it| !it.tags().is_empty()))
    })
    .await?;
    match tagged {
        Some(group) if tag(group.tags(), CLUSTER_LABEL) == Some(cluster) => Ok((role, group)),
        _ => Err(Error::new(
            Code::NameTaken,
            format!("the name {name} is taken in {vpc}"),
        )
        .cause("that security group does not belong to this cluster")
        .hint("remove it, or give the cluster another name")),
    }
}

/// The rule or its group does not exist any more.
const GONE: [&str; 3] = [
    "InvalidPermission.NotFound",
    "InvalidGroup.NotFound",
    "InvalidSecurityGroupID.NotFound",
];

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
        Err(failure) if failure.is(&GONE) => Ok(()),
        revoked => revoked.map(|_| ()),
    }
}
