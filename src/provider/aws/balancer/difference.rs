//! Compares the load balancer with the desired one.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    DRAINING, Door, Wanted,
    look::{Balancer, Check, Group, Seen},
    name,
};
use crate::{
    error::{Code, Error, Result},
    inventory::Scheme,
    provider::Part,
};

/// One difference between the load balancer and the desired one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Difference {
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

pub(super) fn check() -> Check {
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

pub(super) fn attributes() -> BTreeMap<String, String> {
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

pub(super) fn differences(seen: &Seen, wanted: &Wanted<'_>, part: Part) -> Vec<Difference> {
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
                format!("gets the health check of port {}", door.port(inventory))
            }
            Self::Attributes(door) => {
                format!(
                    "gets the connection settings of port {}",
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
                format!("no longer leads from port {port} to {}", hosts.join(", "))
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
pub(super) fn possible(seen: &Seen, wanted: &Wanted<'_>) -> Result<()> {
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
