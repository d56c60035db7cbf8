//! The account's quota of vCPUs, which EC2 itself reports only when a launch exceeds it.

use std::collections::BTreeMap;

use aws_sdk_ec2::{
    Client,
    types::{Instance, InstanceStateName as State, Reservation, Tenancy},
};

use super::{
    account::Account,
    failure::{Doing, Failure},
    instance::filter,
    survey::Place,
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Aws, HostName},
};

/// "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in vCPUs, a region and account.
const STANDARD: &str = "L-1216C47A";
/// EC2's own limit.
const PAGE: i32 = 1000;

/// Refuses hosts that the account may not run; a sentence where that could not be found out.
///
/// Only the standard quota is looked at, the one that new accounts have little of.
pub(super) async fn check(
    account: &Account,
    places: &BTreeMap<HostName, Place>,
    settings: &Aws,
) -> Result<Option<String>> {
    let kind_of = |host: &HostName| settings.hosts[host].instance_type.as_str();
    let standard = places.iter().filter(|(host, _)| is_standard(kind_of(host)));
    let kinds: BTreeMap<&str, i32> = standard
        .clone()
        .map(|(host, place)| (kind_of(host), place.kind.vcpus))
        .collect();
    let needed: i32 = standard.map(|(_, place)| place.kind.vcpus).sum();
    if needed == 0 {
        return Ok(None);
    }
    let quota = match account.quota("ec2", STANDARD).await {
        Ok(quota) => quota,
        Err(failure) => {
            return Ok(Some(format!(
                "the account's quota of vCPUs is not known ({}); a launch that exceeds it fails",
                failure.in_short()
            )));
        }
    };
    let running = running(&account.ec2, &kinds).await?;
    if f64::from(running + needed) <= quota {
        return Ok(None);
    }
    Err(Error::new(
        Code::AwsQuota,
        format!(
            "{} hosts need {needed} vCPUs, and the account has {} left in {}",
            places.len(),
            (quota - f64::from(running)).max(0.0),
            account.region
        ),
    )
    .cause(format!(
        "Service Quotas says: {quota} vCPUs of running on-demand standard instances ({STANDARD}); {running} of them run"
    ))
    .left("nothing was made")
    .hint(format!(
        "ask for more: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {STANDARD} --desired-value {}; it takes from minutes to days",
        running + needed
    ))
    .hint("or terminate instances that are not needed, or set a type with fewer vCPUs in provider.instance_type"))
}

/// The vCPUs of the account's instances that count; `kinds` knows how many a type has.
async fn running(ec2: &Client, kinds: &BTreeMap<&str, i32>) -> Result<i32, Failure> {
    let states = [State::Pending, State::Running];
    let all = ec2
        .describe_instances()
        .filters(filter(
            "instance-state-name",
            states.iter().map(State::as_str),
        ))
        .into_paginator()
        .page_size(PAGE)
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("count the vCPUs that the account runs")?;
    let all = all.iter().flat_map(Reservation::instances);
    Ok(all.filter(|it| counts(it)).map(|it| vcpus(it, kinds)).sum())
}

/// Spot instances have a quota of their own, and those of dedicated hosts have none.
fn counts(instance: &Instance) -> bool {
    let on_own_host = instance.placement().and_then(|it| it.tenancy()) == Some(&Tenancy::Host);
    let kind = instance.instance_type().map_or("", |it| it.as_str());
    instance.instance_lifecycle().is_none() && !on_own_host && is_standard(kind)
}

fn vcpus(instance: &Instance, kinds: &BTreeMap<&str, i32>) -> i32 {
    let options = instance.cpu_options();
    let counted = options.and_then(|it| Some(it.core_count()? * it.threads_per_core()?));
    let kind = instance.instance_type().map_or("", |it| it.as_str());
    counted.or(kinds.get(kind).copied()).unwrap_or_default()
}

/// Whether a type is of the families that the standard quota is about.
fn is_standard(instance_type: &str) -> bool {
    let family = instance_type
        .split(|c: char| !c.is_ascii_lowercase())
        .next();
    matches!(
        family,
        Some("a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z")
    )
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{CpuOptions, InstanceLifecycleType, InstanceType, Placement};

    use super::*;

    #[test]
    fn families_of_other_quotas_are_not_counted() {
        for kind in [
            "t2.medium",
            "t3.medium",
            "c7i-flex.large",
            "m6g.large",
            "im4gn.large",
        ] {
            assert!(is_standard(kind), "{kind}");
        }
        for kind in [
            "g5.xlarge",
            "mac2.metal",
            "inf2.xlarge",
            "hpc7g.4xlarge",
            "u7i-12tb.224xlarge",
            "x2gd.large",
        ] {
            assert!(!is_standard(kind), "{kind}");
        }
    }

    #[test]
    fn an_instance_counts_with_the_vcpus_that_it_was_given() {
        let one = || Instance::builder().instance_type(InstanceType::from("m5.large"));
        let options = |cores| {
            CpuOptions::builder()
                .core_count(cores)
                .threads_per_core(2)
                .build()
        };
        let kinds = BTreeMap::from([("m5.large", 2)]);
        assert_eq!(vcpus(&one().build(), &kinds), 2);
        assert_eq!(vcpus(&one().cpu_options(options(4)).build(), &kinds), 8);
        assert_eq!(vcpus(&one().build(), &BTreeMap::new()), 0);
        assert!(counts(&one().build()));
        assert!(!counts(
            &one()
                .instance_lifecycle(InstanceLifecycleType::Spot)
                .build()
        ));
        let host = Placement::builder().tenancy(Tenancy::Host).build();
        assert!(!counts(&one().placement(host).build()));
    }
}
