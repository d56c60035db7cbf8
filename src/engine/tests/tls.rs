//! TLS is turned on and off on a running cluster, with and without interruptions.

use tokio_util::sync::CancellationToken;

use super::{
    apply::{again_and_again, before, brought_up, told, up},
    people::Scene,
    taken_over::Server,
};
use crate::{
    cluster::TlsStage::{self, Off, Offered, Required, Used},
    error::Kind,
    inventory::Role,
};

async fn goes_well(scene: &Scene) {
    let result = up(scene, &CancellationToken::new()).await;
    result.map_err(|error| told(&error)).map(|_| ()).unwrap();
}

/// What the services use, and other signs of how far the change has come.
fn assert_speaks(scene: &Scene, tls: bool) {
    let workspace = scene.context().workspace;
    assert_eq!(workspace.tls_stage().unwrap(), None, "the change has ended");
    assert_eq!(scene.hosts.refused(), [""; 0]);
    scene.hosts.with(|model| {
        let cluster = &model.world.cluster;
        let etcds = model.world.found.etcd.iter();
        let urls: Vec<&str> = etcds
            .flat_map(|it| &it.peer_urls)
            .map(String::as_str)
            .collect();
        let scheme = if tls { "https" } else { "http" };
        assert_eq!(urls, [format!("{scheme}://node4:2380")]);
        scene.hosts.taken_over(|it| {
            for (role, server) in [
                (Role::Etcd, Server::Etcd),
                (Role::Postgres, Server::Patroni),
                (Role::Postgres, Server::Postgres),
                (Role::Haproxy, Server::Haproxy),
            ] {
                for node in cluster.with_role(role) {
                    let (name, facts) = (&node.name, &model.world.found.facts[&node.name]);
                    assert_eq!(it.speaks_tls(name, server), tls, "{name}: {server:?}");
                    assert_eq!(it.tls(name, server, facts).is_some(), tls, "{name}");
                }
            }
            for node in cluster.with_role(Role::Postgres) {
                assert_eq!(it.asks_etcd_with_tls(&node.name), tls, "{}", node.name);
                assert_eq!(it.wants_tls(&node.name), tls, "{}", node.name);
            }
            let haproxy = &cluster.with_role(Role::Haproxy).next().unwrap().name;
            assert!(!it.haproxy(haproxy).contains("_tls"), "one way will do");
        });
    });
}

/// The steps of a stage.
fn of(done: &[(TlsStage, String)], stage: TlsStage) -> Vec<String> {
    let done = done.iter().filter(|(at, _)| *at == stage);
    done.map(|(_, step)| step.clone()).collect()
}

#[tokio::test]
async fn tls_comes_in_three_stages_and_goes_in_three() {
    let mut scene = brought_up().await;
    for (wanted, stages) in [
        (true, [Offered, Used, Required]),
        (false, [Used, Offered, Off]),
    ] {
        scene.wants_tls(wanted);
        scene.hosts.take_done();
        let told = scene.somebody.stages().len();
        goes_well(&scene).await;
        let names: Vec<&str> = stages[..2].iter().map(|it| it.as_str()).collect();
        assert_eq!(scene.somebody.stages()[told..], names);
        assert_speaks(&scene, wanted);
        let done = scene.hosts.take_done_at();
        let mut order: Vec<TlsStage> = done.iter().map(|(stage, _)| *stage).collect();
        order.dedup();
        assert_eq!(order, stages);
        // Between `offered` and `used`, in both directions, etcd changes, and the leader follows at once.
        let turn = of(&done, stages[1]);
        for (one, other) in [
            ("node4 restart-etcd", "node1 restart-patroni-alone"),
            ("haproxy hold-haproxy", "node1 restart-patroni-alone"),
            ("node1 restart-patroni-alone", "haproxy release-haproxy"),
            ("node1 restart-patroni-alone", "node2 restart-patroni-alone"),
            ("node1 restart-patroni-alone", "node3 restart-patroni-alone"),
        ] {
            assert!(before(&turn, one, other), "{one} before {other}: {turn:?}");
        }
        assert!(
            !done
                .iter()
                .any(|(_, step)| step.ends_with(" restart-patroni")),
            "PostgreSQL runs on: {done:?}"
        );

        goes_well(&scene).await;
        assert_eq!(scene.hosts.take_done(), [""; 0], "there is nothing left");
    }
}

#[tokio::test]
async fn between_two_stages_it_can_be_cut_off() {
    let mut scene = brought_up().await;
    for (wanted, first, second) in [(true, Offered, Used), (false, Used, Offered)] {
        scene.wants_tls(wanted);
        scene.hosts.take_done();
        let told_before = scene.somebody.stages().len();
        let cancel = CancellationToken::new();
        // The last step of the first stage.
        scene.hosts.interrupt_at("haproxy reload-haproxy", &cancel);
        let error = up(&scene, &cancel).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error));
        let stage = scene.context().workspace.tls_stage().unwrap();
        assert_eq!(stage, Some(first), "what the next run goes on with");
        let before = scene.hosts.take_done_at();
        assert!(
            before.iter().all(|(stage, _)| *stage == first),
            "{before:?}"
        );

        goes_well(&scene).await;
        let stages = &scene.somebody.stages()[told_before..];
        assert_eq!(stages, [first.as_str(), first.as_str(), second.as_str()]);
        assert_speaks(&scene, wanted);
        let after = of(&scene.hosts.take_done_at(), first);
        for step in of(&before, first) {
            assert!(!after.contains(&step), "{step} twice: {after:?}");
        }
    }
}

#[tokio::test]
async fn it_comes_to_its_end_although_run_after_run_is_cut_off() {
    let mut scene = brought_up().await;
    for wanted in [true, false] {
        scene.wants_tls(wanted);
        let turns = again_and_again(&scene, async |scene, cancel| {
            up(scene, cancel).await.map(|_| ())
        });
        let turns = turns.await;
        assert!(turns > 5, "{turns} runs");
        assert_speaks(&scene, wanted);
    }
}
