//! A load balancer that differs from the inventory, and the permissions that its calls need.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use aws_sdk_elasticloadbalancingv2::types::{Listener, TargetDescription, TargetGroupAttribute};
use pgherd::provider::{self, Part};
use serde_json::Value;

use crate::{
    balancer::{HOSTS, KEYED, NARROW, balanced, elb, groups, inventory, listeners, whole},
    support::{Lab, launch},
};

/// Manual changes, other ports, a front door in another zone: all of it is reported and corrected.
pub(crate) async fn differences_are_reported_and_corrected_with_the_permissions_in_the_policy() {
    let lab = Lab::new("nlb-drift").await;
    let elb = elb(&lab);
    launch(&*balanced(&lab), &HOSTS, &lab.events).await.unwrap();
    let [write, read] = ["write", "read"].map(|door| format!("pgherd-nlb-drift-{door}"));
    let arn = async |name: &str| {
        let all = groups(&elb).await.into_iter();
        let mut named = all.filter(|it| it.target_group_name() == Some(name));
        named.next().unwrap().target_group_arn.unwrap()
    };
    let (write, read) = (arn(&write).await, arn(&read).await);
    let mut all = listeners(&elb).await.into_iter();
    let lost = all.find(|it| it.port() == Some(5001)).unwrap();
    let lost = elb
        .delete_listener()
        .listener_arn(lost.listener_arn.unwrap());
    lost.send().await.unwrap();
    let attribute = TargetGroupAttribute::builder()
        .key("preserve_client_ip.enabled")
        .value("false")
        .build();
    let changed = elb
        .modify_target_group_attributes()
        .target_group_arn(&write);
    changed.attributes(attribute).send().await.unwrap();
    let changed = elb.modify_target_group().target_group_arn(&read);
    changed
        .health_check_interval_seconds(30)
        .send()
        .await
        .unwrap();
    let target = |id: String, port: i32| TargetDescription::builder().id(id).port(port).build();
    let door = target(lab.id_of("door2").await, 5000);
    let left = elb.deregister_targets().target_group_arn(&write);
    left.targets(door).send().await.unwrap();
    let node1 = lab.id_of("node1").await;
    let stranger = elb.register_targets().target_group_arn(&read);
    stranger
        .targets(target(node1.clone(), 5001))
        .send()
        .await
        .unwrap();

    let provider = balanced(&lab);
    let told = provider.drift().await.unwrap().changes;
    let line = |what: &str| format!("load balancer pgherd-nlb-drift {what}");
    assert_eq!(
        told,
        [
            line("gets the connection settings of port 5000"),
            line("leads from port 5000 to door2"),
            line("gets the health check of port 5001"),
            line("listens on port 5001"),
            line(&format!("no longer leads from port 5001 to {node1}:5001")),
        ]
    );
    provider.repair(Part::Missing, &lab.events).await.unwrap();
    let told = provider.drift().await.unwrap().changes;
    assert_eq!(
        told,
        [line(&format!(
            "no longer leads from port 5001 to {node1}:5001"
        ))]
    );
    provider.repair(Part::All, &lab.events).await.unwrap();
    whole(&lab, &elb, "repaired").await;

    // Another port.
    let moved = inventory(
        &lab,
        KEYED,
        &format!("{NARROW}haproxy: {{ write_port: 6000 }}\n"),
    );
    let moved = provider::from_inventory(&moved).unwrap();
    let told = moved.drift().await.unwrap().changes;
    assert!(told.contains(&line("listens on port 6000")), "{told:?}");
    moved.repair(Part::Missing, &lab.events).await.unwrap();
    moved.repair(Part::All, &lab.events).await.unwrap();
    let told = moved.drift().await.unwrap().changes;
    assert_eq!(told, [""; 0]);
    let ports: BTreeSet<_> = listeners(&elb)
        .await
        .iter()
        .filter_map(Listener::port)
        .collect();
    assert_eq!(ports, BTreeSet::from([5001, 6000]));
    balanced(&lab).repair(Part::All, &lab.events).await.unwrap();

    a_door_in_another_zone(&lab, &line).await;
    let provider = balanced(&lab);
    let all = provider.resources().await.unwrap();
    provider.remove(&all, &lab.events).await.unwrap();
    let mut called: BTreeSet<String> = lab.proxy.take().into_iter().map(|it| it.action).collect();
    called.retain(|it| it.starts_with("elasticloadbalancing:"));
    the_policy_allows(called);
}

async fn a_door_in_another_zone(lab: &Lab, line: &dyn Fn(&str) -> String) {
    let network = "10.77.0.0/24";
    let more = lab.ec2.associate_vpc_cidr_block().vpc_id(&lab.vpc);
    more.cidr_block(network).send().await.unwrap();
    let found = lab.ec2.describe_subnets().subnet_ids(&lab.subnet);
    let found = found.send().await.unwrap();
    let zone = found.subnets()[0].availability_zone().unwrap().to_owned();
    let other = ["eu-central-1a", "eu-central-1b"]
        .into_iter()
        .find(|it| *it != zone);
    let other = other.unwrap();
    let made = lab.ec2.create_subnet().vpc_id(&lab.vpc).cidr_block(network);
    let made = made.availability_zone(other).send().await.unwrap();
    let subnet = made.subnet.unwrap().subnet_id.unwrap();
    let old = lab.id_of("door2").await;
    lab.ec2
        .terminate_instances()
        .instance_ids(old)
        .send()
        .await
        .unwrap();
    let tags = [
        ("pgherd:cluster", lab.name.as_str()),
        ("pgherd:host", "door2"),
        ("pgherd:id", Lab::ID),
    ]
    .map(|(key, value)| Tag::builder().key(key).value(value).build());
    let specification = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .set_tags(Some(tags.to_vec()));
    let made = lab
        .ec2
        .run_instances()
        .image_id("ami-0aaaaaaaaaaaaaaa2")
        .subnet_id(&subnet);
    let made = made
        .min_count(1)
        .max_count(1)
        .tag_specifications(specification.build());
    made.send().await.unwrap();
    let provider = balanced(lab);
    let told = provider.drift().await.unwrap().changes;
    let both = told
        .iter()
        .find(|it| it.starts_with(&line("gets addresses in ")));
    let both = both.unwrap_or_else(|| panic!("{told:?}"));
    assert!(
        both.contains(&subnet) && both.contains(&lab.subnet),
        "{both}"
    );
    assert!(
        told.contains(&line("leads from port 5000 to door2")),
        "{told:?}"
    );
    let group =
        "security group pgherd-nlb-drift-haproxy opens 5000 to 10.77.0.0/24, 5001 to 10.77.0.0/24";
    assert!(
        told.iter().any(|it| it.starts_with(group)),
        "its checks come from there: {told:?}"
    );
    provider.repair(Part::Missing, &lab.events).await.unwrap();
    let told = provider.drift().await.unwrap().changes;
    assert!(
        told.iter().all(|it| !it.contains("load balancer")),
        "{told:?}"
    );
}

/// The policy in the manual allows exactly the calls that were made.
fn the_policy_allows(mut called: BTreeSet<String>) {
    let text = include_str!("../../docs/iam-policy-load-balancer.json");
    let policy: Value = serde_json::from_str(text).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions = statements
        .iter()
        .flat_map(|it| it["Action"].as_array().unwrap());
    let allowed: BTreeSet<String> = actions.map(|it| it.as_str().unwrap().to_owned()).collect();
    // Tags need a permission of their own, but no call of their own. AWS creates its role itself.
    called.insert("elasticloadbalancing:AddTags".into());
    called.insert("iam:CreateServiceLinkedRole".into());
    assert_eq!(allowed, called);
}
