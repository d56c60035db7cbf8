//! On EC2, which users can talk to the metadata service.

use std::path::Path;

use super::world::{ONE, World, says, step};
use crate::{
    facts::{METADATA_GUARD, MetadataGuard},
    inventory::Inventory,
    render,
};

const UNIT: &str = "/etc/systemd/system/pgherd-metadata-guard.service";

/// A settled cluster of one host that pgherd launched on EC2.
fn on_ec2() -> World {
    let mut world = World::settled(ONE);
    let text = "cluster: pg\nprovider: { kind: aws, region: eu-central-1 }\nhosts:\n  \
                all: { roles: [postgres, etcd, haproxy] }\n";
    world.cluster.inventory.provider = Inventory::parse(Path::new("pgherd.yaml"), text)
        .unwrap()
        .provider;
    world.files = render::render(&world.cluster, world.templates).unwrap();
    for host in world.hosts() {
        world.put(&host, UNIT);
        let facts = world.facts(host.as_str());
        facts.metadata_guard = MetadataGuard::Holds;
        let unit = facts.units.entry(METADATA_GUARD.into()).or_default();
        unit.enabled = "enabled".into();
    }
    world
}

#[test]
fn the_guard_is_mended_where_it_is_gone_or_would_go() {
    let mut world = on_ec2();
    assert_eq!(world.steps(), [""; 0]);
    let host = world.hosts()[0].clone();
    for (guard, why) in [
        (MetadataGuard::Absent, "every user of the host"),
        (MetadataGuard::Fragile, "networkd removes"),
    ] {
        world.facts(host.as_str()).metadata_guard = guard;
        assert_eq!(world.steps(), [format!("{host} guard-metadata []")]);
        assert!(
            step(&world.plan(), host.as_str(), "guard-metadata")
                .why
                .contains(why)
        );
    }
    world.facts(host.as_str()).metadata_guard = MetadataGuard::Holds;
    world.unit(host.as_str(), METADATA_GUARD).enabled = "disabled".into();
    let plan = world.plan();
    let step = step(&plan, host.as_str(), "guard-metadata");
    assert!(step.why.contains("after a boot") && says(step, "systemctl enable"));
}

#[test]
fn a_host_of_an_earlier_version_is_given_the_unit_first() {
    let mut world = on_ec2();
    let host = world.hosts()[0].clone();
    let facts = world.facts(host.as_str());
    facts.files.remove(UNIT);
    facts.units.remove(METADATA_GUARD);
    facts.metadata_guard = MetadataGuard::Fragile;
    let steps = [
        format!("{host} prepare []"),
        format!("{host} guard-metadata [0]"),
    ];
    assert_eq!(world.steps(), steps);
}

#[test]
fn other_hosts_have_no_such_thing() {
    let world = World::settled(ONE);
    let mut files = world.files.values().flatten();
    assert!(files.all(|file| file.path != UNIT));
}
