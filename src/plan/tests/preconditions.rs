//! What stops a run: each state stops it, and the error names the state.

use super::world::{FIVE, ONE, World, told};
use crate::{
    error::Kind,
    facts::{DataFact, Listener},
    inventory::HostName,
};

fn foreign_data(world: &mut World) {
    world.facts("node2").data = Some(DataFact {
        owner: "postgres".into(),
        entries: 23,
        version: Some(15),
        system_id: Some("123".into()),
        control: true,
        bases: 3,
        ..DataFact::default()
    });
}

fn listener(world: &mut World, port: u16, unit: &str) {
    world.facts("node1").listeners.push(Listener {
        port,
        pid: Some(812),
        process: "postgres".into(),
        unit: unit.into(),
    });
}

#[test]
fn a_host_of_another_cluster_is_not_taken_over() {
    // As long as those that pgherd makes.
    const OTHER: &str = "ffffffffffffffffffffffffffffffff";
    let mut world = World::settled(FIVE);
    world.file("node3", "/etc/pgherd/cluster").content = format!("pg\n{OTHER}\n").into();
    // Its consequences are not reported beside it.
    world.facts("node3").data_marker = Some(OTHER.into());
    let error = world.up().unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.excerpts()[0].text.contains(OTHER));
    insta::assert_snapshot!(told(&error), @r"
    node3: this host belongs to another cluster
      why: this inventory's cluster has the id 0a1b2c3d4e5f
      hint: if it is the same cluster, its .pgherd folder is in another place: copy it beside this inventory
      hint: if that cluster is gone, run `pgherd -i FILE down` with its inventory, or use another host
    ");
}

#[test]
fn data_that_pgherd_did_not_make_is_not_touched() {
    let mut world = World::bare(FIVE);
    foreign_data(&mut world);
    insta::assert_snapshot!(world.refusal(), @r"
    node2: /data/patroni holds a PostgreSQL 15 database (system 123)
      why: pgherd did not make it for this cluster
      left: it was not touched
      hint: save it elsewhere and empty the folder, or set postgresql.data_dir to another
    ");
    world.facts("node2").data_marker = Some("of another cluster".into());
    assert!(world.refusal().contains("did not make it"));

    let mut world = World::bare(FIVE);
    world.facts("node2").data = Some(DataFact {
        entries: 1,
        ..DataFact::default()
    });
    assert!(
        world
            .refusal()
            .starts_with("node2: /data/patroni is not empty (1 entry)")
    );
    // An empty folder, such as a mount point, is fine.
    world.facts("node2").data = Some(DataFact::default());
    world.plan();
}

#[test]
fn a_foreign_process_on_one_of_the_ports_is_named_once() {
    let mut world = World::bare(FIVE);
    listener(&mut world, 5432, "postgresql@16-main.service");
    listener(&mut world, 5432, "postgresql@16-main.service");
    insta::assert_snapshot!(world.refusal(), @r"
    node1: port 5432 is taken by postgres (pid 812, postgresql@16-main.service)
      hint: stop it and keep it from starting, or choose another port in the inventory
    ");

    let mut world = World::settled(FIVE);
    listener(&mut world, 8008, "squatter.service");
    assert!(world.refusal().contains("port 8008 is taken by postgres"));

    // Patroni's own PostgreSQL is fine on a host of this cluster, and an error elsewhere.
    let mut world = World::settled(FIVE);
    listener(&mut world, 8008, "patroni.service");
    world.plan();
    let mut world = World::bare(FIVE);
    listener(&mut world, 8008, "patroni.service");
    assert!(world.refusal().contains("port 8008 is taken"));
}

#[test]
fn keys_of_an_earlier_cluster_in_etcd_stop_the_run() {
    let mut world = World::settled(FIVE);
    for host in ["node1", "node2", "node3"] {
        world.stop(host, "patroni");
        world.facts(host).data = None;
    }
    insta::assert_snapshot!(world.refusal(), @r"
    etcd remembers a cluster that no host has (system 7506492390881896645)
      why: the key /db/pg/initialize is from an earlier cluster; while it exists, no member bootstraps
      left: nothing was changed
      hint: if its data is lost for good, forget it: etcdctl del --prefix /db/pg/
    ");
}

/// Its data is there; only the program that would read its identifier is missing.
#[test]
fn a_database_whose_package_is_gone_is_not_taken_for_lost() {
    let mut world = World::settled(ONE);
    world.stop("all", "patroni");
    let facts = world.facts("all");
    facts.packages.remove("postgresql-16");
    facts.data.as_mut().unwrap().system_id = None;
    assert_eq!(world.steps()[0], "all install-packages []");
}

#[test]
fn data_of_another_system_than_etcd_knows_stops_the_run() {
    let mut world = World::settled(FIVE);
    world.facts("node3").data.as_mut().unwrap().system_id = Some("99".into());
    insta::assert_snapshot!(world.refusal(), @r"
    not all data directories belong to the cluster that etcd knows (system 7506492390881896645)
      why: node3 has system 99
      left: nothing was changed
      hint: find out which database is the right one; move the other data directory away, and run `pgherd up` again
    ");
}

#[test]
fn another_major_version_than_the_datas_is_bad_input() {
    let mut world = World::settled(ONE);
    world.facts("all").data.as_mut().unwrap().version = Some(15);
    assert_eq!(world.up().unwrap_err().kind(), Kind::Input);
    insta::assert_snapshot!(world.refusal(), @r"
    all: /data/patroni holds a PostgreSQL 15 database (system 7506492390881896645)
      why: the inventory asks for PostgreSQL 16
      left: it was not touched
      hint: set postgresql.version to 15; or upgrade the cluster: pgherd upgrade --to 16
    ");
}

#[test]
fn hosts_with_different_majors_make_no_cluster() {
    let mut world = World::bare(FIVE);
    let node = world.cluster.nodes.get_mut(&HostName::new("node3"));
    node.unwrap().postgresql = Some(15);
    assert_eq!(world.up().unwrap_err().kind(), Kind::Input);
    insta::assert_snapshot!(world.refusal(), @r"
    the hosts' distributions have different major versions of PostgreSQL
      why: node1: 16, node2: 16, node3: 15
      hint: name one with postgresql.version, or use hosts of one distribution
    ");
}

#[test]
fn systems_that_nobody_has_tried_are_refused() {
    let mut world = World::bare(FIVE);
    let facts = world.facts("node4");
    facts.systemd = false;
    facts.os.id = "alpine".into();
    facts.os.pretty = "Alpine Linux v3.22".into();
    insta::assert_snapshot!(world.refusal(), @r"
    pgherd cannot take over the hosts as they are
    node4: this host does not run systemd
      hint: pgherd needs a host with systemd, such as Ubuntu 24.04 or Debian 12 or 13
    node4: unsupported distribution: Alpine Linux v3.22
      hint: Debian 12 and 13 and Ubuntu 24.04 are
    ");
}

#[test]
fn all_that_stops_a_run_is_told_at_once_by_host() {
    let mut world = World::bare(FIVE);
    foreign_data(&mut world);
    listener(&mut world, 5432, "");
    let error = world.up().unwrap_err();
    let hosts: Vec<&str> = error
        .failures()
        .iter()
        .filter_map(|failure| failure.host())
        .map(HostName::as_str)
        .collect();
    assert_eq!(hosts, ["node1", "node2"]);
    assert!(told(&error).contains("port 5432 is taken by postgres (pid 812)"));
}

#[test]
fn an_edited_block_names_its_host_and_file() {
    let mut world = World::settled(FIVE);
    let file = world.file("node3", "/etc/hosts");
    file.content = file.content.replace("# pgherd: end pg\n", "").into();
    insta::assert_snapshot!(world.refusal(), @r"
    node3: the marker on line 2 has no end after it
      why: it is in /etc/hosts
      left: the file was not touched
      hint: somebody has edited pgherd's block: delete what is left of it, markers too
    ");
}
