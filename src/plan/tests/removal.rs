//! `down` on hosts that somebody already had.

use super::world::{FIVE, World, says, step, steps, told};
use crate::{
    error::Result,
    facts::{Belongings, Holding, Removal, Thing},
    plan::{self, Change, Plan},
};

fn down(world: &World) -> Result<Plan> {
    plan::down(&world.cluster, &world.files, &world.found)
}

fn said(plan: &Plan, host: &str) -> Vec<String> {
    step(plan, host, "clear")
        .changes
        .iter()
        .map(|change| match change {
            Change::Other(what) => what.clone(),
            Change::Unit { unit, verb } => format!("{verb} {unit}"),
            other => panic!("{other:?} is nothing that a removal says"),
        })
        .collect()
}

#[test]
fn hosts_without_the_mark_are_left_alone() {
    let plan = down(&World::bare(FIVE)).unwrap();
    assert!(plan.is_empty());
    assert_eq!(plan.unchanged.len(), 5);
}

#[test]
fn what_up_put_there_goes_on_all_hosts_at_once() {
    let world = World::settled(FIVE);
    let plan = down(&world).unwrap();
    assert_eq!(
        steps(&plan),
        [
            "node1 clear []",
            "node2 clear []",
            "node3 clear []",
            "node4 clear []",
            "haproxy clear []"
        ]
    );
    let node1 = said(&plan, "node1");
    assert_eq!(node1[0], "disable --now patroni");
    assert_eq!(node1[1], "all data in /data/patroni is destroyed");
    assert!(node1.contains(&"/etc/patroni.yml is removed".to_owned()));
    assert!(node1.contains(&"pgherd's lines in /etc/hosts are removed".to_owned()));
    assert!(says(step(&plan, "node1", "clear"), "rm -rf /data/patroni "));
    assert!(!says(step(&plan, "node4", "clear"), "/data/patroni"));
    assert!(says(
        step(&plan, "node4", "clear"),
        "rm -rf /var/lib/etcd/pgherd-pg"
    ));
}

#[test]
fn a_hosts_own_lines_and_data_stay() {
    let mut world = World::settled(FIVE);
    world
        .file("node1", "/etc/hosts")
        .content
        .push_str("10.9.9.9 mine\n");
    world.facts("node1").data_marker = Some("of another cluster".into());
    let plan = down(&world).unwrap();
    let clear = step(&plan, "node1", "clear");
    assert!(says(clear, "10.9.9.9 mine"));
    assert!(says(clear, "127.0.0.1 localhost"));
    assert!(!says(clear, "192.0.2.4"));
    assert!(!says(clear, "/data/patroni"));
    assert!(!said(&plan, "node1").join("\n").contains("destroyed"));
}

#[test]
fn a_host_of_another_cluster_stops_it_for_all() {
    let mut world = World::settled(FIVE);
    world.file("node3", "/etc/pgherd/cluster").content = "pg\nffffffffffff\n".into();
    insta::assert_snapshot!(told(&down(&world).unwrap_err()), @r"
    node3: this host belongs to another cluster
      left: nothing was removed anywhere
    ");
}

/// The mark and the manifest are what a `down` that was cut off knows its hosts by.
#[test]
fn the_mark_goes_last_and_the_manifest_at_the_very_end() {
    let mut world = World::settled(FIVE);
    let clear = |world: &World| down(world).unwrap().steps.remove(0);
    let step = clear(&world);
    assert!(!says(&step, "give_back /etc/pgherd/cluster"));
    let in_order = "systemctl daemon-reload\nrm -f /etc/pgherd/cluster\nrmdir /etc/pgherd/tls 2>/dev/null || true\n\
                    rmdir /etc/pgherd 2>/dev/null || true\nrm -rf /run/pgherd\n";
    assert!(says(&step, in_order));
    assert!(says(
        &step,
        "! -name manifest -delete\n  rm -f /var/lib/pgherd/manifest"
    ));
    // Cut off between the two, or before a first run had marked its host.
    world.facts("node1").files.remove("/etc/pgherd/cluster");
    assert!(says(&clear(&world), "give_back /etc/patroni.yml"));
    world
        .facts("node1")
        .belongings
        .manifest
        .as_mut()
        .unwrap()
        .cluster = "ffffffffffff".into();
    let plan = down(&world).unwrap();
    assert!(plan.steps.iter().all(|step| step.host.as_str() != "node1"));
}

#[test]
fn what_was_there_before_comes_back() {
    let mut world = World::settled(FIVE);
    let facts = world.facts("haproxy");
    let cfg = "/etc/haproxy/haproxy.cfg".to_owned();
    facts.belongings.kept.insert(cfg);
    let manifest = facts.belongings.manifest.as_mut().unwrap();
    let before = ("enabled".to_owned(), "active".to_owned());
    manifest.units.insert("haproxy".into(), before);
    // Of a role that the host had once.
    manifest.files.insert("/etc/patroni.yml".into());
    facts
        .belongings
        .there
        .insert("/etc/patroni.yml".into(), Thing::File);
    let plan = down(&world).unwrap();
    let said = said(&plan, "haproxy");
    for what in [
        "/etc/haproxy/haproxy.cfg is put back as it was before",
        "haproxy is as it was before: enabled, active",
        "/etc/patroni.yml is removed",
    ] {
        assert!(said.contains(&what.to_owned()), "{said:#?}");
    }
    let clear = step(&plan, "haproxy", "clear");
    assert!(says(clear, "systemctl enable --quiet haproxy"));
    assert!(says(clear, "systemctl start --quiet haproxy"));
}

#[test]
fn a_venv_that_was_there_stays() {
    let mut world = World::settled(FIVE);
    assert!(said(&down(&world).unwrap(), "node1").contains(&"/opt/patroni is removed".to_owned()));
    let belongings = &mut world.facts("node1").belongings;
    belongings.manifest.as_mut().unwrap().trees.clear();
    let venv = Holding {
        thing: Thing::Folder,
        entries: 5,
    };
    belongings.holds.insert("patroni".into(), venv);
    let plan = down(&world).unwrap();
    assert!(said(&plan, "node1").contains(&"/opt/patroni stays: it was there before".to_owned()));
    assert!(!says(step(&plan, "node1", "clear"), "rm -rf /opt/patroni"));
}

#[test]
fn packages_that_others_need_stay_and_that_is_said() {
    let mut world = World::settled(FIVE);
    let text = "go\thaproxy\ngo\tliblua5.3-0\nstays\tpython3\tneeded by ufw\nstays\tmedia-types\tneeded by ufw\n";
    world.facts("haproxy").removal = Removal::parse(text);
    let plan = down(&world).unwrap();
    let said = said(&plan, "haproxy").join("\n");
    assert!(
        said.contains("packages are purged: haproxy, liblua5.3-0"),
        "{said}"
    );
    assert!(
        said.contains("packages stay: python3, media-types (needed by ufw)"),
        "{said}"
    );
    assert!(says(
        step(&plan, "haproxy", "clear"),
        "GO='haproxy liblua5.3-0'"
    ));

    world.facts("haproxy").removal = Removal::parse("trouble\tE: Unmet dependencies\n");
    insta::assert_snapshot!(told(&down(&world).unwrap_err()), @r"
    haproxy: apt cannot say which packages others need here
      left: nothing was removed anywhere
      hint: put the packages right first: dpkg --configure -a; apt-get --fix-broken install
    ");
}

/// A host that was taken while pgherd kept no manifest.
#[test]
fn a_host_of_an_earlier_pgherd_is_cleared_of_what_that_one_wrote() {
    let mut world = World::settled(FIVE);
    world.facts("node1").belongings = Belongings::default();
    let plan = down(&world).unwrap();
    let clear = step(&plan, "node1", "clear");
    for line in [
        "ADOPT_FILES='/etc/pgherd/cluster ",
        "give_back /etc/patroni.yml",
        "rm -rf /opt/patroni",
        "rmdir /etc/needrestart/conf.d",
    ] {
        assert!(says(clear, line), "{line}");
    }
    // Without its stamp nobody knows whose it is.
    world.facts("node1").patroni_stamp = None;
    let plan = down(&world).unwrap();
    assert!(!says(step(&plan, "node1", "clear"), "rm -rf /opt/patroni"));
}
