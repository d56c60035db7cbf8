//! Backups: that they come, what is seen of them, and that what they hold can be had back.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Lab, prepared_image};

/// Two members, and a front door that keeps the backups.
pub(crate) fn rest() -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\npostgresql: {{ version: distro }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         db1: {{ roles: [postgres, etcd] }}\n  db2: {{ roles: [postgres] }}\n  \
         keeper: {{ roles: [haproxy, backup] }}\n",
        prepared_image()
    )
}

pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(90), "never: {what}");
        thread::sleep(Duration::from_millis(500));
    }
}

pub(crate) fn kept(lab: &Lab) -> Value {
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
    a_rehearsal_that_is_cut_off_goes_on(&lab);
    a_proof_comes_by_itself_when_it_is_due(&lab);
    a_dropped_table_comes_back(&lab);
    a_repository_that_was_away_misses_nothing(&lab);
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
        let files = ["", "proof.json\nverdict.json\n"];
        assert!(files.contains(&&*left), "{host}: {left}");
    }
    let said = lab
        .expect(1, &["rehearse", "--at", "2020-01-01 00:00:00+00"])
        .stderr;
    assert!(said.contains("no backup is older than"), "{said}");
    assert_eq!(kept(lab)["rehearsed"], *rehearsed, "nothing was tried");
}

fn a_rehearsal_that_is_cut_off_goes_on(lab: &Lab) {
    let replica = replica(lab);
    let words = ["rehearse", "--at", "latest", "--json"];
    let says = |event: &Value, text: &str| {
        let line = event["line"].as_str().unwrap_or_default();
        event["event"] == "step_output" && line.starts_with(text)
    };
    assert!(lab.kill_run(&words, |event| says(event, "restore")));
    let signal = |name: &str| {
        lab.on(
            replica,
            &format!("systemctl kill -s {name} pgherd-rehearse"),
        )
    };
    signal("STOP");
    let killed = lab.on(replica, "date +%s").trim().parse::<i64>().unwrap();
    let other = ["rehearse", "--at", "2026-11-26 14:03:07+01"];
    let said = lab.expect(1, &other).stderr;
    assert!(
        said.contains("another rehearsal is at work here (latest)"),
        "{said}"
    );
    assert_eq!(kept(lab)["rehearsing"], replica);
    let ended = lab.kill_or_end(&words, |event| {
        if says(event, "taken up again") {
            signal("CONT");
        }
        false
    });
    assert!(ended.unwrap().success(), "{}", lab.last_said());
    let rehearsed = &kept(lab)["rehearsed"];
    assert_eq!(rehearsed["wrong"], serde_json::json!([]));
    assert!(rehearsed["begun"].as_i64() <= Some(killed), "{rehearsed}");
}

/// The timers of all members start it, and one of them goes on.
fn a_proof_comes_by_itself_when_it_is_due(lab: &Lab) {
    let replica = replica(lab);
    let leader = if replica == "db1" { "db2" } else { "db1" };
    let begin = |host: &str| {
        lab.on(host, "systemctl is-active pgherd-rehearse.timer");
        lab.on(
            host,
            "systemctl start pgherd-rehearse; journalctl -q -o cat -u pgherd-rehearse -n 8",
        )
    };
    let said = begin(replica);
    assert!(said.contains("no proof is due"), "{said}");
    let older =
        "sed -i \"s/\\(\\\"ended\\\": \\)[0-9]*/\\11700000000/\" /var/lib/pgherd-rehearsal/*.json";
    lab.on(replica, older);
    let said = lab.expect(3, &["verify"]).stdout;
    assert!(
        said.contains("the last proof that a restore works is ")
            && said.contains(" due every 7 days"),
        "{said}"
    );
    let said = begin(leader);
    let other = format!("another member gives the proof: {replica}");
    assert!(said.contains(&other), "{said}");
    let said = begin(replica);
    assert!(said.contains("proven"), "{said}");
    let said = lab.expect(0, &["verify"]).stdout;
    assert!(said.contains("; a restore was proven "), "{said}");
}

fn replica(lab: &Lab) -> &'static str {
    match lab.leader().as_str() {
        "db1" => "db2",
        _ => "db1",
    }
}

fn a_dropped_table_comes_back(lab: &Lab) {
    let document = lab.json(&["drill", "drop-table", "--yes", "--json"]);
    let drill = &document["drills"][0];
    assert_eq!(drill["hosts"], serde_json::json!([replica(lab)]));
    assert_eq!(drill["dropped"]["rows"], 200, "{drill}");
    assert_eq!(drill["dropped"]["missing"], 0, "{drill}");
    assert_eq!(drill["dropped"]["unexpected"], 0, "{drill}");
    assert!(drill["measured"]["whole"].as_f64() > Some(0.0), "{drill}");
    assert_eq!(drill["measured"]["write_errors"], serde_json::json!({}));
    let left = "select count(*) from pg_class where relname like 'drill%'";
    assert_eq!(lab.sql(left), "0");
    let taken = "ls /var/lib/pgherd-rehearsal/taken 2>/dev/null || true";
    assert_eq!(lab.on(replica(lab), taken), "");
    println!(
        "a dropped table was back after {} s",
        drill["measured"]["whole"]
    );
}

fn a_repository_that_was_away_misses_nothing(lab: &Lab) {
    let words = ["drill", "archive-down", "--yes", "--json"];
    let document = lab.json(&words);
    let drill = &document["drills"][0];
    assert_eq!(drill["hosts"], serde_json::json!(["keeper"]));
    assert!(drill["archive"]["waited"].as_u64() >= Some(5), "{drill}");
    assert_eq!(drill["archive"]["missing"], serde_json::json!([]));
    assert_eq!(drill["measured"]["write_errors"], serde_json::json!({}));
    assert_eq!(kept(lab)["missing_wal"], serde_json::json!([]));
    // For as long as it lasts, it is told.
    lab.on("keeper", "systemctl stop pgherd-backup");
    lab.sql("create table more as select 1 as n");
    lab.sql("select pg_switch_wal()");
    let leader = lab.leader();
    until("it is told", || {
        let status = lab.json(&["status", "--json"]);
        let members = status["archive"].as_array().unwrap();
        let member = members.iter().find(|it| it["member"] == *leader);
        member.is_some_and(|it| it["failing"].is_string() && it["full_in_seconds"].is_u64())
    });
    let said = lab.run(&["status"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        said.contains(&format!("! archive: {leader} cannot archive 0"))
            && said.contains(" is full in "),
        "{said}"
    );
    lab.on("keeper", "systemctl start pgherd-backup");
    lab.sql("drop table more");
    lab.sql("select pg_switch_wal()");
    lab.holds_within(Duration::from_secs(90));
}

/// Ends a segment of WAL and waits until it is in the repository; returns its file there.
fn another_segment(lab: &Lab) -> String {
    let newest = "find /var/lib/pgherd-backups/archive -name \"0*-*\" -type f | sort | tail -n 1";
    let before = lab.on("keeper", newest);
    lab.sql("create table filler as select 1 as n");
    lab.sql("drop table filler");
    lab.sql("select pg_switch_wal()");
    until("another piece of WAL came", || {
        lab.on("keeper", newest) != before
    });
    lab.on("keeper", newest).trim().to_owned()
}

/// pgBackRest's own `verify` says that all is well.
fn a_hole_is_told(lab: &Lab) {
    another_segment(lab);
    let gone = another_segment(lab);
    another_segment(lab);
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
    another_segment(lab);
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

/// What a rehearsal says that must not prove anything.
fn unproven(lab: &Lab, moment: &str) -> String {
    lab.expect(3, &["rehearse", "--at", moment]).stderr
}

pub(crate) fn failing(lab: &Lab, check: &str) -> String {
    let said = lab.run(&["verify", "--json"]);
    let said: Value = serde_json::from_slice(&said.stdout).expect("a document");
    let checks = said["checks"].as_array();
    let mut checks = checks.unwrap_or_else(|| panic!("{said}")).iter();
    let found = checks.find(|it| it["name"] == check && it["passed"] == false);
    found.map_or_else(String::new, |it| it["detail"].as_str().unwrap().to_owned())
}

/// docs/backups.md has the table of what tells which.
#[test]
fn soak_every_fault_of_the_backups_is_told() {
    let lab = Lab::new("faults", &rest());
    lab.expect(0, &["up", "--yes"]);
    until("the first backup is made", || {
        !kept(&lab)["backups"].as_array().unwrap().is_empty()
    });
    until("heartbeats get into the repository", || {
        lab.run(&["rehearse", "--at", "latest"]).status.success()
    });
    lab.expect(0, &["verify"]);
    a_bit_that_flipped(&lab);
    a_segment_that_was_cut_short(&lab);
    a_backup_that_was_deleted(&lab);
    a_wrong_key(&lab);
    a_clock_that_was_ahead(&lab);
    an_archive_command_that_lies(&lab);
    a_leader_that_changes_while_the_repository_is_away(&lab);
    a_full_repository(&lab);
}

/// Everything that was tried is behind a new full backup, and proven again.
fn anew(lab: &Lab) {
    lab.expect(0, &["backup", "--full"]);
    lab.expect(0, &["rehearse", "--at", "latest"]);
    lab.holds_within(Duration::from_secs(90));
}

fn a_bit_that_flipped(lab: &Lab) {
    let file = "find /var/lib/pgherd-backups/backup/*/*F -type f -path \"*/bundle/*\" -printf \"%s %p\\n\" | sort -n | tail -n 1 | cut -d\" \" -f2";
    let flip = format!(
        "f=$({file}); python3 - $f <<\\END\nimport sys\nwith open(sys.argv[1], \"r+b\") as f:\n    \
         f.seek(0, 2); at = f.tell() // 2; f.seek(at); one = f.read(1)[0]; f.seek(at); f.write(bytes([one ^ 16]))\nEND\n"
    );
    lab.on("keeper", &flip);
    let said = unproven(lab, "latest");
    assert!(said.contains("restore failed"), "{said}");
    assert!(failing(lab, "backups").contains("proved nothing: restore failed"));
    lab.on("keeper", &flip);
    anew(lab);
}

fn a_segment_that_was_cut_short(lab: &Lab) {
    let file = another_segment(lab);
    let moment = lab.sql("select now()");
    another_segment(lab);
    lab.on("keeper", &format!("truncate -s -100 {file}"));
    let said = unproven(lab, &moment);
    assert!(said.contains("recovery failed"), "{said}");
    assert!(failing(lab, "backups").contains("proved nothing: recovery failed"));
    anew(lab);
}

fn a_backup_that_was_deleted(lab: &Lab) {
    let backups = format!("/var/lib/pgherd-backups/backup/{}", lab.name);
    let label = kept(lab)["backups"].as_array().unwrap().last().unwrap()["label"].clone();
    let label = label.as_str().unwrap();
    lab.on("keeper", &format!("mv {backups}/{label} /var/lib/{label}"));
    let said = failing(lab, "backups");
    let gone = format!("the files of the backup {label} are not in the repository");
    assert!(said.contains(&gone), "{said}");
    let said = lab.expect(0, &["backups"]).stdout;
    assert!(said.contains("its files are gone"), "{said}");
    let said = unproven(lab, "latest");
    assert!(said.contains("unable to load backup manifest"), "{said}");
    lab.on("keeper", &format!("mv /var/lib/{label} {backups}/{label}"));
    lab.expect(0, &["rehearse", "--at", "latest"]);
    lab.holds_within(Duration::from_secs(60));
}

fn a_wrong_key(lab: &Lab) {
    let conf = "/etc/pgherd/backup/pgbackrest.conf";
    lab.on(
        "keeper",
        &format!("cp -p {conf} {conf}.kept; sed -i s/^repo1-cipher-pass=./repo1-cipher-pass=ZZ/ {conf}; systemctl restart pgherd-backup"),
    );
    lab.sql("create table key as select 1 as n");
    lab.sql("select pg_switch_wal()");
    let said = failing(lab, "backups");
    let key = "pgBackRest cannot read its repository, as if it were damaged or had another key";
    assert!(said.contains(key), "{said}");
    unproven(lab, "latest");
    // pgBackRest 2.45 crashes, which PostgreSQL does not count as a failure.
    thread::sleep(Duration::from_secs(120));
    let said = failing(lab, "archive");
    assert!(
        said.contains(" cannot archive ") || said.contains("hangs or crashes"),
        "{said}"
    );
    assert!(failing(lab, "configs").contains(conf));
    lab.on(
        "keeper",
        &format!("mv {conf}.kept {conf}; systemctl restart pgherd-backup"),
    );
    lab.sql("drop table key");
    lab.sql("select pg_switch_wal()");
    // PostgreSQL tries again a minute after the last attempt.
    until("WAL is archived again", || {
        lab.sql("select last_archived_time > now() - interval $$20 s$$ from pg_stat_archiver")
            == "t"
    });
    lab.expect(0, &["rehearse", "--at", "latest"]);
    lab.holds_within(Duration::from_secs(90));
}

/// The containers share a clock: the heartbeat is what a clock would have written that is ahead by five minutes.
fn a_clock_that_was_ahead(lab: &Lab) {
    lab.sql("insert into pgherd_heartbeat.ledger select now() + interval $$5 min$$, pg_current_wal_insert_lsn(), 1");
    thread::sleep(Duration::from_secs(25));
    let moment = lab.sql("select now()");
    another_segment(lab);
    let said = unproven(lab, &moment);
    assert!(
        said.contains(
            "heartbeats from after the moment are there (1): a leader's clock was ahead by up to"
        ),
        "{said}"
    );
    lab.sql("delete from pgherd_heartbeat.ledger where at > now()");
    let date = "/usr/local/bin/date";
    lab.on("keeper", &format!("printf \"#!/bin/sh\\nexec /usr/bin/date -d \\\"+5 min\\\" \\\"\\$@\\\"\\n\" >{date}; chmod 755 {date}"));
    let said = failing(lab, "clock");
    assert!(said.contains("keeper's clock is 5 min ahead"), "{said}");
    lab.on("keeper", &format!("rm {date}"));
    anew(lab);
}

fn an_archive_command_that_lies(lab: &Lab) {
    lab.sql("alter system set archive_command = $$/bin/true$$");
    lab.sql("select pg_reload_conf()");
    let moment = lab.sql("select now()");
    assert!(failing(lab, "settings").contains("archive_command"));
    thread::sleep(Duration::from_secs(150));
    let said = unproven(lab, "latest");
    assert!(
        said.contains("the newest heartbeat in the repository is "),
        "{said}"
    );
    let said = unproven(lab, &moment);
    assert!(said.contains("recovery failed"), "{said}");
    lab.on(
        "keeper",
        "find /var/lib/pgherd-backups/archive -type f -exec touch -d \"10 min ago\" {} +",
    );
    let said = failing(lab, "backups");
    assert!(
        said.contains("the newest WAL in the repository came 1"),
        "{said}"
    );
    lab.sql("alter system reset archive_command");
    lab.sql("select pg_reload_conf()");
    another_segment(lab);
    let said = failing(lab, "backups");
    assert!(said.contains("WAL is missing: "), "{said}");
    anew(lab);
}

/// A replica takes what it got by streaming for archived.
fn a_leader_that_changes_while_the_repository_is_away(lab: &Lab) {
    let leader = lab.leader();
    lab.on("keeper", "systemctl stop pgherd-backup");
    for _ in 0..3 {
        lab.sql("create table meanwhile as select 1 as n");
        lab.sql("drop table meanwhile");
        lab.sql("select pg_switch_wal()");
    }
    // It does not end with a healthy cluster.
    lab.run(&["switchover", "--yes"]);
    assert_ne!(lab.leader(), leader);
    lab.on("keeper", "systemctl start pgherd-backup");
    another_segment(lab);
    let said = failing(lab, "backups");
    assert!(said.contains("WAL is missing: "), "{said}");
    anew(lab);
}

fn a_full_repository(lab: &Lab) {
    let place = "/var/lib/pgherd-backups";
    lab.on(
        "keeper",
        &format!(
            "systemctl stop pgherd-backup; mv {place} {place}.moved; mkdir {place}; \
             mount -t tmpfs -o size=$(($(du -sm {place}.moved | cut -f1) + 40))m tmpfs {place}; cp -a {place}.moved/. {place}; \
             chown postgres:postgres {place}; chmod 750 {place}; rm -r {place}.moved; systemctl start pgherd-backup; \
             dd if=/dev/zero of={place}/filler bs=64k 2>/dev/null; true"
        ),
    );
    lab.sql("create table waits as select 1 as n");
    lab.sql("select pg_switch_wal()");
    until("WAL waits", || {
        failing(lab, "archive").contains("cannot archive")
    });
    let said = failing(lab, "backups");
    assert!(
        said.contains("the disk with the backups is nearly full"),
        "{said}"
    );
    let said = lab.expect(1, &["backup", "--full"]).stderr;
    assert!(said.contains("was not archived before"), "{said}");
    lab.on("keeper", &format!("rm {place}/filler"));
    another_segment(lab);
    lab.expect(0, &["backup", "--full"]);
    lab.holds_within(Duration::from_secs(90));
    assert_eq!(
        lab.json(&["backups", "--json"])["wrong"],
        serde_json::json!([])
    );
}
