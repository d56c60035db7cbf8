//! Members of etcd that leave.

use super::{
    membership::{ONE_ETCD, THREE_ETCD, refused, under},
    world::{FIVE, SHARED, World, says, step},
};
use crate::{
    inventory::HostName,
    plan::{Action, Plan, retire::Departures, tests::model::before_and_after},
    services::etcd::LEAVES,
};

/// That they leave is agreed to; of a host without the role nobody asks who listens on its ports.
fn leaving(world: &mut World, hosts: &[&str]) {
    for facts in world.found.facts.values_mut() {
        let unit = "etcd.service";
        facts
            .listeners
            .retain(|it| it.unit != unit || hosts.is_empty());
    }
    world.found.leaving = Departures::Agreed(hosts.iter().map(|it| HostName::new(*it)).collect());
}

fn names(plan: &Plan) -> Vec<String> {
    let steps = plan.steps.iter();
    let steps = steps.filter(|it| ["remove-etcd-member", "retire-etcd"].contains(&it.name));
    steps.map(|it| format!("{} {}", it.host, it.name)).collect()
}

#[test]
fn etcd_shrinks_from_three_to_one_once_every_patroni_knows() {
    let mut world = under(SHARED, ONE_ETCD);
    assert!(refused(&world).contains("pgherd up --remove db2"));
    leaving(&mut world, &["db2"]);
    assert!(refused(&world).contains("db3 still has the role etcd"));
    leaving(&mut world, &["db2", "db3"]);
    let plan = world.plan();
    insta::assert_snapshot!(plan.membership.join("\n"), @r"
    etcd shrinks from 3 to 1 member, one at a time; writes go on
      db2 leaves: etcd needs 2 of 3 members to remove it, and 2 of 2 members afterwards
      db3 leaves: etcd needs 2 of 2 members to remove it, and 1 of 1 member afterwards
      with 1 member, none may fail
      all of etcd's data on db2 is deleted (/var/lib/etcd/pgherd-pg)
      all of etcd's data on db3 is deleted (/var/lib/etcd/pgherd-pg)
    ");
    assert_eq!(
        names(&plan),
        [
            "db2 remove-etcd-member",
            "db2 retire-etcd",
            "db3 remove-etcd-member",
            "db3 retire-etcd"
        ]
    );
    let first = plan
        .steps
        .iter()
        .position(|it| it.name == "remove-etcd-member")
        .unwrap();
    let (before, _) = before_and_after(&plan, first);
    for host in ["db1", "db2", "db3"] {
        let told = plan
            .steps
            .iter()
            .position(|it| it.host.as_str() == host && it.name == "restart-patroni-alone");
        assert!(before.contains(&told.unwrap()), "{host}");
    }
    let id = "id of db2".to_owned();
    assert_eq!(plan.steps[first].action, Action::RemoveEtcdMember { id });
    let before = before_and_after(&plan, first).0;
    let ends = plan.steps.iter().position(|it| it.name == "let-etcd-end");
    assert!(before.contains(&ends.unwrap()), "{before:?}");
    assert!(says(step(&plan, "db2", "let-etcd-end"), "Restart=no"));
    let retire = step(&plan, "db2", "retire-etcd");
    assert!(says(retire, "zz-pgherd-leaves.conf"));
    assert!(says(retire, "systemctl disable --quiet --now etcd"));
    assert!(says(retire, "remove_tree /var/lib/etcd/pgherd-pg"));
    assert!(says(retire, "give_back /etc/default/etcd"));
    assert!(!says(retire, "give_back /etc/patroni.yml"));
    assert!(!says(retire, "give_back /etc/hosts"));
    // Removed from the list by a run that was cut off, and still there.
    let mut world = under(SHARED, ONE_ETCD);
    leaving(&mut world, &["db2", "db3"]);
    world.found.stores.retain(|host, _| host.as_str() == "db1");
    for view in world.found.stores.values_mut() {
        view.members.retain(|it| it.name != "db2");
    }
    assert_eq!(
        names(&world.plan()),
        [
            "db3 remove-etcd-member",
            "db3 retire-etcd",
            "db2 retire-etcd"
        ]
    );
}

/// A run that was cut off has told its unit not to start it again, and the inventory has it after all.
#[test]
fn a_member_that_stays_after_all_is_started_again_when_it_ends() {
    let mut world = World::settled(SHARED);
    let mark = world.file("db2", "/etc/default/etcd").clone();
    world.facts("db2").files.insert(LEAVES.into(), mark);
    let plan = world.plan();
    assert_eq!(world.steps(), ["db2 let-etcd-restart []"]);
    assert!(says(
        &plan.steps[0],
        "rm -f /run/systemd/system/etcd.service.d/zz-pgherd-leaves.conf"
    ));
    world.facts("db2").files.remove(LEAVES);
    assert_eq!(world.steps(), [""; 0]);
}

/// Hosts that leave as a whole are cleared elsewhere; the members that stay remove them.
#[test]
fn a_host_that_leaves_is_removed_by_those_that_stay() {
    let mut world = under(THREE_ETCD, FIVE);
    leaving(&mut world, &["node5", "node6"]);
    world
        .found
        .stores
        .retain(|host, _| host.as_str() == "node4");
    assert_eq!(
        names(&world.plan()),
        ["node5 remove-etcd-member", "node6 remove-etcd-member"]
    );
    // Another host takes the place of one of them, which nobody can find any more.
    let moved = THREE_ETCD.replace("node6:", "node7:");
    let mut world = under(THREE_ETCD, &moved);
    leaving(&mut world, &["node6"]);
    world.found.facts.remove(&HostName::new("node6"));
    world.found.stores.remove(&HostName::new("node6"));
    let plan = world.plan();
    let at = |name: &str| plan.steps.iter().position(|it| it.name == name).unwrap();
    assert!(at("remove-etcd-member") < at("add-etcd-member"));
    let join = step(&plan, "node7", "join-etcd");
    assert!(!says(join, "node6="));
}

#[test]
fn a_member_that_moves_to_another_host_joins_there_first() {
    let moved = SHARED
        .replace(
            "db3:  { roles: [postgres, etcd]",
            "db3:  { roles: [postgres]",
        )
        .replace("door: { roles: [haproxy]", "door: { roles: [haproxy, etcd]");
    let mut world = under(SHARED, &moved);
    leaving(&mut world, &["db3"]);
    let plan = world.plan();
    let at = |name: &str| plan.steps.iter().position(|it| it.name == name).unwrap();
    assert!(at("promote-etcd-member") < at("remove-etcd-member"));
    assert!(says(
        step(&plan, "door", "join-etcd"),
        "db3=https://db3:2380"
    ));
}

#[test]
fn members_stay_where_no_majority_would_be_left() {
    // The only one, to a host that nobody has told of it.
    let mut world = under(FIVE, &FIVE.replace("node4:", "node5:"));
    leaving(&mut world, &["node4"]);
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: etcd has 1 member (node4), and none of them would stay
      why: a store without members is lost; a new one is begun by members that have its data
      left: nothing was touched
      hint: go by way of three: keep node4 in the inventory with the role etcd, add two others, and run `pgherd up`; then take node4 and another one out
    ");
    let mut world = under(SHARED, ONE_ETCD);
    leaving(&mut world, &["db2", "db3"]);
    world.found.dcs = None;
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: etcd has 3 members, and to remove db2, db3 it needs 2 of them, and then 1 of 1 that stay (db1); of those 1 answers now
      why: without a majority etcd decides nothing, also not who is a member
      left: nothing was touched
      hint: start etcd on db1 first, and run the same again
    ");
}
