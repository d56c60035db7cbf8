//! A lost workspace is made again from the hosts.

use std::fs;

use tokio_util::sync::CancellationToken;

use super::{
    apply::{brought_up, told, up},
    hosts::Leased,
    people::Scene,
};
use crate::{
    engine::{
        apply::{self, Verb},
        recover::{self, Recovery, State},
        rotate::{self, Change},
        unfinished,
    },
    error::{Code, Result},
    inventory::HostName,
    workspace::Workspace,
};

async fn recovered(scene: &Scene, folder: &tempfile::TempDir) -> Result<Recovery> {
    let context = scene.elsewhere(folder, Workspace::recovering)?;
    recover::run(&context, false, &CancellationToken::new()).await
}

/// What is in the folder of all workspaces.
fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path().join(".pgherd")).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_lost_workspace_is_read_back_and_the_authority_is_replaced() {
    let mut scene = brought_up().await;
    scene.wants_tls(true);
    let cancel = CancellationToken::new();
    let result = up(&scene, &cancel).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    let lost = scene.context();
    let (secrets, members) = (lost.secrets().unwrap(), lost.workspace.members().unwrap());
    scene.hosts.take_done();
    scene.hosts.take_closed();

    let folder = tempfile::tempdir().unwrap();
    let recovery = recovered(&scene, &folder).await;
    let recovery = recovery.map_err(|error| told(&error)).unwrap();
    assert_eq!(recovery.id, secrets.cluster_id);
    assert_eq!(recovery.pending, [""; 0]);
    assert_eq!(
        scene.hosts.take_done(),
        [""; 0],
        "nothing is done on a host"
    );
    assert!(scene.hosts.take_closed() > 0, "the lease is given back");
    let mut other = recovery.items.iter().filter(|it| it.state != State::Found);
    let other: Vec<_> = other
        .by_ref()
        .map(|it| (it.what.as_str(), it.state))
        .collect();
    assert_eq!(
        other,
        [
            ("key of the authority", State::Lost),
            ("SSH key", State::Made),
        ]
    );
    assert_eq!(names(&folder), [".gitignore", "pg"]);
    let context = scene.elsewhere(&folder, Workspace::open).unwrap();
    assert_eq!(context.secrets().unwrap(), secrets);
    assert_eq!(context.workspace.members().unwrap(), members);
    assert!(unfinished::lost_key(&context).unwrap().is_some());

    let again = recovered(&scene, &folder).await.map(|_| ()).unwrap_err();
    assert_eq!(again.code(), Code::WorkspaceExists, "{}", told(&again));

    // From now on, everybody has the new workspace.
    let there = || scene.elsewhere(&folder, Workspace::open).unwrap();
    scene.hosts.wants(there());
    let result = apply::run(Verb::Up, &there(), &cancel).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    assert_eq!(scene.hosts.take_done(), [""; 0]);
    let change = Change::Certs { prepare: false };
    let result = rotate::run(change, &there(), &cancel).await;
    result.map_err(|error| told(&error)).unwrap();
    assert_eq!(
        scene.hosts.refused(),
        [""; 0],
        "members accept each other at every moment"
    );
    assert!(unfinished::lost_key(&there()).unwrap().is_none());
    scene.hosts.take_done();
    let result = apply::run(Verb::Up, &there(), &cancel).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    assert_eq!(scene.hosts.take_done(), [""; 0]);
}

#[tokio::test]
async fn what_fails_leaves_no_workspace() {
    let scene = brought_up().await;
    for (host, code) in [("node2", Code::LeaseHeld), ("node3", Code::SshUnreachable)] {
        match code {
            Code::LeaseHeld => scene.hosts.lease(host, Leased::ByAnother),
            _ => {
                scene.hosts.free();
                scene.hosts.silence(&HostName::new(host));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let failed = recovered(&scene, &folder).await.map(|_| ());
        let error = failed.unwrap_err();
        assert_eq!(error.code(), code, "{}", told(&error));
        assert_eq!(names(&folder), [".gitignore"]);
    }
    // Where no host answers, that is the error, and not that none gave the lease.
    for host in ["node1", "node2", "node4", "haproxy"] {
        scene.hosts.silence(&HostName::new(host));
    }
    let folder = tempfile::tempdir().unwrap();
    let failed = recovered(&scene, &folder).await.map(|_| ());
    assert_eq!(failed.unwrap_err().code(), Code::SshUnreachable);
}

#[tokio::test]
async fn a_host_key_that_was_changed_is_the_one_that_the_provider_finds_in_the_host() {
    let scene = brought_up().await;
    let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI";
    let changed = format!("ssh-ed25519 {blob}");
    scene.cloud.changes_key("node2", &changed);
    let folder = tempfile::tempdir().unwrap();
    let recovery = recovered(&scene, &folder).await;
    recovery.map_err(|error| told(&error)).map(|_| ()).unwrap();
    let workspace = scene.elsewhere(&folder, Workspace::open).unwrap().workspace;
    let pinned = workspace.pinned().unwrap();
    assert_eq!(pinned[&HostName::new("node2")], [changed]);
    assert_ne!(
        pinned[&HostName::new("node1")],
        pinned[&HostName::new("node2")]
    );
}

#[tokio::test]
async fn what_runs_that_made_no_cluster_left_is_no_workspace_and_is_kept() {
    let scene = brought_up().await;
    let folder = tempfile::tempdir().unwrap();
    let workspace = scene.elsewhere(&folder, Workspace::open).unwrap().workspace;
    let run = workspace.new_run(jiff::Timestamp::now()).unwrap();
    fs::write(run.join("events.jsonl"), "{}").unwrap();
    fs::write(workspace.known_hosts_path(), "x y\n").unwrap();
    let recovery = recovered(&scene, &folder).await;
    recovery.map_err(|error| told(&error)).map(|_| ()).unwrap();
    assert_eq!(names(&folder), [".gitignore", "pg"]);
    assert!(run.join("events.jsonl").exists());
    let known = fs::read_to_string(workspace.known_hosts_path()).unwrap();
    assert!(!known.contains("x y") && known.contains("node1.pg.pgherd"));
    let config = fs::read_to_string(workspace.ssh_config_path()).unwrap();
    assert!(!config.contains("recovering"), "{config}");
}
