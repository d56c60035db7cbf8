//! `up`: from bare hosts to a healthy cluster, interrupted, refused, and repeated.

use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::people::Scene;
use crate::{
    engine::apply::{self, Applied, Verb},
    error::{Error, Kind, Result},
    plan::membership::MARKER,
};

pub(super) async fn up(scene: &Scene, cancel: &CancellationToken) -> Result<Applied> {
    apply::run(Verb::Up, &scene.context(), cancel).await
}

/// A bring-up without obstacles.
pub(super) async fn brought_up() -> Scene {
    let scene = Scene::new();
    let cancel = CancellationToken::new();
    let result = up(&scene, &cancel).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    scene
}

pub(super) fn told(error: &Error) -> String {
    let failures: Vec<String> = error.failures().iter().map(told).collect();
    format!("{error} {:?} {failures:?}", error.excerpts())
}

/// Repeats runs, each interrupted after a few steps, until a run has nothing to do; returns how many it took.
pub(super) async fn again_and_again(
    scene: &Scene,
    run: impl AsyncFn(&Scene, &CancellationToken) -> Result<()>,
) -> usize {
    for turn in 1..50 {
        let cancel = CancellationToken::new();
        // The number varies: some steps are repeated by every run that reaches them.
        scene.hosts.interrupt_after(turn % 4, &cancel);
        match run(scene, &cancel).await {
            Ok(()) => return turn,
            Err(error) => assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error)),
        }
    }
    panic!("it comes to no end");
}

pub(super) fn before(done: &[String], one: &str, other: &str) -> bool {
    let at = |step: &str| done.iter().position(|it| it == step).expect(step);
    at(one) < at(other)
}

#[tokio::test]
async fn bare_hosts_become_a_cluster_that_holds_and_then_there_is_nothing_to_do() {
    let scene = brought_up().await;
    let all = ["node1", "node2", "node3", "node4", "haproxy"];
    assert_eq!(scene.cloud.made(), all);
    let done = scene.hosts.take_done();
    for (one, other) in [
        ("node4 start-etcd", "node1 start-patroni"),
        ("node1 prepare", "node1 configure-patroni"),
        ("node2 install-patroni", "node2 start-patroni"),
    ] {
        assert!(before(&done, one, other), "{one} before {other}: {done:?}");
    }
    let context = scene.context();
    let members = context.workspace.members().unwrap();
    assert!(
        members.len() == 5 && members.iter().all(|it| it.joined),
        "{members:?}"
    );
    let secrets = context.secrets().unwrap();
    for secret in secrets.values() {
        assert!(scene.somebody.conceals(secret), "one is not concealed");
    }
    assert_eq!(scene.somebody.exit_codes(), [0]);
    assert!(scene.hosts.take_closed() > 0, "the lease is given back");

    let asked = scene.somebody.was_asked();
    assert!(asked > 0, "before hosts are made");
    up(&scene, &CancellationToken::new()).await.unwrap();
    assert_eq!(scene.hosts.take_done(), [""; 0]);
    assert_eq!(scene.somebody.was_asked(), asked, "there is nothing to ask");
    assert_eq!(scene.cloud.made(), all, "nothing is made twice");
    assert_eq!(scene.somebody.exit_codes(), [0, 0]);
}

#[tokio::test]
async fn a_run_that_is_cut_off_is_taken_up_by_the_next() {
    let scene = Scene::new();
    let cancel = CancellationToken::new();
    scene.hosts.interrupt_at("node4 start-etcd", &cancel);
    let error = up(&scene, &cancel).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error));
    assert_eq!(scene.somebody.exit_codes(), [130]);
    assert!(scene.hosts.take_closed() > 0, "the lease is given back");
    let first = scene.hosts.take_done();
    assert!(
        !first.iter().any(|it| it.ends_with("start-patroni")),
        "{first:?}"
    );

    // The workspace must be free again.
    let result = up(&scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    let second = scene.hosts.take_done();
    assert!(
        second.contains(&"node1 start-patroni".to_owned()),
        "{second:?}"
    );
    for step in [
        "node4 prepare",
        "node4 install-packages",
        "node4 start-etcd",
    ] {
        assert!(first.contains(&step.to_owned()), "{step}: {first:?}");
        assert!(
            !second.contains(&step.to_owned()),
            "{step} twice: {second:?}"
        );
    }
}

#[tokio::test]
async fn what_nobody_agrees_to_is_not_done() {
    let scene = Scene::new();
    scene.somebody.refuses.store(true, Ordering::SeqCst);
    let error = up(&scene, &CancellationToken::new())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.what()),
        (Kind::Interrupted, "not confirmed")
    );
    assert_eq!(error.left_behind(), Some("nothing was changed"));
    assert_eq!(scene.cloud.made(), [""; 0]);
    assert_eq!(scene.hosts.take_done(), [""; 0]);
    assert_eq!(scene.somebody.exit_codes(), [130]);
}

#[tokio::test]
async fn a_host_of_another_cluster_stops_a_run_before_it_does_anything() {
    let scene = brought_up().await;
    scene.hosts.take_done();
    scene.hosts.meddle(|world| {
        world.file("node2", MARKER).content = "another: abc\n".into();
        world.stop("haproxy", "haproxy");
    });
    let error = up(&scene, &CancellationToken::new())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(told(&error).contains("node2"), "{}", told(&error));
    assert_eq!(error.kind(), Kind::Failed);
    assert_eq!(
        scene.hosts.take_done(),
        [""; 0],
        "HAProxy is not started either"
    );
    assert_eq!(scene.somebody.exit_codes(), [0, 1]);
}
