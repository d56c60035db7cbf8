//! A change in stages: other passwords, at one go and cut off.

use tokio_util::sync::CancellationToken;

use super::{
    apply::{brought_up, told},
    people::Scene,
};
use crate::{
    engine::rotate::{self, Change},
    error::{Kind, Result},
    scram,
};

async fn rotate(scene: &Scene, cancel: &CancellationToken) -> Result<()> {
    rotate::run(Change::Secrets { users: false }, &scene.context(), cancel).await
}

/// The cluster takes the passwords of the workspace, and knows no role but its own.
fn assert_changed(scene: &Scene) {
    let secrets = scene.context().secrets().unwrap();
    assert!(secrets.interim.is_none());
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
