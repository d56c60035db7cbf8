//! `down` on existing hosts.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::world::{FIVE, World, says, step, steps, told};
use crate::{
    error::Result,
    facts::{Belongings, Holding, Removal, Thing, UnitFact},
    plan::{self, Change, Plan, down as removal},
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
    assert_eq!(node1[1], "all data in /data/patroni is deleted");
    assert!(node1.contains(&"/etc/patroni.yml is removed".to_owned()));
    assert!(node1.contains(&"pgherd's lines in /etc/hosts are removed".to_owned()));
    assert!(says(
        step(&plan, "node1", "clear"),
        "remove_tree /data/patroni\n"
    ));
    assert!(says(
        step(&plan, "node1", "clear"),
        "rm -f /var/lib/postgresql/.pgpass-patroni\n"
    ));
    assert!(!says(step(&plan, "node4", "clear"), "/data/patroni"));
    assert!(says(
        step(&plan, "node4", "clear"),
        "remove_tree /var/lib/etcd/pgherd-pg"
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

/// An interrupted `down` recognises its hosts by the mark and the manifest.
#[test]
fn the_mark_goes_last_and_the_manifest_at_the_very_end() {
    let mut world = World::settled(FIVE);
    let clear = |world: &World| down(world).unwrap().steps.remove(0);
    let step = clear(&world);
    assert!(!says(&step, "give_back /etc/pgherd/cluster"));
    let in_order = "systemctl daemon-reload\nrm -f /etc/pgherd/cluster\nrmdir /etc/pgherd/tls 2>/dev/null || true\n\
                    rmdir /etc/pgherd 2>/dev/null || true\nrm -rf /run/pgherd /run/pgherd-clone\n";
    assert!(says(&step, in_order));
    assert!(says(
        &step,
        "! -name manifest -delete\n  rm -f /var/lib/pgherd/manifest"
    ));
    // Interrupted between the two, or before a first run had marked its host.
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
        "/etc/haproxy/haproxy.cfg is restored as it was before",
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
    haproxy: apt cannot say which packages are needed by others here
      left: nothing was removed anywhere
      hint: repair the packages first: dpkg --configure -a; apt-get --fix-broken install
    ");
}

/// A host that was taken before pgherd kept a manifest.
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
    // Without its stamp, nobody knows whose it is.
    world.facts("node1").patroni_stamp = None;
    let plan = down(&world).unwrap();
    assert!(!says(step(&plan, "node1", "clear"), "rm -rf /opt/patroni"));
}

/// HAProxy's own host gives its role to node4, where another HAProxy serves.
fn with_haproxy_on_node4() -> World {
    let hosts = FIVE
        .replace("roles: [etcd], ", "roles: [etcd, haproxy], ")
        .replace("  haproxy: { roles: [haproxy],  address: 192.0.2.5 }\n", "");
    let mut world = World::settled(FIVE);
    world.wants("", &hosts);
    let cfg = "/etc/haproxy/haproxy.cfg";
    let somebodys = crate::facts::FileFact {
        content: "frontend site\n  bind *:8080\n".into(),
        ..world.facts("node4").files["/etc/default/etcd"].clone()
    };
    let facts = world.facts("node4");
    facts.files.insert(cfg.into(), somebodys);
    facts.belongings.there.insert(cfg.into(), Thing::File);
    let serves = UnitFact {
        loaded: true,
        active: "active".into(),
        enabled: "enabled".into(),
        ..UnitFact::default()
    };
    facts.units.insert("haproxy".into(), serves);
    world
}

#[test]
fn a_role_that_pgherd_never_took_is_left_alone_by_the_removal() {
    for manifest in [true, false] {
        let mut world = with_haproxy_on_node4();
        if !manifest {
            world.facts("node4").belongings.manifest = None;
        }
        assert!(
            world
                .refusal()
                .contains("/etc/haproxy/haproxy.cfg (haproxy.service is active)"),
            "manifest: {manifest}"
        );
        let plan = down(&world).unwrap();
        let clear = step(&plan, "node4", "clear");
        assert!(says(clear, "systemctl disable --quiet --now etcd"));
        for line in [
            "--now haproxy",
            "stop haproxy",
            "give_back /etc/haproxy/haproxy.cfg",
        ] {
            assert!(!says(clear, line), "manifest: {manifest}: {line}");
        }
    }
    // An etcd of an earlier cluster of this name, beside pgherd's HAProxy.
    let hosts = FIVE
        .replace("roles: [etcd], ", "roles: [postgres], ")
        .replace("roles: [haproxy],  ", "roles: [etcd, haproxy], ");
    let mut world = World::settled(FIVE);
    world.wants("", &hosts);
    let plan = down(&world).unwrap();
    let clear = step(&plan, "haproxy", "clear");
    assert!(says(clear, "--now haproxy") && !says(clear, "remove_tree /var/lib/etcd"));
}

/// What state an earlier version of pgherd found the units in is unknown; it is not the state that pgherd gave
/// them.
#[test]
fn the_units_of_an_earlier_pgherd_have_no_state_to_come_back_to() {
    let mut world = World::settled(FIVE);
    world.facts("node4").belongings.manifest = None;
    let plan = down(&world).unwrap();
    let clear = step(&plan, "node4", "clear");
    assert!(says(clear, "UNITS=''\nADOPT_UNITS=etcd\n"));
}

/// Runs a part of the script in its own folder.
fn sh(text: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-euc", text]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_data_directory_that_is_a_link_goes_with_what_it_leads_to() {
    let root = tempfile::tempdir().unwrap();
    let (real, link) = (root.path().join("real"), root.path().join("link"));
    fs::create_dir_all(real.join("base/1")).unwrap();
    fs::write(real.join("base/1/data"), "rows").unwrap();
    symlink(&real, &link).unwrap();
    let remove = |path: &std::path::Path| {
        sh(&format!(
            "{}\nremove_tree {}",
            removal::REMOVE_TREE,
            path.display()
        ))
    };
    assert!(remove(&link).0);
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
    assert!(link.is_symlink(), "somebody made it");
    // A missing folder is fine, and so is an existing one.
    assert!(remove(&link).0);
    fs::write(real.join("file"), "").unwrap();
    assert!(remove(&real).0 && !real.exists());
}

#[test]
fn the_removal_waits_for_what_an_earlier_run_still_does() {
    let root = tempfile::tempdir().unwrap();
    let waits = removal::OTHER_STEPS.replace("/run/pgherd", &root.path().display().to_string());
    let install = root.path().join("install-packages.lock");
    fs::write(root.path().join("clear.lock"), "").unwrap();
    fs::write(&install, "").unwrap();
    let (well, said) = sh(&waits);
    assert!(well && said.is_empty(), "{said}");
    let done = root.path().join("done");
    let mut busy = Command::new("flock")
        .arg(&install)
        .args([
            "sh",
            "-c",
            &format!("echo begun; sleep 1; touch {}", done.display()),
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0; 6];
    std::io::Read::read_exact(busy.stdout.as_mut().unwrap(), &mut begun).unwrap();
    let (well, said) = sh(&waits);
    assert!(well && said.contains("install-packages.lock"), "{said}");
    assert!(done.exists(), "it did not wait");
    busy.wait().unwrap();
}

/// A role that is in the inventory and never got to the host is not pgherd's there.
#[test]
fn what_a_role_would_have_taken_stays() {
    let mut world = World::settled(FIVE);
    world.wants(
        "",
        "\n  node1: { roles: [postgres, haproxy, etcd], address: 192.0.2.1 }",
    );
    for unit in ["haproxy", "etcd"] {
        let runs = crate::facts::UnitFact {
            loaded: true,
            active: "active".into(),
            ..Default::default()
        };
        world.facts("node1").units.insert(unit.into(), runs);
    }
    let plan = down(&world).unwrap();
    let said = said(&plan, "node1").join("\n");
    assert!(said.contains("disable --now patroni"), "{said}");
    for unit in ["haproxy", "etcd"] {
        assert!(!said.contains(&format!("disable --now {unit}")), "{said}");
    }
    let clear = step(&plan, "node1", "clear");
    assert!(
        !says(clear, "disable --quiet --now haproxy") && !says(clear, "remove_tree /var/lib/etcd")
    );
}

/// A role that was removed only from the inventory is still pgherd's on the host.
#[test]
fn a_role_that_was_taken_off_goes_too() {
    let mut world = World::settled(FIVE);
    let hosts = FIVE.replace("node4:   { roles: [etcd],", "node4:   { roles: [haproxy],");
    world.wants(
        "",
        &hosts.replace("haproxy: { roles: [haproxy]", "haproxy: { roles: [etcd]"),
    );
    let plan = down(&world).unwrap();
    let said = said(&plan, "node4");
    assert!(said.contains(&"disable --now etcd".to_owned()), "{said:?}");
    assert!(says(
        step(&plan, "node4", "clear"),
        "remove_tree /var/lib/etcd/pgherd-pg"
    ));
    assert!(!says(
        step(&plan, "haproxy", "clear"),
        "remove_tree /var/lib/etcd/pgherd-pg"
    ));
}

#[test]
fn what_the_database_kept_elsewhere_is_named() {
    let mut world = World::settled(FIVE);
    world
        .facts("node1")
        .data_outside
        .insert("/ssd/orders".into());
    let plan = down(&world).unwrap();
    let said = said(&plan, "node1").join("\n");
    assert!(said.contains("/ssd/orders stays"), "{said}");
    assert_eq!(plan::stays(&world.found.facts[&world.hosts()[0]]).len(), 1);
}
