//! The cluster's address: keepalived comes with it and goes with it, and no front door keeps it that leaves.

use std::collections::BTreeMap;

use super::{
    membership::{known, refused},
    world::{FIVE, World, claimed, says, step, steps},
};
use crate::{
    cluster::Node,
    inventory::{HostName, Role},
    plan::{
        membership,
        retire::{self, Becomes, Leaver, ShrinkingCluster},
    },
};

#[test]
fn keepalived_comes_with_the_address_and_goes_with_the_cluster() {
    let doors = format!("{FIVE}  door2: {{ roles: [haproxy], address: 192.0.2.6 }}\n");
    let mut world = World::bare(&doors);
    world.wants("haproxy: { vip: 192.0.2.100 }", &doors);
    let plan = world.plan();
    for door in ["haproxy", "door2"] {
        let step = |name| step(&plan, door, name);
        assert!(says(
            step("configure-keepalived"),
            "/etc/keepalived/keepalived.conf"
        ));
        assert!(says(
            step("start-keepalived"),
            "systemctl start --no-block keepalived"
        ));
        assert!(!step("await-keepalived").after.is_empty());
    }
    let of_others = plan
        .steps
        .iter()
        .filter(|it| it.units.contains(&"keepalived"));
    assert!(
        of_others
            .clone()
            .all(|it| ["haproxy", "door2"].contains(&it.host.as_str()))
    );
}

/// A cluster whose front doors have an address.
fn with_vip(doors: &str) -> World {
    let mut world = World::settled(doors);
    world.wants("haproxy: { vip: 192.0.2.100 }", doors);
    let nodes: Vec<Node> = world.cluster.with_role(Role::Haproxy).cloned().collect();
    for node in nodes {
        let host = &node.name;
        let haproxy = world.unit(host.as_str(), "haproxy").clone();
        let files = world.files[host].clone();
        let claimed = claimed(&world.cluster, &node);
        let facts = world.facts(host.as_str());
        facts.belongings = claimed;
        facts.units.insert("keepalived".into(), haproxy);
        for file in files {
            world.put(host, &file.path);
        }
    }
    world
}

/// Nobody has a vote or data by it: it goes without being named, and the plan says what clients feel.
#[test]
fn the_address_is_given_up_when_the_inventory_has_it_no_more() {
    let doors = format!("{FIVE}  door2: {{ roles: [haproxy], address: 192.0.2.6 }}\n");
    let mut world = with_vip(&doors);
    world.wants("", &doors);
    let plan = world.plan();
    insta::assert_snapshot!(plan.membership.join("\n"), @r"
    192.0.2.100 is given up, for haproxy.vip is not in the inventory any more (haproxy, door2)
      clients that connect to it are refused: they need the addresses of the front doors
    ");
    assert!(plan.taken_off.is_empty(), "nobody needs to name a host");
    for door in ["haproxy", "door2"] {
        let retire = step(&plan, door, "retire-roles");
        assert!(says(retire, "systemctl disable --quiet --now keepalived"));
        assert!(says(retire, "give_back /etc/keepalived/keepalived.conf"));
        assert!(says(retire, "KEEP=haproxy"));
        assert!(!says(retire, "haproxy.cfg"));
    }
    // While it is there, the cluster is not as declared.
    let told = membership::findings(&world.cluster, &world.found);
    assert!(told[0].what.contains("still has the role keepalived"));
    assert!(told[0].instead.contains("pgherd up"));
}

/// Its keepalived, which the others tell nothing any more, would have the address beside another one.
#[test]
fn a_front_door_that_leaves_must_be_named_and_gives_the_address_over_first() {
    let all = format!(
        "{FIVE}  door2: {{ roles: [haproxy], address: 192.0.2.6 }}\n  \
         door3: {{ roles: [haproxy], address: 192.0.2.7 }}\n"
    );
    let mut world = with_vip(&all);
    let leaver = |becomes, roles: &[Role]| Leaver {
        host: HostName::new("door3"),
        roles: roles.to_vec(),
        answers: true,
        becomes,
    };
    let planned = |world: &World, leaver: Leaver| {
        let plan = retire::plan(&ShrinkingCluster {
            cluster: &world.cluster,
            found: &world.found,
            survey: &BTreeMap::new(),
            leaving: &[leaver],
        });
        steps(&plan.unwrap())
    };
    let retired = ["door3 retire-keepalived []"];
    let both = [Role::Haproxy, Role::Keepalived];
    assert_eq!(planned(&world, leaver(Becomes::Gone, &both)), retired);
    let given_up = leaver(Becomes::Less, &[Role::Haproxy]);
    assert_eq!(planned(&world, given_up), retired);
    let stays = leaver(Becomes::Less, &[Role::Etcd]);
    assert_eq!(planned(&world, stays), [""; 0]);
    let keepalived = world.unit("door3", "keepalived");
    keepalived.active = "inactive".into();
    keepalived.enabled = "disabled".into();
    assert_eq!(planned(&world, leaver(Becomes::Gone, &both)), [""; 0]);

    let left = all.replace("  door3", "#");
    world.wants("haproxy: { vip: 192.0.2.100 }", &left);
    world.found.facts.remove(&HostName::new("door3"));
    known(&mut world, &[("door3", &both, true)]);
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: door3 (haproxy, keepalived) is a member, and is not in the inventory: it was there when the last run ended
      why: clients may still use haproxy.vip, and no run would update the service that holds it
      left: nothing was touched
      hint: to take it out for good: pgherd up --remove door3; else put it back into the inventory: door3: { roles: [haproxy], address: 192.0.2.77 } (only if its host will never start again: take door3 out of members.json in the workspace)
      hint: or remove the whole cluster, with every host that belongs to it: pgherd down
    ");
    // Without such an address, another front door may take its place.
    world.wants("", &left);
    let told = membership::undeclared(&world.cluster, &world.found);
    assert!(!told.iter().any(|it| it.what.contains("door3")));
}
