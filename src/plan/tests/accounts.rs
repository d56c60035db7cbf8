//! Users and databases of the inventory, and passwords that are wrong.

use super::world::{FIVE, World, role, says, step, told};
use crate::{
    cluster::{INTERIM_REPLICATION_USER, Interim},
    plan::Change,
    scram,
    secret::Secret,
};

const WANTED: &str = "postgresql: { users: { app: {}, \"o'\\\\hara \\\"x\\\"\": { roles: [pg_monitor, app] } }, \
                      databases: { app: {}, \"a;b\": { owner: app } } }";
const ODD: &str = r#"o'\hara "x""#;

fn world() -> World {
    let mut world = World::settled(FIVE);
    world.wants(WANTED, FIVE);
    let users = &mut world.cluster.secrets.users;
    users.insert("app".into(), Secret::new("app-s3cret"));
    users.insert(ODD.into(), Secret::new("odd-s3cret"));
    world
}

fn everywhere(world: &mut World, change: impl Fn(&mut crate::facts::Facts)) {
    for host in ["node1", "node2", "node3"] {
        change(world.facts(host));
    }
}

/// As `ensure-databases` leaves them.
fn done(facts: &mut crate::facts::Facts) {
    facts
        .db_roles
        .insert("app".into(), role("app", &Secret::new("app-s3cret")));
    let mut odd = role(ODD, &Secret::new("odd-s3cret"));
    odd.member_of = ["app".to_owned(), "pg_monitor".into()].into();
    facts.db_roles.insert(ODD.into(), odd);
    facts.databases.insert("app".into(), "app".into());
    facts.databases.insert("a;b".into(), "app".into());
}

fn changes(world: &World) -> Vec<String> {
    let plan = world.plan();
    let step = step(&plan, "node1", "ensure-databases");
    step.changes
        .iter()
        .map(|change| match change {
            Change::Other(what) => what.clone(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_is_not_there_is_made_on_the_leader() {
    let world = world();
    assert_eq!(world.steps(), ["node1 ensure-databases []"]);
    assert_eq!(
        changes(&world),
        [
            "user app".to_owned(),
            format!("user {ODD}"),
            format!("user {ODD} becomes a member of pg_monitor"),
            format!("user {ODD} becomes a member of app"),
            "database app, of user app".into(),
            "database a;b, of user app".into(),
        ]
    );
    let plan = world.plan();
    let step = step(&plan, "node1", "ensure-databases");
    // Through the shell, which needs a quote, a backslash and another quote for one quote.
    assert!(says(step, r#"create role "o'\''\hara ""x"""#));
    assert!(says(step, r#"create database "a;b" owner "app""#));
    assert!(says(step, "SCRAM-SHA-256$4096:"));
    assert!(!says(step, "app-s3cret"), "no password is in a statement");
}

#[test]
fn what_is_there_is_left_alone() {
    let mut world = world();
    everywhere(&mut world, done);
    assert_eq!(world.steps(), [""; 0]);
    // The same for a user that has left the inventory.
    world.wants("", FIVE);
    assert_eq!(world.steps(), [""; 0]);
}

#[test]
fn what_is_not_right_is_mended_and_nothing_else() {
    type Case = (fn(&mut crate::facts::Facts), &'static str);
    let cases: [Case; 6] = [
        (
            |facts| {
                let other = role("app", &Secret::new("another"));
                facts.db_roles.insert("app".into(), other);
            },
            "the password of user app",
        ),
        (
            |facts| facts.db_roles.get_mut("app").unwrap().login = false,
            "user app may log in",
        ),
        (
            |facts| facts.db_roles.get_mut("app").unwrap().connection_limit = Some(0),
            "user app may log in",
        ),
        (
            |facts| facts.db_roles.get_mut("app").unwrap().expired = true,
            "the password of user app does not expire",
        ),
        (
            |facts| facts.db_roles.get_mut(ODD).unwrap().member_of.clear(),
            "user o'\\hara \"x\" becomes a member of pg_monitor",
        ),
        (
            |facts| {
                facts.databases.insert("app".into(), "postgres".into());
            },
            "database app belongs to app, not to postgres",
        ),
    ];
    for (happens, change) in cases {
        let mut world = world();
        everywhere(&mut world, done);
        everywhere(&mut world, happens);
        assert_eq!(changes(&world)[0], change);
    }
}

#[test]
fn a_password_that_secrets_yaml_has_otherwise_is_set() {
    let mut world = World::settled(FIVE);
    world.cluster.secrets.rewind = Secret::new("edited by hand");
    let plan = world.plan();
    let step = step(&plan, "node1", "ensure-roles");
    assert_eq!(
        step.why,
        "rewind has another password than secrets.yaml says"
    );
    let context = format!("{} rewind", world.cluster.secrets.cluster_id);
    let verifier = scram::verifier(&world.cluster.secrets.rewind, &context);
    assert!(says(step, &verifier) && !says(step, "edited by hand"));
}

#[test]
fn a_replicas_word_counts_only_where_no_primary_tells() {
    let mut world = World::settled(FIVE);
    for host in ["node2", "node3"] {
        world.facts(host).db_roles.clear();
    }
    assert_eq!(world.steps(), [""; 0], "they only lag");
    world.stop("node1", "patroni");
    let plan = world.up().map_err(|error| told(&error)).unwrap();
    assert!(plan.steps.iter().any(|step| step.name == "ensure-roles"));
}

#[test]
fn interim_roles_come_before_they_are_used_and_go_when_they_have_served() {
    let mut world = World::settled(FIVE);
    world.cluster.secrets.interim = Some(Interim {
        used: false,
        replication: Secret::new("interim-1"),
        rewind: Secret::new("interim-2"),
    });
    let plan = world.plan();
    assert!(says(
        step(&plan, "node1", "ensure-roles"),
        "grant rewind to rewind_interim"
    ));

    world.cluster.secrets.interim = None;
    let interim = role(INTERIM_REPLICATION_USER, &Secret::new("interim-1"));
    everywhere(&mut world, |facts| {
        facts
            .db_roles
            .insert(INTERIM_REPLICATION_USER.into(), interim.clone());
    });
    let plan = world.plan();
    let step = step(&plan, "node1", "ensure-roles");
    assert_eq!(step.why, "replicator_interim has served");
    assert!(says(
        step,
        "drop role if exists replicator_interim, rewind_interim"
    ));
}

#[test]
fn where_everybody_may_create_in_public_that_is_taken_away_before_databases_are_made() {
    let mut world = world();
    everywhere(&mut world, |facts| {
        facts.open_public = ["a;b", "postgres", "template1"].map(str::to_owned).into();
    });
    assert_eq!(
        world.steps(),
        ["node1 close-public []", "node1 ensure-databases [0]"]
    );
    let plan = world.plan();
    let step = step(&plan, "node1", "close-public");
    let shown = format!("{:?}", step.changes);
    for name in ["a;b", "postgres", "template1"] {
        assert!(
            shown.contains(&format!("of the database {name} is taken from PUBLIC")),
            "{shown}"
        );
    }
    assert!(says(step, "revoke create on schema public from public"));
    assert!(says(step, "-d 'dbname='\\''a;b'\\'''"));

    everywhere(&mut world, |facts| facts.open_public.clear());
    everywhere(&mut world, done);
    assert_eq!(world.steps(), [""; 0]);
}

#[test]
fn public_is_closed_from_the_beginning_whatever_the_version() {
    let closes = |major: u16| {
        let mut world = World::bare(FIVE);
        for node in world.cluster.nodes.values_mut() {
            node.postgresql = node.postgresql.map(|_| major);
        }
        let plan = world.plan();
        plan.steps.iter().any(|step| step.name == "close-public")
    };
    assert!(closes(14), "everybody may create something there");
    assert!(!closes(15), "nobody but the owner may");
}

#[test]
fn sql_of_pgherds_runs_with_a_search_path_of_its_own() {
    let mut world = World::settled(FIVE);
    world.cluster.secrets.rewind = Secret::new("edited by hand");
    let plan = world.plan();
    assert!(says(
        step(&plan, "node1", "ensure-roles"),
        "PGOPTIONS='-c search_path=pg_catalog,pg_temp "
    ));
}

#[test]
fn sessions_end_whose_password_has_changed_the_leaders_last() {
    let mut world = world();
    everywhere(&mut world, done);
    everywhere(&mut world, |facts| {
        for name in ["app", "postgres"] {
            let other = role(name, &Secret::new("before"));
            facts.db_roles.insert(name.into(), other);
        }
    });
    let steps = world.steps();
    let ends = "end-sessions";
    let at = |name: &str| steps.iter().position(|step| step.contains(name));
    let first = at(ends).unwrap();
    assert!(at("ensure-roles") < Some(first) && at("ensure-databases") < Some(first));
    let all: Vec<String> = (0..first).map(|step| step.to_string()).collect();
    let all = all.join(", ");
    assert_eq!(
        steps[first..],
        [
            format!("node2 end-sessions [{all}]"),
            format!("node3 end-sessions [{all}]"),
            format!("node1 end-sessions [{all}, {first}, {}]", first + 1),
        ]
    );
    let plan = world.plan();
    assert!(says(
        step(&plan, "node1", "ensure-roles"),
        "cG9zdGdyZXM= >>/run/pgherd/old-sessions"
    ));
    assert!(says(
        step(&plan, "node1", "ensure-databases"),
        "YXBw >>/run/pgherd/old-sessions"
    ));
    let end = step(&plan, "node2", ends);
    // Patroni's own connections use no password.
    assert!(says(end, "client_addr is not null"));
    assert!(says(end, "usename in (null, E'\\''app'\\'')"));
    assert!(!says(end, "replicator"), "its password is the same");
}

#[test]
fn sessions_that_a_cut_run_left_end_in_the_next() {
    let mut world = world();
    everywhere(&mut world, done);
    world.facts("node2").old_sessions = ["app", "left the inventory"].map(str::to_owned).into();
    assert_eq!(
        world.steps(),
        [
            "node2 end-sessions []",
            "node3 end-sessions []",
            "node1 end-sessions [0, 1]"
        ]
    );
}

#[test]
fn the_clusters_own_roles_get_back_what_they_lack() {
    type Case = (&'static str, fn(&mut crate::facts::DbRole), &'static str);
    let cases: [Case; 8] = [
        (
            "replicator",
            |role| role.login = false,
            "replicator cannot log in",
        ),
        (
            "replicator",
            |role| role.replication = false,
            "replicator may not replicate",
        ),
        (
            "rewind",
            |role| role.expired = true,
            "rewind has an expired password",
        ),
        (
            "replicator",
            |role| role.connection_limit = Some(1),
            "replicator may have no more than 1 connection",
        ),
        (
            "rewind",
            |role| role.verifier = None,
            "rewind has another password than secrets.yaml says",
        ),
        (
            "rewind",
            |role| role.lacks_functions = true,
            "rewind may not execute what pg_rewind needs",
        ),
        (
            "postgres",
            |role| role.settings = ["search_path".to_owned(), "work_mem".into()].into(),
            "postgres has settings that prevent its work: search_path",
        ),
        (
            "postgres",
            |role| role.settings = ["work_mem".to_owned()].into(),
            "",
        ),
    ];
    for (name, happens, why) in cases {
        let mut world = World::settled(FIVE);
        everywhere(&mut world, |facts| {
            happens(facts.db_roles.get_mut(name).unwrap());
        });
        let plan = world.plan();
        if why.is_empty() {
            assert!(plan.is_empty(), "somebody's own setting is left alone");
            continue;
        }
        let step = step(&plan, "node1", "ensure-roles");
        assert_eq!(step.why, why);
        assert!(says(step, "connection limit -1 valid until"));
        assert!(says(step, "alter role %I reset %I"));
    }
}

#[test]
fn a_superuser_that_is_none_is_told_with_the_way_out() {
    for (how, what) in [
        ("no-superuser", "the role postgres is no longer a superuser"),
        ("no-login", "the role postgres may not log in"),
        ("gone", "the role postgres is not there"),
    ] {
        let mut world = World::settled(FIVE);
        if how == "no-superuser" {
            let roles = &mut world.facts("node2").db_roles;
            roles.get_mut("postgres").unwrap().superuser = false;
        } else {
            world.facts("node2").superuser_lost = Some(how.into());
        }
        let said = world.refusal();
        assert!(said.contains(what), "{said}");
        assert!(
            said.contains("node1 last: sudo systemctl stop patroni"),
            "{said}"
        );
        assert!(
            said.contains("/usr/lib/postgresql/16/bin/postgres --single -D /data/patroni"),
            "{said}"
        );
    }
}

/// A proof says what is wrong, and not what will be done.
#[test]
fn what_is_not_right_is_told() {
    type Case = (fn(&mut crate::facts::Facts), &'static str);
    let cases: [Case; 8] = [
        (
            |facts| {
                facts.db_roles.remove("replicator");
            },
            "node1 has no role replicator",
        ),
        (
            |facts| facts.db_roles.get_mut("rewind").unwrap().lacks_functions = true,
            "rewind may not execute what pg_rewind needs",
        ),
        (
            |facts| facts.db_roles.get_mut("postgres").unwrap().verifier = None,
            "postgres has another password than secrets.yaml says",
        ),
        (
            |facts| {
                facts.db_roles.remove("app");
            },
            "the user app is not there",
        ),
        (
            |facts| facts.db_roles.get_mut("app").unwrap().login = false,
            "the user app may not log in",
        ),
        (
            |facts| facts.db_roles.get_mut("app").unwrap().verifier = None,
            "the user app has another password",
        ),
        (
            |facts| {
                facts.databases.remove("app");
            },
            "the database app is not there",
        ),
        (
            |facts| {
                facts.databases.insert("app".into(), "postgres".into());
            },
            "the database app belongs to postgres, not to app",
        ),
    ];
    let told = |world: &World| crate::plan::roles_not_right(&world.cluster, &world.found);
    for (happens, words) in cases {
        let mut world = world();
        everywhere(&mut world, done);
        assert_eq!(told(&world), Vec::<String>::new());
        everywhere(&mut world, happens);
        let told = told(&world).join("; ");
        assert!(told.contains(words), "{words}: {told}");
        // While no database runs, it is unknown.
        everywhere(&mut world, |facts| facts.in_recovery = None);
        assert!(crate::plan::roles_not_right(&world.cluster, &world.found).is_empty());
    }
}
