//! Every database is gone, and the backups are there.

use crate::{
    backups::{kept, until},
    support::{Lab, docker, prepared_image},
};

const LATEST: [&str; 5] = ["restore", "--to", "latest", "--yes", "--json"];

/// Two members, and an etcd that outlives them.
fn rest() -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\npostgresql: {{ version: distro }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         db1: {{ roles: [postgres] }}\n  db2: {{ roles: [postgres] }}\n  \
         store: {{ roles: [etcd] }}\n  keeper: {{ roles: [haproxy, backup] }}\n",
        prepared_image()
    )
}

#[test]
fn a_cluster_whose_databases_are_all_gone_comes_back_from_its_repository() {
    let lab = Lab::new("lost", &rest());
    lab.expect(0, &["up", "--yes"]);
    until("the first backup is made", || {
        let kept = kept(&lab);
        kept["backups"].as_array().is_some_and(|it| !it.is_empty())
    });
    lab.sql("create table orders as select n from generate_series(1, 1000) n");
    let heartbeat = archived(&lab);

    remove(&lab, &["db1", "db2"]);
    nothing_new_is_made(&lab);
    it_can_be_given_up(&lab);
    it_goes_on(&lab);
    is_back(&lab, &heartbeat);

    until("the full backup afterwards is made", || {
        let kept = kept(&lab);
        kept["at_work"] == false && kept["wrong"] == serde_json::json!([])
    });
    lab.sql("insert into orders values (1001)");
    let heartbeat = archived(&lab);
    only_the_backups_are_left(&lab);
    is_back(&lab, &heartbeat);
    assert_eq!(lab.sql("select max(n) from orders"), "1001");
    lab.expect(0, &["down", "--yes", "--with-backups"]);
    assert_eq!(lab.leftovers(), "");
}

/// Waits until the repository has everything; returns the newest heartbeat.
pub(crate) fn archived(lab: &Lab) -> String {
    until("there is a heartbeat", || {
        lab.sql("select to_regclass('pgherd_heartbeat.ledger') is not null") == "t"
    });
    let heartbeat = lab.sql("select max(at) from pgherd_heartbeat.ledger");
    let segment = lab.sql("select pg_walfile_name(pg_switch_wal())");
    let sent = format!("select last_archived_wal >= '{segment}' from pg_stat_archiver");
    until("the WAL is in the repository", || lab.sql(&sent) == "t");
    heartbeat
}

fn remove(lab: &Lab, hosts: &[&str]) {
    for host in hosts {
        docker(&["rm", "-f", "-v", &lab.container(host)]);
    }
}

fn refused(lab: &Lab) {
    let said = lab.expect(1, &["up", "--yes"]).stderr;
    let label = &kept(lab)["backups"][0]["label"];
    for part in [
        "no host has the database of lab-lost-",
        label.as_str().unwrap(),
        "restore --to latest",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

fn nothing_new_is_made(lab: &Lab) {
    refused(lab);
    let status = lab.json(&["status", "--json"]);
    let lost = status["database_lost"].as_str().unwrap_or_default();
    assert!(lost.contains("no host has the database of"), "{status}");
    assert_eq!(status["not_running"], serde_json::json!(["db1", "db2"]));
    let said = lab.expect(0, &["status"]);
    let said = said.stdout + &said.stderr;
    assert!(said.contains("restore --to latest"), "{said}");
    let said = lab.expect(1, &["plan"]).stderr;
    assert!(said.contains("no host has the database of"), "{said}");
    let outlook = lab.json(&["restore", "--to", "latest", "--dry-run", "--json"]);
    assert_eq!(outlook["anew"], true, "{outlook}");
    assert_eq!(outlook["hosts_made"], serde_json::json!(["db1", "db2"]));
    let status = lab.json(&["status", "--json"]);
    assert_eq!(status["not_running"], serde_json::json!(["db1", "db2"]));
}

/// Starts a restore, and kills it when a step with this name has begun or ended. Returns whether it was killed: if a
/// member leads already when the run looks, it waits for nothing, and completes the restore.
fn cut_off(lab: &Lab, event: &str, name: &str) -> bool {
    let ended = lab.kill_or_end(&LATEST, |it| it["event"] == event && it["name"] == name);
    assert!(ended.is_none_or(|it| it.success()), "{event} {name}");
    ended.is_none()
}

fn it_can_be_given_up(lab: &Lab) {
    assert!(cut_off(lab, "step_finished", "configure-patroni"));
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("a restore to latest is under way"), "{said}");
    assert!(cut_off(lab, "step_finished", "restore"));
    let said = lab.expect(0, &["restore", "--back", "--yes"]).stderr;
    assert!(said.contains("the members stay stopped"), "{said}");
    assert_eq!(lab.on("db1", "ls /data/patroni"), "");
    refused(lab);
    let said = lab.on(
        "db2",
        "systemctl start patroni 2>&1; systemctl is-active patroni || true",
    );
    assert!(said.contains("Assertion failed"), "{said}");
}

/// Killed after some steps, or after each if the environment says so, and begun again.
fn it_goes_on(lab: &Lab) {
    let every = std::env::var_os("PGHERD_LAB_EVERY_STEP").is_some();
    for (event, name, always) in [
        ("step_finished", "hold-member", false),
        ("step_started", "restore", true),
        ("step_finished", "restore", false),
        ("step_finished", "forget-position", false),
        ("step_finished", "adopt-system", false),
        ("step_finished", "await-leader", true),
        ("step_finished", "ensure-roles", false),
        ("step_started", "await-streaming", false),
        ("step_finished", "await-streaming", false),
        ("step_started", "archive-again", true),
    ] {
        if (every || always) && !cut_off(lab, event, name) {
            assert!(lab.last_said().contains("is restored to latest"));
            return;
        }
    }
    let said = lab.expect(0, &["restore"]).stderr;
    assert!(said.contains("is restored to latest"), "{said}");
}

/// Everything that had reached the repository is there, and the cluster is whole.
fn is_back(lab: &Lab, heartbeat: &str) {
    assert_eq!(
        lab.sql("select count(*) from orders where n <= 1000"),
        "1000"
    );
    let there = format!("select count(*) from pgherd_heartbeat.ledger where at = '{heartbeat}'");
    assert_eq!(lab.sql(&there), "1");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
    let status = lab.json(&["status", "--json"]);
    assert!(status["database_lost"].is_null(), "{status}");
}

/// The data directories are deleted, and Patroni runs. An etcd without data would have it make a new database.
fn only_the_backups_are_left(lab: &Lab) {
    let on_both = |line: &str| {
        for host in ["db1", "db2"] {
            lab.on(host, line);
        }
    };
    on_both("systemctl stop patroni");
    on_both("find /data/patroni -mindepth 1 -delete");
    on_both("systemctl start patroni");
    let said = lab.expect(1, &["verify"]).stderr;
    assert!(said.contains("no host has the database of"), "{said}");
    remove(lab, &["store"]);
    refused(lab);
    let said = lab
        .expect(0, &["restore", "--to", "latest", "--yes"])
        .stderr;
    assert!(said.contains("is restored to latest"), "{said}");
}
