//! Metrics: they come with their section or role, with what PostgreSQL's need in the database, and all go with it.

use super::world::{FIVE, World, claimed, give_folder, listen, role, says, step};
use crate::{
    cluster::Node,
    facts::DbRole,
    inventory::{HostName, Role},
    plan::membership,
    secret::Secret,
};

const WATCHED: &str = "monitoring: { allow: [198.51.100.0/24] }\n";

const DOOR: &str = "/etc/systemd/system/prometheus-exporter-exporter.service.d/pgherd.conf";

type Spoil = fn(&mut DbRole);

/// A file as it is rendered.
fn file(world: &World, host: &str, path: &str) -> String {
    let mut files = world.files[&HostName::new(host)].iter();
    let found = files.find(|file| file.path == path).unwrap();
    found.content.to_string()
}

#[test]
fn every_host_gets_what_its_roles_have_to_show() {
    let mut world = World::bare(FIVE);
    world.wants(WATCHED, FIVE);
    let plan = world.plan();
    for host in ["node1", "node4", "haproxy"] {
        let installs = step(&plan, host, "install-packages");
        assert!(says(installs, "prometheus-exporter-exporter"), "{host}");
        assert!(says(installs, "prometheus-node-exporter"), "{host}");
        assert_eq!(
            says(installs, "prometheus-postgres-exporter"),
            host == "node1"
        );
        step(&plan, host, "await-metrics");
    }
    let door = step(&plan, "node1", "configure-prometheus-exporter-exporter");
    assert!(says(door, "/etc/pgherd/tls/metrics/server.key"));
    assert!(file(&world, "node1", DOOR).contains("-allow.net=198.51.100.0/24"));
    let ensure = step(&plan, "node1", "ensure-monitor");
    assert!(says(ensure, "grant pg_monitor to pgherd_monitor"));
    assert!(says(ensure, "password null"));
    let patroni = file(&world, "node1", "/etc/patroni.yml");
    assert!(patroni.contains("pgherd prometheus pgherd_monitor"));
}

#[test]
fn a_host_with_the_role_has_all_targets_and_whom_to_tell() {
    let hosts = format!("{FIVE}\n  watch: {{ roles: [monitoring], address: 192.0.2.9 }}");
    let mut world = World::bare(&hosts);
    world.wants("", &hosts);
    let plan = world.plan();
    let prometheus = step(&plan, "watch", "configure-prometheus");
    assert!(says(prometheus, "promtool check rules"));
    let targets = file(&world, "watch", "/etc/pgherd/monitoring/targets.yml");
    assert!(targets.contains("192.0.2.1:9998") && targets.contains("192.0.2.9:9998"));
    let alerts = file(&world, "watch", "/etc/pgherd/monitoring/alerts.yml");
    assert_eq!(alerts, include_str!("../../../alerts/pgherd.yml"));
    step(&plan, "watch", "configure-prometheus-alertmanager");
    step(&plan, "watch", "await-prometheus");
    assert!(file(&world, "node1", DOOR).contains("-allow.net=192.0.2.9/32"));
}

/// A cluster with metrics that lacks nothing.
fn settled() -> World {
    let mut world = World::settled(FIVE);
    world.wants(WATCHED, FIVE);
    let nodes: Vec<Node> = world.cluster.nodes.values().cloned().collect();
    for node in nodes {
        let host = &node.name;
        let files = world.files[host].clone();
        let claimed = claimed(&world.cluster, &node);
        let inventory = world.cluster.inventory.clone();
        let facts = world.facts(host.as_str());
        facts.belongings = claimed;
        let like = facts.units.values().next().unwrap().clone();
        for role in &node.roles {
            let service = role.service();
            facts.units.insert(role.unit().into(), like.clone());
            for package in service.packages.iter().filter(|_| service.watches) {
                facts.packages.insert(package.name.into(), "1".into());
            }
            if service.watches {
                give_folder(service, facts);
                listen(&inventory, *role, facts);
            }
        }
        if node.roles.contains(&Role::Postgres) {
            let monitor = DbRole {
                replication: false,
                verifier: None,
                member_of: ["pg_monitor".to_owned()].into(),
                ..role("pgherd_monitor", &Secret::new("none"))
            };
            facts.db_roles.insert("pgherd_monitor".into(), monitor);
        }
        for file in files {
            world.put(host, &file.path);
        }
    }
    world
}

#[test]
fn what_the_role_lacks_or_has_too_much_is_corrected() {
    let mut world = settled();
    assert_eq!(world.steps(), [""; 0]);
    let wrong: [(Spoil, &str); 4] = [
        (
            |it| it.superuser = true,
            "pgherd_monitor may do more than look at the database",
        ),
        (|it| it.login = false, "pgherd_monitor cannot log in"),
        (
            |it| it.member_of.clear(),
            "pgherd_monitor may not look at everything",
        ),
        (
            |it| it.verifier = Some(Secret::new("SCRAM")),
            "pgherd_monitor has a password",
        ),
    ];
    for (spoil, why) in wrong {
        let mut world = settled();
        for host in ["node1", "node2", "node3"] {
            spoil(
                world
                    .facts(host)
                    .db_roles
                    .get_mut("pgherd_monitor")
                    .unwrap(),
            );
        }
        assert_eq!(world.steps(), ["node1 ensure-monitor []"], "{why}");
        assert_eq!(world.plan().steps[0].why, why);
        let told = crate::plan::roles_not_right(&world.cluster, &world.found);
        assert_eq!(told, [why]);
    }
    world.facts("node1").db_roles.remove("pgherd_monitor");
    assert_eq!(world.plan().steps[0].why, "there is no role pgherd_monitor");
}

#[test]
fn all_of_it_goes_when_the_section_does() {
    let mut world = settled();
    world.wants("", FIVE);
    // A look asks about the ports of the inventory only.
    for facts in world.found.facts.values_mut() {
        let exporter = |unit: &str| unit.starts_with("prometheus-");
        facts.listeners.retain(|it| !exporter(&it.unit));
    }
    let plan = world.plan();
    let retire = step(&plan, "node1", "retire-roles");
    for unit in [
        "prometheus-node-exporter",
        "prometheus-postgres-exporter",
        "prometheus-exporter-exporter",
    ] {
        assert!(
            says(retire, &format!("systemctl disable --quiet --now {unit}")),
            "{unit}"
        );
    }
    let last = plan.steps.last().unwrap();
    assert_eq!((last.host.as_str(), last.name), ("node1", "remove-monitor"));
    assert!(says(last, "drop role if exists pgherd_monitor"));
    let told = membership::findings(&world.cluster, &world.found);
    assert!(
        told.iter()
            .any(|it| it.what.contains("still has the role metrics"))
    );
}
