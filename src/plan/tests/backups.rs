//! Backups come, stay, and go only by name.

use std::process::Command;

use super::world::{FIVE, World, says, step};
use crate::{
    contract::{ARCHIVING, BACKUPS},
    inventory::{HostName, Place, Role},
    plan::{self, backups},
};

fn hosts() -> String {
    format!("{FIVE}  keeper: {{ roles: [backup], address: 192.0.2.6 }}\n")
}

#[test]
fn the_repository_begins_once_a_leader_takes_writes_and_nobody_waits_for_it() {
    let plan = World::bare(&hosts()).plan();
    let begins = step(&plan, "keeper", "create-stanza");
    assert!(plan.begins_repository());
    assert!(says(begins, "stanza-create") && says(begins, "start --no-block pgherd-backup@full"));
    let names: Vec<String> = begins
        .after
        .iter()
        .map(|id| format!("{} {}", plan.steps[*id].host, plan.steps[*id].name))
        .collect();
    for needed in [
        "node1 await-leader",
        "node1 start-pgherd-archive",
        "node3 start-pgherd-archive",
        "keeper start-pgherd-backup",
    ] {
        assert!(names.contains(&needed.to_owned()), "{needed}: {names:?}");
    }
    assert!(
        !names.iter().any(|name| name.contains("await-replica")),
        "{names:?}"
    );
    let id = plan.steps.iter().position(|it| it.name == "create-stanza");
    assert!(plan.steps.iter().all(|it| !it.after.contains(&id.unwrap())));
    assert!(says(step(&plan, "node2", "install-packages"), "pgbackrest"));
}

#[test]
fn a_repository_that_gets_wal_is_left_alone_and_one_that_does_not_begins_again() {
    let mut world = World::settled(&hosts());
    assert_eq!(world.steps(), [""; 0]);
    assert!(!world.plan().begins_repository());
    world.facts("keeper").needs.folders.remove(ARCHIVING);
    assert_eq!(world.steps(), ["keeper create-stanza []"]);
}

/// Archiving begins with a restart of each member, the leader last.
#[test]
fn backups_of_a_running_cluster_are_an_ordinary_plan() {
    let mut world = World::settled(FIVE);
    world.wants("", &hosts());
    let keeper = world.cluster.nodes.keys().last().unwrap().clone();
    world.found.facts.insert(keeper, super::world::bare());
    let plan = world.plan();
    let restart = plan
        .steps
        .iter()
        .position(|it| it.name == "restart-pending");
    let begins = step(&plan, "keeper", "create-stanza");
    assert!(begins.after.contains(&restart.unwrap()));
}

#[test]
fn backups_stay_on_a_host_unless_they_are_named() {
    let mut world = World::settled(&hosts());
    let down = |world: &World| plan::down(&world.cluster, &world.files, &world.found).unwrap();
    let plan = down(&world);
    let clear = step(&plan, "keeper", "clear");
    let removed = format!("remove_tree {BACKUPS}");
    assert!(!says(clear, &removed));
    let stays = format!("{BACKUPS} stays, with all backups in it");
    assert!(format!("{:?}", clear.changes).contains(&stays));
    world.found.without_backups = true;
    let plan = down(&world);
    assert!(says(step(&plan, "keeper", "clear"), &removed));
    // Somebody else's folder stays in any case.
    let manifest = world.facts("keeper").belongings.manifest.as_mut();
    manifest.unwrap().trees.clear();
    assert!(!says(step(&down(&world), "keeper", "clear"), &removed));
}

#[test]
fn only_hosts_of_databases_archive() {
    let cluster = World::settled(&hosts()).cluster;
    let archives = cluster
        .with_role(Role::Archive)
        .map(|it| it.name.to_string());
    assert_eq!(archives.collect::<Vec<_>>(), ["node1", "node2", "node3"]);
}

/// What `create-stanza` starts, where these markers are left, the newest last, and these places have a full backup.
fn begun(places: &str, archiving: &str, left: &[&str], full: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let left = left
        .iter()
        .map(|name| format!("mkdir -p $base/{name}; touch -d @$((n += 9)) $base/{name}\n"));
    let script = format!(
        r#"set -eu
base=$PWD n=0
{}systemctl() {{ case $1 in start) echo "$3" ;; *) false ;; esac; }}
install() {{ mkdir -p "$base/{archiving}"; }}
setpriv() {{
  case "$*" in
    *--repo=1*info) repo=disk ;;
    *--repo=2*info) repo=bucket ;;
    *info) repo=$PLACES ;;
    *) return 0 ;;
  esac
  case " {} " in *" $repo "*) echo '"label":"20260101-000000F"' ;; esac
}}
CONFIG=c STANZA=s ARCHIVING=$base/{archiving} PLACES='{places}'
BUCKET=${{ARCHIVING##*/.archiving?}}
{}
ls -A "$base""#,
        left.collect::<String>(),
        full.join(" "),
        backups::BEGIN
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_place_that_is_added_begins_and_the_other_one_goes_on() {
    let (both, disk, bucket) = (".archiving+s3", ".archiving", ".archiving-s3");
    for (places, archiving, left, full, expected) in [
        (
            "disk",
            disk,
            &[][..],
            &[][..],
            "pgherd-backup@full .archiving",
        ),
        ("disk", disk, &[], &["disk"], ".archiving"),
        (
            "disk bucket",
            both,
            &[],
            &[],
            "pgherd-backup@full .archiving+s3",
        ),
        (
            "disk bucket",
            both,
            &[disk],
            &["disk"],
            "pgherd-backup@full-bucket .archiving+s3",
        ),
        (
            "disk bucket",
            both,
            &[bucket],
            &["bucket"],
            "pgherd-backup@full-disk .archiving+s3",
        ),
        // Interrupted while the first backup of the bucket was made.
        (
            "disk bucket",
            both,
            &[],
            &["disk"],
            "pgherd-backup@full-bucket .archiving+s3",
        ),
        // Out of two places.
        ("disk", disk, &[both], &["disk"], ".archiving"),
        ("bucket", bucket, &[both], &["bucket"], ".archiving-s3"),
        // What an older place has is not continued.
        (
            "disk bucket",
            both,
            &[disk, bucket],
            &["disk", "bucket"],
            "pgherd-backup@full-disk .archiving+s3",
        ),
        (
            "bucket",
            bucket,
            &[".archiving-other"],
            &["bucket"],
            "pgherd-backup@full .archiving-s3",
        ),
    ] {
        assert_eq!(
            begun(places, archiving, left, full),
            expected,
            "{places} {left:?}"
        );
    }
}

#[test]
fn a_second_place_is_an_ordinary_plan() {
    const BOTH: &str = "backup: { s3: { bucket: backups, region: eu-central-1 }, disk: true }";
    let mut world = World::settled(&hosts());
    world.wants(BOTH, &hosts());
    let plan = world.plan();
    let begins = step(&plan, "keeper", "create-stanza");
    assert!(says(begins, "PLACES='disk bucket'"));
    assert!(format!("{:?}", begins.changes).contains("both repositories"));
    let rehearsal = plan::rehearse(&HostName::new("node2"), "latest", Some(Place::Bucket));
    assert!(says(&rehearsal.steps[0], "FROM=bucket"));
    let backup = plan::backup(
        &HostName::new("keeper"),
        plan::Holds::Everything,
        Some(Place::Disk),
    );
    assert!(says(&backup.steps[0], "TYPE=full-disk"));
}

/// A leader that archives already holds the lock for a moment, again and again.
#[test]
fn the_repository_begins_beside_a_database_that_tries_to_archive() {
    for (codes, expected) in [("50 50 0", 0), ("50 31", 31)] {
        let tried = format!(
            r#"set -eu
codes={codes:?}
systemctl() {{ false; }}
install() {{ :; }}
sleep() {{ :; }}
left=$(mktemp)
place=$(mktemp -d)
trap 'rm -rf "$left" "$place"' EXIT
echo "$codes" >"$left"
setpriv() {{
  case "$*" in
    *stanza-create) read -r code rest <"$left"; echo "$rest" >"$left"; return "$code" ;;
    *info) echo '"label":"20260101-000000F"' ;;
  esac
}}
CONFIG=c STANZA=s ARCHIVING=$place/.archiving PLACES=disk BUCKET=
{}"#,
            backups::BEGIN
        );
        let output = Command::new("bash").args(["-c", &tried]).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{codes}: {output:?}");
    }
}
