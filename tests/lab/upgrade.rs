//! Another major version of PostgreSQL, in place, while clients write: with runs that are cut off, and the way back.

use std::collections::BTreeMap;

use crate::{
    quorum::door,
    support::{Lab, image},
    watch::{Writer, Written},
};

const OLD: &str = "ls -d /data/patroni.before-upgrade 2>/dev/null || true";

/// The PostgreSQL of these packages is built without TLS.
fn rest(version: u16) -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\n\
         postgresql: {{ version: {version}, parameters: {{ max_connections: 80 }} }}\ntls: {{ enabled: false }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         db1: {{ roles: [postgres, etcd, haproxy] }}\n  db2: {{ roles: [postgres] }}\n  db3: {{ roles: [postgres] }}\n",
        image("upgrade")
    )
}

/// Whether everything is tried, as in the soak.
fn every_step() -> bool {
    std::env::var_os("PGHERD_LAB_EVERY_STEP").is_some()
}

#[test]
fn a_cluster_gets_another_major_version_and_goes_back() {
    let lab = Lab::new("upgrade", &rest(16));
    lab.expect(0, &["up", "--yes"]);
    lab.sql(
        "create table orders as select n, md5(n::text) as text from generate_series(1, 20000) n",
    );

    what_stops_it_is_told_at_once(&lab);
    let said = lab
        .expect(0, &["upgrade", "--to", "18", "--prepare"])
        .stderr;
    assert!(said.contains("can take the databases over"), "{said}");
    assert_eq!(version(&lab), "16");
    if every_step() {
        it_is_taken_back(&lab);
        what_fails_after_all_is_taken_back(&lab);
    }

    let writer = Writer::start(&door(&lab));
    it_goes_on(&lab);
    told("with runs that were cut off", &writer.end());
    it_waits_to_be_accepted(&lab);
    it_goes_back(&lab);

    let writer = Writer::start(&door(&lab));
    lab.expect(0, &["upgrade", "--to", "18", "--yes"]);
    told("without an interruption", &writer.end());
    assert_eq!(lab.sql("select count(*) from orders"), "20000");
    let said = lab.expect(2, &["upgrade", "--accept", "--yes"]).stderr;
    assert!(
        said.contains("does not ask for PostgreSQL 18 yet"),
        "{said}"
    );
    lab.write_inventory(&rest(18));
    lab.expect(0, &["upgrade", "--accept", "--yes"]);
    for host in ["db1", "db2", "db3"] {
        assert_eq!(lab.on(host, OLD), "", "{host}");
        let packages = "dpkg-query -W -f '${db:Status-Status}' postgresql-16 2>/dev/null || true";
        assert_ne!(lab.on(host, packages).trim(), "installed", "{host}");
    }
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
    let said = lab.expect(2, &["upgrade", "--back", "--yes"]).stderr;
    assert!(said.contains("no upgrade is under way"), "{said}");
}

fn version(lab: &Lab) -> String {
    lab.sql("select current_setting('server_version_num')::int / 10000")
}

/// What clients have seen.
fn told(how: &str, written: &Written) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for error in &written.refused {
        let line = error.lines().last().unwrap_or_default();
        let kind: String = line.chars().filter(|it| !it.is_ascii_digit()).collect();
        *kinds.entry(kind).or_default() += 1;
    }
    println!(
        "{how}: {} acknowledged, none missing, {} refused, {:?} at most without one",
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
    for (kind, count) in kinds {
        println!("  {count} times {kind}");
    }
}

fn what_stops_it_is_told_at_once(lab: &Lab) {
    for (words, why) in [
        (&["upgrade"][..], "no version is named"),
        (&["upgrade", "--to", "16"], "runs PostgreSQL 16 already"),
        (&["upgrade", "--to", "15"], "no way to an older version"),
        (&["upgrade", "--to", "7"], "supports PostgreSQL 14 to 18"),
        (&["upgrade", "--accept"], "no upgrade is under way"),
        (
            &["upgrade", "--to", "17", "--dry-run"],
            "package sources have no postgresql-17",
        ),
    ] {
        let said = lab.expect(2, words).stderr;
        assert!(said.contains(why), "{said}");
    }
    lab.sql("create table calls (call regproc)");
    let said = lab.expect(2, &["upgrade", "--to", "17", "--yes"]).stderr;
    assert!(
        said.contains("postgres: public.calls.call (regproc)"),
        "{said}"
    );
    assert!(said.contains("no postgresql-17"), "{said}");
    lab.sql("drop table calls");

    let outlook = lab.json(&["upgrade", "--to", "18", "--dry-run", "--json"]);
    assert_eq!(outlook["from"], 16, "{outlook}");
    assert_ne!(outlook["keeper"], outlook["host"], "{outlook}");
    assert_eq!(outlook["findings"], serde_json::json!([]), "{outlook}");

    // An inventory with the new version alone changes nothing.
    lab.write_inventory(&rest(18));
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("upgrade --to 18"), "{said}");
    lab.write_inventory(&rest(16));
}

/// Starts an upgrade, and kills it when a step with this name has begun or ended.
fn cut_off(lab: &Lab, words: &[&str], event: &str, name: &str) {
    let reached = lab.kill_run(words, |it| it["event"] == event && it["name"] == name);
    assert!(reached, "{event} {name}: {}", lab.last_said());
}

/// Until a client has reached the new version, nothing is lost by the way back.
fn it_is_taken_back(lab: &Lab) {
    let words = ["upgrade", "--to", "18", "--yes", "--json"];
    let every = every_step();
    for (event, name, always) in [
        ("step_finished", "pause", false),
        ("step_started", "upgrade-database", false),
        ("step_finished", "upgrade-database", true),
    ] {
        if !every && !always {
            continue;
        }
        cut_off(lab, &words, event, name);
        let said = lab.expect(2, &["up", "--yes"]).stderr;
        assert!(
            said.contains("an upgrade from PostgreSQL 16 to 18"),
            "{said}"
        );
        let said = lab.expect(0, &["upgrade", "--back", "--yes"]).stderr;
        assert!(said.contains("with everything that was written"), "{said}");
        assert_eq!(version(lab), "16");
        assert_eq!(lab.sql("select count(*) from orders"), "20000");
        lab.expect(0, &["plan", "--check"]);
    }
}

/// `pg_upgrade` fails once everything has stopped: pgherd goes back by itself.
fn what_fails_after_all_is_taken_back(lab: &Lab) {
    let leader = lab.leader();
    let line = "cd /usr/lib/postgresql/18/bin; mv pg_upgrade pg_upgrade.real; \
                printf \"#!/bin/sh\\ncase \\\" \\$* \\\" in *\\\" --check \\\"*) exec ./pg_upgrade.real \\\"\\$@\\\";; esac\\n\" >pg_upgrade; \
                echo \"echo it is broken >&2; exit 1\" >>pg_upgrade; chmod 755 pg_upgrade";
    let line = line.replace(
        "./pg_upgrade.real",
        "/usr/lib/postgresql/18/bin/pg_upgrade.real",
    );
    lab.on(&leader, &line);
    let said = lab.expect(1, &["upgrade", "--to", "18", "--yes"]).stderr;
    assert!(said.contains("it is broken"), "{said}");
    assert!(
        said.contains("PostgreSQL 16 leads again, and nothing was lost"),
        "{said}"
    );
    lab.on(
        &leader,
        "cd /usr/lib/postgresql/18/bin; mv -f pg_upgrade.real pg_upgrade",
    );
    assert_eq!(lab.sql("select count(*) from orders"), "20000");
    lab.expect(0, &["plan", "--check"]);
}

/// Killed after some steps, or after each if the environment says so, and begun again.
fn it_goes_on(lab: &Lab) {
    let every = every_step();
    let words = ["upgrade", "--to", "18", "--yes", "--json"];
    for (event, name, always) in [
        ("step_finished", "check-upgrade", false),
        ("step_finished", "pause", false),
        ("step_finished", "stop-member", false),
        ("step_started", "upgrade-database", true),
        ("step_finished", "upgrade-database", false),
        ("step_finished", "adopt-system", true),
        ("step_finished", "await-leader", false),
        ("step_finished", "keep-old-data", false),
        ("step_finished", "empty-member", false),
        ("step_finished", "update-extensions", false),
        ("step_finished", "await-streaming", false),
        ("step_finished", "forget-upgrade", false),
    ] {
        if every || always {
            cut_off(lab, &words, event, name);
        }
    }
    let said = lab.expect(0, &["upgrade", "--yes"]).stderr;
    assert!(said.contains("runs PostgreSQL 18"), "{said}");
    assert!(said.contains("postgresql: { version: 18 }"), "{said}");
    assert_eq!(version(lab), "18");
    assert_eq!(lab.sql("select count(*) from orders"), "20000");
}

fn it_waits_to_be_accepted(lab: &Lab) {
    // Somebody with the old inventory cannot make it the old version again.
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("set postgresql.version to 18"), "{said}");
    lab.write_inventory(&rest(18));
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
    let said = lab.run(&["status"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("until you accept 18"), "{said}");
    let said = lab.expect(2, &["upgrade", "--to", "18", "--yes"]).stderr;
    assert!(said.contains("waits to be accepted"), "{said}");
}

fn it_goes_back(lab: &Lab) {
    lab.sql("create table since as select 1 as n");
    let words = ["upgrade", "--back", "--yes", "--json"];
    let every = every_step();
    for (event, name, always) in [
        ("step_finished", "hold-member", false),
        ("step_finished", "put-back", true),
        ("step_finished", "adopt-system", false),
        ("step_finished", "await-leader", false),
        ("step_finished", "empty-member", false),
    ] {
        if every || always {
            cut_off(lab, &words, event, name);
        }
    }
    let said = lab.expect(0, &["upgrade", "--back"]).stderr;
    assert!(said.contains("runs PostgreSQL 16 again"), "{said}");
    assert!(said.contains("postgresql: { version: 16 }"), "{said}");
    lab.write_inventory(&rest(16));
    assert_eq!(version(lab), "16");
    assert_eq!(lab.sql("select count(*) from orders"), "20000");
    assert_eq!(lab.sql("select to_regclass('since') is null"), "t");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
}
