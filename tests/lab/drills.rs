//! Every drill on a real cluster.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Lab, kill, prepared_image, prepared_version};

/// The message when clients notice a fault.
const REFUSED: &str = "writes are refused";

/// The fastest timing that Patroni accepts, and no acknowledged commit may ever be lost.
fn inventory() -> String {
    format!(
        "provider: {{ kind: docker, image: {} }}\npostgresql: {{ version: {} }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5, synchronous: true }}\n\
         hosts:\n  node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
         node3: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  haproxy: {{ roles: [haproxy] }}\n",
        prepared_image(),
        prepared_version()
    )
}

/// What asynchronous replication can lose, and that the same cluster loses nothing when it is synchronous.
#[test]
fn what_replication_that_is_held_up_costs() {
    let asynchronous = inventory().replace("synchronous: true", "synchronous: false");
    let lab = Lab::new("lag", &asynchronous);
    let said = lab.expect(1, &["drill", "stop-leader", "--yes"]);
    assert!(said.stderr.contains("pgherd up"), "{}", said.stderr);
    lab.expect(0, &["up", "--yes"]);

    let said = lab.expect(2, &["drill", "stop-leader", "--lag", "3s", "--yes"]);
    assert!(said.stderr.contains("crash-host"), "{}", said.stderr);
    a_drill_that_is_killed_lets_replication_go_on(&lab);
    commits_are_lost_and_counted(&lab);
    lab.write_inventory(&inventory());
    lab.expect(0, &["up", "--yes"]);
    lab.holds_within(Duration::from_secs(30));
    commits_wait_and_none_is_lost(&lab);
}

#[test]
fn a_cluster_stands_what_is_done_to_it() {
    let lab = Lab::new("drills", &inventory());
    lab.expect(0, &["up", "--yes"]);
    nobody_is_broken_off_unasked(&lab);
    a_switchover_goes_where_it_is_told(&lab);
    a_leader_that_stops_is_replaced(&lab);
    a_host_that_dies_takes_nothing_with_it(&lab);
}

#[test]
fn what_a_cluster_hardly_notices() {
    let lab = Lab::new("calm", &inventory());
    lab.expect(0, &["up", "--yes"]);
    etcd_may_be_gone_for_a_while(&lab);
    a_limit_decides_the_exit_code(&lab);
}

#[test]
fn a_drill_that_is_cut_off_leaves_nothing_broken() {
    let lab = Lab::new("cut", &inventory());
    lab.expect(0, &["up", "--yes"]);
    an_interrupted_drill_puts_everything_right(&lab);
    what_a_killed_drill_has_left_is_put_right(&lab);
}

fn nobody_is_broken_off_unasked(lab: &Lab) {
    let said = lab.expect(2, &["drill", "stop-leader"]);
    assert!(said.stderr.contains("--yes"), "{}", said.stderr);
    let mut guest = lab
        .command(&["psql", "--", "-c", "select pg_sleep(60)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let busy = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' \
                and pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.sql(busy) == "0" {
        assert!(Instant::now() < deadline, "the guest never came in");
    }
    let leader = lab.leader();
    let said = lab.expect(1, &["drill", "stop-leader", "--yes"]);
    assert!(said.stderr.contains("--despite-clients"), "{}", said.stderr);
    assert!(
        said.stderr.contains("of postgres (psql)"),
        "{}",
        said.stderr
    );
    assert_eq!(lab.leader(), leader);
    kill(&mut guest);
    // psql was a child of the killed process; its server process ends here.
    lab.sql("select count(pg_terminate_backend(pid)) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()");
}

fn a_switchover_goes_where_it_is_told(lab: &Lab) {
    let leader = lab.leader();
    let said = lab.expect(0, &["switchover", "--to", &leader, "--yes"]);
    assert!(said.stderr.contains("leads already"), "{}", said.stderr);
    let said = lab.expect(2, &["switchover", "--to", "node4", "--yes"]);
    assert!(said.stderr.contains("no member is called node4"));
    let standby = lab.sql(
        "select application_name from pg_stat_replication where sync_state in ('sync', 'quorum') limit 1",
    );
    let said = lab.expect(0, &["switchover", "--to", &standby, "--yes"]);
    assert!(
        said.stderr
            .contains(&format!("{leader} has handed over to {standby}")),
        "{}",
        said.stderr
    );
    assert_eq!(lab.leader(), standby);
}

/// Runs one drill that must pass; returns what it measured.
fn drill(lab: &Lab, words: &[&str]) -> Value {
    let mut all = vec!["drill", "--yes", "--json"];
    all.extend(words);
    let document = lab.json(&all);
    let kept = lab.workspace().join("runs/latest/drill.json");
    let kept: Value = serde_json::from_str(&fs::read_to_string(kept).unwrap()).unwrap();
    assert_eq!(document, kept, "what is printed is what is kept");
    assert_eq!(document["passed"], true);
    let drill = document["drills"][0].clone();
    assert_eq!(drill["measured"]["missing"], 0);
    assert_eq!(drill["measured"]["two_leaders"], serde_json::json!([]));
    assert!(drill["measured"]["acknowledged"].as_u64() > Some(50));
    let written: u64 = drill["samples"]["writes_ok"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(Some(written), drill["measured"]["acknowledged"].as_u64());
    assert_eq!(
        lab.sql(
            "select count(*) from pg_tables where schemaname = 'pgherd' and tablename like 'drill%'"
        ),
        "0",
        "its tables are gone"
    );
    lab.holds_within(Duration::from_secs(20));
    drill
}

fn moments(drill: &Value) -> Vec<&str> {
    let marks = drill["marks"].as_array().unwrap();
    marks
        .iter()
        .filter_map(|mark| mark["moment"].as_str())
        .collect()
}

fn a_leader_that_stops_is_replaced(lab: &Lab) {
    let leader = lab.leader();
    let drill = drill(lab, &["stop-leader"]);
    let measured = &drill["measured"];
    assert_eq!(drill["hosts"], serde_json::json!([leader]));
    assert_eq!(measured["leader_before"], leader.as_str());
    assert_ne!(measured["leader_after"], leader.as_str());
    assert!(measured["timeline_after"].as_u64() > measured["timeline_before"].as_u64());
    assert!(measured["write_outage"].as_f64() > Some(0.3));
    // There are two looks: a write may be seen before the leader is known.
    let mut seen = moments(&drill);
    seen[3..5].sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(
        seen,
        [
            "load",
            "fault",
            "refused",
            "new_leader",
            "accepted",
            "repair",
            "whole",
            "end"
        ]
    );
    let roles: Vec<&str> = drill["bands"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|band| band["member"] == leader.as_str())
        .filter_map(|band| band["role"].as_str())
        .collect();
    assert_eq!(roles.first(), Some(&"leader"));
    assert!(roles.contains(&"down"), "{roles:?}");
    assert_eq!(roles.last(), Some(&"replica"));
}

fn etcd_may_be_gone_for_a_while(lab: &Lab) {
    let leader = lab.leader();
    let drill = drill(lab, &["etcd-down"]);
    let measured = &drill["measured"];
    assert_eq!(measured["new_leader"], Value::Null);
    assert_eq!(measured["timeline_after"], measured["timeline_before"]);
    assert_eq!(measured["write_errors"], serde_json::json!({}));
    assert_eq!(lab.leader(), leader);
}

fn a_host_that_dies_takes_nothing_with_it(lab: &Lab) {
    let leader = lab.leader();
    let drill = drill(lab, &["crash-host"]);
    assert_ne!(drill["measured"]["leader_after"], leader.as_str());
    // Its address is the old one, so nothing is left to do.
    lab.expect(0, &["plan", "--check"]);
}

fn a_limit_decides_the_exit_code(lab: &Lab) {
    let said = lab.expect(
        3,
        &["drill", "haproxy-restart", "--yes", "--max-outage", "1ms"],
    );
    assert!(said.stderr.contains("the limit is"), "{}", said.stderr);
    lab.holds_within(Duration::from_secs(20));
}

fn commits_are_lost_and_counted(lab: &Lab) {
    let words = ["drill", "crash-host", "--lag", "3s", "--yes", "--json"];
    let said = lab.expect(3, &words);
    assert!(
        said.stderr.contains("commits are missing"),
        "{}",
        said.stderr
    );
    // The error follows on a line of its own.
    let document: Value = serde_json::from_str(&said.stdout).expect("one document");
    let drill = &document["drills"][0];
    let (measured, hold) = (&drill["measured"], &drill["hold"]);
    let missing = measured["missing"].as_u64().unwrap();
    assert!(missing > 50, "{missing} commits are missing");
    assert!(measured["acknowledged"].as_u64() > Some(missing));
    assert_ne!(measured["leader_after"], measured["leader_before"]);
    // They are those of the delay, and no commit waited in it.
    let span = |name: &str, of: &Value| of[name].as_f64().unwrap();
    let lost = &measured["missing_span"];
    assert!(
        span("from", lost) > span("from", hold) - 1.0,
        "{lost} {hold}"
    );
    assert!(span("to", lost) - span("from", lost) > 2.0, "{lost} {hold}");
    assert!(hold["behind"].as_u64() > Some(0));
    assert!(hold["behind"].as_u64() < hold["limit"].as_u64());
    assert!(moments(drill).starts_with(&["load", "held_up", "fault"]));
    let page = lab.workspace().join("runs/latest/report.html");
    assert!(
        fs::read_to_string(page)
            .unwrap()
            .contains("replication is held up")
    );
    lab.holds_within(Duration::from_secs(20));
}

fn commits_wait_and_none_is_lost(lab: &Lab) {
    let drill = drill(lab, &["crash-host", "--lag", "3s"]);
    assert!(
        drill["hold"]["waited"].as_f64() > Some(2.0),
        "{}",
        drill["hold"]
    );
    assert_eq!(drill["measured"]["missing_span"], Value::Null);
}

fn a_drill_that_is_killed_lets_replication_go_on(lab: &Lab) {
    let leader = lab.leader();
    let stopped = "cat /proc/[0-9]*/stat | grep -c '(postgres) T' || true";
    let killed = |lag| {
        let words = ["drill", "crash-host", "--lag", lag, "--yes"];
        kill(&mut begin(lab, &words, "replication is held up"));
        assert_eq!(lab.on(&leader, stopped).trim(), "2");
    };
    killed("30s");
    lab.expect(0, &["drill", "--repair"]);
    assert_eq!(lab.on(&leader, stopped).trim(), "0");
    // Also if nobody comes to repair it.
    killed("3s");
    let deadline = Instant::now() + Duration::from_secs(90);
    while lab.on(&leader, stopped).trim() != "0" {
        assert!(Instant::now() < deadline, "replication stays held up");
    }
    lab.expect(0, &["drill", "--repair"]);
    assert_eq!(lab.leader(), leader);
    lab.holds_within(Duration::from_secs(20));
}

/// Starts a drill and waits until it reports an effect.
fn begin(lab: &Lab, words: &[&str], effect: &str) -> std::process::Child {
    let mut child = lab
        .command(words)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let seen = std::io::BufRead::lines(stderr)
        .map_while(Result::ok)
        .any(|line| line.contains(effect));
    assert!(seen, "{words:?}: never seen: {effect}");
    child
}

fn an_interrupted_drill_puts_everything_right(lab: &Lab) {
    let mut child = begin(lab, &["drill", "stop-leader", "--yes"], REFUSED);
    let told = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(told.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!lab.workspace().join("broken.json").exists());
    lab.holds_within(Duration::from_secs(10));
}

fn what_a_killed_drill_has_left_is_put_right(lab: &Lab) {
    let mut child = begin(lab, &["drill", "isolate-leader", "--yes"], REFUSED);
    // A second drill is refused while the first one runs, and no other run repairs its fault meanwhile.
    let said = lab.expect(1, &["drill", "--repair"]);
    assert!(said.stderr.contains("another run is at work"));
    kill(&mut child);
    let said = lab.expect(0, &["status"]);
    assert!(said.stderr.contains("drill --repair"), "{}", said.stderr);
    lab.expect(0, &["up", "--yes"]);
    let said = lab.expect(0, &["status"]);
    assert!(!said.stderr.contains("drill --repair"), "{}", said.stderr);
    lab.expect(0, &["verify"]);
    let said = lab.expect(0, &["drill", "--repair"]);
    assert!(said.stderr.contains("nothing to repair"));
}
