//! Hosts that were right and no longer are: what is repaired, and that nothing else is touched.

use serde_json::json;

use super::world::{FIVE, ONE, SHARED, World, says, step};
use crate::plan::{Change, Plan};

pub(super) type Case = (&'static str, fn(&mut World), &'static [&'static str]);

/// A settled cluster after one incident.
pub(super) fn check(hosts: &str, cases: &[Case]) {
    for (what, happens, expected) in cases {
        let mut world = World::settled(hosts);
        happens(&mut world);
        assert_eq!(world.steps(), *expected, "{what}");
    }
}

#[test]
fn a_settled_cluster_needs_nothing() {
    for hosts in [FIVE, SHARED, ONE] {
        assert_eq!(World::settled(hosts).steps(), [""; 0], "{hosts}");
    }
}

#[test]
fn files_are_put_right_and_taken_over() {
    const RELOADED: &[&str] = &[
        "node2 configure-patroni []",
        "node2 reload-patroni [0]",
        "node1 take-over [1]",
    ];
    check(
        FIVE,
        &[
            (
                "a line by hand in Patroni's config",
                |world| {
                    let file = world.file("node2", "/etc/patroni.yml");
                    file.content.push_str("# by hand\n");
                },
                RELOADED,
            ),
            (
                "a parameter by hand",
                |world| {
                    let file = world.file("node2", "/etc/patroni.yml");
                    let more = "\n  parameters:\n    shared_buffers: \"1MB\"";
                    file.content = file.content.replace("\n  parameters:", more).into();
                },
                &[
                    "node2 configure-patroni []",
                    "node2 reload-patroni [0]",
                    "node1 restart-pending [1]",
                ],
            ),
            (
                "what is no YAML any more: nobody knows which etcd its Patroni was told of",
                |world| {
                    let file = world.file("node2", "/etc/patroni.yml");
                    file.content.push_str("mine: [\n");
                },
                &[
                    "node2 configure-patroni []",
                    "node2 restart-patroni-alone [0]",
                    "node2 await-member [1]",
                    "node1 restart-pending [2]",
                ],
            ),
            (
                "everybody may read the passwords",
                |world| world.file("node2", "/etc/patroni.yml").mode = 0o644,
                RELOADED,
            ),
            (
                "Patroni cannot read its config",
                |world| world.file("node2", "/etc/patroni.yml").owner = "root".into(),
                RELOADED,
            ),
            (
                "another certificate",
                |world| {
                    let file = world.file("node2", "/etc/pgherd/tls/postgres/server.crt");
                    file.content = "an older one\n".into();
                },
                RELOADED,
            ),
            (
                "a config that is gone",
                |world| {
                    let files = &mut world.facts("haproxy").files;
                    files.remove("/etc/haproxy/haproxy.cfg");
                },
                &["haproxy configure-haproxy []", "haproxy reload-haproxy [0]"],
            ),
            (
                "a host's address in /etc/hosts",
                |world| {
                    let file = world.file("node3", "/etc/hosts");
                    file.content = file.content.replace("192.0.2.4", "192.0.2.40").into();
                },
                &["node3 prepare []"],
            ),
            (
                "somebody's own line in /etc/hosts",
                |world| {
                    let file = world.file("node3", "/etc/hosts");
                    file.content.push_str("10.9.9.9 mine\n");
                },
                &[],
            ),
            (
                "another mode of /etc/hosts, which is the host's own",
                |world| world.file("node3", "/etc/hosts").mode = 0o664,
                &[],
            ),
            (
                "a certificate that etcd reads anew at each handshake",
                |world| {
                    let file = world.file("node4", "/etc/pgherd/tls/etcd/server.crt");
                    file.content = "an older one\n".into();
                },
                &["node4 configure-etcd []"],
            ),
        ],
    );
}

/// A note that no unit's step removes would make the next run reload etcd, which etcd cannot do.
#[test]
fn nothing_is_noted_that_no_unit_has_to_take_over() {
    let mut world = World::settled(FIVE);
    let path = "/etc/pgherd/tls/etcd/server.crt";
    world.file("node4", path).content = "an older one\n".into();
    let plan = world.plan();
    assert!(!says(step(&plan, "node4", "configure-etcd"), "pending"));

    world.file("node4", "/etc/default/etcd").content.clear();
    let plan = world.plan();
    assert!(says(
        step(&plan, "node4", "configure-etcd"),
        "echo restart >/run/pgherd/pending/etcd"
    ));
    assert!(says(
        step(&plan, "node4", "restart-etcd"),
        "rm -f /run/pgherd/pending/etcd"
    ));
}

#[test]
fn a_file_that_belongs_to_the_host_keeps_its_mode() {
    let mut world = World::settled(FIVE);
    let file = world.file("node3", "/etc/hosts");
    file.mode = 0o664;
    file.content = "127.0.0.1 localhost\n".into();
    let plan = world.plan();
    assert!(says(
        step(&plan, "node3", "prepare"),
        "| put /etc/hosts root:root 0664"
    ));
}

#[test]
fn a_wrong_owner_or_mode_alone_is_said() {
    let mut world = World::settled(FIVE);
    world.file("node2", "/etc/patroni.yml").mode = 0o644;
    let plan = world.plan();
    let [Change::File { old, new, note, .. }] =
        &step(&plan, "node2", "configure-patroni").changes[..]
    else {
        panic!("one file changes");
    };
    assert_eq!(old, new);
    assert_eq!(
        note.as_deref(),
        Some("postgres:postgres 0644 becomes postgres:postgres 0600")
    );
}

#[test]
fn packages_and_patroni_are_installed_where_they_are_missing() {
    check(
        FIVE,
        &[
            (
                "a package that is gone",
                |world| {
                    world.facts("haproxy").packages.remove("haproxy");
                },
                &["haproxy install-packages []"],
            ),
            (
                "a replica with another Patroni",
                |world| world.facts("node2").patroni_stamp = Some("another".into()),
                &[
                    "node2 install-patroni []",
                    "node2 restart-patroni [0]",
                    "node2 await-streaming [1]",
                ],
            ),
            (
                "a leader without its venv",
                |world| world.facts("node1").patroni_stamp = None,
                &[
                    "node1 install-patroni []",
                    "node1 hand-over [0]",
                    "node1 restart-patroni [0, 1]",
                    "node1 await-streaming [2]",
                ],
            ),
        ],
    );
}

/// Without the note, an interruption before the restart would leave the old Patroni running unnoticed.
#[test]
fn another_patroni_is_noted_before_it_is_installed() {
    let mut world = World::settled(FIVE);
    world.facts("node2").patroni_stamp = Some("another".into());
    let plan = world.plan();
    assert!(says(
        step(&plan, "node2", "install-patroni"),
        "echo restart >/run/pgherd/pending/patroni"
    ));

    let mut cut_off = World::settled(FIVE);
    let facts = cut_off.facts("node2");
    facts.pending.insert("patroni".into(), "restart".into());
    assert_eq!(
        cut_off.steps(),
        ["node2 restart-patroni []", "node2 await-streaming [0]"]
    );
}

#[test]
fn units_are_started_enabled_and_told_what_they_have_not_heard() {
    const BACK: &[&str] = &[
        "node2 start-patroni []",
        "node1 await-leader [0]",
        "node2 await-streaming [1]",
    ];
    check(
        FIVE,
        &[
            (
                "a replica that does not run",
                |world| world.stop("node2", "patroni"),
                BACK,
            ),
            (
                "a replica that would not come back after a reboot",
                |world| world.unit("node2", "patroni").enabled = "disabled".into(),
                BACK,
            ),
            (
                "HAProxy has failed",
                |world| world.unit("haproxy", "haproxy").active = "failed".into(),
                &["haproxy start-haproxy []"],
            ),
            (
                "HAProxy would not come back, and has an old config",
                |world| {
                    world.unit("haproxy", "haproxy").enabled = "disabled".into();
                    let file = world.file("haproxy", "/etc/haproxy/haproxy.cfg");
                    file.content.clear();
                },
                &["haproxy configure-haproxy []", "haproxy reload-haproxy [0]"],
            ),
            (
                "cut off before Patroni's reload",
                |world| {
                    let pending = &mut world.facts("node3").pending;
                    pending.insert("patroni".into(), "reload".into());
                },
                &[
                    "node3 reload-patroni []",
                    "node3 wake-members [0]",
                    "node3 free-slots [1]",
                    "node3 reconnect-replica [2]",
                    "node1 restart-pending [0, 3]",
                ],
            ),
            (
                "cut off before etcd's restart",
                |world| {
                    let pending = &mut world.facts("node4").pending;
                    pending.insert("etcd".into(), "restart".into());
                },
                &["node4 restart-etcd []", "node4 await-etcd [0]"],
            ),
            (
                "etcd does not run, so nobody knows what it holds",
                |world| {
                    world.stop("node4", "etcd");
                    world.found.dcs = None;
                },
                &[
                    "node4 start-etcd []",
                    "node4 await-etcd [0]",
                    "node1 await-leader [1]",
                    "node1 await-streaming [2]",
                    "node2 await-streaming [2]",
                    "node3 await-streaming [2]",
                    "node1 patch-config [3, 4, 5]",
                    "node1 restart-pending [6]",
                ],
            ),
            (
                "the leader lacks a role, and so do all",
                |world| {
                    for host in ["node1", "node2", "node3"] {
                        world.facts(host).db_roles.remove("rewind");
                    }
                },
                &[
                    "node1 ensure-roles []",
                    "node1 await-streaming [0]",
                    "node2 await-streaming [0]",
                    "node3 await-streaming [0]",
                ],
            ),
        ],
    );
}

#[test]
fn a_reload_enables_what_was_disabled() {
    let mut world = World::settled(FIVE);
    world.unit("haproxy", "haproxy").enabled = "disabled".into();
    world.file("haproxy", "/etc/haproxy/haproxy.cfg").mode = 0o600;
    let plan = world.plan();
    let reload = step(&plan, "haproxy", "reload-haproxy");
    assert!(says(reload, "systemctl enable --quiet haproxy"));
    assert!(says(reload, "systemctl reload haproxy"));
    let verbs: Vec<&Change> = reload.changes.iter().collect();
    assert_eq!(verbs.len(), 2, "{verbs:?}");
}

#[test]
fn cluster_wide_settings_are_patched_in_the_dcs() {
    check(
        FIVE,
        &[
            (
                "a cluster left with its short loop",
                |world| {
                    let mut config = world.dcs().config.clone().unwrap();
                    config["loop_wait"] = json!(1);
                    world.dcs().config = Some(config);
                },
                &["node1 patch-config []", "node1 restart-pending [0]"],
            ),
            (
                "max_connections: HAProxy's limits follow",
                |world| world.wants("postgresql: { parameters: { max_connections: 200 } }", FIVE),
                &[
                    "node1 try-parameters []",
                    "node2 try-parameters []",
                    "node3 try-parameters []",
                    "node1 configure-patroni [0, 1, 2]",
                    "node2 configure-patroni [0, 1, 2]",
                    "node3 configure-patroni [0, 1, 2]",
                    "haproxy configure-haproxy []",
                    "haproxy reload-haproxy [6]",
                    "node1 reload-patroni [0, 1, 2, 3]",
                    "node2 reload-patroni [0, 1, 2, 4]",
                    "node3 reload-patroni [0, 1, 2, 5]",
                    "node1 patch-config [8, 9, 10]",
                    "node1 restart-pending [11]",
                ],
            ),
            (
                "work_mem: each host's own file",
                |world| world.wants("postgresql: { parameters: { work_mem: 8MB } }", FIVE),
                &[
                    "node1 try-parameters []",
                    "node2 try-parameters []",
                    "node3 try-parameters []",
                    "node1 configure-patroni [0, 1, 2]",
                    "node2 configure-patroni [0, 1, 2]",
                    "node3 configure-patroni [0, 1, 2]",
                    "node1 reload-patroni [0, 1, 2, 3]",
                    "node2 reload-patroni [0, 1, 2, 4]",
                    "node3 reload-patroni [0, 1, 2, 5]",
                    "node1 restart-pending [6, 7, 8]",
                ],
            ),
            (
                "a run that was cut off before the restarts",
                |world| {
                    let member = json!({"state": "running", "pending_restart": true});
                    world.dcs().members.insert("node2".into(), member);
                },
                &["node1 restart-pending []"],
            ),
        ],
    );
}

fn shown(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .flat_map(|step| &step.changes)
        .filter_map(|change| match change {
            Change::Setting { key, from, to } => {
                let value = |value: &Option<serde_json::Value>| {
                    value.as_ref().map_or("-".to_owned(), ToString::to_string)
                };
                Some(format!("{key}: {} -> {}", value(from), value(to)))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn a_parameter_that_left_the_inventory_leaves_the_cluster() {
    let mut world = World::settled(FIVE);
    let mut config = world.dcs().config.clone().unwrap();
    config["postgresql"]["parameters"]["max_connections"] = json!("500");
    world.dcs().config = Some(config);
    let plan = world.plan();
    assert_eq!(
        shown(&plan),
        ["postgresql.parameters.max_connections: \"500\" -> -"]
    );
}

#[test]
fn parameters_are_tried_on_every_database_before_any_has_them() {
    let mut world = World::settled(FIVE);
    world.wants("postgresql: { parameters: { work_mem: 8MB } }", FIVE);
    let plan = world.plan();
    let trials: Vec<usize> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == "try-parameters")
        .collect();
    assert_eq!(trials.len(), 3);
    for step in &plan.steps {
        let touches = step.name == "configure-patroni" || step.name == "reload-patroni";
        assert!(
            !touches || trials.iter().all(|id| step.after.contains(id)),
            "{step:?}"
        );
    }
    assert!(!plan.steps[trials[0]].changes_something());
    // Nothing to try: PostgreSQL starts with what it already has, or it has been tried already.
    world.wants("postgresql: { parameters: {} }", FIVE);
    assert!(
        !world
            .plan()
            .steps
            .iter()
            .any(|step| step.name == "try-parameters")
    );
}
