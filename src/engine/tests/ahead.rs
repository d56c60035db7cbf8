//! New hosts that answer one after the other.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use tokio_util::sync::CancellationToken;

use super::{
    apply::{before, told, up},
    hosts::Leased,
    people::Scene,
};
use crate::{
    error::{Code, Kind},
    event::{Event, Outcome},
};

/// The steps on four hosts before the fifth one answers.
const MEANWHILE: [&str; 5] = [
    "node1 install-packages",
    "node1 install-patroni",
    "node2 install-patroni",
    "node4 install-packages",
    "haproxy install-packages",
];

/// Makes `host` answer when all of `steps` have been done on others.
fn late(scene: &Scene, host: &str, never: bool, steps: &'static [&'static str]) {
    let hosts = scene.hosts.clone();
    scene.cloud.late(host, never, move || {
        let log = hosts.log();
        steps.iter().all(|step| log.iter().any(|it| it == step))
    });
}

#[tokio::test]
async fn what_depends_on_no_other_host_does_not_wait_for_the_slowest() {
    let scene = Scene::new();
    late(&scene, "node3", false, &MEANWHILE);
    let result = up(&scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
    let log = scene.hosts.log();
    for step in MEANWHILE {
        assert!(before(&log, step, "node3 connects"), "{step}: {log:?}");
    }
    // Its services need other hosts.
    for step in ["node1 configure-patroni", "node4 start-etcd"] {
        assert!(before(&log, "node3 connects", step), "{step}: {log:?}");
    }
    for host in ["node1", "node2", "node3", "node4", "haproxy"] {
        let at = |step: &str| format!("{host} {step}");
        assert!(before(&log, &at("connects"), &at("prepare")), "{log:?}");
        assert!(before(&log, &at("prepare"), &at("install-packages")));
    }
    let done = scene.hosts.take_done();
    let distinct: BTreeSet<&String> = done.iter().collect();
    assert_eq!(
        distinct.len(),
        done.len(),
        "nothing is done twice: {done:?}"
    );

    up(&scene, &CancellationToken::new()).await.unwrap();
    assert_eq!(scene.hosts.take_done(), [""; 0]);
}

/// In the events it is one plan. Its first steps appear earlier.
#[tokio::test]
async fn all_steps_are_those_of_one_plan() {
    let scene = Scene::new();
    late(&scene, "node3", false, &MEANWHILE);
    up(&scene, &CancellationToken::new()).await.unwrap();
    let mut known = Vec::new();
    let mut total = 0;
    let mut ended = 0;
    for event in scene.somebody.told() {
        match event {
            Event::Planned { steps, .. } => total = steps,
            Event::StepPlanned { step, after, .. } => {
                assert_eq!(step, known.len(), "they are counted through");
                assert!(after.iter().all(|it| *it < step));
                known.push(after);
            }
            Event::StepStarted { step, .. } => assert!(step < known.len()),
            Event::StepFinished { .. } => ended += 1,
            _ => {}
        }
    }
    assert_eq!((known.len(), ended), (total, total));
}

#[tokio::test]
async fn a_host_that_never_answers_fails_the_run_and_the_others_have_not_waited() {
    let scene = Scene::new();
    late(&scene, "node3", true, &MEANWHILE);
    let error = up(&scene, &CancellationToken::new())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.code(), Code::HostDidNotStart, "{}", told(&error));
    assert_eq!(error.host().unwrap().as_str(), "node3");
    let first = scene.hosts.take_done();
    assert!(
        !first.iter().any(|it| it.contains("configure")),
        "{first:?}"
    );

    late(&scene, "node3", false, &[]);
    up(&scene, &CancellationToken::new()).await.unwrap();
    let second = scene.hosts.take_done();
    for step in &first {
        assert!(!second.contains(step), "{step} twice: {second:?}");
    }
    assert!(second.contains(&"node3 install-packages".to_owned()));
}

#[tokio::test]
async fn a_run_that_is_cut_off_while_others_boot_is_taken_up_by_the_next() {
    let scene = Scene::new();
    scene.cloud.late("node3", false, || false);
    let cancel = CancellationToken::new();
    scene.hosts.interrupt_at("node1 install-packages", &cancel);
    let error = up(&scene, &cancel).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error));
    let first = scene.hosts.take_done();
    let cancelled = |event: &Event| match event {
        Event::StepFinished { outcome, .. } => *outcome == Outcome::Cancelled,
        _ => false,
    };
    assert!(scene.somebody.told().iter().any(cancelled), "it is told of");
    assert!(scene.hosts.take_closed() > 0, "the lease is given back");

    late(&scene, "node3", false, &[]);
    up(&scene, &CancellationToken::new()).await.unwrap();
    let second = scene.hosts.take_done();
    for step in first.iter().filter(|it| it.ends_with("prepare")) {
        assert!(!second.contains(step), "{step} twice: {second:?}");
    }
}

#[tokio::test]
async fn a_host_without_the_lease_is_not_changed_before_all_answer() {
    let scene = Scene::new();
    scene.hosts.lease("node2", Leased::Unknown);
    late(&scene, "node3", false, &["node1 install-packages"]);
    up(&scene, &CancellationToken::new()).await.unwrap();
    let log = scene.hosts.log();
    assert!(before(&log, "node1 install-packages", "node3 connects"));
    assert!(before(&log, "node3 connects", "node2 prepare"), "{log:?}");
}

#[tokio::test]
async fn where_another_run_has_a_host_nothing_more_begins_and_what_was_done_is_not_denied() {
    let scene = Scene::new();
    scene.hosts.lease("node3", Leased::ByAnother);
    late(&scene, "node3", false, &MEANWHILE);
    let error = up(&scene, &CancellationToken::new())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.code(), Code::LeaseHeld, "{}", told(&error));
    let left = error.left_behind().unwrap();
    assert!(left.contains("may have been put already"), "{left}");
    let log = scene.hosts.log();
    let at = log.iter().position(|it| it == "node3 connects").unwrap();
    let later = log[at..].iter().filter(|it| !it.ends_with("connects"));
    assert_eq!(later.count(), 0, "{log:?}");
}

#[tokio::test]
async fn who_does_not_agree_to_all_that_is_done_sees_it_first() {
    let scene = Scene::new();
    let seen = Arc::new(Mutex::new(0));
    let (somebody, note) = (scene.somebody.clone(), seen.clone());
    scene.cloud.late("node3", false, move || {
        *note.lock().unwrap() = somebody.was_asked();
        true
    });
    up(&scene, &CancellationToken::new()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), 1, "before any host is made");
}
