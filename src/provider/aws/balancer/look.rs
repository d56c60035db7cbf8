//! The load balancer as it is in the account.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::{
    Client,
    types::{LoadBalancer, LoadBalancerSchemeEnum, Tag, TargetGroup},
};

use super::{Door, name};
use crate::{
    provider::aws::failure::{Doing, Failure},
    provider::{CLUSTER_LABEL, ID_LABEL},
};

/// The load balancer and its target groups. Of what is not the cluster's, only the names.
#[derive(Debug, Default)]
pub(in crate::provider::aws) struct Seen {
    pub(in crate::provider::aws) balancer: Option<Balancer>,
    pub(super) groups: BTreeMap<Door, Group>,
    /// Names of the cluster that belong to something else.
    pub(super) taken: Vec<String>,
}

#[derive(Debug, Clone)]
pub(in crate::provider::aws) struct Balancer {
    pub(in crate::provider::aws) arn: String,
    pub(in crate::provider::aws) name: String,
    /// The DNS name, which clients use.
    pub(in crate::provider::aws) address: String,
    /// AWS's own word: `provisioning`, `active`, …
    pub(in crate::provider::aws) state: String,
    pub(super) internal: bool,
    pub(super) vpc: String,
    /// By zone.
    pub(in crate::provider::aws) subnets: BTreeMap<String, String>,
    pub(super) cross_zone: bool,
    pub(super) listeners: Vec<Listener>,
    pub(in crate::provider::aws) cluster_id: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) arn: String,
    pub(super) port: i32,
    /// The target group that it leads to.
    pub(super) group: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) arn: String,
    pub(super) name: String,
    pub(super) vpc: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) check: Check,
    pub(super) targets: Vec<Target>,
    pub(super) cluster_id: Option<String>,
}

/// How the load balancer checks a front door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) protocol: String,
    pub(super) port: String,
    /// Seconds.
    pub(super) interval: i32,
    pub(super) timeout: i32,
    pub(super) healthy: i32,
    pub(super) unhealthy: i32,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) instance: String,
    pub(super) port: i32,
    /// AWS's own word: `healthy`, `initial`, `draining`, …
    pub(super) state: String,
    pub(super) why: Option<String>,
}

impl Seen {
    /// The state of each front door behind each port: port, instance, AWS's word for its state, and the reason.
    pub(in crate::provider::aws) fn targets(
        &self,
    ) -> impl Iterator<Item = (Door, &str, &str, Option<&str>)> {
        self.groups.iter().flat_map(|(door, group)| {
            let targets = group.targets.iter();
            targets.map(|it| {
                (
                    *door,
                    it.instance.as_str(),
                    it.state.as_str(),
                    it.why.as_deref(),
                )
            })
        })
    }
}

/// The load balancer with the cluster's name, if its tags say that it is the cluster's.
pub(in crate::provider::aws) async fn find(
    elb: &Client,
    cluster: &str,
) -> Result<Option<Balancer>, Failure> {
    let Some(found) = by_name(elb, cluster).await? else {
        return Ok(None);
    };
    let tags = tags(elb, &[&found.arn]).await?;
    Ok(
        owner(&tags, &found.arn, cluster).map(|Owner { cluster_id }| Balancer {
            cluster_id,
            ..found
        }),
    )
}

/// The load balancer with its listeners, target groups and the state of all targets.
pub(in crate::provider::aws) async fn look(elb: &Client, cluster: &str) -> Result<Seen, Failure> {
    let (balancer, write, read) = tokio::try_join!(
        by_name(elb, cluster),
        group(elb, cluster, Door::Write),
        group(elb, cluster, Door::Read),
    )?;
    let mut seen = Seen::default();
    let groups = [(Door::Write, write), (Door::Read, read)];
    let arns: Vec<&str> = balancer
        .iter()
        .map(|it| it.arn.as_str())
        .chain(
            groups
                .iter()
                .filter_map(|(_, it)| Some(it.as_ref()?.arn.as_str())),
        )
        .collect();
    if arns.is_empty() {
        return Ok(seen);
    }
    let tags = tags(elb, &arns).await?;
    for (door, group) in groups {
        let Some(group) = group else { continue };
        match owner(&tags, &group.arn, cluster) {
            Some(Owner { cluster_id }) => {
                let group = with_targets(
                    elb,
                    Group {
                        cluster_id,
                        ..group
                    },
                )
                .await?;
                seen.groups.insert(door, group);
            }
            None => seen.taken.push(group.name),
        }
    }
    if let Some(found) = balancer {
        match owner(&tags, &found.arn, cluster) {
            Some(Owner { cluster_id }) => {
                let found = with_listeners(
                    elb,
                    Balancer {
                        cluster_id,
                        ..found
                    },
                )
                .await?;
                seen.balancer = Some(found);
            }
            None => seen.taken.push(found.name),
        }
    }
    Ok(seen)
}

async fn by_name(elb: &Client, cluster: &str) -> Result<Option<Balancer>, Failure> {
    let called = name(cluster, None);
    let answer = elb
        .describe_load_balancers()
        .names(&called)
        .send()
        .await
        .doing("look at the load balancer (elasticloadbalancing:DescribeLoadBalancers)");
    match answer {
        Err(failure) if failure.is(&["LoadBalancerNotFound"]) => Ok(None),
        answer => {
            let all = answer?.load_balancers.unwrap_or_default();
            let mut named = all.into_iter();
            Ok(named
                .find(|it| it.load_balancer_name() == Some(&called))
                .and_then(balancer))
        }
    }
}

fn balancer(found: LoadBalancer) -> Option<Balancer> {
    let zones = found.availability_zones().iter();
    let state = found.state().and_then(|it| it.code());
    Some(Balancer {
        subnets: zones
            .filter_map(|it| Some((it.zone_name()?.to_owned(), it.subnet_id()?.to_owned())))
            .collect(),
        state: state.map_or("unknown", |it| it.as_str()).to_owned(),
        internal: found.scheme() == Some(&LoadBalancerSchemeEnum::Internal),
        vpc: found.vpc_id().unwrap_or_default().to_owned(),
        address: found.dns_name().unwrap_or_default().to_owned(),
        cross_zone: false,
        listeners: Vec::new(),
        cluster_id: None,
        name: found.load_balancer_name?,
        arn: found.load_balancer_arn?,
    })
}

async fn with_listeners(elb: &Client, mut found: Balancer) -> Result<Balancer, Failure> {
    let listeners = async {
        let call = elb.describe_listeners().load_balancer_arn(&found.arn);
        call.send()
            .await
            .doing("look at the load balancer's listeners")
    };
    let attributes = async {
        let call = elb.describe_load_balancer_attributes();
        let call = call.load_balancer_arn(&found.arn).send().await;
        call.doing("look at the load balancer's attributes")
    };
    let (listeners, attributes) = tokio::try_join!(listeners, attributes)?;
    found.listeners = listeners
        .listeners
        .unwrap_or_default()
        .into_iter()
        .filter_map(|it| {
            let action = it.default_actions().first();
            Some(Listener {
                port: it.port()?,
                group: action
                    .and_then(|it| it.target_group_arn())
                    .map(str::to_owned),
                arn: it.listener_arn?,
            })
        })
        .collect();
    let mut attributes = attributes.attributes().iter();
    found.cross_zone = attributes.any(|it| {
        it.key() == Some("load_balancing.cross_zone.enabled") && it.value() == Some("true")
    });
    Ok(found)
}

async fn group(elb: &Client, cluster: &str, door: Door) -> Result<Option<Group>, Failure> {
    let called = name(cluster, Some(door));
    let answer = elb
        .describe_target_groups()
        .names(&called)
        .send()
        .await
        .doing("look at a target group (elasticloadbalancing:DescribeTargetGroups)");
    match answer {
        Err(failure) if failure.is(&["TargetGroupNotFound"]) => Ok(None),
        answer => {
            let all = answer?.target_groups.unwrap_or_default();
            let mut named = all.into_iter();
            Ok(named
                .find(|it| it.target_group_name() == Some(&called))
                .and_then(bare_group))
        }
    }
}

fn bare_group(found: TargetGroup) -> Option<Group> {
    let protocol = found.health_check_protocol();
    Some(Group {
        vpc: found.vpc_id().unwrap_or_default().to_owned(),
        check: Check {
            protocol: protocol.map_or("", |it| it.as_str()).to_owned(),
            port: found.health_check_port().unwrap_or_default().to_owned(),
            interval: found.health_check_interval_seconds().unwrap_or_default(),
            timeout: found.health_check_timeout_seconds().unwrap_or_default(),
            healthy: found.healthy_threshold_count().unwrap_or_default(),
            unhealthy: found.unhealthy_threshold_count().unwrap_or_default(),
        },
        attributes: BTreeMap::new(),
        targets: Vec::new(),
        cluster_id: None,
        name: found.target_group_name?,
        arn: found.target_group_arn?,
    })
}

async fn with_targets(elb: &Client, mut group: Group) -> Result<Group, Failure> {
    let attributes = async {
        let call = elb.describe_target_group_attributes();
        let call = call.target_group_arn(&group.arn).send().await;
        call.doing("look at a target group's attributes")
    };
    let targets = async {
        let call = elb.describe_target_health().target_group_arn(&group.arn);
        call.send()
            .await
            .doing("look at the load balancer's targets")
    };
    let (attributes, targets) = tokio::try_join!(attributes, targets)?;
    let attributes = attributes.attributes().iter();
    group.attributes = attributes
        .filter_map(|it| Some((it.key()?.to_owned(), it.value()?.to_owned())))
        .collect();
    let targets = targets.target_health_descriptions().iter();
    group.targets = targets
        .filter_map(|it| {
            let (target, health) = (it.target()?, it.target_health()?);
            Some(Target {
                instance: target.id()?.to_owned(),
                port: target.port()?,
                state: health.state()?.as_str().to_owned(),
                why: health.description().map(str::to_owned),
            })
        })
        .collect();
    Ok(group)
}

type Tags = BTreeMap<String, Vec<Tag>>;

async fn tags(elb: &Client, arns: &[&str]) -> Result<Tags, Failure> {
    let arns = arns.iter().map(|it| (*it).to_owned()).collect();
    let answer = elb.describe_tags().set_resource_arns(Some(arns)).send();
    let answer = answer
        .await
        .doing("see whose load balancer it is (elasticloadbalancing:DescribeTags)")?;
    let all = answer.tag_descriptions.unwrap_or_default().into_iter();
    Ok(all
        .filter_map(|it| Some((it.resource_arn?, it.tags.unwrap_or_default())))
        .collect())
}

/// The owner of a resource.
struct Owner {
    cluster_id: Option<String>,
}

/// `Some` if the resource belongs to a cluster of that name.
fn owner(tags: &Tags, arn: &str, cluster: &str) -> Option<Owner> {
    let tag = |key: &str| {
        let mut tags = tags.get(arn)?.iter();
        tags.find(|it| it.key() == Some(key))?.value()
    };
    (tag(CLUSTER_LABEL) == Some(cluster)).then(|| Owner {
        cluster_id: tag(ID_LABEL).map(str::to_owned),
    })
}
