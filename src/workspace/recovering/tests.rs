use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::workspace::{SecretsStage, tests::inventory};

fn recovered(names: &[&str]) -> Recovered {
    let password = |name: &&str| ((*name).to_owned(), Secret::new(format!("{name} of it")));
    Recovered {
        id: "0a1b2c3d4e5f".to_owned(),
        passwords: names.iter().map(password).collect(),
        interim: None,
        pki: None,
    }
}

const OWN: [&str; 5] = ["superuser", "replication", "rewind", "rest_api", "stats"];

fn begun(inventory: &Inventory) -> (Workspace, Staging) {
    let workspace = Workspace::recovering(inventory).unwrap();
    let lock = workspace.lock_folder("recover").unwrap();
    let staging = workspace.begin_recovery(lock).unwrap();
    (workspace, staging)
}

#[test]
fn what_is_found_is_kept_what_is_missing_is_made_and_all_comes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let (workspace, staging) = begun(&inventory);
    let place = dir.path().join(".pgherd/pg");
    let made = workspace.put_back(&recovered(&OWN[..4])).unwrap();
    assert_eq!(made, ["stats"]);
    assert!(!place.exists(), "nothing is in its place before the end");
    let installed = workspace.install(staging, &[]).unwrap();
    assert_eq!(installed.dir(), place);
    let secrets = Workspace::existing(&inventory)
        .unwrap()
        .unwrap()
        .secrets()
        .unwrap();
    assert_eq!(secrets.cluster_id, "0a1b2c3d4e5f");
    assert_eq!(secrets.superuser.expose(), "superuser of it");
    assert_eq!(secrets.stats.expose().len(), 32);
    let mode = |name: &str| fs::metadata(place.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(""), mode("secrets.yaml")), (0o700, 0o600));
    assert_eq!(
        files::names(&dir.path().join(".pgherd")).unwrap(),
        [".gitignore", "pg"]
    );
}

#[test]
fn a_workspace_that_is_there_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let (workspace, staging) = begun(&inventory);
    workspace.put_back(&recovered(&OWN)).unwrap();
    // Somebody else was faster.
    let other = Workspace::open(&inventory).unwrap();
    let before = other.secrets().unwrap();
    let error = workspace.install(staging, &[]).unwrap_err();
    assert_eq!(error.code(), Code::WorkspaceExists);
    let error = Workspace::recovering(&inventory).unwrap_err();
    assert_eq!(error.code(), Code::WorkspaceExists);
    assert_eq!(other.secrets().unwrap(), before);
    assert_eq!(
        files::names(&dir.path().join(".pgherd")).unwrap(),
        [".gitignore", "pg"]
    );
}

#[test]
fn two_do_not_recover_at_once_and_a_killed_one_leaves_nothing_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let (workspace, staging) = begun(&inventory);
    workspace.put_back(&recovered(&OWN)).unwrap();
    let second = Workspace::recovering(&inventory).unwrap();
    let error = second.lock_folder("recover").unwrap_err();
    assert_eq!(error.code(), Code::WorkspaceLocked);
    // Killed: nothing is tidied up.
    let left = workspace.dir().to_owned();
    fs::create_dir_all(left.join("pki")).unwrap();
    fs::write(left.join("pki/ca.crt"), "x").unwrap();
    std::mem::forget(staging);
    assert!(left.join("secrets.yaml").exists());
    // The lock of a killed process is gone; that of this one is not.
    fs::remove_file(left.join("lock")).unwrap();
    let (workspace, staging) = begun(&inventory);
    assert_eq!(files::names(workspace.dir()).unwrap(), ["lock"]);
    drop(staging);
    assert!(!left.exists());
}

#[test]
fn a_change_of_the_passwords_that_was_under_way_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (workspace, _staging) = begun(&inventory(dir.path()));
    let mut found = recovered(&OWN);
    found.interim = Some(Interim {
        used: true,
        replication: Secret::new("one"),
        rewind: Secret::new("two"),
    });
    workspace.put_back(&found).unwrap();
    assert_eq!(
        workspace.secrets_stage().unwrap(),
        Some(SecretsStage::Change)
    );
    let interim = workspace.secrets().unwrap().interim.unwrap();
    assert!(interim.used);
    assert_eq!(
        (interim.replication.expose(), interim.rewind.expose()),
        ("one", "two")
    );
}

#[test]
fn what_cannot_be_that_password_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (workspace, _staging) = begun(&inventory(dir.path()));
    let mut found = recovered(&OWN);
    found.id = "no id".to_owned();
    let error = workspace.put_back(&found).unwrap_err();
    assert_eq!(error.code(), Code::SecretsInvalid);
    assert!(error.to_string().contains("cluster_id"), "{error}");
}
