//! Work by hand on a running cluster: on its hosts, and through pgherd.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::support::{Lab, Said, docker, prepared_image, prepared_version};

const DATA: &str = "/srv/by-hand/main";
const HOSTS: [&str; 4] = ["node1", "node2", "store", "door"];

#[test]
fn what_is_done_by_hand_works_and_is_guarded() {
    let lab = Lab::new(
        "by-hand",
        &format!(
            "provider: {{ kind: docker, image: {} }}\n\
             postgresql: {{ version: {}, port: 5433, data_dir: {DATA} }}\n\
             patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nssh: {{ connect_timeout: 3 }}\nhosts:\n  \
             node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
             store: {{ roles: [etcd] }}\n  door: {{ roles: [haproxy] }}\n",
            prepared_image(),
            prepared_version()
        ),
    );
    lab.expect(0, &["up", "--yes"]);
    lab.sql("create table kept as select generate_series(1, 1000) as id");

    commands_work_as_they_are_typed(&lab);
    a_login_says_what_the_host_is(&lab);
    a_pause_is_said_and_ends(&lab);
    a_replica_is_copied_anew(&lab);
    all_members_restart_without_a_lost_commit(&lab);
    a_member_is_made_the_leader(&lab);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    root_comes_into_the_database(&lab);
}

/// The output, on both streams, of a command that the login user typed on a host.
fn typed(lab: &Lab, host: &str, line: &str) -> String {
    let output = lab.run(&["ssh", host, "--", line]);
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn commands_work_as_they_are_typed(lab: &Lab) {
    for host in HOSTS {
        for line in ["patronictl list", "sudo patronictl list"] {
            let said = lab.expect(0, &["ssh", host, "--", line]).stdout;
            assert!(
                said.contains("node1") && said.contains("node2") && said.contains("Leader"),
                "{host}: {line}\n{said}"
            );
        }
        for line in ["etcdctl endpoint health", "sudo etcdctl endpoint health"] {
            let said = typed(lab, host, line);
            let there = said.contains("is healthy");
            let elsewhere = said.contains("on one of: node1 node2 store");
            assert!(there != elsewhere && there == (host != "door"), "{said}");
        }
    }
    // The caller's own options and variables win, even if etcdctl would not accept both together.
    let said = typed(
        lab,
        "node1",
        "etcdctl --endpoints=https://store:2379 endpoint health",
    );
    assert!(said.contains("https://store:2379 is healthy"), "{said}");
    let said = typed(
        lab,
        "store",
        "ETCDCTL_ENDPOINTS=https://localhost:2379 etcdctl endpoint health",
    );
    assert!(said.contains("https://localhost:2379 is healthy"), "{said}");
    let said = typed(lab, "node1", "patronictl -c /nowhere list");
    assert!(said.contains("/nowhere"), "{said}");
    // Without a Patroni, `list` answers and nothing else does.
    let said = typed(lab, "store", "sudo patronictl pause");
    assert!(said.contains("type it on a member: node1 node2"), "{said}");
    // A user other than root and the login user is told what to type.
    let said = lab.on("node1", "runuser -u nobody -- patronictl list 2>&1 || true");
    assert!(said.contains("sudo patronictl list"), "{said}");
}

/// Root is the superuser of a member's database, without options, on any port.
fn root_comes_into_the_database(lab: &Lab) {
    for host in ["node1", "node2"] {
        let said = lab.expect(0, &["ssh", host, "--", "sudo psql -Atc 'show port'"]);
        assert_eq!(said.stdout.trim(), "5433", "{host}");
        let said = lab.expect(
            0,
            &["ssh", host, "--", "sudo psql -Atc 'select current_user'"],
        );
        assert_eq!(said.stdout.trim(), "postgres", "{host}");
        let said = typed(lab, host, "sudo psql -U nobody -c 'select 1'");
        assert!(
            said.contains("user nobody"),
            "the caller's own user wins: {said}"
        );
    }
}

/// Interactive logins only.
fn a_login_says_what_the_host_is(lab: &Lab) {
    let config = lab.workspace().join("ssh_config");
    let login = |host: &str, words: &[&str]| {
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(&config).args(words).arg(host);
        ssh
    };
    for (host, role) in [
        ("node1", "postgres"),
        ("store", "etcd"),
        ("door", "haproxy"),
    ] {
        let shell = format!(
            "echo exit | {} 2>&1",
            format_args!("ssh -F '{}' -tt {host}", config.display())
        );
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = format!("{host} belongs to the PostgreSQL cluster {}", lab.name);
        assert!(said.contains(&line) && said.contains(role), "{said}");
        assert!(said.contains("sudo patronictl list"), "{said}");
        let output = login(host, &[]).arg("true").output().unwrap();
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
    }
}

/// Whether every member says that it is paused.
fn paused(lab: &Lab) -> bool {
    lab.json(&["status", "--json"])["paused"] == true
}

fn a_pause_is_said_and_ends(lab: &Lab) {
    let said = lab.expect(2, &["pause"]);
    assert!(
        said.stderr.contains("nothing fails over"),
        "{}",
        said.stderr
    );
    assert!(!paused(lab));
    lab.expect(0, &["pause", "--yes"]);
    assert!(paused(lab));
    let said = lab.expect(0, &["pause", "--yes"]);
    assert!(said.stderr.contains("paused already"), "{}", said.stderr);
    for verb in [
        &["restart", "--yes"][..],
        &["reinit", &replica(lab), "--yes"],
    ] {
        let said = lab.expect(2, verb);
        assert!(said.stderr.contains("pgherd resume"), "{}", said.stderr);
    }
    lab.expect(0, &["resume", "--yes"]);
    assert!(!paused(lab));
    let said = lab.expect(0, &["resume", "--yes"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
}

fn replica(lab: &Lab) -> String {
    let leader = lab.leader();
    let other = ["node1", "node2"].into_iter().find(|host| *host != leader);
    other.unwrap().to_owned()
}

/// The events of one kind.
fn events<'a>(said: &'a [Value], kind: &str) -> Vec<&'a Value> {
    said.iter().filter(|event| event["event"] == kind).collect()
}

fn held(said: &Said) {
    let all = said.events();
    let checks = events(&all, "check");
    assert!(!checks.is_empty(), "it was proven");
    assert!(checks.iter().all(|check| check["passed"] == true));
}

fn a_replica_is_copied_anew(lab: &Lab) {
    let (leader, replica) = (lab.leader(), replica(lab));
    let said = lab.expect(2, &["reinit", &leader, "--yes"]);
    assert!(said.stderr.contains("is the leader"), "{}", said.stderr);
    let said = lab.expect(2, &["reinit", "store", "--yes"]);
    assert!(said.stderr.contains("node1, node2"), "{}", said.stderr);
    let said = lab.expect(2, &["reinit", &replica]);
    assert!(said.stderr.contains("all data on"), "{}", said.stderr);
    let mark = format!("touch {DATA}/by-hand");
    lab.on(&replica, &mark);
    let said = lab.expect(0, &["reinit", &replica, "--yes", "--json"]);
    held(&said);
    let left = lab.on(&replica, &format!("ls {DATA}"));
    assert!(
        left.contains("PG_VERSION") && !left.contains("by-hand"),
        "{left}"
    );
}

fn all_members_restart_without_a_lost_commit(lab: &Lab) {
    const STARTED: &str = "select pg_postmaster_start_time()";
    let before = lab.sql(STARTED);
    let said = lab.expect(0, &["restart", "--pending", "--yes"]);
    assert!(
        said.stderr.contains("no parameter waits"),
        "{}",
        said.stderr
    );
    let (old, next) = (lab.leader(), replica(lab));
    let said = lab.expect(0, &["restart", "--yes"]);
    assert!(
        said.stderr
            .contains(&format!("{next} leads; no writes for"))
            && said.stderr.contains(" 0 of "),
        "{}",
        said.stderr
    );
    assert_eq!(lab.leader(), next, "{old} handed over");
    assert_ne!(lab.sql(STARTED), before);
    let page = lab.workspace().join("runs/latest/drill.json");
    let record: Value = serde_json::from_str(&std::fs::read_to_string(page).unwrap()).unwrap();
    let measured = &record["drills"][0]["measured"];
    assert_eq!(measured["missing"], 0, "{measured}");
    assert!(measured["acknowledged"].as_u64() > Some(20), "{measured}");
}

fn a_member_is_made_the_leader(lab: &Lab) {
    let (leader, next) = (lab.leader(), replica(lab));
    let said = lab.expect(2, &["failover", "--to", &leader, "--yes"]);
    assert!(said.stderr.contains("leads already"), "{}", said.stderr);
    let said = lab.expect(2, &["failover", "--to", "store", "--yes"]);
    assert!(
        said.stderr.contains("no member is called store"),
        "{}",
        said.stderr
    );
    // No member takes over by itself, and the leader's host dies.
    lab.expect(0, &["pause", "--yes"]);
    docker(&["kill", &lab.container(&leader)]);
    let said = lab.expect(2, &["failover", "--to", &leader, "--yes"]);
    assert!(
        said.stderr.contains("does not answer") || said.stderr.contains("leads already"),
        "{}",
        said.stderr
    );
    let said = lab.expect(2, &["reinit", &next, "--yes"]);
    assert!(said.stderr.contains("no member leads") || said.stderr.contains("paused"));
    // Done, and not verified: a host is gone.
    let said = lab.expect(3, &["failover", "--to", &next, "--yes"]);
    let done = format!("{next} was made the leader; {next} leads");
    assert!(said.stderr.contains(&done), "{}", said.stderr);
    assert_eq!(lab.sql("insert into kept values (0) returning id"), "0");
    lab.sql("delete from kept where id = 0");
    docker(&["start", &lab.container(&leader)]);
    lab.expect(0, &["resume", "--yes"]);
    lab.holds_within(Duration::from_secs(60));
}
