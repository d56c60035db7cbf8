//! Hosts that are not those that the inventory means.

use super::world::{FIVE, World, bare, told};
use crate::{
    cluster::KnownHost,
    error::Kind,
    inventory::{HostName, Role},
    plan::{self, Elsewhere, membership},
};

fn refused(world: &World) -> String {
    let error = plan::whose(&world.cluster, &world.found.facts).unwrap_err();
    assert_eq!(error.kind(), Kind::Input, "{error}");
    assert_eq!(error.left_behind(), Some("nothing was touched"), "{error}");
    told(&error)
}

#[test]
fn a_cluster_is_not_renamed() {
    let mut world = World::settled(FIVE);
    plan::whose(&world.cluster, &world.found.facts).unwrap();
    let id = world.cluster.secrets.cluster_id.clone();
    world.file("node2", "/etc/pgherd/cluster").content = format!("before\n{id}\n").into();
    let said = refused(&world);
    assert!(
        said.contains("know this cluster as before, and the inventory calls it pg"),
        "{said}"
    );
    assert!(said.contains("cluster: before"), "{said}");
    // Another cluster's mark is reported elsewhere, with what to do about it.
    world.file("node2", "/etc/pgherd/cluster").content = "before\nffffffffffff\n".into();
    plan::whose(&world.cluster, &world.found.facts).unwrap();
}

#[test]
fn one_host_under_two_names_is_refused() {
    let mut world = World::settled(FIVE);
    world.facts("node1").system = Some("a boot, a namespace".into());
    world.facts("node2").system = Some("a boot, another".into());
    plan::whose(&world.cluster, &world.found.facts).unwrap();
    world.facts("node3").system = Some("a boot, a namespace".into());
    let said = refused(&world);
    assert!(said.contains("node1 and node3 are the same host"), "{said}");
}

#[test]
fn a_database_is_not_left_behind_for_another_folder() {
    let mut world = World::settled(FIVE);
    let id = world.cluster.secrets.cluster_id.clone();
    world.facts("node1").data_elsewhere = Some(("/srv/old".into(), "another cluster's".into()));
    plan::whose(&world.cluster, &world.found.facts).unwrap();
    world.facts("node1").data_elsewhere = Some(("/srv/old".into(), id));
    let said = refused(&world);
    assert!(
        said.contains("node1: the cluster's data is in /srv/old"),
        "{said}"
    );
    assert!(said.contains("data_dir: /srv/old"), "{said}");
}

/// A host of the inventory has the address of a new one, and the one before may be at work.
fn replaced(host: &str) -> World {
    let mut world = World::settled(FIVE);
    world.found.known = vec![KnownHost {
        name: HostName::new(host),
        roles: vec![Role::Postgres],
        address: Some([192, 0, 2, 77].into()),
        size: None,
        joined: true,
    }];
    world
}

#[test]
fn a_new_host_does_not_take_the_place_of_one_that_is_at_work() {
    let mut world = replaced("node2");
    let at = [192, 0, 2, 77].into();
    let former = |world: &World| membership::former(&world.cluster, &world.found);
    assert_eq!(former(&world), [], "it is the same host, which has moved");
    *world.facts("node2") = bare();
    assert_eq!(former(&world), [(HostName::new("node2"), at)]);
    // The host was created anew, and nothing answers at its old address.
    assert!(membership::findings(&world.cluster, &world.found).is_empty());
    let still = Elsewhere {
        address: at,
        ports: vec![2379, 8008],
    };
    world.found.elsewhere.insert(HostName::new("node2"), still);
    let error = world.up().unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    let said = told(&error);
    assert!(
        said.contains("node2 is a new host at 192.0.2.2, and the old one still answers at 192.0.2.77 (port 2379, 8008)"),
        "{said}"
    );
    assert!(said.contains("left: nothing was touched"), "{said}");
}

#[test]
fn patroni_knows_where_a_host_was_that_no_list_has() {
    let mut world = replaced("node1");
    world.found.known.clear();
    *world.facts("node2") = bare();
    let url = serde_json::json!({"conn_url": "postgres://192.0.2.78:5432/postgres"});
    world.dcs().members.insert("node2".into(), url);
    let at = [192, 0, 2, 78].into();
    assert_eq!(
        membership::former(&world.cluster, &world.found),
        [(HostName::new("node2"), at)]
    );
    // If another host of the inventory is there now, that host answers.
    let url = serde_json::json!({"conn_url": "postgres://192.0.2.3:5432/postgres"});
    world.dcs().members.insert("node2".into(), url);
    assert_eq!(membership::former(&world.cluster, &world.found), []);
}
