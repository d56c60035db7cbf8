use std::{collections::BTreeMap, net::Ipv4Addr};

use indexmap::IndexMap;

use super::*;

mod change;
mod down;
use crate::{
    cluster::KnownHost,
    inventory::{Host, HostName, Provider, Role, User},
    machine::{Machine, MachineState},
    tuning::Size,
};

pub(super) fn inventory(folder: &Path) -> Inventory {
    let host = |role| Host {
        roles: vec![role],
        address: None,
    };
    let smallest = "
cluster: pg
provider: { kind: docker }
ssh: { connect_timeout: 5 }
postgresql: { allow: [] }
hosts: { node1: { roles: [postgres, etcd, haproxy] } }
";
    let path = folder.join("pgherd.yaml");
    Inventory {
        hosts: IndexMap::from([
            (HostName::new("node1"), host(Role::Postgres)),
            (HostName::new("node4"), host(Role::Etcd)),
        ]),
        ..Inventory::parse(&path, smallest).unwrap()
    }
}

fn requests(inventory: &Inventory) -> Vec<Request> {
    let request = |host: &HostName| Request {
        host: host.clone(),
        address: Some(Ipv4Addr::new(10, 0, 0, 1)),
        extra: Vec::new(),
        whole: true,
        usage: Usage::of(&inventory.hosts[host].roles),
    };
    inventory.hosts.keys().map(request).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every file below `dir` with its content.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for name in files::names(&folder).unwrap() {
            let path = folder.join(name);
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                all.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// Uses everything that a run uses.
fn filled(inventory: &Inventory) -> Workspace {
    let workspace = Workspace::open(inventory).unwrap();
    workspace.secrets().unwrap();
    let identity = workspace.identity().unwrap();
    let pki = workspace.pki().unwrap();
    pki.certificates(&requests(inventory), Renewal::Due)
        .unwrap();
    pki.rustls_client_config().unwrap();
    workspace.note_members(&[]).unwrap();
    let machine = Machine {
        host: HostName::new("node1"),
        id: "1".to_owned(),
        state: MachineState::Running,
        address: Some(Ipv4Addr::new(10, 0, 0, 1)),
        ssh_address: None,
        host_key: Some(identity.public_key),
        published_on: None,
        balancer: None,
        cluster_id: None,
        data_volume: None,
    };
    workspace
        .pin_host_keys(std::slice::from_ref(&machine))
        .unwrap();
    workspace.write_ssh_config(&[machine]).unwrap();
    workspace
}

#[test]
fn it_is_closed_to_others_and_to_repositories() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = filled(&inventory(dir.path()));
    let all = dir.path().join(".pgherd");
    assert_eq!(workspace.dir(), all.join("pg"));
    assert_eq!(fs::read_to_string(all.join(".gitignore")).unwrap(), "*\n");
    for folder in ["", "pg", "pg/pki"] {
        assert_eq!(mode(&all.join(folder)), 0o700, "{folder}");
    }
    for (name, _) in tree(&all) {
        let public = name.ends_with(".crt") || name.ends_with(".pub") || name == ".gitignore";
        let wanted = if public { 0o644 } else { 0o600 };
        assert_eq!(mode(&all.join(&name)), wanted, "{name}");
    }
    assert!(workspace.take_notes().is_empty());
}

#[test]
fn what_is_too_open_is_closed_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let opened = filled(&inventory).dir().to_owned();
    let loose = [
        (opened.clone(), 0o755),
        (opened.join("secrets.yaml"), 0o644),
        (opened.join("pki/node1.key"), 0o640),
    ];
    for (path, mode) in &loose {
        fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
    }
    let workspace = Workspace::existing(&inventory).unwrap().unwrap();
    let notes = workspace.take_notes();
    let wanted = loose.map(|(path, was)| Note::Tightened { path, was });
    assert_eq!(notes, wanted);
    assert!(
        notes[1]
            .to_string()
            .contains("secrets.yaml was open to others (mode 644)")
    );
    assert_eq!(mode(&opened), 0o700);
    assert_eq!(mode(&opened.join("secrets.yaml")), 0o600);
    assert!(Workspace::open(&inventory).unwrap().take_notes().is_empty());
}

#[test]
fn looking_for_a_workspace_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        Workspace::existing(&inventory(dir.path()))
            .unwrap()
            .is_none()
    );
    assert_eq!(files::names(dir.path()).unwrap(), [""; 0]);
}

#[test]
fn a_second_use_finds_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    filled(&inventory);
    let before = tree(dir.path());
    filled(&inventory);
    assert_eq!(
        tree(dir.path()).keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    assert!(tree(dir.path()) == before, "a file has changed");
}

#[test]
fn a_preview_works_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory(dir.path());
    let preview = Workspace::preview(&inventory).unwrap();
    let made = preview.secrets().unwrap();
    assert_eq!(preview.secrets().unwrap(), made);
    preview
        .pki()
        .unwrap()
        .certificates(&requests(&inventory), Renewal::Due)
        .unwrap();
    preview.write_ssh_config(&[]).unwrap();
    let scratch = preview.dir().to_owned();
    assert_eq!(mode(&scratch), 0o700);
    drop(preview);
    assert!(!scratch.exists());
    assert_eq!(files::names(dir.path()).unwrap(), [""; 0]);

    // With a workspace: its content, and changes that stay in the preview.
    let real = filled(&inventory);
    let secrets = real.secrets().unwrap();
    let text = fs::read_to_string(real.dir().join(SECRETS)).unwrap();
    let less = text
        .lines()
        .filter(|l| !l.starts_with("stats"))
        .collect::<Vec<_>>()
        .join("\n");
    fs::write(real.dir().join(SECRETS), less).unwrap();
    let before = tree(dir.path());
    inventory
        .hosts
        .insert(HostName::new("node5"), inventory.hosts[0].clone());
    let preview = Workspace::preview(&inventory).unwrap();
    let pki = preview.pki().unwrap();
    assert_eq!(pki.ca(), real.pki().unwrap().ca());
    let mut moved = requests(&inventory);
    moved[0].address = Some(Ipv4Addr::new(10, 0, 0, 99));
    let certificates = pki.certificates(&moved, Renewal::Due).unwrap();
    assert_eq!(certificates.len(), 3);
    assert_eq!(preview.secrets().unwrap().superuser, secrets.superuser);
    assert_ne!(preview.secrets().unwrap().stats, secrets.stats);
    assert_eq!(preview.pinned().unwrap().len(), 1);
    preview.forget(&HostName::new("node1")).unwrap();
    assert_eq!(
        preview.identity().unwrap().public_key,
        real.identity().unwrap().public_key
    );
    drop(preview);
    assert!(tree(dir.path()) == before, "a file has changed");
}

#[test]
fn errors_in_a_preview_name_the_real_file() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let real = filled(&inventory).dir().to_owned();
    fs::write(real.join(SECRETS), "superuser: ''\n").unwrap();
    fs::write(real.join("pki/node1.key"), "broken").unwrap();
    let preview = Workspace::preview(&inventory).unwrap();
    let of_secrets = preview.secrets().unwrap_err().to_string();
    let of_pki = preview
        .pki()
        .unwrap()
        .certificates(&requests(&inventory), Renewal::Due);
    for error in [of_secrets, of_pki.unwrap_err().to_string()] {
        assert!(error.contains(real.to_str().unwrap()), "{error}");
    }
}

#[test]
fn another_clusters_workspace_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory(dir.path());
    let first = filled(&inventory);
    inventory.cluster = "other".to_owned();
    let other = filled(&inventory).dir().to_owned();
    let before = tree(&other);
    let lock = first.lock_folder("down").unwrap();
    first.remove(&lock, false).unwrap();
    assert!(!first.dir().exists());
    assert_eq!(tree(&other), before);
    assert!(dir.path().join(".pgherd/.gitignore").exists());
}

#[test]
fn the_users_key_is_found_from_the_inventorys_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory(dir.path());
    let key = identity::of_cluster(&dir.path().join("my_key"), "me").unwrap();
    inventory.ssh.identity_file = Some(PathBuf::from("my_key"));
    let workspace = Workspace::open(&inventory).unwrap();
    assert_eq!(workspace.identity().unwrap(), key);
    let config = workspace.write_ssh_config(&[]).unwrap();
    let text = fs::read_to_string(config).unwrap();
    assert!(
        text.contains(dir.path().join("my_key").to_str().unwrap()),
        "{text}"
    );
    assert!(!workspace.dir().join(IDENTITY).exists());
}

#[test]
fn existing_hosts_are_reached_with_the_users_own_keys() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory(dir.path());
    inventory.provider = Provider::Existing;
    let workspace = Workspace::open(&inventory).unwrap();
    let config = workspace.write_ssh_config(&[]).unwrap();
    assert!(!fs::read_to_string(config).unwrap().contains("IdentityFile"));
}

#[test]
fn one_stranger_does_not_keep_the_others_from_being_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(&inventory(dir.path())).unwrap();
    let machine = |host: &str, host_key| Machine {
        host: HostName::new(host),
        id: host.to_owned(),
        state: MachineState::Running,
        address: Some(Ipv4Addr::new(192, 0, 2, 1)),
        ssh_address: None,
        host_key,
        published_on: None,
        balancer: None,
        cluster_id: None,
        data_volume: None,
    };
    let key = workspace.identity().unwrap().public_key;
    let machines = [machine("node1", Some(key)), machine("node4", None)];
    assert!(workspace.pin_host_keys_trusting(&machines, &[]).is_err());
    assert_eq!(workspace.pinned().unwrap().len(), 1);
    workspace.forget(&HostName::new("node1")).unwrap();
    assert!(workspace.pinned().unwrap().is_empty());
}

#[test]
fn verbs_at_the_same_time_do_not_lose_each_others_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let key = Workspace::open(&inventory)
        .unwrap()
        .identity()
        .unwrap()
        .public_key;
    std::thread::scope(|scope| {
        for (host, last) in [("node1", 1), ("node4", 4)] {
            let (inventory, key) = (&inventory, &key);
            scope.spawn(move || {
                for turn in 0..20 {
                    let workspace = Workspace::open(inventory).unwrap();
                    let machines = [Machine {
                        host: HostName::new(host),
                        id: host.to_owned(),
                        state: MachineState::Running,
                        address: Some(Ipv4Addr::new(192, 0, turn, last)),
                        ssh_address: None,
                        host_key: Some(key.clone()),
                        published_on: None,
                        balancer: None,
                        cluster_id: None,
                        data_volume: None,
                    }];
                    workspace.pin_host_keys(&machines).unwrap();
                    workspace.write_ssh_config(&machines).unwrap();
                    workspace.forget(&HostName::new("nobody")).unwrap();
                }
            });
        }
    });
    let workspace = Workspace::open(&inventory).unwrap();
    assert_eq!(workspace.pinned().unwrap().len(), 2);
    let config = fs::read_to_string(workspace.ssh_config_path()).unwrap();
    for line in ["HostName 192.0.19.1\n", "HostName 192.0.19.4\n"] {
        assert!(config.contains(line), "{config}");
    }

    // A machine that has lost its address is not kept. A host that has left the inventory is kept, because
    // `down` must reach it.
    let mut smaller = inventory.clone();
    smaller.hosts.shift_remove(&HostName::new("node1"));
    let stopped = Machine {
        host: HostName::new("node4"),
        id: "4".to_owned(),
        state: MachineState::Stopped,
        address: None,
        ssh_address: None,
        host_key: None,
        published_on: None,
        balancer: None,
        cluster_id: None,
        data_volume: None,
    };
    let path = Workspace::open(&smaller)
        .unwrap()
        .write_ssh_config(&[stopped])
        .unwrap();
    let config = fs::read_to_string(path).unwrap();
    assert!(!config.contains("Host node4"), "{config}");
    assert!(config.contains("HostName 192.0.19.1"), "{config}");
}

#[test]
fn control_sockets_fit() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(&inventory(dir.path())).unwrap();
    let control = workspace.control_dir().unwrap();
    assert_eq!(mode(control.path()), 0o700);
    let longest = control
        .path()
        .join(".ssh-connectionAbCdEf/master.0123456789abcdef");
    assert!(
        longest.as_os_str().len() < SOCKET_PATH,
        "{}",
        longest.display()
    );
}

#[test]
fn two_openings_of_one_cluster_do_not_both_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let (one, two) = (
        Workspace::open(&inventory).unwrap(),
        Workspace::open(&inventory).unwrap(),
    );
    let lock = one.lock_folder("up").unwrap();
    assert!(
        two.lock_folder("render")
            .unwrap_err()
            .to_string()
            .contains("`up` by")
    );
    drop(lock);
    // A process that another test has just forked has the lock too, until it runs its own program.
    let free = (0..100).any(|_| {
        let taken = two.lock_folder("render").is_ok();
        if !taken {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        taken
    });
    assert!(free);
}
