//! A cluster's hosts from their launch to their removal.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{InstanceAttributeName, ResourceType, Tag, TagSpecification};
use base64::{Engine, prelude::BASE64_STANDARD};
use pgherd::{
    inventory::HostName,
    provider::{self, MachineState, Part},
};
use serde_json::Value;

use crate::{
    manual::the_policy_allows,
    proxy::Call,
    rules::other_roles,
    support::{FIVE, KEY, Lab, hosts, launch, tag},
};

const NEWEST_MINIMAL: &str = "ami-0bbbbbbbbbbbbbbb2";
const NEWEST: &str = "ami-0aaaaaaaaaaaaaaa2";

pub(crate) async fn from_nothing_to_nothing() {
    let lab = Lab::new("life").await;
    let provider = lab.provider();
    assert!(provider.discover().await.unwrap().is_empty());
    let lines = provider
        .preflight(&hosts(), KEY)
        .await
        .unwrap()
        .made
        .join("\n");
    for part in [
        &format!("account {}, region eu-central-1", lab.account),
        "instance node1: t2.medium, 20 GiB, in eu-central-1",
        NEWEST_MINIMAL,
        "security group pgherd-life-postgres in vpc-",
        "key pair pgherd-life",
        &format!(
            "SSH and the statistics page reachable from {}.0/24",
            lab.network
        ),
    ] {
        assert!(lines.contains(part), "{part} is missing in\n{lines}");
    }
    assert_eq!(lab.left().await, [""; 0], "looking makes nothing");

    let machines = launch(&*provider, &FIVE, &lab.events).await.unwrap();
    assert_eq!(machines.len(), 5);
    for instance in lab.instances().await {
        check_instance(&lab, &instance).await;
    }
    assert_eq!(
        lab.left().await,
        [
            "instance haproxy",
            "instance node1",
            "instance node2",
            "instance node3",
            "instance node4",
            "security group pgherd-life-etcd",
            "security group pgherd-life-haproxy",
            "security group pgherd-life-postgres",
            "key pair pgherd-life"
        ]
    );
    let workspace = lab.dir.path().join(".pgherd/life");
    assert!(
        !workspace.join("launches").exists(),
        "no private host key stays here"
    );
    let found = lab.provider().discover().await.unwrap();
    let by_name = |all: &[provider::Machine]| -> BTreeMap<_, _> {
        all.iter().map(|it| (it.host.clone(), it.clone())).collect()
    };
    assert_eq!(
        by_name(&found),
        by_name(&machines),
        "anybody finds the same"
    );

    // A second cluster, for calls that the first one does not need.
    lab.ec2
        .stop_instances()
        .instance_ids(lab.id_of("node1").await)
        .send()
        .await
        .unwrap();
    provider.preflight(&hosts(), KEY).await.unwrap();
    launch(&*provider, &["node1"], &lab.events).await.unwrap();
    other_roles(&lab)
        .repair(Part::All, &lab.events)
        .await
        .unwrap();
    volume_and_interface(&lab).await;
    let all = provider.resources().await.unwrap();
    provider.remove(&all, &lab.events).await.unwrap();
    assert_eq!(provider.resources().await.unwrap(), []);

    let calls = lab.proxy.take();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in &calls {
        *counts.entry(call.action.clone()).or_default() += 1;
    }
    println!("calls of a whole life: {counts:#?}");
    the_policy_allows(&counts.keys().cloned().collect());
}

async fn check_instance(lab: &Lab, instance: &aws_sdk_ec2::types::Instance) {
    let id = instance.instance_id().unwrap();
    let host = tag(instance.tags(), "pgherd:host");
    assert_eq!(tag(instance.tags(), "Name"), format!("{}-{host}", lab.name));
    assert_eq!(instance.image_id(), Some(NEWEST_MINIMAL));
    assert_eq!(instance.key_name(), Some("pgherd-life"));
    let metadata = instance.metadata_options().unwrap();
    assert_eq!(metadata.http_tokens().unwrap().as_str(), "required");
    assert_eq!(instance.public_ip_address(), None, "connect: private");

    let attribute = lab
        .ec2
        .describe_instance_attribute()
        .instance_id(id)
        .attribute(InstanceAttributeName::UserData)
        .send()
        .await
        .unwrap();
    let data = attribute.user_data().and_then(|it| it.value()).unwrap();
    let text = String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap();
    let config: Value = serde_yaml::from_str(&text).unwrap();
    let public = config["ssh_keys"]["ed25519_public"].as_str().unwrap();
    assert_eq!(public, tag(instance.tags(), "pgherd:host-key"));

    let volumes = lab.ec2.describe_volumes().send().await.unwrap();
    let volume = volumes
        .volumes()
        .iter()
        .find(|it| {
            it.attachments()
                .iter()
                .any(|it| it.instance_id() == Some(id))
        })
        .unwrap();
    assert_eq!(tag(volume.tags(), "pgherd:cluster"), lab.name);
    assert_eq!(volume.encrypted(), Some(true));
    assert_eq!(volume.volume_type().unwrap().as_str(), "gp3");
    assert_eq!(volume.size(), Some(20));
}

/// A volume and a network interface that outlived their instance, as users can configure it.
async fn volume_and_interface(lab: &Lab) {
    let tags = |kind| {
        let tag = Tag::builder()
            .key("pgherd:cluster")
            .value(&lab.name)
            .build();
        TagSpecification::builder()
            .resource_type(kind)
            .tags(tag)
            .build()
    };
    lab.ec2
        .create_volume()
        .availability_zone("eu-central-1a")
        .size(10)
        .tag_specifications(tags(ResourceType::Volume))
        .send()
        .await
        .unwrap();
    lab.ec2
        .create_network_interface()
        .subnet_id(&lab.subnet)
        .tag_specifications(tags(ResourceType::NetworkInterface))
        .send()
        .await
        .unwrap();
}

pub(crate) async fn the_second_run_makes_nothing() {
    let lab = Lab::new("again").await;
    let first = lab.launch(&FIVE).await.unwrap();
    lab.proxy.take();
    let second = lab.launch(&FIVE).await.unwrap();
    let ids = |machines: &[provider::Machine]| -> BTreeSet<String> {
        machines.iter().map(|it| it.id.clone()).collect()
    };
    assert_eq!(ids(&first), ids(&second));
    assert!(lab.proxy.take().iter().all(|it| it.is("DescribeInstances")));
    lab.remove().await.unwrap();
}

pub(crate) async fn several_pages_are_read() {
    let lab = Lab::new("pages").await;
    lab.proxy.pages_of(5);
    lab.launch(&FIVE).await.unwrap();
    // moto accepts no fewer than five a page.
    for n in 0..14 {
        let host = format!("more{n}");
        lab.stray(
            NEWEST,
            &[("pgherd:cluster", "pages"), ("pgherd:host", &host)],
        )
        .await;
    }
    lab.proxy.take();
    assert_eq!(lab.provider().discover().await.unwrap().len(), 19);
    assert_eq!(lab.proxy.take().len(), 4);
    lab.remove().await.unwrap();
    assert_eq!(lab.instances().await.len(), 0);
}

pub(crate) async fn stopped_hosts_are_started() {
    let lab = Lab::new("stopped").await;
    lab.launch(&FIVE).await.unwrap();
    let id = lab.id_of("node2").await;
    lab.ec2
        .stop_instances()
        .instance_ids(&id)
        .send()
        .await
        .unwrap();
    let found = lab.provider().discover().await.unwrap();
    let node2 = found.iter().find(|it| it.id == id).unwrap();
    assert_eq!(node2.state, MachineState::Stopped);
    let started = lab.launch(&["node2"]).await.unwrap();
    assert_eq!(
        (started[0].id.as_str(), started[0].state),
        (id.as_str(), MachineState::Running)
    );
    assert_eq!(started[0].address, node2.address);
    lab.remove().await.unwrap();
}

pub(crate) async fn a_terminated_host_is_made_anew() {
    let lab = Lab::new("anew").await;
    let before = lab.launch(&FIVE).await.unwrap();
    let id = lab.id_of("node3").await;
    lab.ec2
        .terminate_instances()
        .instance_ids(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(lab.provider().discover().await.unwrap().len(), 4);
    let tokens = |calls: Vec<Call>| -> BTreeSet<String> {
        let all = calls.iter().filter(|it| it.is("RunInstances"));
        all.filter_map(|it| it.parameter("ClientToken").map(str::to_owned))
            .collect()
    };
    let first = tokens(lab.proxy.take());
    let made = lab.launch(&["node3"]).await.unwrap();
    let old = before.iter().find(|it| it.id == id).unwrap();
    assert_ne!(made[0].id, old.id);
    assert_ne!(made[0].host_key, old.host_key);
    let second = tokens(lab.proxy.take());
    assert_eq!((first.len(), second.len()), (5, 1));
    assert!(first.is_disjoint(&second));
    lab.remove().await.unwrap();
}

pub(crate) async fn two_clusters_never_touch() {
    let one = Lab::new("pair").await;
    let other = one.beside("pair-b");
    let (a, b) = tokio::join!(one.launch(&FIVE), other.launch(&FIVE));
    a.unwrap_or_else(|error| panic!("{error:?}"));
    b.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(other.instances().await.len(), 5);
    one.remove().await.unwrap();
    assert_eq!(one.left().await, [""; 0]);
    assert_eq!(other.left().await.len(), 9);
    other.remove().await.unwrap();
    assert_eq!(other.left().await, [""; 0]);
}

pub(crate) async fn strangers_are_never_touched() {
    let lab = Lab::new("strangers").await;
    let stranger = lab
        .stray(
            NEWEST,
            &[("Name", "strangers-node1"), ("pgherd:host", "node1")],
        )
        .await;
    let taken = lab.ec2.create_security_group();
    let taken = taken
        .group_name("pgherd-strangers-etcd")
        .description("theirs")
        .vpc_id(&lab.vpc);
    let taken = taken.send().await.unwrap().group_id.unwrap();
    let error = lab.launch(&FIVE).await.unwrap_err();
    assert!(
        error.to_string().contains("pgherd-strangers-etcd is taken"),
        "{error:?}"
    );
    lab.remove().await.unwrap();
    lab.ec2
        .delete_security_group()
        .group_id(taken)
        .send()
        .await
        .unwrap();
    let pair = lab.ec2.import_key_pair().key_name("pgherd-strangers");
    let pair = pair.public_key_material(aws_sdk_ec2::primitives::Blob::new(KEY));
    pair.send().await.unwrap();
    let error = lab.provider().preflight(&hosts(), KEY).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not belong to this cluster"),
        "{error:?}"
    );
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
    let pairs = lab
        .ec2
        .describe_key_pairs()
        .key_names("pgherd-strangers")
        .send()
        .await
        .unwrap();
    assert_eq!(pairs.key_pairs().len(), 1);
    let found = lab
        .ec2
        .describe_instances()
        .instance_ids(stranger)
        .send()
        .await
        .unwrap();
    let state = found.reservations()[0].instances()[0]
        .state()
        .unwrap()
        .name()
        .unwrap()
        .as_str()
        .to_owned();
    assert_eq!(state, "running");
}

/// Also if no file on this machine knows of them.
pub(crate) async fn leftovers_are_found() {
    let lab = Lab::new("leftovers").await;
    lab.launch(&FIVE).await.unwrap();
    volume_and_interface(&lab).await;
    std::fs::remove_dir_all(lab.dir.path().join(".pgherd")).unwrap();
    let ids: Vec<String> = lab
        .instances()
        .await
        .into_iter()
        .filter_map(|it| it.instance_id)
        .collect();
    lab.ec2
        .terminate_instances()
        .set_instance_ids(Some(ids))
        .send()
        .await
        .unwrap();
    assert_eq!(lab.left().await.len(), 6);
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
    lab.remove().await.unwrap();
}

pub(crate) async fn hosts_are_made_to_measure() {
    let lab = Lab::new("measure").await;
    let network = &lab.network;
    let text = lab.text(
        "  volume_gb: 30\n  iops: 4000\n  tags: { team: databases, Name: mine }\n",
        &format!(
            "  node1: {{ roles: [postgres, etcd], address: {network}.77, instance_type: m5.large, volume_gb: 100 }}\n  \
             door: {{ roles: [haproxy] }}\n"
        ),
    );
    // This test must stay on the loopback, where an inventory cannot fix an address.
    let mut inventory = lab.parse(&text.replace(&format!(", address: {network}.77"), ""));
    let node1 = inventory.hosts.get_mut(&HostName::new("node1")).unwrap();
    node1.address = Some(format!("{network}.77").parse().unwrap());
    let provider = provider::from_inventory(&inventory).unwrap();
    let machines = launch(&*provider, &["node1", "door"], &lab.events)
        .await
        .unwrap();
    let node1 = machines
        .iter()
        .find(|it| it.host.as_str() == "node1")
        .unwrap();
    assert_eq!(node1.address.unwrap().to_string(), format!("{network}.77"));
    let instances = lab.instances().await;
    let node1 = instances
        .iter()
        .find(|it| it.instance_id() == Some(&node1.id))
        .unwrap();
    assert_eq!(node1.instance_type().unwrap().as_str(), "m5.large");
    assert_eq!(
        (tag(node1.tags(), "team"), tag(node1.tags(), "Name")),
        ("databases", "mine")
    );
    // moto has an instance's groups only on its network interface.
    assert_eq!(node1.network_interfaces()[0].groups().len(), 2);
    lab.remove().await.unwrap();
}

/// Running instances keep the old key; new ones get the new key.
pub(crate) async fn the_key_pair_follows_the_key() {
    const NEXT: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5cJkSN6hmqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0d next";
    let lab = Lab::new("rotated").await;
    lab.launch(&FIVE[..1]).await.unwrap();
    let known = async || {
        let pairs = lab.ec2.describe_key_pairs().key_names("pgherd-rotated");
        let pairs = pairs.include_public_key(true).send().await.unwrap();
        pairs.key_pairs()[0].public_key().unwrap().to_owned()
    };
    assert!(known().await.starts_with(KEY.trim_end_matches(" test")));
    for _ in 0..2 {
        lab.provider().replace_access_key(NEXT).await.unwrap();
        assert!(known().await.starts_with(NEXT.trim_end_matches(" next")));
    }
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}
