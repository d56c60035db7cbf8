//! Backups come, stay, and go only by name.

use std::process::Command;

use super::world::{FIVE, World, says, step};
use crate::{
    contract::{ARCHIVING, BACKUPS},
    inventory::Role,
    plan::{self, backups},
};

fn hosts() -> String {
    format!("{FIVE}  keeper: {{ roles: [backup], address: 192.0.2.6 }}\n")
}

#[test]
fn the_repository_begins_once_a_leader_takes_writes_and_nobody_waits_for_it() {
    let plan = World::bare(&hosts()).plan();
    let begins = step(&plan, "keeper", "create-stanza");
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
trap 'rm -f "$left"' EXIT
echo "$codes" >"$left"
setpriv() {{
  case "$*" in
    *stanza-create) read -r code rest <"$left"; echo "$rest" >"$left"; return "$code" ;;
    *info) echo '"label":"20260101-000000F"' ;;
  esac
}}
CONFIG=c STANZA=s ARCHIVING=a
{}"#,
            backups::BEGIN
        );
        let output = Command::new("bash").args(["-c", &tried]).output().unwrap();
        assert_eq!(output.status.code(), Some(expected), "{codes}: {output:?}");
    }
}
