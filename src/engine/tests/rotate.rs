//! Changes in stages: new passwords and a new authority, with and without interruptions.

use std::cell::Cell;

use tokio_util::sync::CancellationToken;

use super::{
    apply::{again_and_again, brought_up, told, up},
    people::Scene,
};
use crate::{
    engine::rotate::{self, Change},
    error::{Kind, Result},
    inventory::Role,
    scram,
};

async fn rotate(scene: &Scene, cancel: &CancellationToken) -> Result<()> {
    rotate::run(Change::Secrets { users: false }, &scene.context(), cancel).await
}

/// The cluster has the workspace's passwords, and no roles but its own.
fn assert_changed(scene: &Scene) {
    let secrets = scene.context().secrets().unwrap();
    assert!(secrets.interim.is_none());
    assert_eq!(scene.hosts.refused(), [""; 0]);
    scene.hosts.with(|model| {
        let names: Vec<&str> = model.roles.keys().map(String::as_str).collect();
        assert_eq!(names, ["postgres", "replicator", "rewind"]);
        let verifier = model.roles["postgres"].verifier.as_ref().unwrap();
        assert!(scram::is_of(verifier.expose(), &secrets.superuser));
    });
    for secret in secrets.values() {
        assert!(
            scene.somebody.conceals(secret),
            "a new one is not concealed"
        );
    }
}

#[tokio::test]
async fn passwords_change_one_stage_after_another() {
    let scene = brought_up().await;
    let old = scene.context().secrets().unwrap();
    let result = rotate(&scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).unwrap();
    assert_eq!(
        scene.somebody.stages(),
        ["make", "use", "change", "return", "end"]
    );
    assert_ne!(scene.context().secrets().unwrap().superuser, old.superuser);
    assert_changed(&scene);
    assert_eq!(scene.somebody.exit_codes(), [0, 0]);
}

#[tokio::test]
async fn a_change_of_passwords_that_is_cut_off_goes_on_where_it_was() {
    let scene = brought_up().await;
    let cancel = CancellationToken::new();
    scene.hosts.interrupt_at("node1 ensure-roles", &cancel);
    let error = rotate(&scene, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error));
    assert!(
        error
            .left_behind()
            .is_some_and(|it| it.contains("stage `make`"))
    );
    assert!(scene.context().workspace.secrets_stage().unwrap().is_some());

    let result = rotate(&scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).unwrap();
    assert!(scene.context().workspace.secrets_stage().unwrap().is_none());
    assert_changed(&scene);
    assert_eq!(scene.somebody.exit_codes(), [0, 130, 0]);
}

#[tokio::test]
async fn passwords_change_although_run_after_run_is_cut_off() {
    let scene = brought_up().await;
    let old = scene.context().secrets().unwrap();
    let at_its_end = Cell::new(String::new());
    let turns = again_and_again(&scene, async |scene, cancel| {
        let result = rotate(scene, cancel).await;
        // `up` does what is left at the end.
        match scene.context().workspace.secrets_stage().unwrap() {
            Some(_) => result,
            None => {
                if let Err(error) = result {
                    at_its_end.set(error.left_behind().unwrap_or_default().to_owned());
                }
                Ok(())
            }
        }
    });
    assert!(turns.await > 3);
    let said = at_its_end.take();
    assert!(said.ends_with(" up"), "{said}");
    let cut = up(&scene, &CancellationToken::new()).await;
    cut.map_err(|error| told(&error)).map(|_| ()).unwrap();
    assert_ne!(scene.context().secrets().unwrap().superuser, old.superuser);
    assert_changed(&scene);
}

/// A cluster with TLS, and the authorities that its hosts trust.
async fn with_tls() -> (Scene, String) {
    let mut scene = brought_up().await;
    scene.wants_tls(true);
    let result = up(&scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    scene.hosts.take_done();
    let trusted = scene.context().workspace.pki().unwrap().ca().to_owned();
    (scene, trusted)
}

async fn rotate_certs(scene: &Scene, cancel: &CancellationToken) -> Result<()> {
    let change = Change::Certs { prepare: false };
    rotate::run(change, &scene.context(), cancel).await
}

/// All services trust only the new authority, and no connection was refused in between.
fn assert_issued_anew(scene: &Scene, old: &str) {
    let workspace = scene.context().workspace;
    assert!(workspace.authority_stage().unwrap().is_none());
    let new = workspace.pki().unwrap().ca().to_owned();
    assert_ne!(new, old);
    assert_eq!(scene.hosts.refused(), [""; 0]);
    for role in [Role::Postgres, Role::Etcd, Role::Haproxy] {
        for (host, declared) in &scene.context().inventory.hosts {
            if declared.roles.contains(&role) {
                let trusted = scene
                    .hosts
                    .taken_over(|it| it.trusts(host, role).to_owned());
                assert_eq!(trusted.trim(), new.trim(), "{host}");
            }
        }
    }
}

#[tokio::test]
async fn another_authority_comes_one_stage_after_another() {
    let (scene, old) = with_tls().await;
    let told_before = scene.somebody.stages().len();
    let result = rotate_certs(&scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).unwrap();
    let stages = &scene.somebody.stages()[told_before..];
    assert_eq!(stages, ["trust", "issue", "adopt"]);
    assert_issued_anew(&scene, &old);
}

#[tokio::test]
async fn another_authority_comes_although_run_after_run_is_cut_off() {
    let (scene, old) = with_tls().await;
    let turns = again_and_again(&scene, rotate_certs);
    assert!(turns.await > 3);
    assert_issued_anew(&scene, &old);
}
