//! PgBouncer: it comes with its section, with what it needs in the databases, and both go with it.

use super::world::{FIVE, World, claimed, role, says, step};
use crate::{cluster::Node, inventory::Role, plan::membership, secret::Secret};

const POOLED: &str = "pgbouncer: {}\npostgresql: { users: { shop: }, databases: { shop: } }\n";

#[test]
fn it_comes_with_its_section_and_waits_for_no_database() {
    let mut world = World::bare(FIVE);
    world.wants(POOLED, FIVE);
    let plan = world.plan();
    let configure = step(&plan, "haproxy", "configure-pgbouncer");
    for path in [
        "/etc/pgbouncer/pgbouncer.ini",
        "/etc/pgbouncer/userlist.txt",
        "/etc/pgherd/tls/pgbouncer/server.key",
    ] {
        assert!(says(configure, path), "{path}");
    }
    let installs = step(&plan, "haproxy", "install-packages");
    assert!(says(installs, "pgbouncer"));
    assert!(!step(&plan, "haproxy", "await-pgbouncer").after.is_empty());
    let mut waits = configure.after.clone();
    while let Some(id) = waits.pop() {
        assert_eq!(plan.steps[id].host.as_str(), "haproxy");
        waits.extend(&plan.steps[id].after);
    }
    // A database is a copy of one that has the function.
    let of = |name: &str| plan.steps.iter().position(|it| it.name == name).unwrap();
    assert!(
        plan.steps[of("ensure-databases")]
            .after
            .contains(&of("ensure-pooler"))
    );
    let ensure = &plan.steps[of("ensure-pooler")];
    assert!(says(ensure, "create role \"pgherd_pooler\""));
    assert!(says(ensure, "pg_database where datallowconn"));
    assert!(!says(ensure, "poolers3cr"), "no password is in a statement");
}

/// A cluster with a pooler that lacks nothing.
fn settled() -> World {
    let mut world = World::settled(FIVE);
    world.wants(POOLED, FIVE);
    let nodes: Vec<Node> = world.cluster.with_role(Role::Pgbouncer).cloned().collect();
    for node in nodes {
        let host = &node.name;
        let haproxy = world.unit(host.as_str(), "haproxy").clone();
        let files = world.files[host].clone();
        let claimed = claimed(&world.cluster, &node);
        let facts = world.facts(host.as_str());
        facts.belongings = claimed;
        facts.units.insert("pgbouncer".into(), haproxy);
        facts.packages.insert("pgbouncer".into(), "1".into());
        for file in files {
            world.put(host, &file.path);
        }
    }
    let shop = Secret::new("shop-s3cret");
    let others: Vec<_> = world.hosts();
    for host in others {
        let files = world.files[&host].clone();
        for file in files {
            world.put(&host, &file.path);
        }
    }
    world
        .cluster
        .secrets
        .users
        .insert("shop".into(), shop.clone());
    let own = world.cluster.secrets.pooler.clone().unwrap();
    for host in ["node1", "node2", "node3"] {
        let facts = world.facts(host);
        facts.db_roles.insert("shop".into(), role("shop", &shop));
        let mut pooler = role("pgherd_pooler", &own);
        pooler.replication = false;
        facts.db_roles.insert("pgherd_pooler".into(), pooler);
        facts.databases.insert("shop".into(), "shop".into());
    }
    world
}

#[test]
fn what_it_needs_in_the_databases_is_corrected() {
    let mut world = settled();
    assert_eq!(world.steps(), [""; 0]);
    for host in ["node1", "node2", "node3"] {
        world.facts(host).no_lookup.insert("shop".into());
    }
    assert_eq!(world.steps(), ["node1 ensure-pooler []"]);
    let plan = world.plan();
    assert_eq!(
        plan.steps[0].why,
        "the database shop has no function by which PgBouncer finds users"
    );
    let mut world = settled();
    for host in ["node1", "node2", "node3"] {
        let role = world.facts(host).db_roles.get_mut("pgherd_pooler");
        role.unwrap().superuser = true;
    }
    assert_eq!(world.steps(), ["node1 ensure-pooler []"]);
}

/// The database first: until it has the new password, the pooler's works. Sessions with the old one end last.
#[test]
fn a_new_password_is_in_the_database_before_a_pooler_has_it() {
    let mut world = settled();
    world.cluster.secrets.pooler = Some(Secret::new("another"));
    world.files = crate::render::render(&world.cluster, world.templates).unwrap();
    let plan = world.plan();
    let of = |name: &str| plan.steps.iter().position(|it| it.name == name).unwrap();
    let order = [
        "ensure-pooler",
        "configure-pgbouncer",
        "reload-pgbouncer",
        "end-sessions",
    ];
    for pair in order.windows(2) {
        let (before, after) = (of(pair[0]), of(pair[1]));
        assert!(plan.steps[after].after.contains(&before), "{pair:?}");
    }
    assert!(says(&plan.steps[of("ensure-pooler")], "old-sessions"));
}

#[test]
fn all_of_it_goes_when_the_section_does() {
    let mut world = settled();
    world.wants(&POOLED.replace("pgbouncer: {}", ""), FIVE);
    let password = Secret::new("shop-s3cret");
    world.cluster.secrets.users.insert("shop".into(), password);
    let plan = world.plan();
    insta::assert_snapshot!(plan.membership.join("\n"), @r"
    PgBouncer is given up, for pgbouncer is not in the inventory any more (haproxy)
      clients that connect to it are refused: HAProxy's ports lead to the same databases
    ");
    let retire = step(&plan, "haproxy", "retire-roles");
    assert!(says(retire, "systemctl disable --quiet --now pgbouncer"));
    assert!(says(retire, "give_back /etc/pgbouncer/pgbouncer.ini"));
    assert!(says(retire, "KEEP=haproxy"));
    let last = plan.steps.last().unwrap();
    assert_eq!((last.host.as_str(), last.name), ("node1", "remove-pooler"));
    assert!(says(last, "drop role if exists pgherd_pooler"));
    assert_eq!(plan.steps[last.after[0]].name, "retire-roles");
    let told = membership::findings(&world.cluster, &world.found);
    assert!(told[0].what.contains("still has the role pgbouncer"));
}
