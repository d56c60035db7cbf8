//! What `down` removes from the workspace, and what it keeps.

use super::*;

#[test]
fn down_removes_what_was_made_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory(dir.path());
    let workspace = filled(&inventory);
    // A host that has left the inventory, a killed run's leftovers, and the user's own files.
    inventory.hosts.shift_remove(&HostName::new("node1"));
    let workspace_dir = workspace.dir().to_owned();
    let left = workspace_dir.join(".unfinished-abc");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("key"), "x").unwrap();
    fs::write(workspace_dir.join("pki/.unfinished-x"), "x").unwrap();
    fs::write(workspace_dir.join("notes.txt"), "mine").unwrap();
    fs::write(workspace_dir.join("pki/mine.key"), "mine").unwrap();
    let run = workspace.new_run(jiff::Timestamp::now()).unwrap();
    fs::write(run.join("events.jsonl"), "{}").unwrap();

    let workspace = Workspace::open(&inventory).unwrap();
    let lock = workspace.lock_folder("down").unwrap();
    workspace.remove(&lock, false).unwrap();
    let run = run
        .strip_prefix(&workspace_dir)
        .unwrap()
        .display()
        .to_string();
    let kept = tree(&workspace_dir);
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        ["notes.txt", "pki/mine.key", &format!("{run}/events.jsonl")]
    );
    workspace.remove(&lock, false).unwrap();
}

#[test]
fn down_keeps_secrets_when_asked_and_the_next_up_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let workspace = filled(&inventory);
    let (secrets, ca) = (
        workspace.secrets().unwrap(),
        workspace.pki().unwrap().ca().to_owned(),
    );
    let lock = workspace.lock_folder("down").unwrap();
    workspace.remove(&lock, true).unwrap();
    drop(lock);
    assert_eq!(
        files::names(workspace.dir()).unwrap(),
        ["id_ed25519", "id_ed25519.pub", "pki", "secrets.yaml"]
    );
    let workspace = filled(&inventory);
    assert_eq!(workspace.secrets().unwrap(), secrets);
    assert_eq!(workspace.pki().unwrap().ca(), ca);
}

#[test]
fn an_empty_workspace_goes_altogether() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = filled(&inventory(dir.path()));
    let lock = workspace.lock_folder("down").unwrap();
    workspace.remove(&lock, false).unwrap();
    assert_eq!(files::names(dir.path()).unwrap(), [""; 0]);
}

#[test]
fn what_down_leaves_is_not_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let workspace = filled(&inventory);
    workspace.new_run(jiff::Timestamp::now()).unwrap();
    let lock = workspace.lock_folder("down").unwrap();
    workspace.remove(&lock, false).unwrap();
    assert!(workspace.dir().exists());
    assert!(Workspace::existing(&inventory).unwrap().is_none());
}
