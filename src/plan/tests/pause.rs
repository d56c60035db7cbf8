//! Paused clusters.

use serde_json::{Value, json};

use super::world::{FIVE, World, told};

fn paused(value: Value) -> World {
    let mut world = World::settled(FIVE);
    world.dcs().config.as_mut().unwrap()["pause"] = value;
    world
}

/// The error of a verb with this plan, as lines; empty if the plan is allowed.
fn refusal(world: &World) -> String {
    let refused = world.plan().refuse_while_paused(&world.cluster.inventory);
    refused.err().map_or_else(String::new, |error| told(&error))
}

#[test]
fn a_pause_is_what_patroni_takes_for_one() {
    for (value, is) in [
        (json!(true), true),
        (json!("on"), true),
        (json!(1), true),
        (json!(false), false),
        (json!(null), false),
        (json!(0), false),
        (json!(""), false),
    ] {
        assert_eq!(paused(value.clone()).plan().paused, is, "{value}");
    }
    let mut world = World::settled(FIVE);
    assert!(!world.plan().paused, "no such key");
    // Without etcd, the members' answers count; with it, its present content.
    world.found.paused = true;
    assert!(!world.plan().paused);
    world.found.dcs = None;
    assert!(world.plan().paused);
}

#[test]
fn while_paused_nothing_touches_patroni() {
    type Case = (&'static str, fn(&mut World), &'static str);
    let cases: [Case; 8] = [
        ("nothing to do", |_| {}, ""),
        (
            "HAProxy is down",
            |world| world.stop("haproxy", "haproxy"),
            "",
        ),
        (
            "etcd's config differs",
            |world| {
                world.file("node4", "/etc/default/etcd").content = "old\n".into();
            },
            "",
        ),
        (
            "the names of hosts differ",
            |world| {
                world.file("node1", "/etc/hosts").content = "127.0.0.1 localhost\n".into();
            },
            "",
        ),
        (
            "Patroni is down",
            |world| world.stop("node2", "patroni"),
            "node2 start-patroni",
        ),
        (
            "Patroni's unit differs",
            |world| {
                world
                    .file("node3", "/etc/systemd/system/patroni.service")
                    .content = "old\n".into();
            },
            "node3 configure-patroni, node3 restart-patroni",
        ),
        (
            "another Patroni",
            |world| world.facts("node1").patroni_stamp = None,
            "node1 install-patroni",
        ),
        (
            "a setting in the DCS",
            |world| {
                world.dcs().config.as_mut().unwrap()["ttl"] = json!(31);
            },
            "node1 patch-config",
        ),
    ];
    for (what, happens, refused) in cases {
        let mut world = paused(json!(true));
        happens(&mut world);
        let said = refusal(&world);
        if refused.is_empty() {
            assert_eq!(said, "", "{what}");
        } else {
            assert!(said.contains(refused), "{what}: {said}");
            assert!(said.contains("resume it: pgherd resume"), "{said}");
            assert!(said.contains("nothing was changed"), "{said}");
        }
        world.dcs().config.as_mut().unwrap()["pause"] = json!(false);
        assert_eq!(refusal(&world), "", "{what}, resumed");
    }
}

fn lapsed(world: &mut World, hosts: &[&str]) {
    for host in hosts {
        for name in ["server.crt", "ca.crt"] {
            let path = format!("/etc/pgherd/tls/postgres/{name}");
            world.file(host, &path).content = "ended\n".into();
        }
    }
}

/// Members that do not accept each other's certificates cannot be resumed, and reading other certificates stops
/// nothing.
#[test]
fn while_paused_certificates_are_renewed() {
    let mut world = paused(json!(true));
    lapsed(&mut world, &["node1", "node2"]);
    let steps = world.steps().join("\n");
    assert!(steps.contains("node1 reload-patroni"), "{steps}");
    assert_eq!(refusal(&world), "");

    // If a reload would apply anything else too, it is refused.
    world.file("node2", "/etc/patroni.yml").content = "old\n".into();
    let said = refusal(&world);
    assert!(said.contains("node2 configure-patroni"), "{said}");
    assert!(!said.contains("node1 configure-patroni"), "{said}");
}

/// Without etcd, most of a plan exists only because the state is unknown. It is decided when the state is
/// known.
#[test]
fn while_paused_and_without_etcd_nothing_but_that_is_planned() {
    let mut world = paused(json!(true));
    lapsed(&mut world, &["node1", "node2", "node3"]);
    world.found.dcs = None;
    world.found.paused = true;
    world.found.stores.clear();
    let plan = world.plan();
    assert!(plan.partial);
    assert_eq!(refusal(&world), "");
}
