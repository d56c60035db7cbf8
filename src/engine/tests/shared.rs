//! A cluster whose secrets are shared: two machines, one after the other and at once.

use std::fs;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{
    apply::{told, up},
    people::Scene,
};
use crate::{
    engine::{
        apply::{self, Verb},
        context::Context,
        remove::{self, Request},
        rotate::{self, Change},
    },
    error::{Code, Kind, Result},
    seal::{self, Identity},
};

/// The hosts, the place, and the first machine.
struct Shared {
    scene: Scene,
    place: TempDir,
}

impl Shared {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let key = seal::make(Some(&place.path().join("key"))).unwrap();
        let public = Identity::find(Some(&key)).unwrap().public();
        let state = place.path().join("state");
        fs::create_dir(&state).unwrap();
        let scene = Scene::of(&format!(
            "cluster: pg
provider: {{ kind: docker }}
tls: {{ enabled: false }}
postgresql: {{ version: 16 }}
state: {{ directory: {}, identity: {}, recipients: [{public}] }}
hosts:
  node1:   {{ roles: [postgres] }}
  node2:   {{ roles: [postgres] }}
  node3:   {{ roles: [postgres] }}
  node4:   {{ roles: [etcd] }}
  haproxy: {{ roles: [haproxy] }}
",
            state.display(),
            key.display()
        ));
        Self { scene, place }
    }

    /// Another machine, with the inventory and nothing else; hosts are what its workspace says from now on.
    async fn elsewhere(&self, folder: &TempDir) -> Context {
        let context = self.scene.arrives(folder).await.unwrap();
        let same = self.scene.arrives(folder).await.unwrap();
        self.scene.hosts.wants(same);
        context
    }

    fn takes_the_place_away(&self) {
        let state = self.place.path().join("state");
        fs::rename(&state, self.place.path().join("away")).unwrap();
    }
}

fn well<T>(done: Result<T>) -> T {
    done.map_err(|error| told(&error)).unwrap()
}

#[tokio::test]
async fn without_its_place_nothing_is_done() {
    let shared = Shared::new();
    shared.takes_the_place_away();
    let error = up(&shared.scene, &CancellationToken::new()).await;
    let error = error.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), Code::StateUnreachable, "{}", told(&error));
    assert_eq!(shared.scene.cloud.made(), [""; 0]);
    assert_eq!(shared.scene.hosts.log(), [""; 0]);
}

#[tokio::test]
async fn an_up_that_was_killed_is_completed_by_the_second_machine() {
    let shared = Shared::new();
    let cancel = CancellationToken::new();
    shared
        .scene
        .hosts
        .interrupt_at("node1 configure-patroni", &cancel);
    let error = up(&shared.scene, &cancel).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error));
    let first = shared.scene.context().secrets().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let context = shared.elsewhere(&folder).await;
    assert_eq!(context.secrets().unwrap(), first);
    well(apply::run(Verb::Up, &context, &CancellationToken::new()).await);
    assert_eq!(shared.scene.hosts.refused(), [""; 0]);
    let members = context.workspace.members().unwrap();
    assert!(members.len() == 5 && members.iter().all(|it| it.joined));
}

#[tokio::test]
async fn a_change_of_passwords_goes_on_on_the_second_machine() {
    let shared = Shared::new();
    well(up(&shared.scene, &CancellationToken::new()).await);
    let change = Change::Secrets { users: false };
    for step in ["node1 ensure-roles", "node2 configure-patroni"] {
        let cancel = CancellationToken::new();
        shared.scene.hosts.interrupt_at(step, &cancel);
        let error = rotate::run(change, &shared.scene.context(), &cancel).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{}", told(&error));
    }
    let folder = tempfile::tempdir().unwrap();
    let context = shared.elsewhere(&folder).await;
    assert!(context.workspace.secrets_stage().unwrap().is_some());
    well(rotate::run(change, &context, &CancellationToken::new()).await);
    assert_eq!(shared.scene.hosts.refused(), [""; 0]);
    assert!(context.workspace.secrets_stage().unwrap().is_none());

    // The first one again, with its old copy.
    let first = shared.scene.arrives_again().await.unwrap();
    assert_eq!(first.secrets().unwrap(), context.secrets().unwrap());
    shared.scene.hosts.take_done();
    well(up(&shared.scene, &CancellationToken::new()).await);
    assert_eq!(shared.scene.hosts.take_done(), [""; 0], "nothing is undone");
}

#[tokio::test]
async fn a_run_whose_place_goes_away_sends_nothing_new_to_hosts() {
    let shared = Shared::new();
    well(up(&shared.scene, &CancellationToken::new()).await);
    let context = shared.scene.context();
    shared.scene.hosts.take_done();
    // What `up` would bring to hosts is made on this machine only now.
    let place = shared.place.path().join("state");
    let away = shared.place.path().join("away");
    let lock = context.lock("rotate").unwrap();
    context.begin_state(&lock).await.unwrap();
    fs::rename(place, away).unwrap();
    context
        .workspace
        .advance_secrets(crate::workspace::SecretsStage::Make, false)
        .unwrap();
    let hosts = context.host_status().await.unwrap();
    let (events, _quiet) = crate::event::Events::channel();
    let looked = context
        .on(&hosts.running, &events, async |connected| {
            connected.look().await?.whole().map(|_| ())
        })
        .await;
    let error = looked.unwrap_err();
    assert_eq!(error.code(), Code::StateUnreachable, "{}", told(&error));
    assert_eq!(shared.scene.hosts.take_done(), [""; 0]);
}

#[tokio::test]
async fn the_second_machine_removes_the_cluster_and_the_first_one_knows() {
    let shared = Shared::new();
    well(up(&shared.scene, &CancellationToken::new()).await);
    let folder = tempfile::tempdir().unwrap();
    let context = shared.elsewhere(&folder).await;
    let request = Request {
        keep_secrets: false,
        with_backups: false,
        with_bucket: None,
        cluster_id: None,
    };
    well(remove::run(request, &context, &CancellationToken::new()).await);
    assert_eq!(shared.scene.cloud.made(), [""; 0]);
    let first = shared.scene.arrives_again().await.unwrap();
    assert_eq!(first.workspace.cluster_id().unwrap(), None);
}
