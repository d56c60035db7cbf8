use super::*;
use crate::plan::tests::world::{FIVE, ONE, SYSTEM, World, step};

fn in_place<'a>(world: &'a World, host: &'a HostName, keeper: &'a HostName) -> InPlace<'a> {
    InPlace {
        cluster: &world.cluster,
        id: "7",
        from: 16,
        to: 18,
        host,
        keeper,
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    let each = plan.steps.iter();
    each.map(|step| format!("{} {}", step.host, step.name))
        .collect()
}

#[test]
fn the_leader_stops_first_and_only_a_cluster_that_is_not_paused_is_paused() {
    let world = World::settled(FIVE);
    let (host, keeper) = (HostName::new("node2"), HostName::new("node3"));
    let it = in_place(&world, &host, &keeper);
    assert_eq!(
        steps(&it.stop(false)),
        [
            "node2 pause",
            "node2 stop-member",
            "node1 stop-member",
            "node3 stop-member"
        ]
    );
    let plan = it.stop(true);
    assert_eq!(plan.steps[0].name, "stop-member");
    assert_eq!(step(&plan, "node1", "stop-member").after, [0]);
}

#[test]
fn one_replica_keeps_the_old_data_and_the_others_are_emptied() {
    let world = World::settled(FIVE);
    let (host, keeper) = (HostName::new("node2"), HostName::new("node3"));
    let it = in_place(&world, &host, &keeper);
    let plan = it.join(&world.files);
    assert_eq!(
        steps(&plan),
        [
            "node1 empty-member",
            "node1 release-member",
            "node1 await-streaming",
            "node3 keep-old-data",
            "node3 release-member",
            "node3 await-streaming",
            "node2 update-extensions",
            "node2 analyze",
        ]
    );
    let script = |host, name| match &step(&plan, host, name).action {
        Action::Run(script) => script.clone(),
        other => panic!("{other:?}"),
    };
    assert!(script("node1", "empty-member").contains("GONE=16\nKEEP=no"));
    assert!(script("node3", "keep-old-data").contains("GONE=16\nKEEP=yes"));
}

#[test]
fn the_dcs_names_the_database_before_a_member_leads_with_it() {
    let world = World::settled(FIVE);
    let (host, keeper) = (HostName::new("node2"), HostName::new("node3"));
    let it = in_place(&world, &host, &keeper);
    let plan = it.lead("77", &world.files);
    assert_eq!(
        steps(&plan),
        [
            "node4 adopt-system",
            "node2 release-member",
            "node2 await-leader"
        ]
    );
    assert_eq!(step(&plan, "node2", "release-member").after, [0]);
    // On the way back, all have stopped before the old data is put back.
    let plan = it.put_back(SYSTEM, &world.files);
    let back = step(&plan, "node3", "put-back");
    assert_eq!(back.after.len(), 3);
    let adopted = step(&plan, "node4", "adopt-system");
    let Action::AdoptSystem { system } = &adopted.action else {
        panic!("{:?}", adopted.action);
    };
    assert_eq!(system, SYSTEM);
    assert_eq!(plan.steps.last().map(|it| it.host.as_str()), Some("node3"));
}

#[test]
fn hard_links_are_made_only_where_another_member_keeps_the_old_data() {
    let world = World::settled(FIVE);
    let (host, keeper) = (HostName::new("node2"), HostName::new("node3"));
    let links = |plan: Plan| match &plan.steps[0].action {
        Action::Run(script) => script.contains("LINK=--link"),
        other => panic!("{other:?}"),
    };
    let terms = Terms::default();
    assert!(links(in_place(&world, &host, &keeper).upgrade(&terms)));
    let world = World::settled(ONE);
    let all = HostName::new("all");
    let alone = in_place(&world, &all, &all);
    assert!(!links(alone.upgrade(&terms)));
    // Its old data is the way back.
    let Action::Run(end) = &alone.end().steps[0].action else {
        panic!("a script");
    };
    assert!(!end.contains("rm -rf \"$OLD\""));
}
