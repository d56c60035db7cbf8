//! Hosts that are replaced or leave, while the rest of the cluster stays.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_sdk_ec2::types::Filter;
use pgherd::{
    error::Result,
    inventory::{HostName, Inventory},
    provider::{self, Machine, Part, Provider, Resource},
};

use crate::{
    proxy::{Call, Verdict},
    support::{FIVE, Lab, launch, tag},
};

/// Five hosts. node3 has a fixed address; `node3` is more settings for it.
fn fixed(lab: &Lab, node3: &str) -> Inventory {
    lab.five("");
    let text = fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let of_node3 = format!("  node3: {{ roles: [postgres]{node3} }}\n");
    let text = text.replace("  node3: { roles: [postgres] }\n", &of_node3);
    let mut inventory = lab.parse(&text);
    // This test must stay on the loopback, where an inventory cannot fix an address.
    let address = format!("{}.77", lab.network).parse().unwrap();
    inventory
        .hosts
        .get_mut(&HostName::new("node3"))
        .unwrap()
        .address = Some(address);
    inventory
}

/// The resources of one host.
async fn of_host(provider: &dyn Provider, host: &str) -> Vec<Resource> {
    let mut all = provider.resources().await.unwrap();
    all.retain(|it| it.host.as_ref().is_some_and(|it| it.as_str() == host));
    all
}

/// As `replace` does it: first the old host is removed, then a new one is launched.
async fn replace(lab: &Lab, inventory: &Inventory) -> Result<Vec<Machine>> {
    let provider = provider::from_inventory(inventory)?;
    let old = of_host(&*provider, "node3").await;
    if !old.is_empty() {
        provider.remove(&old, &lab.events).await?;
    }
    launch(&*provider, &["node3"], &lab.events).await
}

/// The instances, by host.
async fn ids(lab: &Lab) -> BTreeMap<String, String> {
    let all = lab.instances().await.into_iter();
    all.map(|it| {
        let host = tag(it.tags(), "pgherd:host").to_owned();
        (host, it.instance_id.unwrap())
    })
    .collect()
}

/// The number of the cluster's volumes, and of network interfaces in its VPC, attached or not.
async fn volumes_and_interfaces(lab: &Lab) -> (usize, usize) {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let ours = filter("tag:pgherd:cluster", &lab.name);
    let volumes = lab.ec2.describe_volumes().filters(ours);
    // moto does not tag network interfaces.
    let here = filter("vpc-id", &lab.vpc);
    let interfaces = lab.ec2.describe_network_interfaces().filters(here);
    let (volumes, interfaces) = tokio::join!(volumes.send(), interfaces.send());
    (
        volumes.unwrap().volumes().len(),
        interfaces.unwrap().network_interfaces().len(),
    )
}

pub(crate) async fn a_host_is_replaced_and_nothing_else_is_touched() {
    let lab = Lab::new("replaced").await;
    let other = lab.beside("replaced-b");
    other.launch(&FIVE).await.unwrap();
    let theirs = ids(&other).await;
    let inventory = fixed(&lab, "");
    let provider = provider::from_inventory(&inventory).unwrap();
    launch(&*provider, &FIVE, &lab.events).await.unwrap();
    let before = ids(&lab).await;
    assert_eq!(volumes_and_interfaces(&lab).await, (5, 10));

    let inventory = fixed(&lab, ", instance_type: m5.large");
    let made = replace(&lab, &inventory).await.unwrap();
    let address = format!("{}.77", lab.network);
    assert_eq!(made[0].address.unwrap().to_string(), address);
    let mut after = ids(&lab).await;
    assert_ne!(after.insert("node3".into(), before["node3"].clone()), None);
    assert_eq!(after, before, "the others are those that were there");
    assert_ne!(made[0].id, before["node3"]);
    let all = lab.instances().await;
    let node3 = all.iter().find(|it| it.instance_id() == Some(&made[0].id));
    let node3 = node3.unwrap();
    assert_eq!(node3.instance_type().unwrap().as_str(), "m5.large");
    assert_eq!(volumes_and_interfaces(&lab).await, (5, 10));
    let provider = provider::from_inventory(&inventory).unwrap();
    assert_eq!(provider.drift().await.unwrap().changes, [""; 0]);
    assert_eq!(lab.left().await.len(), 9);

    // A host that leaves for good.
    let leaves = of_host(&*provider, "node2").await;
    provider.remove(&leaves, &lab.events).await.unwrap();
    assert_eq!(of_host(&*provider, "node2").await, []);
    assert_eq!(ids(&lab).await.len(), 4);
    assert_eq!(volumes_and_interfaces(&lab).await, (4, 9));
    let text = fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let text = text.replace("  node2: { roles: [postgres] }\n", "");
    let without = provider::from_inventory(&lab.parse(&text)).unwrap();
    assert_eq!(without.drift().await.unwrap().changes, [""; 0]);

    assert_eq!(ids(&other).await, theirs, "another cluster is another's");
    lab.remove().await.unwrap();
    other.remove().await.unwrap();
    assert_eq!(volumes_and_interfaces(&lab).await, (0, 0));
}

/// While EC2's lists lag, only the token tells what an interrupted run has launched.
pub(crate) async fn a_launch_under_way_outlives_the_removal_of_another_host() {
    let lab = Lab::new("under-way").await;
    lab.launch(&FIVE[..4]).await.unwrap();
    lab.proxy
        .judge(|call: &Call| match call.is("RunInstances") {
            true => Verdict::DoAndSwallow,
            false => Verdict::Pass,
        });
    tokio::select! {
        _ = lab.launch(&["haproxy"]) => panic!("it should have died"),
        () = lab.proxy.has_swallowed() => {}
    }
    lab.proxy.pass_all();
    let made = lab.id_of("haproxy").await;
    let token = lab.dir.path().join(".pgherd/under-way/launches/haproxy");
    let before = fs::read_to_string(&token).unwrap();
    let provider = lab.provider();
    let old = of_host(&*provider, "node3").await;
    provider.remove(&old, &lab.events).await.unwrap();
    assert_eq!(fs::read_to_string(&token).unwrap(), before);
    let machines = lab.launch(&["haproxy"]).await.unwrap();
    assert_eq!(machines[0].id, made);
    assert!(!token.exists());
    lab.remove().await.unwrap();
}

/// Swallows one of the calls that change something. An interruption before a call that only reads is the same
/// as one after the change before it.
pub(crate) fn cut_at(lab: &Lab, number: usize, done: bool) {
    let count = AtomicUsize::new(0);
    lab.proxy.judge(move |call: &Call| {
        let action = call.action.rsplit(':').next().unwrap_or_default();
        if call.dry_run || action.starts_with("Describe") || action.starts_with("Get") {
            return Verdict::Pass;
        }
        match count.fetch_add(1, Ordering::SeqCst) == number {
            true if done => Verdict::DoAndSwallow,
            true => Verdict::Swallow,
            false => Verdict::Pass,
        }
    });
}

/// Also between the removal of the old host and the launch of the new one.
pub(crate) async fn a_replacement_may_die_at_any_call() {
    let lab = Lab::new("replace-dies").await;
    let inventory = fixed(&lab, "");
    let provider = provider::from_inventory(&inventory).unwrap();
    launch(&*provider, &FIVE, &lab.events).await.unwrap();
    for done in [false, true] {
        for number in 0.. {
            let before = ids(&lab).await;
            cut_at(&lab, number, done);
            let survived = tokio::select! {
                replaced = replace(&lab, &inventory) => {
                    replaced.unwrap_or_else(|error| panic!("{error:?}"));
                    true
                }
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            // The next run removes the old host only if it still exists, as the workspace says.
            let there = ids(&lab).await.get("node3").cloned();
            let machines = match there.as_ref() == before.get("node3") {
                true => replace(&lab, &inventory).await,
                false => launch(&*provider, &["node3"], &lab.events).await,
            };
            let machines = machines.unwrap_or_else(|error| panic!("call {number}: {error:?}"));
            let mut after = ids(&lab).await;
            assert_eq!(after["node3"], machines[0].id, "call {number}");
            assert_ne!(after["node3"], before["node3"], "call {number}");
            after.insert("node3".into(), before["node3"].clone());
            assert_eq!(after, before, "call {number}");
            assert_eq!(volumes_and_interfaces(&lab).await, (5, 5), "call {number}");
            assert_eq!(lab.left().await.len(), 9, "call {number}");
            if survived {
                assert!(number >= 2, "only {number} calls were tried");
                break;
            }
        }
    }
    lab.remove().await.unwrap();
}

/// A member that is about to leave must stay reachable until it has left.
pub(crate) async fn a_host_leaves_a_group_only_at_the_end() {
    let lab = Lab::new("leaves").await;
    lab.launch(&FIVE).await.unwrap();
    let after = crate::rules::other_roles(&lab);
    let both = [
        "instance haproxy leaves pgherd-leaves-haproxy",
        "instance node4 leaves pgherd-leaves-etcd",
    ];
    for _ in 0..2 {
        after.repair(Part::Missing, &lab.events).await.unwrap();
        assert_eq!(after.drift().await.unwrap().changes, both);
    }
    after.repair(Part::All, &lab.events).await.unwrap();
    assert_eq!(after.drift().await.unwrap().changes, [""; 0]);
    lab.remove().await.unwrap();
}
