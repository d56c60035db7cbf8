//! Hosts that leave, or are made anew, in runs that are cut off between any two steps.

use std::{sync::LazyLock, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    apply::{self as ups, brought_up, told},
    hosts::Hosts,
    people::Scene,
};
use crate::{
    cluster::KnownHost,
    engine::{
        apply::{self, Applied, Verb},
        replace,
    },
    error::{Code, Kind, Result},
    inventory::{HostName, Role},
};

const ALL: [&str; 3] = ["node1", "node2", "node3"];
/// More than any of these runs has steps.
const ENOUGH: usize = 60;
/// With so many steps done, the host is no member any more.
const LAST: usize = 8;
/// How many clusters a change is played on, and how many steps lie between two points at which a run is cut off. With
/// `PGHERD_EVERY_CUT=1`, runs are cut off after every step, which takes minutes more; several clusters at once, because
/// runs wait for most of their time.
static SWEEP: LazyLock<(usize, usize)> =
    LazyLock::new(|| match std::env::var_os("PGHERD_EVERY_CUT") {
        Some(_) => (6, 1),
        None => (2, 8),
    });

/// Plays a change on several clusters at once, each cut off at other points.
async fn side_by_side<F: Future<Output = ()>>(play: impl Fn(usize) -> F) {
    join_all((0..SWEEP.0).map(play)).await;
}

/// After how many steps the runs of one of the clusters are cut off.
fn cuts(first: usize) -> impl Iterator<Item = usize> {
    let (scenes, stride) = *SWEEP;
    (first * stride..ENOUGH).step_by(scenes * stride)
}

/// The inventory's hosts with these databases.
fn hosts(databases: &[&str]) -> String {
    let lines: String = databases
        .iter()
        .map(|host| format!("  {host}: {{ roles: [postgres] }}\n"))
        .collect();
    format!("{lines}  node4: {{ roles: [etcd] }}\n  haproxy: {{ roles: [haproxy] }}\n")
}

fn leader(scene: &Scene) -> HostName {
    scene.hosts.with(|model| model.leader()).expect("a leader")
}

/// Does it once the cluster is free: another test that forks at that moment holds the lock of a run which has ended,
/// until its child has become another program.
async fn once_free(run: impl AsyncFn() -> Result<Applied>) -> Result<Applied> {
    for _ in 0..200 {
        match run().await {
            Err(error) if error.code() == Code::WorkspaceLocked => {
                sleep(Duration::from_millis(25)).await;
            }
            ended => return ended,
        }
    }
    run().await
}

async fn up(scene: &Scene, cancel: &CancellationToken) -> Result<Applied> {
    once_free(async || ups::up(scene, cancel).await).await
}

/// Brings up what is in this inventory.
async fn brought_up_as(inventory: &str) -> Scene {
    let scene = Scene::of(inventory);
    well(up(&scene, &CancellationToken::new()).await, "a bring-up");
    scene
}

async fn up_without(scene: &Scene, host: &HostName, cancel: &CancellationToken) -> Result<Applied> {
    let run = async || apply::run(Verb::Up, &scene.context_leaving(host), cancel).await;
    once_free(run).await
}

async fn replace(scene: &Scene, host: &HostName, cancel: &CancellationToken) -> Result<Applied> {
    let run = async || replace::run(&scene.context(), host.as_str(), false, cancel).await;
    once_free(run).await
}

fn well(result: Result<Applied>, what: &str) {
    result
        .map_err(|error| format!("{what}: {}", told(&error)))
        .map(|_| ())
        .unwrap();
}

/// Has the leader be on its way out, in the inventory and on the hosts.
fn is_to_leave(scene: &mut Scene, host: &HostName) {
    let mut stay = ALL.to_vec();
    stay.retain(|it| *it != host.as_str());
    scene.wants_hosts(&hosts(&stay));
    scene.hosts.leave(vec![known(host, &[Role::Postgres])]);
}

fn known(host: &HostName, roles: &[Role]) -> KnownHost {
    KnownHost {
        name: host.clone(),
        roles: roles.to_vec(),
        address: None,
        size: None,
        joined: true,
    }
}

/// Has it in the inventory again.
fn is_to_stay(scene: &mut Scene) {
    scene.wants_hosts(&hosts(&ALL));
    scene.hosts.leave(Vec::new());
}

fn nothing_is_left(scene: &Scene, host: &HostName, what: &str) {
    assert_eq!(scene.hosts.traces(host), [""; 0], "{what}");
    assert!(
        !scene.cloud.made().contains(&host.to_string()),
        "{what}: its machine"
    );
    let known = scene.context().workspace.members().unwrap();
    assert!(
        known.iter().all(|it| it.name != *host && it.joined),
        "{what}: {known:?}"
    );
    assert_ne!(leader(scene), *host, "{what}");
}

#[tokio::test]
async fn a_leader_that_leaves_is_gone_wherever_the_run_was_cut_off() {
    side_by_side(leaves).await;
}

async fn leaves(first: usize) {
    let mut scene = brought_up().await;
    for cut in cuts(first) {
        let leaver = leader(&scene);
        is_to_leave(&mut scene, &leaver);
        scene.hosts.take_done();
        let cancel = CancellationToken::new();
        scene.hosts.interrupt_after(cut, &cancel);
        let first = up_without(&scene, &leaver, &cancel).await;
        let done = scene.hosts.take_done();
        let what = format!("cut off after {done:?}");
        let ended = first.is_ok();
        if let Err(error) = &first {
            assert_eq!(error.kind(), Kind::Interrupted, "{what}: {}", told(error));
            let again = up_without(&scene, &leaver, &CancellationToken::new()).await;
            well(again, &what);
        }
        nothing_is_left(&scene, &leaver, &what);
        if ended {
            println!("{cut} cuts; all of it: {done:?}");
            for step in [
                "forbid-election",
                "hand-over",
                "retire-patroni",
                "forget-member",
                "is removed",
            ] {
                let step = format!("{leaver} {step}");
                assert!(done.contains(&step), "{step}: {done:?}");
            }
            assert!(cut > 8, "{cut}");
            return;
        }
        is_to_stay(&mut scene);
        well(
            up(&scene, &CancellationToken::new()).await,
            "it comes again",
        );
    }
    panic!("it comes to no end");
}

/// Whoever changes his mind after a run was cut off has the member back, able to lead.
#[tokio::test]
async fn a_member_that_stays_after_all_is_whole_wherever_the_run_was_cut_off() {
    side_by_side(stays_after_all).await;
}

async fn stays_after_all(first: usize) {
    let mut scene = brought_up().await;
    for cut in cuts(first) {
        let leaver = leader(&scene);
        is_to_leave(&mut scene, &leaver);
        scene.hosts.take_done();
        let cancel = CancellationToken::new();
        scene.hosts.interrupt_after(cut, &cancel);
        let first = up_without(&scene, &leaver, &cancel).await;
        let what = format!("cut off after {:?}", scene.hosts.take_done());
        is_to_stay(&mut scene);
        well(up(&scene, &CancellationToken::new()).await, &what);
        scene.hosts.with(|model| {
            assert!(!Hosts::is_tagged(model, &leaver), "{what}");
            assert!(
                model.is_able(&leaver, "patroni") && model.streams(&leaver),
                "{what}"
            );
            let unit = model.world.unit(leaver.as_str(), "patroni").clone();
            assert!(unit.is_enabled(), "{what}");
        });
        scene.hosts.take_done();
        well(up(&scene, &CancellationToken::new()).await, &what);
        assert_eq!(scene.hosts.take_done(), [""; 0], "{what}");
        // What comes later is no step of a departure.
        if first.is_ok() || cut > LAST {
            return;
        }
    }
    panic!("it comes to no end");
}

#[tokio::test]
async fn a_host_is_made_anew_once_wherever_the_run_was_cut_off() {
    side_by_side(is_made_anew).await;
}

async fn is_made_anew(first: usize) {
    let scene = brought_up().await;
    for cut in cuts(first) {
        let host = leader(&scene);
        scene.hosts.take_done();
        let cancel = CancellationToken::new();
        scene.hosts.interrupt_after(cut, &cancel);
        let first = replace(&scene, &host, &cancel).await;
        let mut done = scene.hosts.take_done();
        let what = format!("cut off after {done:?}");
        let ended = first.is_ok();
        if let Err(error) = &first {
            assert_eq!(error.kind(), Kind::Interrupted, "{what}: {}", told(error));
            let whole = CancellationToken::new();
            let again = replace(&scene, &host, &whole).await;
            well(again, &what);
            done.extend(scene.hosts.take_done());
        }
        let removed = format!("{host} is removed");
        assert_eq!(
            done.iter().filter(|it| **it == removed).count(),
            1,
            "{what}: {done:?}"
        );
        scene.hosts.with(|model| {
            assert!(
                model.streams(&host) && !Hosts::is_tagged(model, &host),
                "{what}"
            );
        });
        well(up(&scene, &CancellationToken::new()).await, &what);
        assert_eq!(scene.hosts.take_done(), [""; 0], "{what}");
        if ended {
            println!("{cut} cuts; all of it: {done:?}");
            assert!(cut > 8, "{cut}");
            return;
        }
    }
    panic!("it comes to no end");
}

const DOORS: [&str; 3] = ["door2", "door3", "haproxy"];

/// One database and etcd, and these front doors.
fn doors(doors: &[&str]) -> String {
    let lines: String = doors
        .iter()
        .map(|host| format!("  {host}: {{ roles: [haproxy] }}\n"))
        .collect();
    format!("  node1: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n{lines}")
}

/// A front door that leaves has the address no more when the others do not tell it anything any more.
#[tokio::test]
async fn an_address_is_on_one_front_door_while_another_leaves() {
    join_all([true, false].map(|has_it| Box::pin(leaves_with_the_address(has_it)))).await;
}

async fn leaves_with_the_address(has_it: bool) {
    let mut scene = brought_up_as(&format!(
        "cluster: pg\nprovider: {{ kind: docker }}\ntls: {{ enabled: false }}\n\
         postgresql: {{ version: 16 }}\nhaproxy: {{ vip: 192.0.2.100 }}\nhosts:\n{}",
        doors(&DOORS)
    ))
    .await;
    let holder = scene.hosts.has_vip().expect("one has the address");
    let is_it = |door: &&&str| (**door == holder.as_str()) == has_it;
    let leaver = HostName::new(*DOORS.iter().find(is_it).unwrap());
    let mut stay = DOORS.to_vec();
    stay.retain(|it| *it != leaver.as_str());
    scene.wants_hosts(&doors(&stay));
    scene
        .hosts
        .leave(vec![known(&leaver, &[Role::Haproxy, Role::Keepalived])]);
    scene.hosts.take_done();
    let error = up(&scene, &CancellationToken::new()).await.map(|_| ());
    let error = error.expect_err("nobody has named it");
    assert_eq!(error.code(), Code::MembershipDiffers, "{}", told(&error));
    assert_eq!(scene.hosts.take_done(), [""; 0]);

    let left = up_without(&scene, &leaver, &CancellationToken::new()).await;
    well(left, "it leaves");
    let done = scene.hosts.take_done();
    let retired = format!("{leaver} retire-keepalived");
    let told_nothing = format!("{} reload-keepalived", stay[0]);
    assert!(ups::before(&done, &retired, &told_nothing), "{done:?}");
    assert_eq!(scene.hosts.vip_was_twice(), [""; 0]);
    nothing_is_left(&scene, &leaver, "it has left");
}

/// A machine without an id may be that of another cluster of this name, and its host cannot say.
#[tokio::test]
async fn a_dead_machine_without_an_id_is_not_removed() {
    let mut scene = brought_up_as(&format!(
        "cluster: pg\nprovider: {{ kind: docker }}\ntls: {{ enabled: false }}\n\
         postgresql: {{ version: 16 }}\nhosts:\n{}",
        doors(&DOORS)
    ))
    .await;
    let dead = HostName::new("door3");
    scene.wants_hosts(&doors(&["door2", "haproxy"]));
    scene.hosts.leave(vec![known(&dead, &[Role::Haproxy])]);
    scene.cloud.unmark(&dead);
    scene.hosts.silence(&dead);
    scene.hosts.take_done();
    let made = scene.cloud.made();
    let error = up_without(&scene, &dead, &CancellationToken::new()).await;
    let error = error.map(|_| ()).expect_err("nobody knows whose it is");
    assert_eq!(error.code(), Code::HostOfAnotherCluster, "{}", told(&error));
    assert!(
        error.hints()[0].contains("the tag pgherd:id"),
        "{}",
        told(&error)
    );
    assert_eq!(
        (scene.cloud.made(), scene.hosts.take_done()),
        (made, vec![])
    );
}

/// Another host of the same command was leaving when a run was cut off.
#[tokio::test]
async fn a_role_that_was_given_up_is_known_until_the_command_has_ended() {
    let scene = brought_up().await;
    let host = HostName::new(ALL[0]);
    let list = || scene.context().workspace.members().unwrap();
    let mut members = list();
    let given_up = members.iter_mut().find(|it| it.name == host).unwrap();
    given_up.roles.push(Role::Etcd);
    scene.context().workspace.note_members(&members).unwrap();
    let again = async || up_without(&scene, &host, &CancellationToken::new()).await;
    well(again().await, "the same command");
    let known = list().into_iter().find(|it| it.name == host).unwrap();
    assert_eq!(known.roles, [Role::Postgres]);
    let error = again().await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArguments);
}
