//! Things in places that pgherd needs: named, or kept and restored.

use std::{fs, process::Command};

use super::world::{FIVE, ONE, World, claimed, says, step, told};
use crate::{
    facts::{Belongings, FileFact, Holding, MANIFEST_VERSION, OwnCluster, Thing, UnitFact},
    inventory::{HostName, Role},
    plan::Change,
    render,
};

const CFG: &str = "/etc/haproxy/haproxy.cfg";

/// Puts a file on a host that is not pgherd's.
fn somebodys(world: &mut World, host: &str, path: &str, content: &str) {
    let facts = world.facts(host);
    let fact = FileFact {
        owner: "root".into(),
        group: "root".into(),
        mode: 0o644,
        content: content.into(),
    };
    facts.files.insert(path.into(), fact);
    facts.belongings.there.insert(path.into(), Thing::File);
}

fn unit(world: &mut World, host: &str, unit: &str, active: &str, enabled: &str) {
    let fact = UnitFact {
        loaded: true,
        active: active.into(),
        enabled: enabled.into(),
        ..UnitFact::default()
    };
    world.facts(host).units.insert(unit.into(), fact);
}

fn folder(entries: usize) -> Holding {
    Holding {
        thing: Thing::Folder,
        entries,
    }
}

const EVERY_ROLE: [Role; 3] = [Role::Postgres, Role::Etcd, Role::Haproxy];

#[test]
fn every_file_that_pgherd_would_write_is_named_if_it_is_somebodys() {
    for path in render::paths(&EVERY_ROLE) {
        let mut world = World::bare(ONE);
        somebodys(&mut world, "all", path, "something = of somebody's\n");
        let said = world.refusal();
        assert!(said.starts_with(&format!("all: {path}")), "{path}: {said}");

        for thing in [Thing::Link, Thing::Folder, Thing::Special] {
            let mut world = World::bare(ONE);
            world
                .facts("all")
                .belongings
                .there
                .insert(path.into(), thing);
            assert!(world.refusal().contains(path), "{path}: {thing:?}");
        }
    }
}

#[test]
fn a_haproxy_that_serves_somebody_stops_the_run() {
    let mut world = World::bare(FIVE);
    somebodys(&mut world, "haproxy", CFG, "frontend site\n  bind *:8080\n");
    unit(&mut world, "haproxy", "haproxy", "active", "enabled");
    insta::assert_snapshot!(world.refusal(), @r"
    haproxy: /etc/haproxy/haproxy.cfg (haproxy.service is active) exists, and pgherd did not make it
      left: nothing was changed
      hint: if nobody needs it, move it away; otherwise use another host
    ");
    unit(&mut world, "haproxy", "haproxy", "inactive", "enabled");
    assert!(world.refusal().contains("(haproxy.service is enabled)"));
    unit(&mut world, "haproxy", "haproxy", "inactive", "disabled");
    assert!(
        world
            .refusal()
            .starts_with("haproxy: /etc/haproxy/haproxy.cfg exists")
    );
    // The options can name other configs.
    let mut world = World::bare(FIVE);
    let options = "/etc/default/haproxy";
    world
        .facts("haproxy")
        .belongings
        .there
        .insert(options.into(), Thing::File);
    assert!(world.refusal().contains(options));
    world
        .facts("haproxy")
        .belongings
        .defaults
        .insert(options.into());
    world.plan();
}

#[test]
fn what_a_package_came_with_is_taken_and_kept() {
    let mut world = World::bare(FIVE);
    somebodys(&mut world, "haproxy", CFG, "global\n  daemon\n");
    world
        .facts("haproxy")
        .belongings
        .defaults
        .insert(CFG.into());
    unit(&mut world, "haproxy", "haproxy", "active", "enabled");
    let plan = world.plan();
    let prepare = step(&plan, "haproxy", "prepare");
    let kept = format!("a copy of {CFG} is kept, which `down` restores");
    assert!(prepare.changes.contains(&Change::Other(kept)));
    assert!(says(prepare, "UNITS=haproxy"));
    // The package's own etcd may hold keys of somebody.
    let mut world = World::bare(FIVE);
    unit(&mut world, "node4", "etcd", "active", "enabled");
    insta::assert_snapshot!(world.refusal(), @r"
    node4: etcd.service is active, and pgherd did not start it
      left: it was not touched
      hint: if nobody needs it: systemctl disable --now etcd
    ");
}

#[test]
fn a_file_that_says_nothing_else_than_pgherds_is_taken() {
    let path = "/etc/postgresql-common/createcluster.d/pgherd.conf";
    for content in ["", "# mine\n", "create_main_cluster = false\n"] {
        let mut world = World::bare(FIVE);
        somebodys(&mut world, "node1", path, content);
        world.plan();
    }
    let mut world = World::bare(FIVE);
    somebodys(
        &mut world,
        "node1",
        path,
        "create_main_cluster = false\nport = 5444\n",
    );
    assert!(world.refusal().contains(path));
}

#[test]
fn everything_is_told_at_once() {
    let mut world = World::bare(ONE);
    for path in render::paths(&EVERY_ROLE) {
        somebodys(&mut world, "all", path, "mine\n");
    }
    let port = world.cluster.inventory.postgresql.port;
    let belongings = &mut world.facts("all").belongings;
    for what in ["patroni", "patroni-old", "etcd", "failed"] {
        belongings.holds.insert(what.into(), folder(3));
    }
    let drop_in = "/etc/systemd/system/etcd.service.d/limits.conf";
    belongings
        .unit_files
        .insert("etcd".into(), vec![drop_in.into()]);
    belongings.clusters.push(OwnCluster {
        version: "15".into(),
        name: "main".into(),
        port: Some(port),
        start: "auto".into(),
        runs: false,
    });
    belongings.held.insert("haproxy".into(), false);
    unit(&mut world, "all", "haproxy", "active", "enabled");
    unit(&mut world, "all", "patroni", "inactive", "masked");
    let said = told(&world.up().unwrap_err());
    for path in render::paths(&EVERY_ROLE) {
        assert!(said.contains(path), "{path} is not in {said}");
    }
    for what in [
        "/opt/patroni exists",
        "/opt/patroni.old exists",
        "/var/lib/etcd/pgherd-pg exists",
        "/data/patroni.failed exists",
        drop_in,
        "the cluster 15/main would start on port 5432",
        "held back and not installed: haproxy",
        "patroni.service is masked",
        "haproxy.service is active",
    ] {
        assert!(said.contains(what), "{what} is not in {said}");
    }
}

#[test]
fn a_database_of_the_distributions_tools_may_stay_where_it_is_in_nobodys_way() {
    let other = |port, start: &str, runs| OwnCluster {
        version: "15".into(),
        name: "main".into(),
        port: Some(port),
        start: start.into(),
        runs,
    };
    for (other, refused) in [
        (other(5433, "auto", true), true),
        (other(5433, "auto", false), false),
        (other(5432, "auto", false), true),
        (other(5432, "manual", false), false),
    ] {
        let mut world = World::bare(FIVE);
        world.facts("node1").belongings.clusters.push(other.clone());
        assert_eq!(world.up().is_err(), refused, "{other:?}");
        // An administrator's addition to a host that is pgherd's already is intended.
        let mut world = World::settled(FIVE);
        world.facts("node1").belongings.clusters.push(other);
        world.plan();
    }
}

#[test]
fn patronis_programs_of_somebodys_are_not_moved_away() {
    let mut world = World::bare(FIVE);
    world
        .facts("node1")
        .belongings
        .holds
        .insert("patroni".into(), folder(1));
    insta::assert_snapshot!(world.refusal(), @r"
    node1: /opt/patroni exists, and pgherd did not make it
      why: pgherd would install Patroni there
      left: it was not touched
      hint: move it away, or use the distribution's Patroni: patroni: { source: distro }
    ");
    // The stamp is pgherd's; an image may have been prepared with it.
    world.facts("node1").patroni_stamp = Some("of another version".into());
    assert!(says(
        step(&world.plan(), "node1", "install-patroni"),
        "tree\\t%s"
    ));
}

/// A role that a host gets later takes files that it did not take before.
#[test]
fn a_role_that_is_added_is_looked_at_like_a_new_host() {
    let hosts = FIVE
        .replace("roles: [etcd], ", "roles: [etcd, haproxy], ")
        .replace("  haproxy: { roles: [haproxy],  address: 192.0.2.5 }\n", "");
    let mut world = World::settled(FIVE);
    world.wants("", &hosts);
    somebodys(&mut world, "node4", CFG, "frontend site\n");
    unit(&mut world, "node4", "haproxy", "active", "enabled");
    assert!(
        world
            .refusal()
            .contains("node4: /etc/haproxy/haproxy.cfg (haproxy.service is active)")
    );
    world.facts("node4").files.remove(CFG);
    world.facts("node4").belongings.there.remove(CFG);
    unit(&mut world, "node4", "haproxy", "inactive", "disabled");
    let plan = world.plan();
    let prepare = step(&plan, "node4", "prepare");
    assert!(says(prepare, CFG) && says(prepare, "UNITS='etcd haproxy'"));
    // It is noted before the package is installed, whose own config is not restored.
    let id = plan.steps.iter().position(|step| step == prepare).unwrap();
    assert!(step(&plan, "node4", "install-packages").after.contains(&id));
}

/// Hosts that were taken before there was a manifest get one when there is something to note.
#[test]
fn a_host_of_an_earlier_pgherd_is_its_own() {
    let mut world = World::settled(FIVE);
    let all: Vec<HostName> = world.hosts();
    for host in &all {
        world.found.facts.get_mut(host).unwrap().belongings = Belongings::default();
    }
    world.plan();
    world
        .file("node1", "/etc/patroni.yml")
        .content
        .push_str("# mine\n");
    world.plan();
    world.facts("node1").patroni_stamp = None;
    world
        .facts("node1")
        .belongings
        .holds
        .insert("patroni".into(), folder(9));
    world.plan();
}

#[test]
fn a_manifest_that_is_not_understood_stops_the_run() {
    let mut world = World::settled(FIVE);
    let manifest = world.facts("node1").belongings.manifest.as_mut().unwrap();
    manifest.version = MANIFEST_VERSION + 1;
    assert!(
        world
            .refusal()
            .contains("a newer version of pgherd has worked")
    );

    let mut world = World::bare(FIVE);
    let node = &world.cluster.nodes[&HostName::new("node1")];
    let mut other = claimed(&world.cluster, node);
    other.manifest.as_mut().unwrap().cluster = "ffffffffffff".into();
    world.facts("node1").belongings = other;
    assert!(world.refusal().contains("with another cluster's id"));
}

/// Interrupted after its manifest and before its mark.
#[test]
fn what_a_run_has_noted_is_its_own() {
    let mut world = World::bare(FIVE);
    let node = &world.cluster.nodes[&HostName::new("haproxy")];
    world.facts("haproxy").belongings = claimed(&world.cluster.clone(), &node.clone());
    somebodys(&mut world, "haproxy", CFG, "global\n");
    world.plan();
}

#[test]
fn a_policy_that_a_killed_run_left_is_put_right() {
    let mut world = World::settled(FIVE);
    world.facts("node1").belongings.policy_left = true;
    let plan = world.plan();
    assert_eq!(plan.steps[0].name, "restore-policy");
    assert!(says(
        &plan.steps[0],
        "mv -f \"$policy.pgherd-saved\" \"$policy\""
    ));
    // An installation restores it itself.
    world.facts("node1").packages.remove("postgresql-16");
    let plan = world.plan();
    assert!(plan.steps.iter().all(|step| step.name != "restore-policy"));
}

/// The script that notes and keeps files, with another root.
#[test]
fn what_is_there_is_kept_once_and_before_anything_is_noted() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).display().to_string();
    let claim = include_str!("../claim.sh")
        .replace("/var/lib/pgherd", &path("state"))
        .replace("systemctl", "echo unknown; : ");
    let run = |before_the_end: &str| {
        let script = format!(
            "set -eu\nCLUSTER_ID=0a1b PATHS='{0} {1}' SOURCES='{2} {3}' UNITS=haproxy ADOPT_UNITS=etcd DATA_DIR={4} ADOPT_FILES= ADOPT_FOLDERS=\n{5}",
            path("etc/there"),
            path("etc/new/not"),
            path("etc/list"),
            path("etc/none"),
            path("srv/pg/main"),
            claim.replace(
                "mv -f \"$new\"",
                &format!("{before_the_end}\nmv -f \"$new\"")
            ),
        );
        Command::new("sh").args(["-c", &script]).output().unwrap()
    };
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(path("etc/there"), "as it was").unwrap();
    fs::write(path("etc/list"), "a source").unwrap();
    // Interrupted: nothing is noted, and nothing has been taken.
    assert!(!run("exit 1").status.success());
    assert!(!root.path().join("state/manifest").exists());
    let output = run("");
    assert!(output.status.success(), "{output:?}");
    let kept = || fs::read_to_string(root.path().join(format!("state/kept{}", path("etc/there"))));
    assert_eq!(kept().unwrap(), "as it was");
    let manifest = fs::read_to_string(path("state/manifest")).unwrap();
    let shown = manifest
        .replace(&root.path().display().to_string(), "ROOT")
        .replace('\t', " ");
    insta::assert_snapshot!(shown, @r"
    pgherd-manifest 1
    cluster 0a1b
    unit etcd  
    file ROOT/etc/there
    folder ROOT/etc/new
    file ROOT/etc/new/not
    left ROOT/etc/list
    file ROOT/etc/none
    unit haproxy unknown unknown
    folder ROOT/srv/pg
    folder ROOT/srv
    ");
    // Again, with pgherd's own file in its place: the copy is still the first one.
    fs::write(path("etc/there"), "pgherd's").unwrap();
    assert!(run("").status.success());
    assert_eq!(kept().unwrap(), "as it was");
    assert_eq!(
        fs::read_to_string(path("state/manifest")).unwrap(),
        manifest
    );
}

/// Several services of a host are set up at once.
#[test]
fn what_several_take_at_once_is_all_noted() {
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state").display().to_string();
    let claim = include_str!("../claim.sh")
        .replace("/var/lib/pgherd", &state)
        .replace("mv -f \"$new\"", "sleep 0.1\nmv -f \"$new\"");
    let names: Vec<String> = (0..5).map(|it| format!("{state}-taken/{it}")).collect();
    let runs = names.iter().map(|name| {
        let script = format!(
            "set -eu\nCLUSTER_ID=0a1b PATHS={name} SOURCES= UNITS= ADOPT_UNITS= DATA_DIR= ADOPT_FILES= ADOPT_FOLDERS=\n{claim}"
        );
        Command::new("sh").args(["-c", &script]).spawn().unwrap()
    });
    for mut run in runs.collect::<Vec<_>>() {
        assert!(run.wait().unwrap().success());
    }
    let manifest = fs::read_to_string(format!("{state}/manifest")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("file\t{name}\n")), "{manifest}");
    }
}
