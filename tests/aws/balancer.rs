//! The load balancer in front of the front doors.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::Filter;
use aws_sdk_elasticloadbalancingv2::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::{Listener, LoadBalancer, TargetGroup},
};
use pgherd::{
    inventory::{HostName, Inventory},
    provider::{self, Part, Provider},
};

use crate::{
    proxy::{Call, Proxy, Verdict},
    server::{REGION, moto},
    support::{KEY, Lab, launch},
};

pub(crate) const HOSTS: [&str; 3] = ["node1", "door1", "door2"];

/// A client of the load balancers' service that bypasses pgherd's proxy.
pub(crate) fn elb(lab: &Lab) -> Client {
    let config = aws_sdk_elasticloadbalancingv2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("lab", "lab", None, None, "test"))
        .endpoint_url(Proxy::lenient(moto(), &lab.account).url())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// A cluster with two front doors. `provider` and `more` are further lines of the inventory.
pub(crate) fn inventory(lab: &Lab, provider: &str, more: &str) -> Inventory {
    let text = lab.text(
        provider,
        "  node1: { roles: [postgres, etcd] }\n  door1: { roles: [haproxy] }\n  door2: { roles: [haproxy] }\n",
    );
    lab.parse(&format!("{text}{more}"))
}

pub(crate) const KEYED: &str = "  load_balancer: network\n";
pub(crate) const NARROW: &str = "postgresql: { allow: [10.9.0.0/16] }\n";

pub(crate) fn balanced(lab: &Lab) -> Box<dyn Provider> {
    provider::from_inventory(&inventory(lab, KEYED, NARROW)).unwrap()
}

async fn balancers(elb: &Client) -> Vec<LoadBalancer> {
    let all = elb.describe_load_balancers().send().await.unwrap();
    all.load_balancers.unwrap_or_default()
}

pub(crate) async fn groups(elb: &Client) -> Vec<TargetGroup> {
    let all = elb.describe_target_groups().send().await.unwrap();
    all.target_groups.unwrap_or_default()
}

pub(crate) async fn listeners(elb: &Client) -> Vec<Listener> {
    let balancer = balancers(elb).await.remove(0);
    let all = elb
        .describe_listeners()
        .load_balancer_arn(balancer.load_balancer_arn.unwrap());
    all.send().await.unwrap().listeners.unwrap_or_default()
}

/// The names of the targets, by target group.
async fn targets(elb: &Client) -> BTreeMap<String, BTreeSet<(String, i32)>> {
    let mut all = BTreeMap::new();
    for group in groups(elb).await {
        let health = elb
            .describe_target_health()
            .target_group_arn(group.target_group_arn.unwrap());
        let health = health.send().await.unwrap();
        let health = health.target_health_descriptions().iter();
        let of_group = health.map(|it| {
            let target = it.target().unwrap();
            (target.id().unwrap().to_owned(), target.port().unwrap())
        });
        all.insert(group.target_group_name.unwrap(), of_group.collect());
    }
    all
}

async fn doors(lab: &Lab) -> BTreeSet<String> {
    BTreeSet::from([lab.id_of("door1").await, lab.id_of("door2").await])
}

/// Everything is created once, and correctly.
pub(crate) async fn whole(lab: &Lab, elb: &Client, context: &str) {
    let found = balancers(elb).await;
    assert_eq!(found.len(), 1, "{context}");
    assert_eq!(groups(elb).await.len(), 2, "{context}");
    assert_eq!(listeners(elb).await.len(), 2, "{context}");
    let doors = doors(lab).await;
    let behind = |port: i32| doors.iter().map(|id| (id.clone(), port)).collect();
    let name = |door: &str| format!("pgherd-{}-{door}", lab.name);
    let wanted = BTreeMap::from([(name("write"), behind(5000)), (name("read"), behind(5001))]);
    assert_eq!(targets(elb).await, wanted, "{context}");
    let drift = balanced(lab).drift().await.unwrap();
    assert_eq!(drift.changes, [""; 0], "{context}");
}

fn actions(calls: &[Call]) -> Vec<&str> {
    let all = calls.iter().filter(|it| !it.dry_run);
    all.map(|it| it.action.as_str()).collect()
}

pub(crate) async fn it_comes_with_the_hosts_and_goes_with_them() {
    let lab = Lab::new("nlb").await;
    let elb = elb(&lab);
    let provider = balanced(&lab);
    let hosts = HOSTS.map(HostName::new);
    let made = provider.preflight(&hosts, KEY).await.unwrap().made;
    let line = made.iter().find(|it| it.contains("load balancer"));
    let line = line.unwrap_or_else(|| panic!("{made:?}"));
    assert!(
        line.starts_with("load balancer pgherd-nlb is made: network, internal, in eu-central-1")
            && line.contains("the ports 5000 and 5001 lead to the front doors"),
        "{line}"
    );
    assert_eq!(balancers(&elb).await.len(), 0, "looking makes nothing");
    assert_eq!(provider.drift().await.unwrap().changes, [""; 0]);

    lab.proxy.take();
    let machines = launch(&*provider, &HOSTS, &lab.events).await.unwrap();
    let calls = lab.proxy.take();
    let actions = actions(&calls);
    let first = |action: &str| actions.iter().position(|it| *it == action).unwrap();
    assert!(
        first("elasticloadbalancing:CreateLoadBalancer") < first("ec2:RunInstances"),
        "certificates need its name"
    );
    whole(&lab, &elb, "launched").await;
    let balancer = balancers(&elb).await.remove(0);
    assert_eq!(balancer.r#type().unwrap().as_str(), "network");
    assert_eq!(balancer.scheme().unwrap().as_str(), "internal");
    let subnets: Vec<_> = balancer
        .availability_zones()
        .iter()
        .map(|it| it.subnet_id())
        .collect();
    assert_eq!(subnets, [Some(lab.subnet.as_str())]);
    let address = balancer.dns_name().unwrap();
    let of = |host: &str| machines.iter().find(|it| it.host.as_str() == host).unwrap();
    assert_eq!(of("door1").balancer.as_deref(), Some(address));
    assert_eq!(of("node1").balancer, None);
    let found = balanced(&lab).discover().await.unwrap();
    let known = found
        .iter()
        .filter(|it| it.balancer.as_deref() == Some(address));
    assert_eq!(known.count(), 2, "anybody finds the same");
    clients_are_known_and_its_checks_let_in(&lab, &elb).await;
    let state = provider.balancer().await.unwrap().unwrap();
    assert_eq!((state.state.as_str(), state.targets.len()), ("active", 4));
    assert!(state.targets.iter().all(|it| it.healthy), "{state:?}");

    lab.proxy.take();
    launch(&*balanced(&lab), &HOSTS, &lab.events).await.unwrap();
    let changing =
        |call: &&Call| call.action.contains(":Create") || call.action.contains(":Modify");
    assert_eq!(lab.proxy.take().iter().filter(changing).count(), 0);

    let all = provider.resources().await.unwrap();
    let kinds: Vec<&str> = all.iter().map(|it| it.kind).collect();
    assert_eq!(
        kinds[..3],
        ["load balancer", "target group", "target group"]
    );
    assert!(
        all.iter()
            .all(|it| it.cluster_id.as_deref() == Some(Lab::ID)),
        "{all:?}"
    );
    provider.remove(&all, &lab.events).await.unwrap();
    assert_eq!(provider.resources().await.unwrap(), []);
    assert_eq!(balancers(&elb).await.len() + groups(&elb).await.len(), 0);
}

/// Its checks come from the subnet, which is not one of the clients' networks.
async fn clients_are_known_and_its_checks_let_in(lab: &Lab, elb: &Client) {
    for group in groups(elb).await {
        let attributes = elb
            .describe_target_group_attributes()
            .target_group_arn(group.target_group_arn().unwrap());
        let attributes = attributes.send().await.unwrap();
        let attribute = |key: &str| {
            let mut all = attributes.attributes().iter();
            all.find(|it| it.key() == Some(key))
                .and_then(|it| it.value())
        };
        assert_eq!(attribute("preserve_client_ip.enabled"), Some("true"));
        assert_eq!(
            attribute("deregistration_delay.timeout_seconds"),
            Some("30")
        );
    }
    let group = Filter::builder()
        .name("group-name")
        .values("pgherd-nlb-haproxy");
    let group = lab.ec2.describe_security_groups().filters(group.build());
    let group = group.send().await.unwrap();
    let rules: BTreeSet<(i32, String)> = group.security_groups()[0]
        .ip_permissions()
        .iter()
        .flat_map(|it| {
            let port = it.from_port().unwrap();
            it.ip_ranges()
                .iter()
                .map(move |range| (port, range.cidr_ip().unwrap().to_owned()))
        })
        .collect();
    let subnet = format!("{}.0/24", lab.network);
    for port in [5000, 5001] {
        for network in ["10.9.0.0/16", subnet.as_str()] {
            assert!(
                rules.contains(&(port, network.to_owned())),
                "{port} {network}: {rules:?}"
            );
        }
    }
}

/// A cluster can get the key later, and cannot lose it unnoticed.
pub(crate) async fn the_key_comes_later_and_does_not_go() {
    let lab = Lab::new("nlb-late").await;
    let elb = elb(&lab);
    let without = provider::from_inventory(&inventory(&lab, "", NARROW)).unwrap();
    let machines = launch(&*without, &HOSTS, &lab.events).await.unwrap();
    assert!(machines.iter().all(|it| it.balancer.is_none()));
    assert_eq!(without.drift().await.unwrap().changes, [""; 0]);
    assert_eq!(without.balancer().await.unwrap(), None);

    let provider = balanced(&lab);
    let missing = provider.balancer().await.unwrap().unwrap();
    assert_eq!((missing.state.as_str(), missing.address), ("missing", None));
    let told = provider.drift().await.unwrap().changes;
    assert!(
        told[0].starts_with("load balancer pgherd-nlb-late is made"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("security group pgherd-nlb-late-haproxy opens 5000 to"),
        "{told:?}"
    );
    provider.repair(Part::Missing, &lab.events).await.unwrap();
    whole(&lab, &elb, "the key came").await;
    let found = balanced(&lab).discover().await.unwrap();
    assert_eq!(found.iter().filter(|it| it.balancer.is_some()).count(), 2);

    let error = without.drift().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the cluster has the load balancer pgherd-nlb-late"),
        "{error:?}"
    );
    // An account that may not list load balancers has never made one.
    lab.proxy.judge(
        |call: &Call| match call.is_of_balancers("DescribeLoadBalancers") {
            true => Verdict::Refuse("AccessDenied"),
            false => Verdict::Pass,
        },
    );
    without.drift().await.unwrap();
    lab.proxy.pass_all();
    let public = "  load_balancer: network\n  load_balancer_scheme: internet-facing\n";
    let public = provider::from_inventory(&inventory(&lab, public, NARROW)).unwrap();
    let error = public.drift().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is internal, and the inventory wants it internet-facing"),
        "{error:?}"
    );
    // `down` removes it in any case.
    let all = without.resources().await.unwrap();
    without.remove(&all, &lab.events).await.unwrap();
    assert_eq!(balancers(&elb).await.len() + groups(&elb).await.len(), 0);
}

/// Clients lose their connections before the host is removed.
pub(crate) async fn a_front_door_that_leaves_is_taken_out_first() {
    let lab = Lab::new("nlb-leaves").await;
    let elb = elb(&lab);
    let provider = balanced(&lab);
    launch(&*provider, &HOSTS, &lab.events).await.unwrap();
    lab.proxy.take();
    let mut old = provider.resources().await.unwrap();
    old.retain(|it| it.host == Some(HostName::new("door2")));
    provider.remove(&old, &lab.events).await.unwrap();
    let calls = lab.proxy.take();
    let actions = actions(&calls);
    let at = |action: &str| actions.iter().position(|it| *it == action).unwrap();
    assert!(at("elasticloadbalancing:DeregisterTargets") < at("ec2:TerminateInstances"));
    let door1 = lab.id_of("door1").await;
    for behind in targets(&elb).await.into_values() {
        let ids: Vec<String> = behind.into_iter().map(|it| it.0).collect();
        assert_eq!(ids, std::slice::from_ref(&door1));
    }
    // Its successor.
    launch(&*provider, &["door2"], &lab.events).await.unwrap();
    whole(&lab, &elb, "replaced").await;
    // A database is no target, so the load balancer is not asked about it.
    lab.proxy.take();
    let mut old = provider.resources().await.unwrap();
    lab.proxy.take();
    old.retain(|it| it.host == Some(HostName::new("node1")));
    provider.remove(&old, &lab.events).await.unwrap();
    let calls = lab.proxy.take();
    assert!(
        calls
            .iter()
            .all(|it| !it.action.starts_with("elasticloadbalancing:")),
        "{calls:?}"
    );
    lab.remove().await.unwrap();
}

pub(crate) async fn those_of_others_are_never_touched() {
    let lab = Lab::new("nlb-other").await;
    let elb = elb(&lab);
    let stranger = elb.create_load_balancer().name("pgherd-nlb-other");
    let stranger = stranger.r#type("network".into()).subnets(&lab.subnet);
    stranger.send().await.unwrap();
    let provider = balanced(&lab);
    let error = launch(&*provider, &HOSTS, &lab.events).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the name pgherd-nlb-other is taken"),
        "{error:?}"
    );
    assert_eq!(lab.instances().await.len(), 0, "nothing was launched");
    let all = provider.resources().await.unwrap();
    provider.remove(&all, &lab.events).await.unwrap();
    let left = balancers(&elb).await;
    assert_eq!(left.len(), 1);
    let arn = left[0].load_balancer_arn().unwrap();
    // Another cluster of the same name.
    let tag = |key: &str, value: &str| {
        aws_sdk_elasticloadbalancingv2::types::Tag::builder()
            .key(key)
            .value(value)
            .build()
    };
    let tagged = elb
        .add_tags()
        .resource_arns(arn)
        .tags(tag("pgherd:cluster", "nlb-other"));
    tagged
        .tags(tag("pgherd:id", "ffffffffffff"))
        .send()
        .await
        .unwrap();
    let error = launch(&*balanced(&lab), &HOSTS, &lab.events)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("belongs to another cluster nlb-other"),
        "{error:?}"
    );
    let all = provider.resources().await.unwrap();
    assert_eq!(
        all[0].cluster_id.as_deref(),
        Some("ffffffffffff"),
        "`down` refuses it by that"
    );
    elb.delete_load_balancer()
        .load_balancer_arn(arn)
        .send()
        .await
        .unwrap();
}

/// Each round creates it and removes it. Both runs are interrupted at each call that changes something.
pub(crate) async fn it_may_be_cut_off_at_any_of_its_calls() {
    let lab = Lab::new("nlb-dies").await;
    let elb = elb(&lab);
    let without = provider::from_inventory(&inventory(&lab, "", NARROW)).unwrap();
    launch(&*without, &HOSTS, &lab.events).await.unwrap();
    let provider = balanced(&lab);
    let cut_at = |number: usize, done: bool| {
        let count = std::sync::atomic::AtomicUsize::new(0);
        lab.proxy.judge(move |call: &Call| {
            // An interruption before a call that only reads is the same as one after the change before it.
            let of_it = call.action.strip_prefix("elasticloadbalancing:");
            if of_it.is_none_or(|it| it.starts_with("Describe")) {
                return Verdict::Pass;
            }
            let this = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match this == number {
                true if done => Verdict::DoAndSwallow,
                true => Verdict::Swallow,
                false => Verdict::Pass,
            }
        });
    };
    let mut died = 0;
    for done in [false, true] {
        for number in 0.. {
            cut_at(number, done);
            let made = tokio::select! {
                made = provider.repair(Part::All, &lab.events) => {
                    made.unwrap_or_else(|error| panic!("{error:?}"));
                    true
                }
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            provider.repair(Part::All, &lab.events).await.unwrap();
            whole(&lab, &elb, &format!("cut off at call {number}")).await;
            let mut ours = provider.resources().await.unwrap();
            ours.retain(|it| it.kind == "load balancer" || it.kind == "target group");
            cut_at(number, done);
            let removed = tokio::select! {
                removed = provider.remove(&ours, &lab.events) => {
                    removed.unwrap_or_else(|error| panic!("{error:?}"));
                    true
                }
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            let mut ours = provider.resources().await.unwrap();
            ours.retain(|it| it.kind == "load balancer" || it.kind == "target group");
            provider.remove(&ours, &lab.events).await.unwrap();
            assert_eq!(balancers(&elb).await.len() + groups(&elb).await.len(), 0);
            died += usize::from(!made) + usize::from(!removed);
            if made && removed {
                break;
            }
        }
    }
    assert!(died > 25, "only {died} calls were tried");
    lab.remove().await.unwrap();
}
