//! Data volumes: they come with their hosts, outlive them, and go with the cluster.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, Filter, InstanceBlockDeviceMappingSpecification, Volume,
};
use pgherd::{
    error::Result,
    inventory::{HostName, Inventory},
    provider::{self, Machine, MachineState, Part, Provider, Resource},
};
use serde_json::Value;

use crate::{
    members::cut_at,
    proxy::Call,
    support::{FIVE, KEY, Lab, cut_offs, hosts, launch, tag},
};

/// moto does not take the IOPS of a volume that comes with its instance.
const VOLUMES: &str = "  data_volume_gb: 50\n  data_volume_throughput: 200\n";

/// Two databases, each with a data volume, and the rest.
fn inventory(lab: &Lab, node2: &str) -> Inventory {
    let hosts = format!(
        "  node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres]{node2} }}\n  \
         node4: {{ roles: [etcd] }}\n  haproxy: {{ roles: [haproxy] }}\n"
    );
    lab.parse(&lab.text(VOLUMES, &hosts))
}

fn provider_of(inventory: &Inventory) -> Box<dyn Provider> {
    provider::from_inventory(inventory).unwrap()
}

/// The data volumes of a host: those that are attached as such, or not at all.
async fn data_volumes(lab: &Lab, host: &str) -> Vec<Volume> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let found = lab
        .ec2
        .describe_volumes()
        .filters(filter("tag:pgherd:cluster", &lab.name))
        .filters(filter("tag:pgherd:host", host))
        .send()
        .await
        .unwrap();
    let all = found.volumes.unwrap_or_default().into_iter();
    let is_data = |it: &Volume| {
        let mut devices = it.attachments().iter().map(|it| it.device());
        devices.all(|device| device == Some("/dev/sdf"))
    };
    all.filter(is_data).collect()
}

/// The only data volume of a host, and whether the host leaves it behind.
async fn only(lab: &Lab, host: &str) -> (String, bool) {
    let volumes = data_volumes(lab, host).await;
    assert_eq!(volumes.len(), 1, "{host}: {volumes:?}");
    let id = volumes[0].volume_id().unwrap().to_owned();
    let all = lab.instances().await;
    let instance = all
        .iter()
        .find(|it| tag(it.tags(), "pgherd:host") == host)
        .unwrap();
    let mapped = instance.block_device_mappings().iter();
    let mut mapped = mapped.filter(|it| it.device_name() == Some("/dev/sdf"));
    let ebs = mapped.next().expect("it is attached").ebs().unwrap();
    assert_eq!(ebs.volume_id(), Some(id.as_str()));
    (id, ebs.delete_on_termination() == Some(false))
}

/// A host's resources; without its data volume, as `replace` removes them.
async fn of_host(provider: &dyn Provider, host: &str, with_data: bool) -> Vec<Resource> {
    let mut all = provider.resources().await.unwrap();
    all.retain(|it| it.host.as_ref().is_some_and(|it| it.as_str() == host));
    all.retain(|it| with_data || !it.keeps_data);
    all
}

pub(crate) async fn data_volumes_come_with_hosts_and_go_with_the_cluster() {
    let lab = Lab::new("volumes").await;
    let inventory = lab.five(VOLUMES);
    let provider = provider_of(&inventory);
    let lines = provider.preflight(&hosts(), KEY).await.unwrap().made;
    let lines = lines.join("\n");
    let said = "data volume of node1: 50 GiB, for /data; it stays when the instance goes";
    assert!(lines.contains(said), "{lines}");
    assert!(!lines.contains("data volume of node4"), "{lines}");

    let machines = launch(&*provider, &FIVE, &lab.events).await.unwrap();
    let of: BTreeMap<&str, &Machine> = machines.iter().map(|it| (it.host.as_str(), it)).collect();
    for host in ["node1", "node2", "node3"] {
        let (id, stays) = only(&lab, host).await;
        assert!(stays, "{host}");
        assert_eq!(of[host].data_volume, Some(id));
        assert_eq!(of[host].state, MachineState::Running);
        let volume = &data_volumes(&lab, host).await[0];
        assert_eq!(volume.size(), Some(50));
        assert_eq!(volume.encrypted(), Some(true));
        assert_eq!(volume.volume_type().unwrap().as_str(), "gp3");
        assert_eq!(tag(volume.tags(), "Name"), format!("volumes-{host}"));
        assert_eq!(tag(volume.tags(), "pgherd:id"), Lab::ID);
    }
    for host in ["node4", "haproxy"] {
        assert_eq!(of[host].data_volume, None);
        assert_eq!(data_volumes(&lab, host).await, []);
    }
    let mut found = provider_of(&inventory).discover().await.unwrap();
    found.sort_by(|a, b| a.host.cmp(&b.host));
    let mut made = machines.clone();
    made.sort_by(|a, b| a.host.cmp(&b.host));
    assert_eq!(found, made, "anybody finds the same");
    assert_eq!(provider.drift().await.unwrap().changes, [""; 0]);

    // An instance that would take its data with it is told not to.
    let goes = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(true);
    let goes = InstanceBlockDeviceMappingSpecification::builder()
        .device_name("/dev/sdf")
        .ebs(goes.build());
    lab.ec2
        .modify_instance_attribute()
        .instance_id(lab.id_of("node1").await)
        .block_device_mappings(goes.build())
        .send()
        .await
        .unwrap();
    let (id, stays) = only(&lab, "node1").await;
    assert!(!stays);
    let said = format!("the data volume {id} of node1 stays when its instance goes");
    assert_eq!(provider.drift().await.unwrap().changes, [said]);
    provider.repair(Part::Missing, &lab.events).await.unwrap();
    assert!(only(&lab, "node1").await.1);
    assert_eq!(provider.drift().await.unwrap().changes, [""; 0]);

    // The inventory wants more, and then less.
    let larger = format!("{}  data_volume_iops: 5000\n", VOLUMES.replace("50", "80"));
    let larger = provider_of(&lab.five(&larger));
    let told = larger.drift().await.unwrap().changes;
    let said = format!("the data volume {id} of node1 grows from 50 to 80 GiB, gets 5000 IOPS");
    assert!(told.contains(&said), "{told:?}");
    assert_eq!(told.len(), 3);
    larger.repair(Part::Missing, &lab.events).await.unwrap();
    for host in ["node1", "node2", "node3"] {
        assert_eq!(data_volumes(&lab, host).await[0].size(), Some(80));
    }
    assert_eq!(larger.drift().await.unwrap().changes, [""; 0]);
    let told = provider.drift().await.unwrap().changes;
    assert!(told.iter().all(|it| !it.contains("GiB")), "{told:?}");

    let listed = lab.left().await;
    for host in ["node1", "node2", "node3"] {
        assert!(listed.contains(&format!("volume {host}")), "{listed:?}");
    }
    assert_eq!(listed.len(), 12, "{listed:?}");
    lab.proxy.take();
    lab.remove().await.unwrap();
    let ended = lab.proxy.take();
    let ended = ended.iter().find(|it| it.is("TerminateInstances")).unwrap();
    // Nobody reads what a clean shutdown writes to a volume that goes too.
    assert_eq!(ended.parameter("SkipOsShutdown"), Some("true"));
    assert_eq!(lab.left().await, [""; 0]);
    for host in FIVE {
        assert_eq!(data_volumes(&lab, host).await, []);
    }
}

pub(crate) async fn the_next_host_gets_the_data_of_the_last() {
    let lab = Lab::new("kept").await;
    let first = inventory(&lab, "");
    let provider = provider_of(&first);
    let all = ["node1", "node2", "node4", "haproxy"];
    launch(&*provider, &all, &lab.events).await.unwrap();
    let (kept, _) = only(&lab, "node2").await;
    let old = lab.id_of("node2").await;
    let zone = data_volumes(&lab, "node2").await[0]
        .availability_zone()
        .unwrap()
        .to_owned();

    provider
        .check_successor(&HostName::new("node2"))
        .await
        .unwrap();
    // Which zone the host is in is EC2's choice.
    let other = match zone.as_str() {
        "eu-central-1c" => "eu-central-1a",
        _ => "eu-central-1c",
    };
    let elsewhere = provider_of(&inventory(&lab, &format!(", zone: {other}")));
    let refused = elsewhere.check_successor(&HostName::new("node2")).await;
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(
        refused.contains(&zone) && refused.contains("--new-volume"),
        "{refused}"
    );

    lab.proxy.take();
    let goes = of_host(&*provider, "node2", false).await;
    assert_eq!(goes.len(), 1, "{goes:?}");
    provider.remove(&goes, &lab.events).await.unwrap();
    let ended = lab.proxy.take();
    let ended = ended.iter().find(|it| it.is("TerminateInstances")).unwrap();
    assert_eq!(ended.parameter("SkipOsShutdown"), None, "its data stay");
    assert!(lab.left().await.contains(&"volume node2".to_owned()));

    let refused = launch(&*elsewhere, &["node2"], &lab.events).await;
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(refused.contains("cannot leave its zone"), "{refused}");
    let provider = provider_of(&inventory(&lab, ", instance_type: m5.large"));
    let lines = provider.preflight(&[HostName::new("node2")], KEY).await;
    let lines = lines.unwrap().made.join("\n");
    let said = format!("node2 gets its data volume {kept} again, 50 GiB, for /data");
    assert!(lines.contains(&said), "{lines}");
    let machines = launch(&*provider, &["node2"], &lab.events).await.unwrap();
    assert_ne!(machines[0].id, old);
    assert_eq!(machines[0].data_volume, Some(kept.clone()));
    assert_eq!(only(&lab, "node2").await, (kept.clone(), true));
    assert_eq!(provider.drift().await.unwrap().changes, [""; 0]);
    let calls = lab.proxy.take();
    the_policy_allows(&calls);

    // With its volume, the host gets another one.
    let goes = of_host(&*provider, "node2", true).await;
    assert_eq!(goes.len(), 2, "{goes:?}");
    provider.remove(&goes, &lab.events).await.unwrap();
    launch(&*provider, &["node2"], &lab.events).await.unwrap();
    assert_ne!(only(&lab, "node2").await.0, kept);
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

/// The calls that data volumes need in addition are those that their policy allows.
fn the_policy_allows(calls: &[Call]) {
    let read = |text: &str| -> BTreeSet<String> {
        let policy: Value = serde_json::from_str(text).unwrap();
        let statements = policy["Statement"].as_array().unwrap().clone();
        let actions = statements
            .iter()
            .flat_map(|it| it["Action"].as_array().unwrap());
        actions.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let base = read(include_str!("../../docs/iam-policy.json"));
    let mut more: BTreeSet<String> = calls.iter().map(|it| it.action.clone()).collect();
    more.retain(|it| !base.contains(it) && it.starts_with("ec2:"));
    // A volume that came with its host needs it.
    more.insert("ec2:ModifyInstanceAttribute".into());
    // One that grows needs it.
    more.insert("ec2:ModifyVolume".into());
    let allowed = read(include_str!("../../docs/iam-policy-data-volume.json"));
    assert_eq!(allowed, more);
}

/// Runs `work`, cut off at one of its changing calls; whether it came to its end.
async fn cut_off(
    lab: &Lab,
    (number, done): (usize, bool),
    work: impl Future<Output = Result<Vec<Machine>>>,
) -> bool {
    cut_at(lab, number, done);
    let survived = tokio::select! {
        worked = work => {
            worked.unwrap_or_else(|error| panic!("{error:?}"));
            true
        }
        () = lab.proxy.has_swallowed() => false,
    };
    lab.proxy.pass_all();
    survived
}

pub(crate) async fn a_launch_may_die_at_any_call() {
    for done in [false, true] {
        for number in cut_offs(done) {
            let lab = Lab::new(&format!("volume-{number}-{}", u8::from(done))).await;
            let inventory = inventory(&lab, "");
            let provider = provider_of(&inventory);
            let hosts = ["node1"];
            let launching = launch(&*provider, &hosts, &lab.events);
            let survived = cut_off(&lab, (number, done), launching).await;
            let provider = provider_of(&inventory);
            let again = launch(&*provider, &hosts, &lab.events).await;
            let again = again.unwrap_or_else(|error| panic!("call {number}: {error:?}"));
            assert_eq!(again.len(), 1);
            for host in hosts {
                assert!(only(&lab, host).await.1, "call {number}");
            }
            assert_eq!(provider.drift().await.unwrap().changes, [""; 0]);
            lab.remove().await.unwrap();
            assert_eq!(lab.left().await, [""; 0]);
            if survived {
                assert!(number > 4, "only {number} calls were tried");
                break;
            }
        }
    }
}

/// Also between the end of the old host and the launch of the new one.
pub(crate) async fn a_successor_may_die_at_any_call() {
    let lab = Lab::new("heir").await;
    let inventory = inventory(&lab, "");
    let all = ["node1", "node2", "node4", "haproxy"];
    launch(&*provider_of(&inventory), &all, &lab.events)
        .await
        .unwrap();
    let (kept, _) = only(&lab, "node2").await;
    for done in [false, true] {
        for number in 0.. {
            let before = lab.id_of("node2").await;
            let provider = provider_of(&inventory);
            let replacing = async {
                let goes = of_host(&*provider, "node2", false).await;
                provider.remove(&goes, &lab.events).await?;
                launch(&*provider, &["node2"], &lab.events).await
            };
            let survived = cut_off(&lab, (number, done), replacing).await;
            let provider = provider_of(&inventory);
            let there = lab.instances().await;
            let is_old = |it: &aws_sdk_ec2::types::Instance| it.instance_id() == Some(&before);
            if there.iter().any(is_old) {
                let goes = of_host(&*provider, "node2", false).await;
                provider.remove(&goes, &lab.events).await.unwrap();
            }
            let machines = launch(&*provider, &["node2"], &lab.events).await;
            let machines = machines.unwrap_or_else(|error| panic!("call {number}: {error:?}"));
            assert_ne!(machines[0].id, before, "call {number}");
            assert_eq!(machines[0].data_volume, Some(kept.clone()), "call {number}");
            assert_eq!(only(&lab, "node2").await, (kept.clone(), true));
            if survived {
                assert!(number > 1, "only {number} calls were tried");
                break;
            }
        }
    }
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn what_cannot_be_given_is_said() {
    let lab = Lab::new("lost-volume").await;
    let inventory = inventory(&lab, "");
    let provider = provider_of(&inventory);
    let all = ["node1", "node2", "node4", "haproxy"];
    launch(&*provider, &all, &lab.events).await.unwrap();
    // Somebody takes its volume away. The host counts as one that does not run, until it has the volume again.
    let (id, _) = only(&lab, "node2").await;
    let node2 = lab.id_of("node2").await;
    let detach = || {
        let call = lab.ec2.detach_volume().volume_id(&id);
        call.instance_id(&node2).send()
    };
    detach().await.unwrap();
    let found = provider.discover().await.unwrap();
    let node2 = found.iter().find(|it| it.host.as_str() == "node2").unwrap();
    assert_eq!(node2.state, MachineState::Stopped);
    let machines = launch(&*provider, &["node2"], &lab.events).await.unwrap();
    assert_eq!(machines[0].data_volume, Some(id.clone()));

    detach().await.unwrap();
    lab.ec2.delete_volume().volume_id(&id).send().await.unwrap();
    let refused = launch(&*provider, &["node2"], &lab.events).await;
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(
        refused.contains("has no data volume") && refused.contains("replace node2 --new-volume"),
        "{refused}"
    );
    // Two volumes with a host's tags: only a person can tell which one has its data.
    let goes = of_host(&*provider, "node1", false).await;
    provider.remove(&goes, &lab.events).await.unwrap();
    let kept = &data_volumes(&lab, "node1").await[0];
    let tags = aws_sdk_ec2::types::TagSpecification::builder()
        .resource_type(aws_sdk_ec2::types::ResourceType::Volume)
        .set_tags(Some(kept.tags().to_vec()))
        .build();
    lab.ec2
        .create_volume()
        .availability_zone(kept.availability_zone().unwrap())
        .size(50)
        .tag_specifications(tags)
        .send()
        .await
        .unwrap();
    let refused = launch(&*provider_of(&inventory), &["node1"], &lab.events).await;
    let refused = format!("{:?}", refused.unwrap_err());
    assert!(refused.contains("two data volumes"), "{refused}");
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}
