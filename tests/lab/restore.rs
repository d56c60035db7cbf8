//! Restores: the cluster in place, with runs that are cut off, and a table.

use std::{fs, thread, time::Duration};

use serde_json::Value;

use crate::{
    backups::{kept, rest, until},
    support::Lab,
};

const KEPT: &str = "ls -d /data/patroni.before-restore 2>/dev/null || true";

#[test]
fn a_cluster_is_restored_in_place_wherever_the_run_was_cut_off() {
    let lab = Lab::new("restore", &rest());
    lab.expect(0, &["up", "--yes"]);
    until("the first backup is made", || {
        let kept = kept(&lab);
        kept["backups"].as_array().is_some_and(|it| !it.is_empty())
    });
    lab.sql("create table orders as select n from generate_series(1, 1000) n");
    thread::sleep(Duration::from_millis(1100));
    let moment = lab.sql("select now()");
    thread::sleep(Duration::from_millis(1100));
    lab.sql("drop table orders");
    lab.sql("create table later as select 1 as n");

    a_table_is_taken_out(&lab, &moment);
    what_is_impossible_is_refused(&lab);
    there_is_a_way_back(&lab, &moment);
    it_goes_on(&lab, &moment);

    assert_eq!(lab.sql("select count(*) from orders"), "1000");
    assert_eq!(lab.sql("select to_regclass('later') is null"), "t");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
    let leader = lab.leader();
    assert!(lab.on(&leader, KEPT).contains("before-restore"));
    let said = lab.expect(2, &["restore", "--to", &moment, "--yes"]).stderr;
    assert!(said.contains("restore --discard-old"), "{said}");
    let said = lab.expect(0, &["restore", "--discard-old", "--yes"]).stderr;
    assert!(
        said.contains("removed: /data/patroni.before-restore on "),
        "{said}"
    );
    assert_eq!(lab.on(&leader, KEPT), "");

    // The history that was left is in the repository.
    until("the full backup afterwards is made", || {
        let kept = kept(&lab);
        kept["at_work"] == false && kept["wrong"] == serde_json::json!([])
    });
    lab.sql("create table after as select 1 as n");
    lab.expect(0, &["restore", "--to", "latest", "--yes"]);
    assert_eq!(lab.sql("select count(*) from orders, after"), "1000");
    lab.expect(0, &["down", "--yes", "--with-backups"]);
    assert_eq!(lab.leftovers(), "");
}

fn a_table_is_taken_out(lab: &Lab, moment: &str) {
    let words = [
        "restore",
        "--table",
        "postgres.orders",
        "--to",
        moment,
        "--out",
        "orders.sql",
    ];
    let said = lab.expect(0, &words).stderr;
    assert!(said.contains("of SQL in orders.sql"), "{said}");
    let dump = fs::read_to_string(lab.file("orders.sql")).unwrap();
    assert!(
        dump.contains("COPY public.orders (n) FROM stdin;\n1\n2\n"),
        "{dump}"
    );
    assert!(dump.contains("\n1000\n\\.\n"), "{dump}");
    let said = lab.expect(2, &words).stderr;
    assert!(said.contains("it exists already"), "{said}");
    let words = [
        "restore",
        "--table",
        "postgres.nothing",
        "--to",
        moment,
        "--out",
        "nothing.sql",
    ];
    let said = lab.expect(1, &words).stderr;
    assert!(said.contains("no matching tables were found"), "{said}");
    assert!(!lab.file("nothing.sql").exists());
    for host in ["db1", "db2"] {
        assert_eq!(
            lab.on(
                host,
                "ls /var/lib/pgherd-rehearsal/taken/data 2>/dev/null || true"
            ),
            "",
            "{host}"
        );
    }
}

fn what_is_impossible_is_refused(lab: &Lab) {
    for (to, code, why) in [
        ("2020-01-01 00:00:00Z", 2, "no backup is older than"),
        ("2120-01-01 00:00:00Z", 2, "is in the future"),
        ("2020-01-01 00:00:00", 2, "has no time zone"),
    ] {
        let said = lab.expect(code, &["restore", "--to", to, "--yes"]).stderr;
        assert!(said.contains(why), "{said}");
    }
    let said = lab.expect(2, &["restore", "--yes"]).stderr;
    assert!(said.contains("no moment is named"), "{said}");
    let said = lab.expect(2, &["restore", "--back", "--yes"]).stderr;
    assert!(said.contains("no restore is under way"), "{said}");
}

/// Starts a restore, and kills it when a step with this name has begun or ended.
fn cut_off(lab: &Lab, words: &[&str], event: &str, name: &str) -> bool {
    lab.kill_run(words, |it| it["event"] == event && it["name"] == name)
}

fn there_is_a_way_back(lab: &Lab, moment: &str) {
    let words = ["restore", "--dry-run", "--json", "--to", moment];
    let outlook = lab.json(&words);
    assert!(
        outlook["transactions_after"]
            .as_u64()
            .is_some_and(|it| it >= 2),
        "{outlook}"
    );
    assert_eq!(outlook["transactions_after_complete"], true, "{outlook}");

    let words = ["restore", "--to", moment, "--yes", "--json"];
    // What runs on the host goes on without this run. Once the step has ended, the next one may let clients in.
    assert!(cut_off(lab, &words, "step_started", "restore"));
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("a restore to 2"), "{said}");
    let said = lab
        .expect(2, &["restore", "--to", "latest", "--yes"])
        .stderr;
    assert!(said.contains("another restore is under way"), "{said}");
    // A reboot, or somebody who wants to help, starts nothing.
    let said = lab.on(
        "db1",
        "systemctl start patroni 2>&1; systemctl is-active patroni || true",
    );
    assert!(said.contains("Assertion failed"), "{said}");
    let back = ["restore", "--back", "--yes", "--json"];
    assert!(cut_off(lab, &back, "step_finished", "undo-restore"));
    // What is in place now is not what was restored.
    let said = lab.expect(2, &["restore"]).stderr;
    assert!(said.contains("is being taken back"), "{said}");
    lab.expect(0, &["restore", "--back", "--yes"]);
    assert_eq!(lab.sql("select count(*) from later"), "1");
    assert_eq!(lab.sql("select to_regclass('orders') is null"), "t");
    lab.expect(0, &["verify"]);
}

/// Killed after some steps, or after each if the environment says so, and begun again.
fn it_goes_on(lab: &Lab, moment: &str) {
    let every = std::env::var_os("PGHERD_LAB_EVERY_STEP").is_some();
    let words = ["restore", "--to", moment, "--yes", "--json"];
    for (event, name, always) in [
        ("step_started", "hold-member", false),
        ("step_finished", "hold-member", false),
        ("step_started", "restore", true),
        ("step_finished", "restore", false),
        ("step_finished", "forget-position", false),
        ("step_finished", "release-member", false),
        ("step_finished", "await-leader", true),
        ("step_finished", "ensure-roles", false),
        ("step_started", "archive-again", true),
    ] {
        if !every && !always {
            continue;
        }
        assert!(
            cut_off(lab, &words, event, name),
            "{event} {name}: {}",
            lab.last_said()
        );
    }
    let said = lab.expect(0, &["restore"]);
    assert!(
        said.stderr.contains("is restored to 2"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    let status: Value = lab.json(&["status", "--json"]);
    assert!(!status.to_string().contains("is under way"), "{status}");
}
