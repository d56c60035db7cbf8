//! Creates the load balancer, and corrects it.

use aws_sdk_elasticloadbalancingv2::{
    Client,
    types::{
        Action, ActionTypeEnum, LoadBalancerAttribute, LoadBalancerSchemeEnum,
        LoadBalancerTypeEnum, ProtocolEnum, Tag, TargetDescription, TargetGroupAttribute,
        TargetTypeEnum,
    },
};

use super::{
    Door, Wanted,
    difference::{Difference, attributes, check, differences, possible},
    look::{Seen, look},
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

/// The correction of a cluster's load balancer.
pub(in crate::provider::aws) struct Work<'a> {
    pub(in crate::provider::aws) elb: &'a Client,
    pub(in crate::provider::aws) wanted: &'a Wanted<'a>,
    pub(in crate::provider::aws) tags: Tags<'a>,
    pub(in crate::provider::aws) events: &'a Events,
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
