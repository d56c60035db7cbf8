//! Removes the load balancer, or takes front doors out of it.

use std::time::Duration;

use aws_sdk_elasticloadbalancingv2::{Client, types::TargetDescription};
use tokio::time::Instant;

use super::{BALANCER, DRAINING, TARGET_GROUP, change::target, look::look};
use crate::{
    error::{Error, Result},
    event::{Event, Events, HostState},
    poll,
    provider::{
        Resource,
        aws::{
            failure::{Doing, Failure, insist},
            late::{LATE, seen},
        },
    },
};

/// How long AWS may keep the target groups of a removed load balancer in use.
const RELEASE: Duration = Duration::from_secs(180);
/// How much longer than intended the connections of a front door may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster's load balancer and target groups, in the order in which they can be removed.
pub(in crate::provider::aws) async fn resources(
    elb: &Client,
    cluster: &str,
) -> Result<Vec<Resource>, Failure> {
    let found = look(elb, cluster).await?;
    let resource = |kind, id: &str, name: &str, cluster_id: &Option<String>| Resource {
        keeps_data: false,
        kind,
        id: id.to_owned(),
        name: name.to_owned(),
        host: None,
        cluster_id: cluster_id.clone(),
    };
    let balancer = found.balancer.iter();
    let mut all: Vec<Resource> = balancer
        .map(|it| resource(BALANCER, &it.arn, &it.name, &it.cluster_id))
        .collect();
    let groups = found.groups.values();
    all.extend(groups.map(|it| resource(TARGET_GROUP, &it.arn, &it.name, &it.cluster_id)));
    Ok(all)
}

/// Removes those of `all` that are load balancers or target groups. It is no error if they have gone already.
pub(in crate::provider::aws) async fn remove(
    elb: &Client,
    cluster: &str,
    all: &[Resource],
    events: &Events,
) -> Result<()> {
    // A target group cannot be removed while a load balancer leads to it.
    for kind in [BALANCER, TARGET_GROUP] {
        for resource in all.iter().filter(|it| it.kind == kind) {
            emit(events, resource, HostState::Removing);
            delete(elb, resource).await?;
            emit(events, resource, HostState::Removed);
        }
    }
    let ours = |it: &Resource| [BALANCER, TARGET_GROUP].contains(&it.kind);
    if all.iter().any(ours) {
        seen(LATE, || async {
            let left = resources(elb, cluster).await?;
            let listed = left
                .iter()
                .any(|it| all.iter().any(|gone| gone.id == it.id));
            Ok((!listed).then_some(()))
        })
        .await?;
    }
    Ok(())
}

fn emit(events: &Events, resource: &Resource, state: HostState) {
    events.emit(Event::Resource {
        kind: resource.kind.to_owned(),
        id: resource.id.clone(),
        name: resource.name.clone(),
        state,
    });
}

async fn delete(elb: &Client, resource: &Resource) -> Result<()> {
    let Resource { kind, id, name, .. } = resource;
    let doing = || format!("delete the {kind} {name}");
    let deleted = insist(&["ResourceInUse"], RELEASE, || async {
        match *kind {
            BALANCER => {
                let call = elb
                    .delete_load_balancer()
                    .load_balancer_arn(id)
                    .send()
                    .await;
                call.doing(doing()).map(|_| ())
            }
            _ => {
                let call = elb.delete_target_group().target_group_arn(id).send().await;
                call.doing(doing()).map(|_| ())
            }
        }
    })
    .await;
    match deleted {
        Err(failure) if failure.is(&["LoadBalancerNotFound", "TargetGroupNotFound"]) => Ok(()),
        Err(failure) => {
            let protected = failure.is(&["OperationNotPermitted"]);
            let error = Error::from(failure);
            Err(match protected {
                true => error.hint(
                    "it has deletion protection, or an endpoint service uses it; end that first",
                ),
                false => error,
            })
        }
        Ok(()) => Ok(()),
    }
}

/// Takes front doors out of the load balancer, and waits until their connections have ended.
pub(in crate::provider::aws) async fn deregister(
    elb: &Client,
    cluster: &str,
    instances: &[String],
) -> Result<(), Failure> {
    let found = look(elb, cluster).await?;
    let mut leaving: Vec<(String, Vec<TargetDescription>)> = Vec::new();
    for group in found.groups.values() {
        let of_them = group
            .targets
            .iter()
            .filter(|it| instances.contains(&it.instance));
        let (draining, there): (Vec<_>, Vec<_>) = of_them.partition(|it| it.state == "draining");
        let targets: Vec<TargetDescription> = there
            .iter()
            .map(|it| target(&it.instance, it.port))
            .collect();
        if !targets.is_empty() {
            let call = elb.deregister_targets().target_group_arn(&group.arn);
            let call = call.set_targets(Some(targets.clone())).send().await;
            match call.doing("take a front door out of the load balancer") {
                // A terminated instance is deregistered by AWS.
                Err(failure) if failure.is(&["InvalidTarget"]) => continue,
                call => drop(call?),
            }
        }
        let draining = draining.iter().map(|it| target(&it.instance, it.port));
        let all: Vec<TargetDescription> = targets.into_iter().chain(draining).collect();
        if !all.is_empty() {
            leaving.push((group.arn.clone(), all));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(DRAINING.into()) + PATIENCE;
    for (group, targets) in leaving {
        let left = deadline.saturating_duration_since(Instant::now());
        poll::until_found(left, Duration::from_secs(1), || async {
            let draining = is_draining(elb, &group, &targets).await?;
            Ok::<_, Failure>((!draining).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn is_draining(
    elb: &Client,
    group: &str,
    targets: &[TargetDescription],
) -> Result<bool, Failure> {
    let call = elb.describe_target_health().target_group_arn(group);
    let answer = call.set_targets(Some(targets.to_vec())).send().await;
    let answer = answer.doing("see whether a front door has left the load balancer")?;
    let mut states = answer.target_health_descriptions().iter();
    Ok(states.any(|it| {
        let state = it.target_health().and_then(|it| it.state());
        state.is_some_and(|it| it.as_str() == "draining")
    }))
}
