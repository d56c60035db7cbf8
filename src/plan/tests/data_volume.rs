//! Data volumes: mounted before anything is written where the database belongs, and read before anything is
//! decided.

use super::world::{FIVE, World};
use crate::{
    facts::{DataMount, Disk, Disks},
    inventory::{HostName, Role},
    plan::{self, Action, Plan},
    render,
};

const VOLUME: &str = "vol-0a1b2c3d";

/// The databases have data volumes, on disks with these facts.
fn with_volumes(mut world: World, disks: &Disks) -> World {
    for node in world.cluster.nodes.values_mut() {
        if node.roles.contains(&Role::Postgres) {
            node.data_volume = Some(VOLUME.to_owned());
            let facts = world.found.facts.get_mut(&node.name).unwrap();
            facts.disks = disks.clone();
        }
    }
    world.files = render::render(&world.cluster, world.templates).unwrap();
    world
}

fn disk(blank: bool) -> Disks {
    let disk = Disk {
        device: "/dev/nvme1n1".into(),
        blank,
        bytes: Some(100 << 30),
    };
    Disks {
        found: [(VOLUME.to_owned(), disk)].into(),
        ..Disks::default()
    }
}

fn mounted(device: &str, at_boot: bool) -> Disks {
    Disks {
        data_mount: Some(DataMount {
            device: device.to_owned(),
            at_boot,
            bytes: Some(100 << 30),
        }),
        ..disk(false)
    }
}

/// The steps of one host, by name.
fn names<'a>(plan: &'a Plan, host: &str) -> Vec<&'a str> {
    let steps = plan.steps.iter().filter(|step| step.host.as_str() == host);
    steps.map(|step| step.name).collect()
}

#[test]
fn a_blank_volume_is_mounted_before_the_database_is_made() {
    let plan = with_volumes(World::bare(FIVE), &disk(true)).plan();
    assert!(!plan.partial && !plan.mounts);
    let on_node1 = |name: &str| {
        let mut steps = plan.steps.iter();
        steps.position(|step| step.name == name && step.host.as_str() == "node1")
    };
    let at = |name: &str| on_node1(name).unwrap_or_else(|| panic!("no {name}"));
    let (packages, mount) = (at("install-packages"), at("mount-data"));
    assert_eq!(plan.steps[mount].after, [packages]);
    assert!(plan.steps[at("configure-patroni")].after.contains(&mount));
    let Action::Run(script) = &plan.steps[mount].action else {
        panic!("it runs a script");
    };
    assert!(script.contains("VOLUME=vol-0a1b2c3d\nMOUNT_POINT=/data\nDATA_DIR=/data/patroni\n"));
    let Action::Run(script) = &plan.steps[at("configure-patroni")].action else {
        panic!("it runs a script");
    };
    assert!(script.contains("mountpoint -q /data || "));
    assert!(!names(&plan, "node4").contains(&"mount-data"));
    assert!(!names(&plan, "haproxy").contains(&"mount-data"));
}

/// What is on a volume decides whether the cluster begins anew.
#[test]
fn a_volume_that_may_have_a_database_is_read_before_anything_is_planned() {
    for disks in [disk(false), Disks::default()] {
        let plan = with_volumes(World::bare(FIVE), &disks).plan();
        assert!(plan.partial && plan.mounts);
        let steps = names(&plan, "node1");
        assert_eq!(steps.last(), Some(&"mount-data"), "{steps:?}");
        assert!(!steps.contains(&"configure-patroni"), "{steps:?}");
        assert_eq!(names(&plan, "node4"), ["prepare", "install-packages"]);
    }
    // The host that came anew, beside others that run.
    let mut world = with_volumes(World::settled(FIVE), &mounted("/dev/nvme1n1", true));
    world.made_anew("node3");
    world.facts("node3").disks = disk(false);
    let plan = world.plan();
    assert!(plan.partial && plan.mounts);
    assert_eq!(names(&plan, "node1"), [""; 0]);
    assert!(names(&plan, "node3").ends_with(&["mount-data"]));
}

#[test]
fn a_mounted_volume_needs_nothing() {
    let world = with_volumes(World::settled(FIVE), &mounted("/dev/nvme1n1", true));
    let plan = world.plan();
    let others = plan.steps.iter().map(|step| step.name);
    let others: Vec<&str> = others.filter(|name| *name == "mount-data").collect();
    assert_eq!(others, [""; 0]);
    let told = plan.unchanged.iter().any(|it| it.name == "mount-data");
    assert!(told);
    let mut grown = mounted("/dev/nvme1n1", true);
    grown.found.get_mut(VOLUME).unwrap().bytes = Some(200 << 30);
    let not_at_boot = mounted("/dev/nvme1n1", false);
    for disks in [not_at_boot, mounted("/dev/sdb", true), grown] {
        let plan = with_volumes(World::settled(FIVE), &disks).plan();
        assert!(!plan.partial);
        assert!(names(&plan, "node1").contains(&"mount-data"), "{disks:?}");
    }
}

#[test]
fn patroni_does_not_start_without_its_disk() {
    let world = with_volumes(World::bare(FIVE), &disk(true));
    let unit = |world: &World, host: &str| {
        let files = &world.files[&HostName::new(host)];
        let mut units = files.iter();
        let unit = units.find(|it| it.path.ends_with("/patroni.service"));
        unit.map(|it| String::clone(&it.content)).unwrap()
    };
    let with = unit(&world, "node1");
    assert!(with.contains("\nRequiresMountsFor=\"/data/patroni\"\n# Without its disk"));
    assert!(with.contains("\nAssertPathIsMountPoint=/data\n"), "{with}");
    let without = unit(&World::bare(FIVE), "node1");
    assert!(!without.contains("AssertPathIsMountPoint"));
}

/// A host gets its disk as soon as it answers, while others still boot.
#[test]
fn a_new_host_mounts_its_disk_before_the_others_answer() {
    let mut world = with_volumes(World::bare(FIVE), &disk(true));
    let node1 = HostName::new("node1");
    world.found.facts.retain(|host, _| *host == node1);
    let plan = plan::ahead(&world.cluster, &world.files, &world.found, &node1).unwrap();
    assert!(names(&plan, "node1").contains(&"mount-data"));
}
