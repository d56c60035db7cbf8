//! A service exists when it has a folder and a line in the table: nothing else names it.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::{
    engine::{
        apply::{self, Verb},
        prove, status,
        tests::people::Scene,
    },
    error::{Code, Result},
    facts::Listener,
    inventory::{HostName, Inventory, Role},
    plan::{
        self, Action, Change, Condition,
        tests::world::{FIVE, World, says, step, steps, told},
    },
    provider::aws_rules,
    services,
};

const INVENTORY: &str = "cluster: pg
provider: { kind: docker }
tls: { enabled: false }
postgresql: { version: 16 }
hosts:
  node1: { roles: [postgres] }
  node2: { roles: [postgres] }
  node3: { roles: [etcd] }
  door:  { roles: [haproxy] }
  web:   { roles: [exercise] }
";

fn with_web() -> String {
    format!("{FIVE}  web: {{ roles: [exercise], address: 192.0.2.6 }}\n")
}

#[test]
fn the_docs_show_it_as_it_is() {
    let docs = include_str!("../../../docs/contributing.md");
    let (_, service) = include_str!("mod.rs").split_once("const PORT").unwrap();
    let (_, health) = include_str!("health.rs").split_once("\nuse ").unwrap();
    let (_, unit) = include_str!("exercise.service").split_once('\n').unwrap();
    let table = include_str!("../mod.rs").split_once("        $made! {");
    let (table, _) = table.unwrap().1.split_once("        }").unwrap();
    for part in [service, health, unit, table] {
        assert!(docs.contains(part), "{part}");
    }
}

#[test]
fn its_host_gets_files_package_folder_and_unit() {
    let world = World::bare(&with_web());
    let plan = world.plan();
    let mine: Vec<String> = steps(&plan)
        .into_iter()
        .filter(|step| step.starts_with("web "))
        .map(|step| step.split(" [").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        mine,
        [
            "web prepare",
            "web install-packages",
            "web configure-exercise",
            "web start-exercise",
            "web await-exercise"
        ]
    );
    let install = step(&plan, "web", "install-packages");
    assert!(
        install
            .changes
            .iter()
            .any(|it| matches!(it, Change::Package(name) if name == "python3"))
    );
    let configure = step(&plan, "web", "configure-exercise");
    assert!(says(
        configure,
        "install -d -o root -g root -m 0755 /var/lib/exercise"
    ));
    assert!(says(configure, "--directory /var/lib/exercise 8999"));
    let start = step(&plan, "web", "start-exercise");
    assert!(says(start, "systemctl start --no-block exercise"));
    assert_eq!(start.units, ["exercise"]);
    let wait = step(&plan, "web", "await-exercise");
    assert_eq!(wait.action, Action::Await(Condition::Ready(Role::Exercise)));
    assert_eq!(wait.after.len(), 1, "nothing else is waited for");
    // No other host gets any of it.
    assert!(!says(step(&plan, "node1", "prepare"), "exercise"));
}

#[test]
fn a_change_of_its_file_restarts_it_and_nothing_else() {
    let mut world = World::settled(&with_web());
    assert_eq!(world.steps(), [""; 0]);
    world
        .file("web", "/etc/systemd/system/exercise.service")
        .content
        .push_str("# mine\n");
    assert_eq!(
        world.steps_taken(),
        ["web restart-exercise", "web await-exercise"]
    );
}

#[test]
fn somebody_elses_is_not_taken() {
    let mut world = World::bare(&with_web());
    let settled = World::settled(&with_web());
    let unit = settled.found.facts[&HostName::new("web")].units["exercise"].clone();
    world.facts("web").units.insert("exercise".into(), unit);
    let refusal = world.refusal();
    assert!(
        refusal.contains("web: exercise.service is active, and pgherd did not start it"),
        "{refusal}"
    );
}

#[test]
fn a_role_that_is_taken_off_is_told_as_that_of_any_service() {
    let mut world = World::settled(&format!(
        "{FIVE}  web: {{ roles: [etcd, exercise], address: 192.0.2.6 }}\n  \
         db: {{ roles: [etcd], address: 192.0.2.7 }}\n"
    ));
    world.wants(
        "",
        &format!(
            "{FIVE}  web: {{ roles: [etcd], address: 192.0.2.6 }}\n  \
             db: {{ roles: [etcd], address: 192.0.2.7 }}\n"
        ),
    );
    let refusal = world.refusal();
    assert!(
        refusal.contains("web still has the role exercise, which the inventory does not give it: the cluster's the exercise runs there"),
        "{refusal}"
    );
}

#[test]
fn down_takes_away_what_up_has_brought() {
    let world = World::settled(&with_web());
    let plan = plan::down(&world.cluster, &world.files, &world.found)
        .map_err(|error| told(&error))
        .unwrap();
    let clear = step(&plan, "web", "clear");
    for line in [
        "systemctl disable --quiet --now exercise",
        "remove_tree /var/lib/exercise",
        "give_back /etc/systemd/system/exercise.service",
    ] {
        assert!(says(clear, line), "{line}");
    }
    // A folder that existed before is not pgherd's.
    let mut world = world;
    let manifest = world.facts("web").belongings.manifest.as_mut();
    manifest.unwrap().trees.clear();
    let plan = plan::down(&world.cluster, &world.files, &world.found).unwrap();
    assert!(!says(
        step(&plan, "web", "clear"),
        "remove_tree /var/lib/exercise"
    ));
}

#[test]
fn its_port_is_opened_to_whom_it_names_and_kept_from_others() {
    let parse = |text: &str| Inventory::parse(Path::new("pgherd.yaml"), text);
    let inventory = parse(&INVENTORY.replace("docker", "aws")).unwrap();
    let rules = aws_rules(&inventory, &["203.0.113.7/32".parse().unwrap()]);
    let mine: Vec<&String> = rules
        .iter()
        .filter(|rule| rule.starts_with("exercise "))
        .collect();
    assert_eq!(
        mine,
        [
            "exercise 22 <- 203.0.113.7/32",
            "exercise 8999 <- 203.0.113.7/32",
            "exercise 8999 <- postgres",
        ]
    );
    let error = parse(&format!("{INVENTORY}ssh: {{ port: 8999 }}\n")).unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("is needed by both SSH (`ssh.port`) and the exercise"),
        "{said}"
    );
}

#[test]
fn its_unit_is_known_by_its_name() {
    assert_eq!(services::of_unit("exercise"), Some(Role::Exercise));
}

#[tokio::test]
async fn it_comes_up_with_the_cluster_and_status_shows_it() {
    let scene = Scene::of(INVENTORY);
    let up = || async {
        let cancel = CancellationToken::new();
        let result = apply::run(Verb::Up, &scene.context(), &cancel).await;
        result.map(|_| ()).map_err(|error| told(&error)).unwrap();
        scene.hosts.take_done()
    };
    let done = up().await;
    assert!(done.contains(&"web start-exercise".to_owned()), "{done:?}");
    assert_eq!(up().await, [""; 0], "there is nothing left to do");
    let checks = wrong(&scene).await.unwrap();
    assert_eq!(checks, [""; 0]);
    scene
        .hosts
        .meddle(|world| world.facts("web").listeners.clear());
    assert_eq!(
        wrong(&scene).await.unwrap(),
        ["units: exercise on web does not listen on port 8999"]
    );
    assert_eq!(
        states(&scene).await,
        ["the exercise on web: active, answers"]
    );
    scene.hosts.meddle(|world| world.stop("web", "exercise"));
    assert_eq!(states(&scene).await, ["the exercise on web: inactive"]);
    assert_eq!(up().await, ["web start-exercise"]);
}

/// An answer on its port means nothing while its unit does not run.
#[tokio::test]
async fn a_listener_on_its_port_is_not_taken_for_it() {
    let scene = Scene::of(INVENTORY);
    let up = || async {
        let cancel = CancellationToken::new();
        apply::run(Verb::Up, &scene.context(), &cancel).await
    };
    up().await.map_err(|error| told(&error)).unwrap();
    let listen = |unit: &str, pid: Option<u32>| {
        scene.hosts.meddle(|world| {
            world.stop("web", "exercise");
            world.facts("web").listeners = vec![Listener {
                port: 8999,
                pid,
                process: "python3".into(),
                unit: unit.into(),
            }];
        });
    };
    // A host that belongs to another cluster stops `verify` as it stops `up`.
    listen("mine.service", Some(77));
    let taken = "port 8999 is taken by python3 (pid 77, mine.service)";
    assert_eq!(
        states(&scene).await,
        [format!("the exercise on web: inactive; {taken}")]
    );
    let error = wrong(&scene).await.unwrap_err();
    assert_eq!(error.code(), Code::PortInUse);
    assert_eq!(error.what(), taken);
    assert!(
        up().await
            .is_err_and(|error| error.code() == Code::PortInUse)
    );

    // The unit of a process in a container may be unknown.
    listen("", None);
    let taken = "port 8999 is taken by a process that cannot be seen";
    assert_eq!(
        states(&scene).await,
        [format!("the exercise on web: inactive; {taken}")]
    );
    assert_eq!(
        wrong(&scene).await.unwrap(),
        [
            format!("units: exercise on web is inactive; {taken}"),
            "configs: `up` would do start-exercise on web: the unit does not run".into(),
            "exercise: something other than the exercise answers on web: its unit does not run"
                .into(),
        ]
    );

    // The rest is its own, and nothing else uses it.
    listen("exercise.service", Some(78));
    assert_eq!(states(&scene).await, ["the exercise on web: inactive"]);
}

/// The checks that fail.
async fn wrong(scene: &Scene) -> Result<Vec<String>> {
    let proof = prove::now(&scene.context()).await?;
    let failed = proof.checks.iter().filter(|check| !check.passed);
    Ok(failed
        .map(|check| format!("{}: {}", check.name, check.detail))
        .collect())
}

/// What `status` shows of it.
async fn states(scene: &Scene) -> Vec<String> {
    let context = scene.context();
    let hosts = context.host_status().await.unwrap();
    let status = status::look(&context, &hosts).await.unwrap();
    status
        .units()
        .map(|row| format!("{} on {}: {}", row.service, row.host, row.state))
        .collect()
}
