//! Members that differ from the inventory: what is refused before anything is touched.

use serde_json::json;

use super::world::{FIVE, ONE, SHARED, World, bare, told};
use crate::{
    cluster::KnownHost,
    error::Kind,
    inventory::{HostName, Role},
    plan::{
        membership::{self, Witness},
        retire::Departures,
    },
    services::etcd::{Member, View},
};

/// FIVE with two more hosts of etcd.
pub(super) const THREE_ETCD: &str = r"
  node1:   { roles: [postgres], address: 192.0.2.1 }
  node2:   { roles: [postgres], address: 192.0.2.2 }
  node3:   { roles: [postgres], address: 192.0.2.3 }
  node4:   { roles: [etcd],     address: 192.0.2.4 }
  node5:   { roles: [etcd],     address: 192.0.2.6 }
  node6:   { roles: [etcd],     address: 192.0.2.7 }
  haproxy: { roles: [haproxy],  address: 192.0.2.5 }
";

/// SHARED with etcd on only one host.
pub(super) const ONE_ETCD: &str = r"
  db1:  { roles: [postgres, etcd], address: 192.0.2.1 }
  db2:  { roles: [postgres],       address: 192.0.2.2 }
  db3:  { roles: [postgres],       address: 192.0.2.3 }
  door: { roles: [haproxy],        address: 192.0.2.4 }
";

/// `hosts` without some of its lines.
fn without(hosts: &str, gone: &[&str]) -> String {
    let stays = |line: &&str| !gone.iter().any(|host| line.trim_start().starts_with(host));
    hosts
        .lines()
        .filter(stays)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The same hosts with another inventory; new ones are bare.
pub(super) fn under(hosts: &str, inventory: &str) -> World {
    let mut world = World::settled(hosts);
    world.wants("", inventory);
    for host in world.hosts() {
        world.found.facts.entry(host).or_insert_with(bare);
    }
    world
}

pub(super) fn refused(world: &World) -> String {
    let error = world.up().unwrap_err();
    assert_eq!(error.kind(), Kind::Input, "{error}");
    assert_eq!(error.left_behind(), Some("nothing was touched"), "{error}");
    told(&error)
}

pub(super) fn known(world: &mut World, hosts: &[(&str, &[Role], bool)]) {
    world.found.known = hosts
        .iter()
        .map(|(name, roles, joined)| KnownHost {
            name: HostName::new(*name),
            roles: roles.to_vec(),
            address: Some([192, 0, 2, 77].into()),
            size: None,
            joined: *joined,
        })
        .collect();
}

pub(super) fn silent(world: &mut World) {
    world.found.stores.clear();
    world.found.etcd.clear();
    world.found.dcs = None;
}

#[test]
fn etcd_from_three_to_one_is_refused() {
    insta::assert_snapshot!(refused(&under(SHARED, ONE_ETCD)), @r"
    the cluster's members are not those of the inventory
      why: db2 still has the role etcd, which the inventory does not give it: it is in etcd's list of members
      why: db3 still has the role etcd, which the inventory does not give it: it is in etcd's list of members
      why: its vote still counts in etcd's quorum
      left: nothing was touched
      hint: to take it out of etcd, with its copy of the store: pgherd up --remove db2; else give it the role again: db2: { roles: [postgres, etcd] }
      hint: to take it out of etcd, with its copy of the store: pgherd up --remove db3; else give it the role again: db3: { roles: [postgres, etcd] }
      hint: or remove the whole cluster, with every host that belongs to it: pgherd down
    ");
    let world = under(THREE_ETCD, FIVE);
    assert!(refused(&world).contains("node5 (etcd) is a member, and is not in the inventory"));
}

#[test]
fn another_host_for_the_only_etcd_is_refused() {
    let moved = FIVE.replace("node4:", "node5:");
    let mut world = under(FIVE, &moved);
    // node4's answer does not matter: it is not declared.
    silent(&mut world);
    known(&mut world, &[("node4", &[Role::Etcd], true)]);
    assert!(refused(&world).contains("node4 (etcd) is a member"));
    // For a cluster without a list, only names are known.
    known(&mut world, &[("node4", &[], false)]);
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: no declared host has data of etcd, and node4 left the inventory and may have it
      why: an etcd that starts before the others have added it makes a store of its own: Patroni follows the store that answers, two leaders take writes, and acknowledged writes are lost
      left: nothing was touched
      hint: restore the inventory: the same hosts with the role etcd
    ");
}

#[test]
fn members_of_two_stores_are_named_and_touched_by_nobody() {
    let mut world = World::settled(THREE_ETCD);
    let view = world.found.stores.get_mut(&HostName::new("node4")).unwrap();
    view.cluster_id = "the first".into();
    view.members.truncate(1);
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: etcd's members do not belong to one store: node4 belongs to the store the first with the members node4; node5 belongs to the store one store with the members node4, node5, node6; node6 belongs to the store one store with the members node4, node5, node6
      why: with more than one store there can be two leaders, and acknowledged writes can be lost
      left: nothing was touched
      hint: keep the store that the cluster began with: on the hosts of another store, run `systemctl disable --now etcd` and move its data away; then remove the role etcd from them in the inventory
    ");
}

#[test]
fn a_member_that_never_started_may_start() {
    let mut world = World::settled(THREE_ETCD);
    world.made_anew("node6");
    for view in world.found.stores.values_mut() {
        let member = view.members.last_mut().unwrap();
        member.name.clear();
        member.client_urls.clear();
    }
    world.plan();
    // A first bring-up that was interrupted before any of them answers.
    let mut world = World::bare(THREE_ETCD);
    world.facts("node4").etcd_data = true;
    known(&mut world, &[("node4", &[Role::Etcd], false)]);
    world.plan();
}

#[test]
fn the_data_of_all_etcd_hosts_can_be_lost() {
    let mut world = World::settled(FIVE);
    world.made_anew("node4");
    silent(&mut world);
    known(&mut world, &[("node4", &[Role::Etcd], true)]);
    world.plan();
    world.found.known.clear();
    world.plan();
}

#[test]
fn a_database_that_leaves_the_inventory_is_refused() {
    for (host, role) in [("node3", "replica"), ("node1", "leader")] {
        let mut world = World::settled(FIVE);
        let said = json!({"role": "replica", "state": "running", "conn_url": "postgres://192.0.2.9:5432/postgres"});
        for value in world.dcs().members.values_mut() {
            *value = said.clone();
        }
        world.wants("", &without(FIVE, &[host]));
        let said = refused(&world);
        assert!(
            said.contains(&format!("{host} (postgres) is a member")),
            "{said}"
        );
        assert!(
            said.contains(&format!("Patroni has it as {role} (running)")),
            "{said}"
        );
        if host == "node3" {
            insta::assert_snapshot!(said, @r"
            the cluster's members are not those of the inventory
              why: node3 (postgres) is a member, and is not in the inventory: Patroni has it as replica (running)
              why: a member that is not in the inventory can still become the leader, and HAProxy would have no leader
              left: nothing was touched
              hint: to take it out for good, with its data: pgherd up --remove node3; else put it back into the inventory: node3: { roles: [postgres], address: 192.0.2.9 }
              hint: or remove the whole cluster, with every host that belongs to it: pgherd down
            ");
        }
    }
    // A member that is switched off has no key, and may start again later.
    let mut world = World::settled(FIVE);
    world.dcs().members.remove("node3");
    world.wants("", &without(FIVE, &["node3"]));
    known(&mut world, &[("node3", &[Role::Postgres], true)]);
    assert!(refused(&world).contains("take node3 out of members.json"));
}

#[test]
fn a_haproxy_may_take_the_place_of_another() {
    let mut world = under(FIVE, &FIVE.replace("haproxy:", "door:"));
    known(&mut world, &[("haproxy", &[Role::Haproxy], true)]);
    world.plan();
    let left = membership::left(&world.cluster.inventory, &world.found, &[]);
    insta::assert_snapshot!(left[0], @"haproxy (haproxy) belongs to the cluster, and is not in the inventory: an earlier run had it");
}

#[test]
fn a_name_that_never_became_a_member_is_only_told_of() {
    let mut world = World::bare(FIVE);
    known(&mut world, &[("noed1", &[Role::Postgres], false)]);
    world.plan();
    let labelled = [HostName::new("noed1")];
    let left = membership::left(&world.cluster.inventory, &world.found, &labelled);
    assert_eq!(left[0].seen_by, [Witness::Workspace, Witness::Label]);
    assert!(!left[0].member);
}

#[test]
fn a_role_that_is_taken_off_is_refused() {
    let all = |roles: &str| ONE.replace("postgres, etcd, haproxy", roles);
    for (roles, gone) in [
        ("etcd, haproxy", "postgres"),
        ("postgres, haproxy", "etcd"),
        ("postgres, etcd", "haproxy"),
    ] {
        let other = format!("\n  other: {{ roles: [{gone}], address: 192.0.2.2 }}");
        let mut world = under(ONE, &format!("{}{other}", all(roles)));
        silent(&mut world);
        let said = refused(&world);
        let named = format!("all still has the role {gone}, which the inventory does not give it");
        assert!(said.contains(&named), "{said}");
    }
    // A member that does not run and has no data is gone.
    let other = "\n  other: { roles: [haproxy], address: 192.0.2.2 }";
    let mut world = under(ONE, &format!("{}{other}", all("postgres, etcd")));
    world.stop("all", "haproxy");
    world.plan();
    // A host that cannot be reached is assumed unchanged.
    let mut world = under(
        SHARED,
        &SHARED.replace("db3:  { roles: [postgres, etcd]", "db3:  { roles: [etcd]"),
    );
    world.dcs().members.remove("db3");
    world.found.facts.remove(&HostName::new("db3"));
    world.plan();
    known(&mut world, &[("db3", &[Role::Postgres, Role::Etcd], true)]);
    assert!(refused(&world).contains("cannot be reached"));
}

/// Another HAProxy, etcd or PostgreSQL on a host is not a role of the host.
#[test]
fn what_others_run_on_a_host_is_not_a_role() {
    let mut world = World::settled(FIVE);
    let mine = world.found.facts[&HostName::new("haproxy")].units["haproxy"].clone();
    world.facts("node4").units.insert("haproxy".into(), mine);
    let data = world.found.facts[&HostName::new("node1")].data.clone();
    world.facts("node4").data = data;
    world.plan();
}

#[test]
fn databases_come_and_hosts_are_made_anew_as_before() {
    let more = format!("{FIVE}  node5: {{ roles: [postgres], address: 192.0.2.6 }}\n");
    under(FIVE, &more).plan();
    // A role that a member has not had before is a database that is added.
    let also = FIVE.replace(
        "node4:   { roles: [etcd],",
        "node4: { roles: [etcd, postgres],",
    );
    under(FIVE, &also).plan();
    for host in ["node1", "node3", "node4", "haproxy"] {
        let mut world = World::settled(FIVE);
        let all = [
            ("node1", Role::Postgres),
            ("node3", Role::Postgres),
            ("node4", Role::Etcd),
            ("haproxy", Role::Haproxy),
        ];
        let all: Vec<(&str, Vec<Role>)> = all.map(|(host, role)| (host, vec![role])).into();
        let all: Vec<(&str, &[Role], bool)> = all
            .iter()
            .map(|(host, roles)| (*host, roles.as_slice(), true))
            .collect();
        known(&mut world, &all);
        world.made_anew(host);
        world.plan();
    }
    let mut world = World::settled(SHARED);
    world.moves(&[
        ("db1", "192.0.2.101"),
        ("db2", "192.0.2.102"),
        ("db3", "192.0.2.103"),
    ]);
    world.plan();
}

/// A first bring-up that failed reserves no name for later ones; an existing cluster does.
#[test]
fn the_list_calls_members_only_those_that_are() {
    let joined = |world: &World, ended_well| -> Vec<String> {
        membership::remembered(&world.cluster, &world.found, ended_well)
            .into_iter()
            .filter(|known| known.joined)
            .map(|known| known.name.to_string())
            .collect()
    };
    let mut bare_world = World::bare(FIVE);
    assert_eq!(joined(&bare_world, false), [""; 0]);
    bare_world.facts("node4").etcd_data = true;
    assert_eq!(joined(&bare_world, false), [""; 0]);
    let all = ["node1", "node2", "node3", "node4", "haproxy"];
    assert_eq!(joined(&bare_world, true), all);
    // Of a cluster that an earlier version made.
    let more = format!("{FIVE}  node5: {{ roles: [postgres], address: 192.0.2.6 }}\n");
    let mut world = under(FIVE, &more);
    assert_eq!(joined(&world, false), all);
    // New roles count when they exist, and hosts that left are kept.
    known(
        &mut world,
        &[
            ("node4", &[Role::Etcd], true),
            ("gone", &[Role::Postgres], false),
        ],
    );
    world.wants(
        "",
        &more.replace(
            "node4:   { roles: [etcd],",
            "node4: { roles: [etcd, postgres],",
        ),
    );
    let list = membership::remembered(&world.cluster, &world.found, false);
    let node4 = list
        .iter()
        .find(|known| known.name.as_str() == "node4")
        .unwrap();
    assert_eq!(node4.roles, [Role::Etcd]);
    // Cut off again, it is a member still, with those roles.
    assert!(node4.joined);
    assert!(list.iter().any(|known| known.name.as_str() == "gone"));
}

/// The command that took a role off one host and removes another is known again while that one's machine goes.
#[test]
fn the_list_keeps_a_role_that_is_given_up_until_the_command_has_ended() {
    let mut world = World::settled(FIVE);
    known(
        &mut world,
        &[("node1", &[Role::Etcd, Role::Postgres], true)],
    );
    let roles = |world: &World| {
        let list = membership::remembered(&world.cluster, &world.found, true);
        let node1 = list.iter().find(|known| known.name.as_str() == "node1");
        node1.unwrap().roles.clone()
    };
    assert_eq!(roles(&world), [Role::Postgres]);
    world.found.leaving = Departures::Agreed([HostName::new("node1")].into());
    assert_eq!(roles(&world), [Role::Postgres, Role::Etcd]);
}

#[test]
fn a_member_that_never_started_is_known_by_its_url() {
    let mut world = World::settled(FIVE);
    let view = world.found.stores.get_mut(&HostName::new("node4")).unwrap();
    view.members.push(Member {
        id: "new".into(),
        name: String::new(),
        peer_urls: vec!["https://node9:2380".into()],
        client_urls: Vec::new(),
        is_learner: false,
    });
    let View { members, .. } = view;
    assert_eq!(members.len(), 2);
    assert!(refused(&world).contains("node9 (etcd) is a member"));
}
