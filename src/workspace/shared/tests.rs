//! Two machines, each with a workspace of its own, and one place.

use std::path::PathBuf;

use super::*;
use crate::{machine::Machine, workspace::SecretsStage};

/// A machine of somebody, with a key of theirs.
struct Desk {
    folder: tempfile::TempDir,
    key: PathBuf,
    public: String,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = seal::make(Some(&folder.path().join("key"))).unwrap();
        let public = Identity::find(Some(&key)).unwrap().public();
        Self {
            folder,
            key,
            public,
        }
    }

    fn inventory(&self, place: &Path, recipients: &[&Desk]) -> Inventory {
        let keys: Vec<&str> = recipients.iter().map(|it| it.public.as_str()).collect();
        let text = format!(
            "cluster: pg\nprovider: {{ kind: docker }}\n\
             state: {{ directory: {}, identity: {}, recipients: [{}] }}\n\
             hosts: {{ node1: {{ roles: [postgres, etcd, haproxy] }} }}\n",
            place.display(),
            self.key.display(),
            keys.join(", ")
        );
        Inventory::parse(&self.folder.path().join("pgherd.yaml"), &text).unwrap()
    }

    fn at(&self, place: &Path, recipients: &[&Desk]) -> (Inventory, Shared) {
        let inventory = self.inventory(place, recipients);
        let shared = Shared::of(&inventory).unwrap().unwrap();
        (inventory, shared)
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join(".pgherd/pg")
    }

    fn has(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir().join(name)).ok()
    }
}

fn holder() -> Holder {
    Holder::now("up")
}

/// A workspace as a first `up` makes it, in the shared state.
async fn begun(ann: &Desk, place: &Path, all: &[&Desk]) -> Workspace {
    let (inventory, shared) = ann.at(place, all);
    shared.refresh().await.unwrap();
    let workspace = Workspace::open(&inventory).unwrap();
    shared.begin(&holder()).await.unwrap();
    workspace.secrets().unwrap();
    workspace.pki().unwrap();
    workspace.identity().unwrap();
    shared.ready().await.unwrap();
    workspace
}

fn code(done: Result<impl Sized>) -> Code {
    done.map(|_| ()).unwrap_err().code()
}

#[tokio::test]
async fn a_second_machine_has_everything_that_is_shared_and_nothing_else() {
    let (ann, bob, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    let all = [&ann, &bob];
    let workspace = begun(&ann, place.path(), &all).await;
    workspace.new_run(jiff::Timestamp::now()).unwrap();
    workspace.write_ssh_config(&[] as &[Machine]).unwrap();

    let (inventory, shared) = bob.at(place.path(), &all);
    assert!(Workspace::existing(&inventory).unwrap().is_none());
    assert_eq!(shared.refresh().await.unwrap(), [""; 0]);
    let theirs = Workspace::existing(&inventory).unwrap().unwrap();
    assert_eq!(theirs.secrets().unwrap(), workspace.secrets().unwrap());
    for name in ["secrets.yaml", "pki/ca.crt", "pki/ca.key", "id_ed25519"] {
        assert_eq!(bob.has(name), ann.has(name), "{name}");
        assert!(bob.has(name).is_some(), "{name}");
    }
    for name in ["ssh_config", "runs", "lock"] {
        assert!(!bob.dir().join(name).exists(), "{name} is local");
    }
    assert_eq!(theirs.take_notes(), [], "no file is open to others");

    // Nothing of it is at the place in the clear.
    let sealed = shared.place.newest().await.unwrap().unwrap().1;
    let sealed = String::from_utf8(sealed).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    let superuser = workspace.secrets().unwrap().superuser;
    for secret in [superuser.expose(), "PRIVATE KEY"] {
        assert!(!sealed.contains(secret));
    }
}

#[tokio::test]
async fn what_was_begun_on_one_machine_goes_on_on_the_other() {
    let (ann, bob, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    let all = [&ann, &bob];
    let first = begun(&ann, place.path(), &all).await;
    let (inventory, theirs) = bob.at(place.path(), &all);
    theirs.refresh().await.unwrap();
    let second = Workspace::open(&inventory).unwrap();

    let (_, ours) = ann.at(place.path(), &all);
    ours.begin(&holder()).await.unwrap();
    first.advance_secrets(SecretsStage::Make, false).unwrap();
    ours.ready().await.unwrap();
    first.advance_secrets(SecretsStage::Use, false).unwrap();
    // Killed here: no host has had it.
    drop(ours);

    theirs.begin(&holder()).await.unwrap();
    assert_eq!(second.secrets_stage().unwrap(), Some(SecretsStage::Make));
    assert_eq!(
        second.secrets().unwrap().interim.unwrap().replication,
        first.secrets().unwrap().interim.unwrap().replication
    );
    theirs.is_still_newest().await.unwrap();
    second.end_secrets().unwrap();
    theirs.store().await.unwrap();

    let (_, ours) = ann.at(place.path(), &all);
    let notes = ours.refresh().await.unwrap();
    assert!(
        notes[0].contains("rotation.json was changed here"),
        "{notes:?}"
    );
    assert_eq!(first.secrets_stage().unwrap(), None);
    assert!(ann.has("superseded/rotation.json").unwrap().contains("use"));
}

#[tokio::test]
async fn nothing_is_written_twice_and_nothing_by_those_who_only_look() {
    let (ann, place) = (Desk::new(), tempfile::tempdir().unwrap());
    let workspace = begun(&ann, place.path(), &[&ann]).await;
    let (_, shared) = ann.at(place.path(), &[&ann]);
    let newest = async || shared.place.newest().await.unwrap().unwrap().0;
    assert_eq!(newest().await, 1);
    shared.refresh().await.unwrap();
    workspace
        .advance_secrets(SecretsStage::Make, false)
        .unwrap();
    shared.ready().await.unwrap();
    shared.store().await.unwrap();
    assert_eq!(newest().await, 1, "it only looks");
    shared.begin(&holder()).await.unwrap();
    for _ in 0..3 {
        shared.ready().await.unwrap();
        shared.store().await.unwrap();
    }
    assert_eq!(newest().await, 2);
}

#[tokio::test]
async fn of_two_runs_that_begin_with_the_same_generation_one_is_refused() {
    let (ann, bob, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    let all = [&ann, &bob];
    begun(&ann, place.path(), &all).await;
    let (_, ours) = ann.at(place.path(), &all);
    let (_, theirs) = bob.at(place.path(), &all);
    ours.begin(&holder()).await.unwrap();
    theirs.begin(&holder()).await.unwrap();
    fs::write(ann.dir().join("tls"), "used\n").unwrap();
    fs::write(bob.dir().join("tls"), "offered\n").unwrap();
    ours.is_still_newest().await.unwrap();
    ours.ready().await.unwrap();
    assert_eq!(code(theirs.is_still_newest().await), Code::StateConflict);
    assert_eq!(code(theirs.ready().await), Code::StateConflict);
    // The next run has what the other one wrote.
    let (_, theirs) = bob.at(place.path(), &all);
    theirs.begin(&holder()).await.unwrap();
    assert_eq!(bob.has("tls").unwrap(), "used\n");
}

#[tokio::test]
async fn a_copy_that_was_removed_comes_back() {
    let (ann, place) = (Desk::new(), tempfile::tempdir().unwrap());
    begun(&ann, place.path(), &[&ann]).await;
    let secrets = ann.has("secrets.yaml");
    let (_, shared) = ann.at(place.path(), &[&ann]);
    fs::remove_file(ann.dir().join("secrets.yaml")).unwrap();
    shared.refresh().await.unwrap();
    assert_eq!(ann.has("secrets.yaml"), secrets);
    fs::remove_dir_all(ann.folder.path().join(".pgherd")).unwrap();
    shared.refresh().await.unwrap();
    assert_eq!(ann.has("secrets.yaml"), secrets);
}

#[tokio::test]
async fn after_down_there_is_no_copy_and_a_new_cluster_may_come() {
    let (ann, bob, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    let all = [&ann, &bob];
    let first = begun(&ann, place.path(), &all).await.cluster_id().unwrap();
    let (inventory, theirs) = bob.at(place.path(), &all);
    theirs.begin(&holder()).await.unwrap();
    let workspace = Workspace::open(&inventory).unwrap();
    let lock = workspace.lock_folder("down").unwrap();
    theirs.end().await.unwrap();
    workspace.remove(&lock, false).unwrap();
    assert!(!bob.dir().exists());
    // The end of the same run.
    theirs.store().await.unwrap();
    let (_, ours) = ann.at(place.path(), &all);
    let there = ours.look().await.unwrap().there.unwrap();
    assert!(there.cluster_id.is_none() && there.files == 0);
    ours.refresh().await.unwrap();
    assert_eq!(ann.has("secrets.yaml"), None);

    let second = begun(&ann, place.path(), &all).await.cluster_id().unwrap();
    assert_ne!(first, second);
    let (inventory, theirs) = bob.at(place.path(), &all);
    theirs.refresh().await.unwrap();
    let workspace = Workspace::existing(&inventory).unwrap().unwrap();
    assert_eq!(workspace.cluster_id().unwrap(), second);
}

#[tokio::test]
async fn who_is_no_recipient_any_more_cannot_read_what_comes_next() {
    let (ann, eve, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    begun(&ann, place.path(), &[&ann, &eve]).await;
    let (_, shared) = eve.at(place.path(), &[&ann, &eve]);
    shared.refresh().await.unwrap();
    // The inventory without her; she may have an old one.
    let (_, ours) = ann.at(place.path(), &[&ann]);
    ours.begin(&holder()).await.unwrap();
    ours.ready().await.unwrap();
    assert_eq!(ours.look().await.unwrap().there.unwrap().number, 2);
    assert_eq!(code(shared.refresh().await), Code::StateKeyUnusable);
    assert!(shared.has_copy(), "verbs that only look still work");

    let (_, hers) = eve.at(place.path(), &[&ann]);
    let error = hers.push(&holder()).await.unwrap_err();
    assert_eq!(error.code(), Code::StateKeyUnusable);
    assert!(error.hints()[0].contains(&eve.public), "{error}");
    assert_eq!(ours.look().await.unwrap().there.unwrap().number, 2);
}

#[tokio::test]
async fn a_place_that_is_away_or_empty_stops_those_who_change_something() {
    let (ann, place) = (Desk::new(), tempfile::tempdir().unwrap());
    let dir = place.path().join("mount");
    fs::create_dir(&dir).unwrap();
    begun(&ann, &dir, &[&ann]).await;
    let away = place.path().join("away");
    fs::rename(&dir, &away).unwrap();
    let (_, shared) = ann.at(&dir, &[&ann]);
    let error = shared.begin(&holder()).await.unwrap_err();
    assert_eq!(error.code(), Code::StateUnreachable);
    assert_eq!(error.left_behind(), Some("nothing was changed"));
    assert!(shared.has_copy());
    // A mount point where nothing is mounted.
    fs::create_dir(&dir).unwrap();
    let error = shared.begin(&holder()).await.unwrap_err();
    assert_eq!(error.code(), Code::StateMissing);
    assert!(error.causes()[0].contains("generation 1"), "{error}");
    shared.ready().await.unwrap();
    shared.store().await.unwrap();
    assert!(
        fs::read_dir(&dir).unwrap().next().is_none(),
        "nothing is written"
    );
    assert_eq!(shared.init(&holder()).await.unwrap(), 1);
    shared.begin(&holder()).await.unwrap();
}

#[tokio::test]
async fn a_workspace_of_before_is_put_there_once() {
    let (ann, bob, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    let all = [&ann, &bob];
    for desk in all {
        let workspace = Workspace::open(&desk.inventory(place.path(), &all)).unwrap();
        workspace.secrets().unwrap();
    }
    let (_, ours) = ann.at(place.path(), &all);
    let error = ours.begin(&holder()).await.unwrap_err();
    assert_eq!(error.code(), Code::StateMissing);
    assert!(error.hints()[0].contains("pgherd state init"), "{error}");
    ours.init(&holder()).await.unwrap();
    assert_eq!(code(ours.init(&holder()).await), Code::StateExists);
    ours.begin(&holder()).await.unwrap();

    // Another cluster of the same name.
    let (_, theirs) = bob.at(place.path(), &all);
    let before = bob.has("secrets.yaml");
    assert_eq!(code(theirs.refresh().await), Code::StateConflict);
    assert_eq!(bob.has("secrets.yaml"), before);
    let (generation, aside) = theirs.pull().await.unwrap();
    assert_eq!((generation, aside), (1, vec!["secrets.yaml".to_owned()]));
    assert_eq!(bob.has("secrets.yaml"), ann.has("secrets.yaml"));
    assert_eq!(bob.has("superseded/secrets.yaml"), before);
}

#[tokio::test]
async fn states_that_have_parted_are_told_apart_and_one_is_chosen() {
    // Two git working copies, brought together by nobody.
    let (ann, place) = (Desk::new(), tempfile::tempdir().unwrap());
    begun(&ann, place.path(), &[&ann]).await;
    let other = tempfile::tempdir().unwrap();
    let own = other.path().join("pg");
    fs::create_dir(&own).unwrap();
    let name = "00000001.age";
    fs::copy(place.path().join("pg").join(name), own.join(name)).unwrap();
    let write = async |place: &Path, tls: &str| {
        let desk = Desk {
            folder: tempfile::tempdir().unwrap(),
            key: ann.key.clone(),
            public: ann.public.clone(),
        };
        let (_, shared) = desk.at(place, &[&ann]);
        shared.begin(&holder()).await.unwrap();
        fs::write(desk.dir().join("tls"), tls).unwrap();
        shared.ready().await.unwrap();
    };
    write(place.path(), "used\n").await;
    write(other.path(), "offered\n").await;
    let (_, shared) = ann.at(place.path(), &[&ann]);
    shared.refresh().await.unwrap();
    let name = "00000002.age";
    fs::copy(own.join(name), place.path().join("pg").join(name)).unwrap();
    let error = shared.begin(&holder()).await.unwrap_err();
    assert_eq!(error.code(), Code::StateConflict);
    assert!(error.what().contains("without each other's"), "{error}");
    assert_eq!(ann.has("tls").unwrap(), "used\n");
    assert_eq!(shared.push(&holder()).await.unwrap(), 3);
    shared.begin(&holder()).await.unwrap();

    // The working copy is not up to date.
    for name in [2, 3].map(|n| format!("{n:08}.age")) {
        fs::remove_file(place.path().join("pg").join(name)).unwrap();
    }
    let error = shared.begin(&holder()).await.unwrap_err();
    assert!(error.what().contains("is older"), "{error}");
}

#[tokio::test]
async fn a_copy_that_a_run_of_the_same_folder_uses_is_not_replaced() {
    let (ann, bob, place) = (Desk::new(), Desk::new(), tempfile::tempdir().unwrap());
    let all = [&ann, &bob];
    let workspace = begun(&ann, place.path(), &all).await;
    let (_, theirs) = bob.at(place.path(), &all);
    theirs.begin(&holder()).await.unwrap();
    fs::write(bob.dir().join("tls"), "used\n").unwrap();
    // Before it has a lease, it must not disturb a run that has one.
    theirs.store().await.unwrap();
    assert_eq!(theirs.look().await.unwrap().there.unwrap().number, 1);
    theirs.is_still_newest().await.unwrap();
    theirs.store().await.unwrap();
    let lock = workspace.lock_folder("up").unwrap();
    let (_, looks) = ann.at(place.path(), &all);
    looks.refresh().await.unwrap();
    assert_eq!(ann.has("tls"), None);
    // That run itself.
    let (_, works) = ann.at(place.path(), &all);
    works.begin(lock.holder()).await.unwrap();
    assert_eq!(ann.has("tls").unwrap(), "used\n");
}
