//! Instances that come back with another address.

use aws_sdk_ec2::types::AttributeBooleanValue;
use pgherd::provider::{self, MachineState};

use crate::support::Lab;

/// EC2 gives an instance another public address with each start; its private one stays.
pub(crate) async fn a_started_host_is_found_at_its_new_public_address() {
    let lab = Lab::new("public").await;
    lab.ec2
        .modify_subnet_attribute()
        .subnet_id(&lab.subnet)
        .map_public_ip_on_launch(AttributeBooleanValue::builder().value(true).build())
        .send()
        .await
        .unwrap();
    let tags = [
        ("pgherd:cluster", lab.name.as_str()),
        ("pgherd:host", "node1"),
    ];
    let id = lab.stray("ami-0aaaaaaaaaaaaaaa2", &tags).await;
    let text = lab
        .text("", "  node1: { roles: [postgres, etcd, haproxy] }\n")
        .replace("connect: private", "connect: public");
    let provider = provider::from_inventory(&lab.parse(&text)).unwrap();
    let found = async || provider.discover().await.unwrap().remove(0);
    let before = found().await;
    let stop = lab.ec2.stop_instances().instance_ids(&id);
    stop.send().await.unwrap();
    let stopped = found().await;
    assert_eq!(stopped.state, MachineState::Stopped);
    assert_eq!(stopped.ssh_address, None);
    let start = lab.ec2.start_instances().instance_ids(&id);
    start.send().await.unwrap();
    let after = found().await;
    assert_eq!(after.id, before.id);
    assert_eq!(after.address, before.address);
    assert!(after.ssh_address.is_some() && before.ssh_address.is_some());
    assert_ne!(after.ssh_address, before.ssh_address);
    lab.remove().await.unwrap();
}
