//! Verbs that only look, while a host is dead or away.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{
    apply::{brought_up, told, up},
    people::Scene,
};
use crate::{
    engine::{
        apply::{self, Verb},
        compare, history,
        preview::Preview,
        prove,
        psql::{self, Entrance},
        status::{self, Status},
        watch,
    },
    error::{Code, Error, Result},
    inventory::HostName,
    plan::Change,
};

/// Less than one question to a dead host takes, and much less than several.
const SOON: Duration = Duration::from_secs(15);

async fn soon<T>(look: impl Future<Output = T>) -> T {
    let begin = Instant::now();
    let seen = look.await;
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    seen
}

async fn look(scene: &Scene) -> Status {
    let context = scene.context();
    let hosts = context.host_status().await.unwrap();
    let status = status::look(&context, &hosts).await;
    status.unwrap_or_else(|error| panic!("{}", told(&error)))
}

fn names(error: Result<(), Error>, host: &str) {
    let error = error.unwrap_err();
    assert_eq!(
        error.host().map(HostName::as_str),
        Some(host),
        "{}",
        told(&error)
    );
    assert_eq!(error.code(), Code::SshUnreachable);
    let why = "after other hosts had answered";
    assert!(error.to_string().contains(why), "{error}");
}

#[tokio::test]
async fn a_dead_host_is_waited_for_once_and_not_for_long() {
    for dead in ["node1", "node3", "node4", "haproxy"] {
        let scene = brought_up().await;
        scene.hosts.kill(dead);
        let status = soon(look(&scene)).await;
        assert_eq!(scene.hosts.take_asked_in_vain(dead), 1, "{dead}");
        names(status.of_all(), dead);

        let context = scene.context();
        let verified = soon(prove::now(&context)).await;
        names(verified.map(|_| ()), dead);
        let plan = soon(Preview::of_all(&scene.context())).await;
        names(plan.map(|_| ()), dead);
        let history = soon(history::look(&scene.context())).await.unwrap();
        let silent: Vec<_> = history.silent.iter().filter_map(Error::host).collect();
        assert_eq!(silent.len(), 1);
        assert_eq!(silent[0].as_str(), dead);
        assert_eq!(scene.hosts.take_asked_in_vain(dead), 3, "{dead}: once each");
    }
}

#[tokio::test]
async fn who_watches_sees_the_other_hosts_soon() {
    let scene = brought_up().await;
    scene.hosts.kill("node3");
    let context = scene.context();
    let hosts = context.host_status().await.unwrap();
    let begin = Instant::now();
    let watched = watch::watch(&context, &hosts, async |watcher| {
        loop {
            let seen = watcher.picture().members;
            if seen.get("node2").is_some_and(Option::is_some) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    });
    watched.await.unwrap();
}

#[tokio::test]
async fn psql_goes_through_the_front_door_that_lives() {
    let scene = Scene::of(
        "cluster: pg\nprovider: { kind: docker }\ntls: { enabled: false }\npostgresql: { version: 16 }\nhosts:\n  \
         node1: { roles: [postgres] }\n  node2: { roles: [postgres] }\n  node4: { roles: [etcd] }\n  \
         haproxy: { roles: [haproxy] }\n  door2: { roles: [haproxy] }\n",
    );
    let cancel = CancellationToken::new();
    up(&scene, &cancel).await.map(|_| ()).unwrap();
    scene.hosts.kill("haproxy");
    let (context, entrance) = (scene.context(), Entrance::Haproxy { read: false });
    let door = soon(psql::open(&context, &entrance)).await;
    door.map_err(|error| told(&error)).map(|_| ()).unwrap();
}

#[tokio::test]
async fn a_host_that_is_not_there_is_asked_nothing_and_nothing_is_said_of_its_address() {
    let scene = brought_up().await;
    for gone in ["node1", "haproxy"] {
        scene.hosts.kill(gone);
        scene.cloud.loses(gone);
    }
    let status = soon(look(&scene)).await;
    for gone in ["node1", "haproxy"] {
        assert_eq!(scene.hosts.take_asked_in_vain(gone), 0, "{gone}");
    }
    let differs: Vec<&String> = status
        .services
        .iter()
        .flat_map(|it| &it.differences)
        .collect();
    assert_eq!(differs, [""; 0]);
    let documents = status.services.iter().map(|it| &it.document);
    let all = serde_json::to_string(&documents.collect::<Vec<_>>()).unwrap();
    assert!(
        all.contains("the host does not run") && !all.contains("'s address>"),
        "{all}"
    );
    assert!(
        all.contains(r#""address":"192.0.2.1""#),
        "its last address: {all}"
    );

    let context = scene.context();
    let running = context.host_status().await.unwrap().running;
    let addresses = context.addresses(&running).unwrap();
    assert_eq!((running.len(), addresses.len()), (3, 5), "{addresses:?}");
    // Nothing on the other hosts has to change before it is there again.
    let compared = compare::compare(&context).await.unwrap();
    let changes = compared
        .preview
        .plan
        .steps
        .iter()
        .flat_map(|it| &it.changes);
    let files = changes.filter(|it| matches!(it, Change::File { .. }));
    assert_eq!(files.count(), 0);
}

#[tokio::test]
async fn no_file_gets_the_place_of_an_address() {
    let mut scene = brought_up().await;
    scene.wants_hosts(
        "  node1:   { roles: [postgres] }\n  node2:   { roles: [postgres] }\n  node3:   { roles: [postgres] }\n  \
         node4:   { roles: [etcd] }\n  haproxy: { roles: [haproxy] }\n  door2:   { roles: [haproxy] }\n",
    );
    scene.hosts.take_done();
    let context = scene.context();
    let cancel = CancellationToken::new();
    let error = apply::run(Verb::Render, &context, &cancel).await;
    let error = error.map(|_| ()).unwrap_err();
    assert_eq!(error.what(), "hosts that have no address yet: door2");
    assert_eq!(error.code(), Code::HostNotRunning);
    assert_eq!(scene.hosts.take_done(), [""; 0]);
    let compared = compare::compare(&scene.context()).await.map(|_| ());
    assert_eq!(compared.unwrap_err().code(), Code::HostNotRunning);
    // `status` says what it knows of the others.
    let status = look(&scene).await;
    let differs: Vec<&String> = status
        .services
        .iter()
        .flat_map(|it| &it.differences)
        .collect();
    assert_eq!(differs, [""; 0]);
}

/// A machine is made again at the address of the one that died.
#[tokio::test]
async fn a_front_door_that_comes_back_is_the_only_host_that_changes() {
    let mut scene = brought_up().await;
    scene.wants_tls(true);
    let cancel = CancellationToken::new();
    up(&scene, &cancel).await.map(|_| ()).unwrap();
    scene.hosts.take_done();

    scene.cloud.loses("haproxy");
    scene.hosts.make_anew("haproxy");
    // Whoever looks meanwhile changes nothing either.
    look(&scene).await;
    let again = up(&scene, &cancel).await;
    again.map_err(|error| told(&error)).map(|_| ()).unwrap();
    let done = scene.hosts.take_done();
    let elsewhere: Vec<&String> = done
        .iter()
        .filter(|it| !it.starts_with("haproxy "))
        .collect();
    assert!(!done.is_empty() && elsewhere.is_empty(), "{done:?}");
}
