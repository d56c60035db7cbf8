//! Passwords and hosts that change between runs.

use super::*;

#[test]
fn passwords_change_in_stages_of_which_each_can_be_the_last_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut inventory = inventory(dir.path());
    inventory
        .postgresql
        .users
        .insert("app".into(), User::default());
    let workspace = filled(&inventory);
    let old = workspace.secrets().unwrap();
    assert_eq!(workspace.secrets_stage().unwrap(), None);
    let mut interim = None;
    for (stage, used, renewed) in [
        (SecretsStage::Make, false, false),
        (SecretsStage::Use, true, false),
        (SecretsStage::Change, true, true),
        (SecretsStage::Return, false, true),
    ] {
        workspace.advance_secrets(stage, false).unwrap();
        // As the next run finds it, and `plan` too.
        for found in [
            Workspace::existing(&inventory).unwrap().unwrap(),
            Workspace::preview(&inventory).unwrap(),
        ] {
            assert_eq!(found.secrets_stage().unwrap(), Some(stage));
            let secrets = found.secrets().unwrap();
            let stands_in = secrets.interim.clone().unwrap();
            assert_eq!(stands_in.used, used, "{stage:?}");
            let same = interim.get_or_insert(stands_in.clone());
            assert_eq!(same.replication, stands_in.replication);
            for (one, other) in secrets.values().iter().zip(old.values()).take(5) {
                assert_eq!(*one != other, renewed, "{stage:?}");
            }
            assert_eq!(secrets.users, old.users, "only when asked for");
            assert_eq!(secrets.cluster_id, old.cluster_id);
        }
        assert_eq!(mode(&workspace.dir().join(ROTATION)), 0o600);
    }
    workspace.end_secrets().unwrap();
    assert_eq!(workspace.secrets().unwrap().interim, None);

    workspace
        .advance_secrets(SecretsStage::Change, true)
        .unwrap();
    assert_ne!(workspace.secrets().unwrap().users, old.users);

    fs::write(workspace.dir().join(ROTATION), "{\"stage\": \"hunter2\"}").unwrap();
    let error = format!("{:?}", workspace.secrets().unwrap_err());
    assert!(error.contains("rotation.json is damaged"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn hosts_that_leave_the_inventory_are_still_known() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let workspace = filled(&inventory);
    fs::remove_file(workspace.dir().join(MEMBERS)).unwrap();
    let machine = |host: &str, last| Machine {
        host: HostName::new(host),
        id: host.to_owned(),
        state: MachineState::Running,
        address: Some(Ipv4Addr::new(192, 0, 2, last)),
        ssh_address: None,
        cluster_id: None,
        data_volume: None,
        host_key: None,
        published_on: None,
        balancer: None,
    };
    let gone = machine("gone", 9);
    let here: Vec<Machine> = inventory
        .hosts
        .keys()
        .map(|host| machine(host.as_str(), 1))
        .collect();
    // As an earlier version left it: a host is still in its ssh_config, and there is no list.
    let mut before = inventory.clone();
    before.hosts.insert(
        HostName::new("gone"),
        inventory.hosts.values().next().unwrap().clone(),
    );
    let earlier = Workspace::open(&before).unwrap();
    earlier
        .write_ssh_config(&[here.clone(), vec![gone]].concat())
        .unwrap();
    let known = |workspace: &Workspace| {
        let mut known = workspace.members().unwrap().into_iter();
        known.find(|known| known.name.as_str() == "gone")
    };
    let name_only = KnownHost {
        name: HostName::new("gone"),
        roles: Vec::new(),
        address: Some([192, 0, 2, 9].into()),
        size: None,
        joined: false,
    };
    // Neither a verb that only looks nor a plan makes it forget.
    workspace.write_ssh_config(&here).unwrap();
    let preview = Workspace::preview(&inventory).unwrap();
    for workspace in [&workspace, &preview] {
        assert_eq!(known(workspace), Some(name_only.clone()));
    }
    let whole = KnownHost {
        roles: vec![Role::Postgres, Role::Etcd],
        size: Some(Size {
            memory_mib: 3915,
            cores: 2,
            disk_gib: 8,
            rotates: None,
        }),
        joined: true,
        ..name_only
    };
    workspace
        .note_members(std::slice::from_ref(&whole))
        .unwrap();
    assert_eq!(known(&workspace), Some(whole.clone()));
    let preview = Workspace::preview(&inventory).unwrap();
    assert_eq!(known(&preview), Some(whole));
    assert_eq!(mode(&workspace.dir().join(MEMBERS)), 0o600);
    // Its address is kept for the `down` that clears it.
    workspace.write_ssh_config(&here).unwrap();
    let kept = workspace.known_addresses().unwrap();
    assert!(kept.contains_key(&HostName::new("gone")));

    fs::write(workspace.dir().join(MEMBERS), "{").unwrap();
    let error = format!("{:?}", workspace.members().unwrap_err());
    assert!(error.contains("members.json is damaged"), "{error}");
}

#[test]
fn a_bucket_that_is_being_made_is_noted_until_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let inventory = inventory(dir.path());
    let workspace = filled(&inventory);
    assert!(
        !workspace
            .is_making_bucket("backups s3.example.com")
            .unwrap()
    );
    workspace
        .note_making_bucket("backups s3.example.com")
        .unwrap();
    let next = Workspace::existing(&inventory).unwrap().unwrap();
    assert!(next.is_making_bucket("backups s3.example.com").unwrap());
    assert!(!next.is_making_bucket("others s3.example.com").unwrap());
    next.end_making_bucket().unwrap();
    next.end_making_bucket().unwrap();
    assert!(
        !workspace
            .is_making_bucket("backups s3.example.com")
            .unwrap()
    );
}

#[test]
fn where_an_instance_profile_opens_the_bucket_no_access_key_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    for (profile, wanted) in [("", true), (", profile: backups", false)] {
        let path = folder.path().join("pgherd.yaml");
        let text = format!(
            "cluster: pg\nprovider: {{ kind: aws, region: eu-central-1 }}\n\
             backup: {{ s3: {{ bucket: backups, region: eu-central-1{profile} }} }}\nhosts:\n  \
             db: {{ roles: [postgres, etcd] }}\n  door: {{ roles: [haproxy] }}\n  keeper: {{ roles: [backup] }}\n"
        );
        let inventory = Inventory::parse(&path, &text).unwrap();
        assert_eq!(inventory.bucket_profile().is_none(), wanted);
        let keeper = inventory.profile_of(&HostName::new("keeper"));
        assert_eq!(keeper.is_none(), wanted);
        assert_eq!(inventory.profile_of(&HostName::new("db")), None);
        let workspace = Workspace::open(&inventory).unwrap();
        let refused = workspace.secrets().map(|it| it.s3.is_some());
        match wanted {
            true => assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .contains("`s3_key` is missing")
            ),
            false => assert!(!refused.unwrap()),
        }
    }
}
