//! Roles that are taken off hosts which stay.

use super::{
    membership::{known, refused},
    world::{World, says, step, steps},
};
use crate::{
    inventory::{HostName, Role},
    plan::{Action, Change, Plan, retire::Departures},
};

/// Every role beside another one.
const BOTH: &str = r"
  db1:  { roles: [postgres, etcd],    address: 192.0.2.1 }
  db2:  { roles: [postgres, haproxy], address: 192.0.2.2 }
  db3:  { roles: [postgres],          address: 192.0.2.3 }
  door: { roles: [haproxy],           address: 192.0.2.4 }
";

/// Without a role on db2; on a host without a role nobody asks who listens on its ports.
fn off(role: Role) -> World {
    let mut world = World::settled(BOTH);
    let stays = match role {
        Role::Postgres => "haproxy",
        _ => "postgres",
    };
    world.wants(
        "",
        &BOTH.replace("[postgres, haproxy]", &format!("[{stays}]")),
    );
    let unit = format!("{}.service", role.unit());
    let facts = world.facts("db2");
    facts.listeners.retain(|it| it.unit != unit);
    if role == Role::Postgres {
        facts.db_roles.clear();
    }
    world
}

fn agreed(world: &mut World, host: &str) {
    world.found.leaving = Departures::Agreed([HostName::new(host)].into());
}

/// What becomes of db2 in words.
fn told(plan: &Plan) -> String {
    let changes = step(plan, "db2", "retire-roles").changes.iter();
    let lines = changes.map(|change| match change {
        Change::Other(what) => what.clone(),
        Change::Unit { unit, verb } => format!("{verb} {unit}"),
        _ => "something else".into(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_database_leaves_a_host_that_stays_with_all_that_only_it_needed() {
    let mut world = off(Role::Postgres);
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: db2 still has the role postgres, which the inventory does not give it: Patroni has it as a member
      why: a member that is not in the inventory can still become the leader, and HAProxy would have no leader
      left: nothing was touched
      hint: to take its database out of the cluster, with its copy of the data: pgherd up --remove db2; else give it the role again: db2: { roles: [postgres, haproxy] }
      hint: or remove the whole cluster, with every host that belongs to it: pgherd down
    ");
    agreed(&mut world, "db2");
    let plan = world.plan();
    assert_eq!(plan.taken_off[0].roles, [Role::Postgres]);
    assert!(!plan.taken_off[0].leads);
    insta::assert_snapshot!(told(&plan), @r"
    disable --now patroni
    all data in /data/patroni is deleted
    /opt/patroni is removed
    packages are purged that came with pgherd, and that nothing else here needs: postgresql-16, etcd-client, python3, python3-pip-whl, python3-setuptools-whl, python3-wheel-whl
    their files are removed
    ");
    let retire = step(&plan, "db2", "retire-roles");
    for line in [
        "remove_tree /data/patroni",
        "rm -f /data/patroni.pgherd",
        "rm -rf /opt/patroni /opt/patroni.old",
        "give_back /etc/patroni.yml",
        "give_back /etc/systemd/system/patroni.service",
        "rm -f /var/lib/postgresql/.pgpass-patroni",
        "KEEP=haproxy",
        "unit\tpatroni\tnot-found\tinactive",
        "file\t/etc/patroni.yml",
        "tree\t/opt/patroni",
    ] {
        assert!(says(retire, line), "{line}");
    }
    for line in [
        "/etc/haproxy/haproxy.cfg",
        "give_back /etc/hosts",
        "/etc/pgherd/cluster",
    ] {
        assert!(!says(retire, line), "{line}");
    }
    // By then no other host knows it as a database.
    let Action::Run(_) = &retire.action else {
        panic!("another action")
    };
    let door = plan
        .steps
        .iter()
        .position(|it| it.name == "configure-haproxy");
    assert!(door.is_some(), "{:?}", steps(&plan));
}

#[test]
fn a_front_door_leaves_a_host_that_stays() {
    let mut world = off(Role::Haproxy);
    assert!(refused(&world).contains("to take the role off the host: pgherd up --remove db2;"));
    agreed(&mut world, "db2");
    let plan = world.plan();
    insta::assert_snapshot!(told(&plan), @r"
    disable --now haproxy
    packages are purged that came with pgherd, and that nothing else here needs: haproxy
    their files are removed
    ");
    let retire = step(&plan, "db2", "retire-roles");
    assert!(says(retire, "give_back /etc/haproxy/haproxy.cfg"));
    assert!(!says(retire, "remove_tree /data/patroni"));
    assert!(!says(retire, "give_back /etc/patroni.yml"));
}

/// A run that was cut off while it took a role off is completed by the next one, named or not: nothing is lost by it
/// any more.
#[test]
fn what_an_earlier_run_began_to_take_off_goes() {
    let mut world = off(Role::Haproxy);
    world.stop("db2", "haproxy");
    assert!(world.plan().taken_off.is_empty(), "nobody began");
    known(
        &mut world,
        &[("db2", &[Role::Postgres, Role::Haproxy], true)],
    );
    let goes = |world: &World| world.steps_taken() == ["db2 retire-roles"];
    assert!(goes(&world), "{:?}", world.steps_taken());
    let manifest = world.facts("db2").belongings.manifest.as_mut().unwrap();
    manifest.files.remove("/etc/haproxy/haproxy.cfg");
    assert!(!goes(&world), "{:?}", world.steps_taken());
}

/// One that is named because of a role is not to lose what the inventory gives it.
#[test]
fn a_host_that_is_named_keeps_the_roles_that_it_is_given() {
    let mut world = World::settled(BOTH);
    agreed(&mut world, "db2");
    let plan = world.plan();
    assert!(plan.is_empty() && plan.taken_off.is_empty());
}
