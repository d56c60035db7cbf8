//! Compares the load balancer with the desired one, and corrects it.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::{
    Client,
    types::{
        Action, ActionTypeEnum, LoadBalancerAttribute, LoadBalancerSchemeEnum,
        LoadBalancerTypeEnum, ProtocolEnum, Tag, TargetDescription, TargetGroupAttribute,
        TargetTypeEnum,
    },
};

use super::{
    DRAINING, Door, Wanted,
    look::{Balancer, Check, Group, Seen, look},
    name,
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    inventory::Scheme,
    provider::{
        Part,
        aws::{
            SETTLING, Tags,
            failure::{Doing, Failure, insist},
        },
    },
};

/// A new resource may not be known everywhere yet.
const NOT_YET: [&str; 5] = [
    "LoadBalancerNotFound",
    "ListenerNotFound",
    "TargetGroupNotFound",
    // The load balancer may not know yet that the instance runs.
    "InvalidTarget",
    "ResourceInUse",
];

/// The maximum number of rounds: what one round creates, the next can configure.
const ROUNDS: usize = 4;

/// One difference between the load balancer and the desired one.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Difference {
    NoBalancer,
    NoGroup(Door),
    /// All subnets that it must have.
    Subnets(Vec<String>),
    CrossZone,
    Check(Door),
    Attributes(Door),
    NoListener(Door),
    /// The listener leads to the right group, but listens on another port.
    Port(Door, String),
    Register(Door, Vec<String>),
    Deregister(Door, Vec<(String, i32)>),
}

/// The correction of a cluster's load balancer.
pub(in crate::provider::aws) struct Work<'a> {
    pub(in crate::provider::aws) elb: &'a Client,
    pub(in crate::provider::aws) wanted: &'a Wanted<'a>,
    pub(in crate::provider::aws) tags: Tags<'a>,
    pub(in crate::provider::aws) events: &'a Events,
}

fn check() -> Check {
    // Two failures, five seconds apart: ten seconds after a front door died, it gets no clients any more.
    Check {
        protocol: "TCP".into(),
        port: "traffic-port".into(),
        interval: 5,
        timeout: 4,
        healthy: 2,
        unhealthy: 2,
    }
}

fn attributes() -> BTreeMap<String, String> {
    [
        ("deregistration_delay.timeout_seconds", DRAINING.to_string()),
        // Clients of a front door that leaves see their connection end, and need not wait for a timeout.
        (
            "deregistration_delay.connection_termination.enabled",
            "true".into(),
        ),
        // HAProxy and the security groups judge clients by their address.
        ("preserve_client_ip.enabled", "true".into()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn differences(seen: &Seen, wanted: &Wanted<'_>, part: Part) -> Vec<Difference> {
    let mut all = Vec::new();
    if seen.balancer.is_none() {
        all.push(Difference::NoBalancer);
    }
    let missing = Door::ALL
        .into_iter()
        .filter(|door| !seen.groups.contains_key(door));
    all.extend(missing.map(Difference::NoGroup));
    // The rest is compared once all of these exist.
    let Some(balancer) = seen.balancer.as_ref().filter(|_| all.is_empty()) else {
        return all;
    };
    let subnets = wanted.all_subnets(&balancer.subnets);
    if subnets != balancer.subnets {
        all.push(Difference::Subnets(subnets.into_values().collect()));
    }
    if !balancer.cross_zone {
        all.push(Difference::CrossZone);
    }
    for (door, group) in &seen.groups {
        all.extend(of_group(*door, group, balancer, wanted, part));
    }
    all
}

fn of_group(
    door: Door,
    group: &Group,
    balancer: &Balancer,
    wanted: &Wanted<'_>,
    part: Part,
) -> Vec<Difference> {
    let mut all = Vec::new();
    let port = door.port(wanted.inventory);
    if group.check != check() {
        all.push(Difference::Check(door));
    }
    let has = |(key, value): (&String, &String)| group.attributes.get(key) == Some(value);
    if !attributes().iter().all(has) {
        all.push(Difference::Attributes(door));
    }
    let mut listeners = balancer.listeners.iter();
    match listeners.find(|it| it.group.as_ref() == Some(&group.arn)) {
        None => all.push(Difference::NoListener(door)),
        Some(it) if it.port != port => all.push(Difference::Port(door, it.arn.clone())),
        Some(_) => {}
    }
    let at_work = group.targets.iter().filter(|it| it.state != "draining");
    let there: BTreeSet<(&str, i32)> = at_work
        .clone()
        .map(|it| (it.instance.as_str(), it.port))
        .collect();
    let mut ids = wanted.targets.keys();
    let register: Vec<String> = ids
        .by_ref()
        .filter(|id| !there.contains(&(id.as_str(), port)))
        .cloned()
        .collect();
    if !register.is_empty() {
        all.push(Difference::Register(door, register));
    }
    let stays = |id: &str| wanted.targets.contains_key(id) || wanted.resting.contains(id);
    let extra: Vec<(String, i32)> = at_work
        .filter(|it| !stays(&it.instance) || it.port != port)
        .map(|it| (it.instance.clone(), it.port))
        .collect();
    if part == Part::All && !extra.is_empty() {
        all.push(Difference::Deregister(door, extra));
    }
    all
}

impl Difference {
    fn in_words(&self, wanted: &Wanted<'_>) -> String {
        let inventory = wanted.inventory;
        let called = name(&inventory.cluster, None);
        let host = |id: &String| {
            let host = wanted.targets.get(id);
            host.map_or_else(|| id.clone(), ToString::to_string)
        };
        let what = match self {
            Self::NoBalancer => return made(wanted),
            Self::NoGroup(door) => {
                format!("gets a group of targets for port {}", door.port(inventory))
            }
            Self::Subnets(subnets) => format!("gets addresses in {}", subnets.join(", ")),
            Self::CrossZone => "leads from each zone to the front doors of all".into(),
            Self::Check(door) => {
                format!("checks the port {} as it is to", door.port(inventory))
            }
            Self::Attributes(door) => {
                format!(
                    "treats connections to port {} as it is to",
                    door.port(inventory)
                )
            }
            Self::NoListener(door) | Self::Port(door, _) => {
                format!("listens on port {}", door.port(inventory))
            }
            Self::Register(door, ids) => {
                let hosts: Vec<String> = ids.iter().map(host).collect();
                let port = door.port(inventory);
                format!("leads from port {port} to {}", hosts.join(", "))
            }
            Self::Deregister(door, targets) => {
                let hosts: Vec<String> = targets
                    .iter()
                    .map(|(id, port)| format!("{}:{port}", host(id)))
                    .collect();
                let port = door.port(inventory);
                format!("leads from port {port} no more to {}", hosts.join(", "))
            }
        };
        format!("load balancer {called} {what}")
    }
}

/// One line about the load balancer that would be created.
pub(in crate::provider::aws) fn made(wanted: &Wanted<'_>) -> String {
    let Wanted { inventory, .. } = wanted;
    let zones: Vec<&str> = wanted.subnets.keys().map(String::as_str).collect();
    let [write, read] = Door::ALL.map(|door| door.port(inventory));
    format!(
        "load balancer {} is made: network, {}, in {}; the ports {write} and {read} lead to the front doors, \
         and the members' certificates get its name",
        name(&inventory.cluster, None),
        wanted.scheme.as_str(),
        zones.join(", "),
    )
}

/// One line for each difference.
pub(in crate::provider::aws) fn lines(seen: &Seen, wanted: &Wanted<'_>) -> Result<Vec<String>> {
    possible(seen, wanted)?;
    let mut all = differences(seen, wanted, Part::All);
    if all.contains(&Difference::NoBalancer) {
        all.retain(|it| *it == Difference::NoBalancer);
    }
    Ok(all.iter().map(|it| it.in_words(wanted)).collect())
}

/// Refuses differences that no call can correct.
fn possible(seen: &Seen, wanted: &Wanted<'_>) -> Result<()> {
    if let Some(name) = seen.taken.first() {
        return Err(Error::new(Code::NameTaken, format!("the name {name} is taken"))
            .cause("the account has a load balancer or a target group of that name, which does not belong to this cluster")
            .hint("remove it, or give the cluster another name"));
    }
    let elsewhere = |vpc: &str| !wanted.vpc.is_empty() && vpc != wanted.vpc;
    if let Some(group) = seen.groups.values().find(|it| elsewhere(&it.vpc)) {
        return Err(Error::new(
            Code::InfrastructureDiffers,
            format!("the target group {} is in {}, and the front doors are in {}", group.name, group.vpc, wanted.vpc),
        )
        .left("nothing was changed")
        .hint(format!(
            "it is left of a run that was in another VPC; remove it: aws elbv2 delete-target-group --target-group-arn {}",
            group.arn
        )));
    }
    let Some(balancer) = &seen.balancer else {
        return Ok(());
    };
    let differs = |what: String| {
        let remove = format!(
            "aws elbv2 delete-load-balancer --load-balancer-arn {}",
            balancer.arn
        );
        Err(Error::new(Code::InfrastructureDiffers, what)
            .left("nothing was changed")
            .hint("AWS cannot change that of a load balancer that is there")
            .hint(format!(
                "to have another one, with another name for clients: {remove}; then run `pgherd up`"
            )))
    };
    if balancer.internal != (wanted.scheme == Scheme::Internal) {
        let is = match balancer.internal {
            true => Scheme::Internal,
            false => Scheme::InternetFacing,
        };
        return differs(format!(
            "the load balancer {} is {}, and the inventory wants it {}",
            balancer.name,
            is.as_str(),
            wanted.scheme.as_str()
        ));
    }
    if elsewhere(&balancer.vpc) {
        return differs(format!(
            "the load balancer {} is in {}, and the front doors are in {}",
            balancer.name, balancer.vpc, wanted.vpc
        ));
    }
    Ok(())
}

/// Creates what is missing and corrects what differs. It can be repeated.
pub(in crate::provider::aws) async fn ensure(work: &Work<'_>, part: Part) -> Result<Seen> {
    for _ in 0..ROUNDS {
        let seen = look(work.elb, &work.wanted.inventory.cluster).await?;
        possible(&seen, work.wanted)?;
        let all = differences(&seen, work.wanted, part);
        if all.is_empty() {
            return Ok(seen);
        }
        for difference in &all {
            work.apply(difference, &seen).await?;
        }
    }
    Err(Error::new(
        Code::AwsFailed,
        "the load balancer is not as it was just made",
    )
    .hint("run the same command again: it continues from here"))
}

impl Work<'_> {
    async fn apply(&self, difference: &Difference, seen: &Seen) -> Result<()> {
        let (elb, inventory) = (self.elb, self.wanted.inventory);
        let group = |door: &Door| &seen.groups[door];
        let (kind, id, name) = match difference {
            Difference::NoBalancer => return self.make().await,
            Difference::NoGroup(door) => return self.make_group(*door).await,
            Difference::Check(door)
            | Difference::Attributes(door)
            | Difference::Register(door, _)
            | Difference::Deregister(door, _) => {
                let it = group(door);
                (super::TARGET_GROUP, it.arn.clone(), it.name.clone())
            }
            _ => {
                let Some(it) = &seen.balancer else {
                    return Ok(());
                };
                (super::BALANCER, it.arn.clone(), it.name.clone())
            }
        };
        let doing = format!("put the {kind} {name} right");
        insist(&NOT_YET, SETTLING, || async {
            match difference {
                Difference::Subnets(subnets) => {
                    let call = elb.set_subnets().load_balancer_arn(&id);
                    let call = call.set_subnets(Some(subnets.clone())).send();
                    call.await.doing(&doing).map(|_| ())
                }
                Difference::CrossZone => {
                    let attribute = LoadBalancerAttribute::builder()
                        .key("load_balancing.cross_zone.enabled")
                        .value("true");
                    let call = elb.modify_load_balancer_attributes().load_balancer_arn(&id);
                    let call = call.attributes(attribute.build()).send();
                    call.await.doing(&doing).map(|_| ())
                }
                Difference::Check(_) => {
                    let check = check();
                    let call = elb
                        .modify_target_group()
                        .target_group_arn(&id)
                        .health_check_protocol(ProtocolEnum::Tcp)
                        .health_check_port(check.port)
                        .health_check_interval_seconds(check.interval)
                        .health_check_timeout_seconds(check.timeout)
                        .healthy_threshold_count(check.healthy)
                        .unhealthy_threshold_count(check.unhealthy);
                    call.send().await.doing(&doing).map(|_| ())
                }
                Difference::Attributes(_) => {
                    let all = attributes().into_iter().map(|(key, value)| {
                        TargetGroupAttribute::builder()
                            .key(key)
                            .value(value)
                            .build()
                    });
                    let call = elb.modify_target_group_attributes().target_group_arn(&id);
                    let call = call.set_attributes(Some(all.collect())).send();
                    call.await.doing(&doing).map(|_| ())
                }
                Difference::NoListener(door) => self.listen(*door, &id, &group(door).arn).await,
                Difference::Port(door, listener) => {
                    let call = elb.modify_listener().listener_arn(listener);
                    let call = call.port(door.port(inventory)).send();
                    call.await.doing(&doing).map(|_| ())
                }
                Difference::Register(door, ids) => {
                    let port = door.port(inventory);
                    let targets = ids.iter().map(|id| target(id, port)).collect();
                    let call = elb.register_targets().target_group_arn(&id);
                    let call = call.set_targets(Some(targets)).send();
                    call.await.doing(&doing).map(|_| ())
                }
                Difference::Deregister(_, targets) => {
                    let targets = targets.iter().map(|(id, port)| target(id, *port)).collect();
                    let call = elb.deregister_targets().target_group_arn(&id);
                    let call = call.set_targets(Some(targets)).send();
                    call.await.doing(&doing).map(|_| ())
                }
                Difference::NoBalancer | Difference::NoGroup(_) => Ok(()),
            }
        })
        .await?;
        self.emit(kind, &id, &name, HostState::Changed);
        Ok(())
    }

    async fn make(&self) -> Result<()> {
        let wanted = self.wanted;
        let called = name(&wanted.inventory.cluster, None);
        let scheme = match wanted.scheme {
            Scheme::Internal => LoadBalancerSchemeEnum::Internal,
            Scheme::InternetFacing => LoadBalancerSchemeEnum::InternetFacing,
        };
        let made = self
            .elb
            .create_load_balancer()
            .name(&called)
            .r#type(LoadBalancerTypeEnum::Network)
            .scheme(scheme)
            .set_subnets(Some(wanted.subnets.values().cloned().collect()))
            .set_tags(Some(self.tags()))
            .send()
            .await
            .doing(format!(
                "make the load balancer {called} (elasticloadbalancing:CreateLoadBalancer)"
            ))?;
        let made = made.load_balancers().first();
        let arn = made
            .and_then(|it| it.load_balancer_arn())
            .unwrap_or_default();
        self.emit(super::BALANCER, arn, &called, HostState::Created);
        Ok(())
    }

    async fn make_group(&self, door: Door) -> Result<()> {
        let wanted = self.wanted;
        let called = name(&wanted.inventory.cluster, Some(door));
        let check = check();
        let made = self
            .elb
            .create_target_group()
            .name(&called)
            .protocol(ProtocolEnum::Tcp)
            .port(door.port(wanted.inventory))
            .vpc_id(&wanted.vpc)
            .target_type(TargetTypeEnum::Instance)
            .health_check_protocol(ProtocolEnum::Tcp)
            .health_check_port(check.port)
            .health_check_interval_seconds(check.interval)
            .health_check_timeout_seconds(check.timeout)
            .healthy_threshold_count(check.healthy)
            .unhealthy_threshold_count(check.unhealthy)
            .set_tags(Some(self.tags()))
            .send()
            .await
            .doing(format!(
                "make the target group {called} (elasticloadbalancing:CreateTargetGroup)"
            ))?;
        let made = made.target_groups().first();
        let arn = made
            .and_then(|it| it.target_group_arn())
            .unwrap_or_default();
        self.emit(super::TARGET_GROUP, arn, &called, HostState::Created);
        Ok(())
    }

    async fn listen(&self, door: Door, balancer: &str, group: &str) -> Result<(), Failure> {
        let port = door.port(self.wanted.inventory);
        let forward = Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(group)
            .build();
        let made = self
            .elb
            .create_listener()
            .load_balancer_arn(balancer)
            .protocol(ProtocolEnum::Tcp)
            .port(port)
            .default_actions(forward)
            .set_tags(Some(self.tags()))
            .send()
            .await
            .doing(format!(
                "have the load balancer listen on port {port} (elasticloadbalancing:CreateListener)"
            ));
        match made {
            // Another run, or a retry of this call, has already created it.
            Err(failure) if failure.is(&["DuplicateListener"]) => Ok(()),
            made => made.map(|_| ()),
        }
    }

    fn tags(&self) -> Vec<Tag> {
        let all = self.tags.all([]).into_iter();
        all.map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect()
    }

    fn emit(&self, kind: &str, id: &str, name: &str, state: HostState) {
        self.events.emit(Event::Resource {
            kind: kind.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            state,
        });
    }
}

pub(super) fn target(instance: &str, port: i32) -> TargetDescription {
    TargetDescription::builder().id(instance).port(port).build()
}
