//! New members of etcd, and members that lost their data.

use super::{
    membership::{ONE_ETCD, THREE_ETCD, known, refused, silent, under},
    world::{FIVE, SHARED, World, says, step},
};
use crate::{
    facts::EtcdIdentity,
    inventory::{HostName, Role},
    plan::{Action, Plan, StepId, membership, tests::model::before_and_after},
    services::etcd::Member,
};

fn told(plan: &Plan) -> String {
    plan.membership.join("\n")
}

fn at(plan: &Plan, host: &str, name: &str) -> StepId {
    let is_it = |id: &StepId| {
        let step = &plan.steps[*id];
        step.host.as_str() == host && step.name == name
    };
    let found = (0..plan.steps.len()).find(is_it);
    found.unwrap_or_else(|| panic!("no {name} on {host}"))
}

/// A host's steps, without those for its packages and its own files.
fn of(world: &World, host: &str) -> Vec<String> {
    let plan = world.plan();
    let steps = plan
        .steps
        .iter()
        .filter(|step| step.host.as_str() == host && step.name.contains("etcd"));
    steps.map(|step| step.name.to_owned()).collect()
}

const WHOLE: [&str; 6] = [
    "hold-etcd",
    "configure-etcd",
    "add-etcd-member",
    "join-etcd",
    "promote-etcd-member",
    "await-etcd",
];

#[test]
fn etcd_grows_from_one_to_three_one_at_a_time() {
    let world = under(FIVE, THREE_ETCD);
    let plan = world.plan();
    insta::assert_snapshot!(told(&plan), @r"
    etcd grows from 1 to 3 members, one at a time; writes go on
      each is added as a learner, which has no vote, and promoted once it has caught up
      node5: etcd needs 1 of 1 member to take it in, and 2 of 2 members afterwards: none may fail until the next is in
      node6: etcd needs 2 of 2 members to take it in, and 2 of 3 members afterwards
    ");
    for host in ["node5", "node6"] {
        assert_eq!(of(&world, host), WHOLE);
    }
    let after = |one: StepId, other: StepId| before_and_after(&plan, one).0.contains(&other);
    // The second one is added when the first one votes and is healthy.
    let first = at(&plan, "node5", "await-etcd");
    assert!(after(at(&plan, "node6", "add-etcd-member"), first));
    // It must not start before it is added, whatever happens to its host.
    let hold = at(&plan, "node6", "hold-etcd");
    assert!(after(at(&plan, "node6", "configure-etcd"), hold));
    assert!(after(at(&plan, "node6", "add-etcd-member"), hold));
    // No Patroni is told of a member before that member is healthy.
    let last = at(&plan, "node6", "await-etcd");
    for host in ["node1", "node2", "node3"] {
        assert!(after(at(&plan, host, "configure-patroni"), last));
        assert!(after(at(&plan, host, "restart-patroni-alone"), last));
    }
    // The existing ones are not restarted because they are no longer alone.
    assert!(
        !world
            .steps_taken()
            .iter()
            .any(|it| it.starts_with("node4 "))
    );
    // Each starts with the list of its moment, and its config is the final one.
    let join = |host| step(&plan, host, "join-etcd");
    assert!(says(
        join("node5"),
        "\"node4=https://node4:2380,node5=https://node5:2380\""
    ));
    assert!(says(
        join("node6"),
        "https://node5:2380,node6=https://node6:2380\""
    ));
    assert!(says(
        join("node5"),
        "ETCD_INITIAL_CLUSTER_STATE=\"existing\""
    ));
}

/// Only the role, on existing hosts with a database.
#[test]
fn a_role_that_is_added_to_a_database_host_joins_first() {
    let world = under(ONE_ETCD, SHARED);
    let plan = world.plan();
    assert_eq!(of(&world, "db2"), WHOLE);
    let last = at(&plan, "db3", "await-etcd");
    let patroni = at(&plan, "db2", "configure-patroni");
    assert!(before_and_after(&plan, patroni).0.contains(&last));
}

#[test]
fn etcd_grows_from_three_to_five() {
    let five = format!(
        "{THREE_ETCD}  node7: {{ roles: [etcd], address: 192.0.2.8 }}\n  node8: {{ roles: [etcd], address: 192.0.2.9 }}\n"
    );
    insta::assert_snapshot!(told(&under(THREE_ETCD, &five).plan()), @r"
    etcd grows from 3 to 5 members, one at a time; writes go on
      each is added as a learner, which has no vote, and promoted once it has caught up
      node7: etcd needs 2 of 3 members to take it in, and 3 of 4 members afterwards
      node8: etcd needs 3 of 4 members to take it in, and 3 of 5 members afterwards
    ");
}

#[test]
fn a_host_that_cannot_be_looked_at_does_not_join() {
    let mut world = under(FIVE, THREE_ETCD);
    world.found.facts.remove(&HostName::new("node5"));
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: the inventory wants etcd on node5, which cannot be reached
      why: etcd takes a member in when it can start at once, and Patroni is told of it only then
      left: nothing was touched
      hint: bring node5 up, and run the same again
    ");
    // A run that was cut off has made it, and the next one starts it first.
    world.found.starting.insert(HostName::new("node5"));
    let plan = world.plan();
    assert!(plan.steps.iter().all(|step| step.host.as_str() != "node5"));
    // Work that starts no etcd, and began with the present members, is not done either.
    let three = under(FIVE, THREE_ETCD);
    let error = membership::check_to_operate(&three.cluster, &three.found).unwrap_err();
    assert!(
        error.to_string().contains("members are not those"),
        "{error}"
    );
    let differs = membership::findings(&three.cluster, &three.found);
    assert!(
        differs[0]
            .what
            .contains("the inventory wants etcd on node5, node6;")
    );
}

/// The list after an interrupted run.
fn listed(world: &mut World, host: &str, started: bool) {
    let member = Member {
        id: format!("new id of {host}"),
        name: if started { host.into() } else { String::new() },
        peer_urls: vec![format!("https://{host}:2380")],
        client_urls: started
            .then(|| "https://192.0.2.6:2379".to_owned())
            .into_iter()
            .collect(),
        is_learner: true,
    };
    world.found.etcd.push(member.clone());
    for view in world.found.stores.values_mut() {
        view.members.push(member.clone());
    }
}

#[test]
fn a_run_that_was_cut_off_goes_on_where_it_was() {
    let mut world = under(FIVE, THREE_ETCD);
    listed(&mut world, "node6", false);
    let steps = of(&world, "node6");
    assert_eq!(
        steps,
        WHOLE
            .map(str::to_owned)
            .into_iter()
            .filter(|it| it != "add-etcd-member")
            .collect::<Vec<_>>()
    );
    // There is one learner at a time.
    let plan = world.plan();
    let first = at(&plan, "node6", "await-etcd");
    let next = at(&plan, "node5", "add-etcd-member");
    assert!(before_and_after(&plan, next).0.contains(&first));

    let mut world = World::settled(THREE_ETCD);
    world.found.stores.remove(&HostName::new("node6"));
    for members in world
        .found
        .stores
        .values_mut()
        .map(|view| &mut view.members)
        .chain([&mut world.found.etcd])
    {
        members.last_mut().unwrap().is_learner = true;
    }
    assert_eq!(of(&world, "node6"), ["promote-etcd-member", "await-etcd"]);
    let differs = membership::findings(&world.cluster, &world.found);
    assert!(
        differs[0].what.contains("node6 is a learner"),
        "{differs:?}"
    );
    world.stop("node6", "etcd");
    assert_eq!(
        of(&world, "node6"),
        ["start-etcd", "promote-etcd-member", "await-etcd"]
    );
}

#[test]
fn one_of_three_that_lost_its_data_is_removed_and_comes_back() {
    let mut world = World::settled(THREE_ETCD);
    world.made_anew("node6");
    // Work that starts no etcd, such as a switchover, is done too.
    assert!(membership::check_to_operate(&world.cluster, &world.found).is_ok());
    let plan = world.plan();
    insta::assert_snapshot!(told(&plan), @r"
    etcd comes back to 3 members, one at a time; writes go on
      each is added as a learner, which has no vote, and promoted once it has caught up
      node6 lost its data: its old entry is removed, for which etcd needs 2 of 3 members, and 2 answer
      node6: etcd needs 2 of 2 members to take it in, and 2 of 3 members afterwards
    ");
    let mut steps = WHOLE.to_vec();
    steps.insert(2, "remove-etcd-member");
    assert_eq!(of(&world, "node6"), steps);
    let removed = step(&plan, "node6", "remove-etcd-member");
    let id = "id of node6".to_owned();
    assert_eq!(removed.action, Action::RemoveEtcdMember { id });
    // Without its old entry, a member with its first config would make a store of its own.
    let hold = at(&plan, "node6", "hold-etcd");
    let remove = at(&plan, "node6", "remove-etcd-member");
    assert!(before_and_after(&plan, remove).0.contains(&hold));
    // Only its data: the files are there.
    let mut world = World::settled(THREE_ETCD);
    world.facts("node6").etcd_data = false;
    world.unit("node6", "etcd").active = "activating".into();
    world.found.stores.remove(&HostName::new("node6"));
    assert!(of(&world, "node6").starts_with(&["hold-etcd".to_owned()]));
    let plan = world.plan();
    assert!(says(
        step(&plan, "node6", "hold-etcd"),
        "systemctl stop etcd"
    ));
}

#[test]
fn without_a_majority_nobody_is_removed() {
    let mut world = World::settled(THREE_ETCD);
    world.made_anew("node5");
    world.made_anew("node6");
    world.found.dcs = None;
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: etcd has 3 members, of which 1 answers (node5, node6 lost their data): a change of membership needs 2
      why: etcd decides by a quorum, which is a majority of its members; without one it decides nothing, also not who is a member, and Patroni lets no other member lead
      left: nothing was touched
      hint: if you have the disk or a copy of etcd's data folder of node5 or node6: put it back, then: pgherd up
      hint: if not: let etcd on node4 go on alone, by hand, and `pgherd up` takes the others in again: docs/how-to/etcd-quorum.md#when-the-data-of-a-majority-is-lost
      hint: until then PostgreSQL runs on, and node1 takes writes as long as it reaches every other member: restart neither Patroni nor PostgreSQL, and remove nothing
    ");
    // `status` does not promise what `up` refuses.
    let differs = membership::findings(&world.cluster, &world.found);
    assert!(
        differs[0].what.contains("a change of membership needs 2"),
        "{differs:?}"
    );
    // A stopped member with its data starts first; the rest is decided then.
    let mut world = World::settled(THREE_ETCD);
    world.made_anew("node6");
    world.stop("node5", "etcd");
    world.found.stores.remove(&HostName::new("node5"));
    world.found.dcs = None;
    let plan = world.plan();
    assert!(plan.partial);
    assert!(world.steps_taken().contains(&"node5 start-etcd".to_owned()));
    assert!(!world.steps_taken().iter().any(|it| it.contains("member")));
    // etcd adds no member while a voting one cannot be reached.
    let mut world = World::settled(THREE_ETCD);
    world.made_anew("node6");
    world.found.stores.remove(&HostName::new("node5"));
    world.found.facts.remove(&HostName::new("node5"));
    assert!(refused(&world).contains("node5 does not answer"));
    // It does once its host has started.
    world.found.starting.insert(HostName::new("node5"));
    assert!(world.up().is_ok());
}

/// As docs/how-to/etcd-quorum.md says: the last member with its data was started as the only one of its store.
#[test]
fn a_member_that_goes_on_alone_takes_the_others_in_again() {
    let mut world = World::settled(THREE_ETCD);
    for host in ["node5", "node6"] {
        world.made_anew(host);
    }
    let lists = world
        .found
        .stores
        .values_mut()
        .map(|view| &mut view.members);
    for members in lists.chain([&mut world.found.etcd]) {
        members.retain(|member| member.name == "node4");
    }
    insta::assert_snapshot!(told(&world.plan()), @r"
    etcd grows from 1 to 3 members, one at a time; writes go on
      each is added as a learner, which has no vote, and promoted once it has caught up
      node5: etcd needs 1 of 1 member to take it in, and 2 of 2 members afterwards: none may fail until the next is in
      node6: etcd needs 2 of 2 members to take it in, and 2 of 3 members afterwards
    ");
    assert_eq!(of(&world, "node5"), WHOLE);
}

/// No member can be asked, so the data on the hosts decides.
#[test]
fn while_no_member_answers_none_is_made_anew() {
    let mut world = World::settled(THREE_ETCD);
    world.made_anew("node6");
    silent(&mut world);
    assert!(refused(&world).contains("etcd on node6 has no data"));
    known(
        &mut world,
        &[
            ("node4", &[Role::Etcd], true),
            ("node5", &[Role::Etcd], true),
            ("node6", &[Role::Etcd], true),
        ],
    );
    for host in ["node1", "node2", "node3"] {
        world.made_anew(host);
    }
    assert!(refused(&world).contains("start etcd on node4, node5 first"));
    // A majority of new members would not ask the one that could not be observed.
    world.made_anew("node5");
    world.found.facts.remove(&HostName::new("node4"));
    assert!(refused(&world).contains("etcd on node5, node6 has no data"));
}

/// A removed member's data is moved away; data from an unknown source is not touched.
#[test]
fn data_that_is_not_of_the_store_is_left_alone() {
    let mut world = under(FIVE, THREE_ETCD);
    world.facts("node5").etcd_data = true;
    insta::assert_snapshot!(refused(&world), @r"
    the cluster's members are not those of the inventory
      why: etcd on node5 has data, and not of the store that answers (one store)
      why: it may be the store that the cluster began with: pgherd does not choose between two
      left: nothing was touched
      hint: if that data is of no use, move it away on node5 (/var/lib/etcd/pgherd-pg), and run the same again
    ");
    let identity = |store: &str| {
        Some(EtcdIdentity {
            cluster_id: store.into(),
            member_id: "gone".into(),
        })
    };
    world.facts("node5").etcd_identity = identity("another store");
    assert!(refused(&world).contains("etcd on node5 has data"));
    world.facts("node5").etcd_identity = identity("one store");
    let plan = world.plan();
    let hold = step(&plan, "node5", "hold-etcd");
    assert!(format!("{:?}", hold.changes).contains("is moved to /var/lib/etcd/pgherd-pg.removed"));
    assert!(says(
        hold,
        "mv /var/lib/etcd/pgherd-pg /var/lib/etcd/pgherd-pg.removed"
    ));
}

/// A member that lost its data started by itself, without the others, before anybody noticed.
#[test]
fn a_store_that_a_lost_member_began_alone_is_moved_away() {
    let mut world = World::settled(THREE_ETCD);
    world.found.stores.remove(&HostName::new("node6"));
    world.unit("node6", "etcd").active = "activating".into();
    let identity = |store: &str, member: &str| EtcdIdentity {
        cluster_id: store.into(),
        member_id: member.into(),
    };
    // Its own data, which it only has to use.
    world.facts("node6").etcd_identity = Some(identity("one store", "id of node6"));
    assert!(!of(&world, "node6").contains(&"hold-etcd".to_owned()));
    for other in [
        identity("a store of its own", "id of node6"),
        identity("one store", "the id before"),
    ] {
        world.facts("node6").etcd_identity = Some(other);
        let plan = world.plan();
        let hold = step(&plan, "node6", "hold-etcd");
        assert!(format!("{:?}", hold.changes).contains("is moved to"));
        at(&plan, "node6", "remove-etcd-member");
        at(&plan, "node6", "join-etcd");
    }
    // From then on it does not start without its data.
    let plan = world.plan();
    let join = step(&plan, "node6", "join-etcd");
    assert!(says(
        join,
        "ExecStartPre=/usr/bin/test -d /var/lib/etcd/pgherd-pg/member/wal"
    ));
}
