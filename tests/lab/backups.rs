//! Backups: that they come, what is seen of them, and that what they hold can be had back.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Lab, prepared_image};

/// Two members, and a front door that keeps the backups.
fn rest() -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\npostgresql: {{ version: distro }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         db1: {{ roles: [postgres, etcd] }}\n  db2: {{ roles: [postgres] }}\n  \
         keeper: {{ roles: [haproxy, backup] }}\n",
        prepared_image()
    )
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(90), "never: {what}");
        thread::sleep(Duration::from_millis(500));
    }
}

fn kept(lab: &Lab) -> Value {
    lab.json(&["backups", "--json"])
}

#[test]
fn what_was_backed_up_can_be_had_back() {
    let lab = Lab::new("backups", &rest());
    lab.kill_up(|event| event["event"] == "step_started" && event["name"] == "create-stanza");
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
    until("the first backup is made", || {
        let kept = kept(&lab);
        kept["backups"].as_array().is_some_and(|it| !it.is_empty())
    });
    assert_eq!(kept(&lab)["backups"][0]["type"], "full");
    let said = lab.expect(0, &["verify"]).stdout;
    assert!(said.contains("1 backup ("), "{said}");

    a_moment_is_restored(&lab);
    a_hole_is_told(&lab);

    let said = lab.expect(2, &["down", "--yes"]).stderr;
    assert!(
        said.contains("all backups of the cluster are on keeper"),
        "{said}"
    );
    lab.expect(0, &["down", "--yes", "--with-backups"]);
    assert_eq!(lab.leftovers(), "");
}

/// As docs/backups.md says.
fn a_moment_is_restored(lab: &Lab) {
    lab.sql("create table orders as select n from generate_series(1, 1000) n");
    let said = lab.expect(0, &["backup"]).stderr;
    assert!(said.contains("the differential backup "), "{said}");
    lab.sql("insert into orders select n from generate_series(1001, 1234) n");
    let moment = lab.sql("select now()");
    let before = kept(lab)["to"].as_str().unwrap().to_owned();
    thread::sleep(Duration::from_millis(1100));
    lab.sql("drop table orders");
    lab.sql("select pg_switch_wal()");
    until("the WAL is in the repository", || {
        kept(lab)["to"].as_str().unwrap() > before.as_str()
    });
    let stanza = &lab.name;
    let line = format!(
        "cd /; d=/var/lib/postgresql/rescue; install -d -o postgres -g postgres -m 0700 $d; \
         b=$(ls -d /usr/lib/postgresql/*/bin); p=\"runuser -u postgres --\"; \
         $p pgbackrest --config=/etc/pgherd/archive/pgbackrest.conf --stanza={stanza} --pg1-path=$d \
         --archive-mode=off --type=time --target=\"{moment}\" --target-action=promote restore && \
         $p $b/pg_ctl -D $d -s -w -t 60 -l $d/log -o \"-c listen_addresses= -c unix_socket_directories=$d \
         -c synchronous_standby_names=\" start; \
         for n in $(seq 60); do [ \"$($p psql -h $d -Atc \"select pg_is_in_recovery()\")\" = f ] && break; sleep 1; done; \
         $p psql -h $d -Atc \"select count(*), max(n) from orders\"; \
         $p psql -h $d -Atc \"select count(*) from pgherd_heartbeat.ledger where at > timestamptz \\$\\${moment}\\$\\$\"; \
         $p $b/pg_ctl -D $d -s -m fast stop; rm -rf $d"
    );
    let said = lab.on("db2", &line);
    assert!(said.contains("1234|1234\n0\n"), "{said}");

    assert_eq!(kept(lab)["rehearsed"], Value::Null);
    let said = lab.expect(0, &["rehearse", "--at", &moment]).stderr;
    assert!(said.contains("a restore is proven: 2"), "{said}");
    let said = lab.expect(0, &["rehearse", "--at", "latest"]).stderr;
    assert!(said.contains("the newest one was "), "{said}");
    let rehearsed = &kept(lab)["rehearsed"];
    assert_eq!(rehearsed["wrong"], serde_json::json!([]));
    assert!(rehearsed["heartbeats"].is_u64(), "{rehearsed}");
    for host in ["db1", "db2"] {
        let left = lab.on(host, "ls -A /var/lib/pgherd-rehearsal");
        assert!(["", "verdict.json\n"].contains(&&*left), "{host}: {left}");
    }
    let said = lab
        .expect(3, &["rehearse", "--at", "2020-01-01 00:00:00+00"])
        .stderr;
    assert!(said.contains("no backup is older than"), "{said}");
}

/// pgBackRest's own `verify` says that all is well.
fn a_hole_is_told(lab: &Lab) {
    let newest = "find /var/lib/pgherd-backups/archive -name \"0*-*\" -type f | sort | tail -n 1";
    let more = || {
        let before = lab.on("keeper", newest);
        lab.sql("create table filler as select 1 as n");
        lab.sql("drop table filler");
        lab.sql("select pg_switch_wal()");
        until("another piece of WAL came", || {
            lab.on("keeper", newest) != before
        });
    };
    more();
    let gone = lab.on("keeper", newest).trim().to_owned();
    more();
    lab.on("keeper", &format!("rm {gone}"));
    let segment = gone.rsplit('/').next().unwrap();
    let segment = segment.split('-').next().unwrap();
    let said = lab.expect(3, &["verify"]).stdout;
    assert!(
        said.contains(&format!("WAL is missing: {segment};")),
        "{said}"
    );
    assert_eq!(kept(lab)["missing_wal"][0], segment);
    let moment = lab.sql("select now()");
    more();
    let said = lab.expect(3, &["rehearse", "--at", &moment]).stderr;
    assert!(
        said.contains("recovery ended before configured recovery target was reached"),
        "{said}"
    );
    let said = lab.expect(0, &["backups"]).stderr;
    assert!(said.contains("proved nothing: recovery failed"), "{said}");
    lab.expect(0, &["backup", "--full"]);
    lab.holds_within(Duration::from_secs(60));
    assert_eq!(kept(lab)["missing_wal"][0], segment, "it is still known");
}
