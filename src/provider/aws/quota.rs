//! The account's quota of vCPUs, which EC2 itself reports only when a launch exceeds it.

use std::collections::BTreeMap;

use aws_sdk_ec2::{Client, types::InstanceStateName as State};

use super::{
    account::Account,
    failure::Failure,
    instance::{self, Found},
    survey::Place,
    vcpus::{counts, is_standard, vcpus},
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Aws, HostName},
    quantity::{agree, count},
};

/// "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in vCPUs, a region and account.
const STANDARD: &str = "L-1216C47A";

/// Refuses hosts that the account may not run; a sentence if that could not be found out.
///
/// Hosts in `stopped` count when they are started. Only the standard quota is checked, of which new accounts
/// have little.
pub(super) async fn check(
    account: &Account,
    places: &BTreeMap<HostName, Place>,
    settings: &Aws,
    stopped: &[&Found],
) -> Result<Option<String>> {
    let kind_of = |host: &HostName| settings.hosts[host].instance_type.as_str();
    let standard = places.iter().filter(|(host, _)| is_standard(kind_of(host)));
    let kinds: BTreeMap<&str, i32> = standard
        .clone()
        .map(|(host, place)| (kind_of(host), place.kind.vcpus))
        .collect();
    let launched: i32 = standard.map(|(_, place)| place.kind.vcpus).sum();
    let needed = launched + stopped.iter().map(|it| it.vcpus).sum::<i32>();
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
    let hosts = places.len() + stopped.len();
    Err(Error::new(
        Code::AwsQuota,
        format!(
            "{} {} {needed} vCPUs, and the account has {} left in {}",
            count(hosts, "host"),
            agree(hosts, "needs", "need"),
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
    let filters = vec![instance::in_states(&states)];
    let all = instance::list(ec2, filters, "count the vCPUs that the account runs").await?;
    let all = all.iter();
    Ok(all.filter(|it| counts(it)).map(|it| vcpus(it, kinds)).sum())
}
