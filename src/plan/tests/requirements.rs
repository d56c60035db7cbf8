//! What a host lacks stops the run before anything is done, with all findings together. A running cluster is
//! refused only for what every run needs.

use super::world::{FIVE, ONE, World, says, step, told};
use crate::{
    facts::{Folder, Source, Space},
    plan::Change,
};

const GIB: u64 = 1024 * 1024;

fn space(target: &str, available: u64) -> Space {
    Space {
        path: format!("{target}/x"),
        target: target.into(),
        kind: "ext4".into(),
        size: 100 * GIB,
        available,
        inodes: 1_000_000,
        free_inodes: 900_000,
        options: ["rw".to_owned()].into(),
        rotates: None,
    }
}

fn put(world: &mut World, purpose: &str, space: Space) {
    let needs = &mut world.facts("node1").needs;
    needs.space.insert(purpose.into(), space);
}

fn folder(world: &mut World, path: &str, owner: &str, mode: u32) {
    let folder = Folder {
        owner: owner.into(),
        group: owner.into(),
        mode,
        is_folder: true,
        passable: None,
    };
    world
        .facts("node1")
        .needs
        .folders
        .insert(path.into(), folder);
}

fn source(world: &mut World, kind: &str, uri: &str, state: &str) {
    world.facts("node1").needs.sources.push(Source {
        kind: kind.into(),
        uri: uri.into(),
        state: state.into(),
    });
}

/// A possible lack: how to cause it, the message, and whether a running cluster is refused too.
type Lack = (fn(&mut World), &'static str, bool);

const LACKS: &[Lack] = &[
    (
        |w| w.facts("node1").needs.sessions = Some(1),
        "MaxSessions",
        true,
    ),
    (
        |w| w.facts("node1").needs.no_forwarding = Some("administratively prohibited".into()),
        "AllowTcpForwarding",
        true,
    ),
    (
        |w| w.facts("node1").needs.clock_ahead = Some(-2 * 3_600_000),
        "its clock is 2 h behind",
        true,
    ),
    (
        |w| w.facts("node1").needs.clock_ahead = Some(3 * 86_400_000),
        "its clock is 3 days ahead",
        true,
    ),
    (
        |w| w.facts("node1").needs.system = "stopping".into(),
        "its systemd is stopping",
        true,
    ),
    (
        |w| w.facts("node1").os.arch = "riscv64".into(),
        "riscv64",
        false,
    ),
    (
        |w| {
            w.facts("node1").needs.held.insert("postgresql-16".into());
        },
        "apt-mark unhold postgresql-16",
        false,
    ),
    (
        |w| source(w, "apt", "http://deb.example/debian/", "unresolved"),
        "http://deb.example/debian/: its name cannot be resolved",
        false,
    ),
    (
        |w| source(w, "python", "https://python.example/simple", "silent"),
        "no index of Python packages answers",
        false,
    ),
    (
        |w| put(w, "tmp", space("/tmp", 0)),
        "/tmp has 0 MiB free, and 96 MiB are needed",
        false,
    ),
    (
        |w| put(w, "usr", space("/", 100 * 1024)),
        "/ has 100 MiB free, and 500 MiB are needed",
        false,
    ),
    (
        |w| {
            put(
                w,
                "venv",
                Space {
                    free_inodes: 10,
                    ..space("/opt", GIB)
                },
            );
        },
        "/opt has 10 inodes free",
        false,
    ),
    (
        |w| put(w, "data", space("/data", 10 * 1024)),
        "/data has 10 MiB free, and 256 MiB are needed",
        false,
    ),
    (
        |w| {
            put(
                w,
                "venv",
                Space {
                    options: ["noexec".to_owned()].into(),
                    ..space("/opt", GIB)
                },
            );
        },
        "/opt is mounted noexec",
        true,
    ),
    (
        |w| {
            put(
                w,
                "state",
                Space {
                    options: ["noexec".to_owned()].into(),
                    ..space("/var", GIB)
                },
            );
        },
        "/var is mounted noexec",
        false,
    ),
    (
        |w| {
            put(
                w,
                "data",
                Space {
                    options: ["ro".to_owned()].into(),
                    ..space("/data", GIB)
                },
            );
        },
        "/data is mounted read-only",
        true,
    ),
    (
        |w| {
            put(
                w,
                "data",
                Space {
                    kind: "tmpfs".into(),
                    target: "/".into(),
                    path: "/data/patroni".into(),
                    ..space("/", GIB)
                },
            );
        },
        "would be in memory",
        true,
    ),
    (
        |w| w.facts("node1").needs.memory.total = Some(100 * 1024),
        "the host has 100 MiB of memory",
        true,
    ),
    (
        |w| folder(w, "/data", "root", 0o750),
        "/data does not let postgres pass (root:root 0750)",
        false,
    ),
    (
        |w| {
            folder(w, "/data", "root", 0o755);
            w.facts("node1")
                .needs
                .folders
                .get_mut("/data")
                .unwrap()
                .is_folder = false;
        },
        "/data is not a folder",
        true,
    ),
];

#[test]
fn each_lack_stops_a_first_run_and_only_some_a_cluster_that_runs() {
    for (lack, says, always) in LACKS {
        let mut world = World::bare(FIVE);
        lack(&mut world);
        let refusal = world.refusal();
        assert!(
            refusal.contains(says) && refusal.starts_with("node1: "),
            "{says}:\n{refusal}"
        );
        let mut world = World::settled(FIVE);
        lack(&mut world);
        match world.up() {
            Ok(_) => assert!(!always, "{says} is refused while the cluster runs"),
            Err(error) => assert!(*always, "{says}: {}", told(&error)),
        }
    }
}

#[test]
fn everything_that_is_lacking_is_told_at_once_on_every_host() {
    let mut world = World::bare(FIVE);
    world.facts("node4").needs.no_forwarding = Some("administratively prohibited".into());
    world.facts("node1").needs.clock_ahead = Some(4_000_000);
    put(&mut world, "usr", space("/", 0));
    let refusal = world.refusal();
    for part in [
        "node1: its clock",
        "node1: / has 0 MiB",
        "node4: sshd refuses",
    ] {
        assert!(refusal.contains(part), "{part}\n{refusal}");
    }
}

#[test]
fn what_lies_on_one_filesystem_is_added_up() {
    let mut world = World::bare(ONE);
    for purpose in ["usr", "cache", "state", "venv", "data", "etcd"] {
        let needs = &mut world.facts("all").needs;
        needs.space.insert(purpose.into(), space("/", GIB));
    }
    let refusal = world.refusal();
    assert!(
        refusal.contains("/ has 1024 MiB free, and 1462 MiB are needed"),
        "{refusal}"
    );
    assert!(!refusal.contains("inodes"), "{refusal}");
}

#[test]
fn what_can_be_borne_is_no_finding() {
    let bearable: &[fn(&mut World)] = &[
        |w| w.facts("node1").needs.clock_ahead = Some(-600_000),
        |w| w.facts("node1").needs.system = "degraded".into(),
        // One dead source of several; the download shows whether it was needed.
        |w| {
            source(w, "apt", "http://dead.example/", "silent");
            source(w, "apt", "http://deb.example/", "ok");
        },
        |w| {
            w.facts("node1").needs.held.insert("libpq5".into());
        },
        // Memory was mounted there on purpose.
        |w| {
            put(
                w,
                "data",
                Space {
                    kind: "tmpfs".into(),
                    path: "/data/patroni".into(),
                    ..space("/data", GIB)
                },
            );
        },
        |w| {
            put(
                w,
                "venv",
                Space {
                    inodes: 0,
                    free_inodes: 0,
                    ..space("/opt", GIB)
                },
            );
        },
        |w| folder(w, "/data", "postgres", 0o700),
        // An access control list can differ from the mode.
        |w| {
            folder(w, "/data", "root", 0o750);
            w.facts("node1")
                .needs
                .folders
                .get_mut("/data")
                .unwrap()
                .passable = Some(true);
        },
    ];
    for (number, bear) in bearable.iter().enumerate() {
        let mut world = World::bare(FIVE);
        bear(&mut world);
        if let Err(error) = world.up() {
            panic!("{number}: {}", told(&error));
        }
    }
}

#[test]
fn shared_buffers_are_held_against_what_is_there() {
    let refused = |parameters: &str, memory: fn(&mut crate::facts::Memory)| {
        let mut world = World::bare(FIVE);
        world.wants(
            &format!("postgresql: {{ version: 16, parameters: {{ {parameters} }} }}"),
            FIVE,
        );
        let facts = world.facts("node1");
        facts.needs.memory.total = Some(4 * GIB);
        memory(&mut facts.needs.memory);
        world
            .up()
            .err()
            .map(|error| told(&error))
            .unwrap_or_default()
    };
    assert_eq!(refused("shared_buffers: 1GB", |_| {}), "");
    assert!(refused("shared_buffers: 8GB", |_| {}).contains("the host has 4096 MiB of memory"));
    let huge = refused("shared_buffers: 1GB, huge_pages: 'on'", |memory| {
        memory.huge_pages = Some(0);
        memory.huge_page_size = Some(2048);
    });
    assert!(huge.contains("0 huge pages of 2048 kB"), "{huge}");
    let strict = refused("shared_buffers: 1GB", |memory| {
        memory.overcommit = Some(2);
        memory.commit_limit = Some(2 * GIB);
        memory.committed = Some(GIB + GIB / 2);
    });
    assert!(
        strict.contains("512 MiB can still be given out"),
        "{strict}"
    );
}

/// The folders that a plan corrects, in words.
fn put_right(world: &World) -> Vec<String> {
    let steps = world.plan().steps;
    let changes = steps.iter().flat_map(|step| &step.changes);
    changes
        .filter_map(|change| match change {
            Change::Folder { what, .. } => Some(what.clone()),
            _ => None,
        })
        .collect()
}

#[test]
fn folders_that_pgherd_made_are_put_right_as_files_are() {
    let mut world = World::settled(FIVE);
    assert!(world.plan().is_empty());
    for path in [
        "/etc/pgherd",
        "/etc/pgherd/tls",
        "/etc/pgherd/tls/postgres",
        "/opt/patroni",
    ] {
        folder(&mut world, path, "root", 0o750);
    }
    folder(&mut world, "/data/patroni", "root", 0o755);
    folder(&mut world, "/data", "root", 0o750);
    world.facts("node1").needs.venv_closed = Some("/opt/patroni/lib/x.py".into());
    assert_eq!(
        put_right(&world),
        [
            "the folder /etc/pgherd: root:root 0750 becomes root:root 0755",
            "the folder /etc/pgherd/tls: root:root 0750 becomes root:root 0755",
            "the folder /etc/pgherd/tls/postgres: root:root 0750 becomes root:root 0755",
            "the folder /opt/patroni: root:root 0750 becomes root:root 0755",
            "/opt/patroni becomes root's, and readable by all users (/opt/patroni/lib/x.py is not)",
            "the folder /data/patroni: root:root 0755 becomes postgres:postgres 0700",
            "the folder /data, root:root 0750, lets postgres pass",
        ]
    );
    let plan = world.plan();
    assert!(says(
        step(&plan, "node1", "prepare"),
        "chmod 0755 /etc/pgherd/tls/postgres"
    ));
    assert!(says(
        step(&plan, "node1", "configure-patroni"),
        "chmod 0700 /data/patroni"
    ));
    // It continues with what it has; nothing needs a restart.
    assert_eq!(world.steps_taken(), Vec::<String>::new());
}

#[test]
fn folders_that_are_right_or_not_pgherds_stay() {
    let mut world = World::settled(FIVE);
    folder(&mut world, "/etc/pgherd", "root", 0o755);
    folder(&mut world, "/etc/haproxy", "root", 0o750);
    // PostgreSQL accepts this one too.
    folder(&mut world, "/data/patroni", "postgres", 0o750);
    folder(&mut world, "/data", "root", 0o711);
    assert_eq!(put_right(&world), Vec::<String>::new());
}

#[test]
fn etcds_folder_is_put_right_too() {
    let mut world = World::settled(ONE);
    let folder = Folder {
        owner: "root".into(),
        group: "root".into(),
        mode: 0o700,
        is_folder: true,
        passable: None,
    };
    let needs = &mut world.facts("all").needs;
    needs
        .folders
        .insert("/var/lib/etcd/pgherd-pg".into(), folder);
    let right = ["the folder /var/lib/etcd/pgherd-pg: root:root 0700 becomes etcd:etcd 0700"];
    assert_eq!(put_right(&world), right);
}

#[test]
fn a_hosts_file_that_others_cannot_read_is_opened_and_keeps_the_rest_of_its_mode() {
    let mut world = World::settled(FIVE);
    world.file("node1", "/etc/hosts").mode = 0o600;
    let plan = world.plan();
    let prepare = step(&plan, "node1", "prepare");
    assert!(
        says(prepare, "/etc/hosts root:root 0644"),
        "{:?}",
        prepare.changes
    );
    world.file("node1", "/etc/hosts").mode = 0o664;
    assert!(world.plan().is_empty());
}
