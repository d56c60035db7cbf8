//! On EC2, which users can talk to the metadata service.

use std::path::Path;

use super::world::{FIVE, ONE, World, says, step};
use crate::{
    contract::BACKUP_CONFIG,
    facts::{METADATA_GUARD, MetadataException, MetadataGuard},
    inventory::{HostName, Inventory},
    render,
};

const UNIT: &str = "/etc/systemd/system/pgherd-metadata-guard.service";

/// A settled cluster of one host that pgherd launched on EC2.
fn on_ec2() -> World {
    launched(World::settled(ONE))
}

/// The same, as hosts that pgherd launched on EC2.
fn launched(mut world: World) -> World {
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

/// The hosts whose guard would be changed.
fn guarded(world: &World) -> Vec<String> {
    let steps = world.steps().into_iter();
    let guards = steps.filter_map(|it| Some(it.split_once(" guard-metadata ")?.0.to_owned()));
    guards.collect()
}

fn content(world: &World, host: &str, path: &str) -> String {
    let mut files = world.files[&HostName::new(host)].iter();
    let file = files.find(|file| file.path == path);
    file.unwrap().content.to_string()
}

#[test]
fn where_pgbackrest_has_a_profile_postgres_is_let_through() {
    let hosts = format!("{FIVE}  keeper: {{ roles: [backup], address: 192.0.2.6 }}\n");
    let mut world = launched(World::settled(&hosts));
    assert_eq!(guarded(&world), [""; 0]);
    let text = format!(
        "cluster: pg\nprovider: {{ kind: aws, region: eu-central-1 }}\nhosts:{hosts}\
         backup: {{ s3: {{ bucket: backups, region: eu-central-1, profile: backups }} }}\n"
    );
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), &text).unwrap();
    world.cluster.inventory.backup = inventory.backup;
    world.files = render::render(&world.cluster, world.templates).unwrap();
    let config = content(&world, "keeper", BACKUP_CONFIG);
    assert!(config.contains("repo1-s3-key-type=auto\n"), "{config}");
    assert!(
        !config.contains("s3-key=") && !config.contains("s3-key-secret"),
        "{config}"
    );
    let rule = "uidrange $$uid-$$uid lookup main";
    assert!(content(&world, "keeper", UNIT).contains(rule));
    assert!(!content(&world, "node1", UNIT).contains(rule));

    assert_eq!(guarded(&world), ["keeper"]);
    let plan = world.plan();
    let guard = step(&plan, "keeper", "guard-metadata");
    assert!(guard.why.contains("credentials") && says(guard, "ip rule del pref 99"));
    world.facts("keeper").metadata_exception = MetadataException::Postgres;
    assert_eq!(guarded(&world), [""; 0]);
    for (host, exception) in [
        ("keeper", MetadataException::Other),
        ("node1", MetadataException::Postgres),
        ("node1", MetadataException::Other),
    ] {
        let before = world.facts(host).metadata_exception;
        world.facts(host).metadata_exception = exception;
        assert_eq!(guarded(&world), [host]);
        world.facts(host).metadata_exception = before;
    }
}
