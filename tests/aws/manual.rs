//! Whether docs/aws.md lists the calls that pgherd makes, and docs/iam-policy.json allows them.

use std::collections::{BTreeMap, BTreeSet};

use pgherd::{inventory::HostName, provider};
use serde_json::Value;

use crate::{
    questions::quota_of,
    support::{FIVE, KEY, Lab, hosts, launch},
};

/// The manual lists the calls of each verb. How often pgherd lists instances while they start and stop depends
/// on how long that takes, and requests that it can do without are repeated if no answer comes soon. Everything
/// else is called as often as listed.
pub(crate) async fn the_calls_of_each_verb_are_those_in_the_manual() {
    const LOOKS: [&str; 3] = [
        "ec2:DescribeInstances`",
        "ssm:GetParameter",
        "servicequotas:GetServiceQuota",
    ];
    let lab = Lab::new("calls").await;
    lab.proxy.judge(quota_of(32));
    let mut verbs = Vec::new();
    let provider = lab.provider();
    let plan = async |provider: &dyn provider::Provider, absent: &[HostName]| {
        provider.discover().await.unwrap();
        provider.drift().await.unwrap();
        if !absent.is_empty() {
            provider.preflight(absent, KEY).await.unwrap();
        }
    };
    plan(&*provider, &hosts()).await;
    verbs.push(lab.proxy.take());
    let provider = lab.provider();
    plan(&*provider, &hosts()).await;
    launch(&*provider, &FIVE, &lab.events).await.unwrap();
    verbs.push(lab.proxy.take());
    plan(&*lab.provider(), &[]).await;
    verbs.push(lab.proxy.take());
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
    verbs.push(lab.proxy.take());

    let mut rows: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for (verb, calls) in verbs.iter().enumerate() {
        for call in calls {
            let asked = if call.dry_run { ", asked" } else { "" };
            let row = format!("`{}`{asked}", call.action);
            rows.entry(row).or_default()[verb] += 1;
        }
    }
    let table: String = rows
        .iter()
        .map(|(name, counts)| format!("{name} {counts:?}\n"))
        .collect();
    let manual = include_str!("../../docs/aws.md");
    for (name, counts) in &rows {
        let line = manual
            .lines()
            .find(|line| line.starts_with(&format!("| {name} |")));
        let line = line.unwrap_or_else(|| panic!("{name} is not in the manual:\n{table}"));
        let cells = line.trim_matches('|').split('|').skip(1);
        let listed: Vec<usize> = cells.map(|it| it.trim().parse().unwrap_or(0)).collect();
        let as_listed = match LOOKS.iter().any(|look| name.contains(look)) {
            true => counts
                .iter()
                .zip(&listed)
                .all(|(made, listed)| made >= listed),
            false => counts[..] == listed[..],
        };
        assert!(as_listed, "{name} was made {counts:?} times:\n{table}");
    }
    let listed = manual.lines().filter(|it| {
        ["| `ec2:", "| `elastic", "| `s"]
            .iter()
            .any(|of| it.starts_with(of))
    });
    assert_eq!(listed.count(), rows.len(), "\n{table}");
}

/// The policy in the manual allows exactly the calls that were made.
///
/// Tags of a launch need a permission of their own, but no call of their own. Rules are removed only from
/// groups that are removed or whose inventory has changed.
pub(crate) fn the_policy_allows(called: &BTreeSet<String>) {
    let text = include_str!("../../docs/iam-policy.json");
    let policy: Value = serde_json::from_str(text).unwrap();
    let allowed: BTreeSet<String> = policy["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action| action.as_str().unwrap().to_owned())
        .collect();
    // Those of load balancers have a policy of their own.
    let mut needed = called.clone();
    needed.retain(|call| !call.starts_with("elasticloadbalancing:"));
    needed.insert("ec2:CreateTags".into());
    // Only drills crash hosts, and only builds of images stop one.
    needed.insert("ec2:StopInstances".into());
    // Only `pgherd image` and `image: prepared`.
    for call in [
        "CreateImage",
        "DeleteSnapshot",
        "DeregisterImage",
        "DescribeSnapshots",
    ] {
        needed.insert(format!("ec2:{call}"));
    }
    // AWS allows everybody to ask for their own identity.
    needed.remove("sts:GetCallerIdentity");
    assert_eq!(allowed, needed);
}
