//! `verify` fails for everything that is wrong, and a change of parameters cannot cost a leader.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::support::{Lab, prepared_image, prepared_version};

const DATABASES: [&str; 3] = ["node1", "node2", "node3"];

fn inventory(parameters: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: {} }}\n\
         postgresql: {{ version: {}, parameters: {{ {parameters} }} }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\n\
         hosts:\n  node1: {{ roles: [postgres, etcd, haproxy] }}\n  \
         node2: {{ roles: [postgres] }}\n  node3: {{ roles: [postgres] }}\n",
        prepared_image(),
        prepared_version()
    )
}

/// The failed checks, with their details.
fn failed(lab: &Lab) -> BTreeMap<String, String> {
    let said = lab.expect(3, &["verify", "--json"]);
    let proof: Value = serde_json::from_str(&said.stdout).expect("one document");
    proof["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["passed"] == false)
        .map(|check| (text(&check["name"]), text(&check["detail"])))
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Only this check fails, and its detail has all of `words`.
fn fails(lab: &Lab, name: &str, words: &[&str]) {
    let failed = failed(lab);
    assert_eq!(failed.keys().collect::<Vec<_>>(), [name], "{failed:?}");
    for word in words {
        assert!(failed[name].contains(word), "{word}: {failed:?}");
    }
}

fn holds(lab: &Lab) {
    lab.holds_within(std::time::Duration::from_secs(30));
}

const PATRONICTL: &str = "/opt/patroni/bin/patronictl -c /etc/patroni.yml";

#[test]
fn what_verify_says_is_true() {
    let lab = Lab::new("truth", &inventory(""));
    lab.expect(0, &["up", "--yes"]);
    holds(&lab);

    lab.on("node2", &format!("{PATRONICTL} pause --wait"));
    fails(&lab, "pause", &["Patroni is paused", "resume"]);
    assert_eq!(lab.json(&["status", "--json"])["paused"], true);
    lab.on("node2", &format!("{PATRONICTL} resume --wait"));

    settings_of_other_sources(&lab);
    what_is_done_beside_pgherd(&lab);
    an_alarm(&lab);
    a_program_that_was_replaced(&lab);
    holds(&lab);

    a_library_that_is_missing(&lab);
    parameters_are_taken_over_in_order(&lab);
    lab.expect(0, &["down", "--yes"]);
}

fn settings_of_other_sources(lab: &Lab) {
    let reload = |lab: &Lab| lab.sql("select pg_reload_conf()");
    lab.sql("alter system set work_mem = '64MB'");
    fails(lab, "settings", &["work_mem will be 64MB"]);
    reload(lab);
    fails(lab, "settings", &["work_mem is 64MB", "ALTER SYSTEM"]);
    let status = lab.json(&["status", "--json"]);
    assert!(
        text(&status["settings_differ"][0]).contains("work_mem"),
        "{status}"
    );
    lab.sql("alter system reset work_mem");
    reload(lab);
    lab.sql("alter role postgres set work_mem = '65MB'");
    let advice = "alter role postgres reset work_mem";
    fails(lab, "settings", &["work_mem is 65MB", advice]);
    lab.sql(advice);
    holds(lab);
}

/// What PostgreSQL's files and the inventory do not show: roles, access rules, the DCS, a Patroni that runs
/// with other tags than its file's, and a firewall between two members.
fn what_is_done_beside_pgherd(lab: &Lab) {
    lab.sql("alter role replicator nologin");
    fails(lab, "roles", &["replicator"]);
    lab.sql("alter role replicator login");

    // etcd and HAProxy are on node1, so only members use the connection between the others.
    if lab.leader() != "node1" {
        lab.expect(0, &["switchover", "--to", "node1", "--yes"]);
        holds(lab);
    }
    let (one, other) = replicas(lab);
    let hba = "cd /tmp; f=$(runuser -u postgres -- psql -XqAtc 'show hba_file')";
    let opened = format!("{hba}; echo 'host all all 0.0.0.0/0 trust' >>$f");
    lab.on(&one, &opened);
    let line = "is not the inventory's: host all all 0.0.0.0 0.0.0.0 trust";
    fails(lab, "settings", &[&one, line]);
    lab.on(&one, "systemctl reload patroni; sleep 2");

    let edit = |value: &str| {
        format!("{PATRONICTL} edit-config --force -q -s primary_start_timeout={value}")
    };
    lab.on(&one, &edit("0"));
    let advice = "edit-config --force -s primary_start_timeout=null";
    fails(lab, "settings", &["primary_start_timeout (0)", advice]);
    lab.on(&one, &edit("null"));

    // As a person does who excludes a member from leadership, and restores the file later.
    lab.on(
        &one,
        "f=/etc/patroni.yml; cp -p $f /root/was; sed -i 's/nofailover: false/nofailover: true/' $f; \
         systemctl reload patroni; sleep 3; cat /root/was >$f",
    );
    fails(lab, "settings", &["nofailover: true", "systemctl reload"]);
    lab.on(&one, "systemctl reload patroni; sleep 3");

    let route = |verb: &str| {
        format!("ip route {verb} blackhole $(getent hosts {other} | cut -d' ' -f1)/32")
    };
    lab.on(&one, &route("add"));
    let what = format!("{one} does not reach PostgreSQL on {other}");
    fails(lab, "network", &[&what, "does not reach Patroni"]);
    lab.on(&one, &route("del"));
    holds(lab);
}

fn replicas(lab: &Lab) -> (String, String) {
    let leader = lab.leader();
    let mut names = DATABASES.iter().filter(|name| **name != leader);
    let mut next = || (*names.next().expect("two replicas")).to_owned();
    (next(), next())
}

/// The alarm is raised as etcd raises it when its database is full, and ended as docs/verify.md says.
fn an_alarm(lab: &Lab) {
    const ETCDCTL: &str = "ETCDCTL_API=3 etcdctl --endpoints https://node1:2379 \
        --cacert /etc/pgherd/tls/etcd/ca.crt --cert /etc/pgherd/tls/etcd/server.crt \
        --key /etc/pgherd/tls/etcd/server.key";
    let raise = r"python3 - <<'END'
import json, ssl, urllib.request
d = '/etc/pgherd/tls/etcd/'
tls = ssl.create_default_context(cafile=d + 'ca.crt')
tls.load_cert_chain(d + 'server.crt', d + 'server.key')
def ask(path, body):
    data = json.dumps(body).encode()
    return json.load(urllib.request.urlopen('https://node1:2379/v3/' + path, data=data, context=tls))
member = ask('cluster/member/list', {})['members'][0]['ID']
ask('maintenance/alarm', {'action': 'ACTIVATE', 'memberID': member, 'alarm': 'NOSPACE'})
END";
    lab.on("node1", raise);
    let failed = failed(lab);
    assert!(
        failed["alarms"].contains("etcd on node1 has the alarm NOSPACE"),
        "{failed:?}"
    );
    assert!(failed.contains_key("etcd"), "{failed:?}");
    let status = lab.json(&["status", "--json"]);
    assert_eq!(status["etcd_alarms"][0]["kind"], "NOSPACE", "{status}");
    assert_eq!(status["etcd"][0]["error"], "alarm NOSPACE", "{status}");
    lab.on(
        "node1",
        &format!("{ETCDCTL} defrag && {ETCDCTL} alarm disarm"),
    );
    holds(lab);
}

/// As an update of the package does it, while PostgreSQL keeps running.
fn a_program_that_was_replaced(lab: &Lab) {
    let program = format!("/usr/lib/postgresql/{}/bin/postgres", prepared_version());
    let newer = format!(
        r"cp -p {program} /root/postgres && python3 - <<'END'
import re
text = open('/root/postgres', 'rb').read()
newer = lambda found: found[1] + b'9' * len(found[2])
open('/root/newer', 'wb').write(re.sub(rb'(postgres \(PostgreSQL\) [0-9]+\.)([0-9]+)', newer, text))
END
chmod 755 /root/newer && mv /root/newer {program}"
    );
    lab.on("node2", &newer);
    fails(
        lab,
        "versions",
        &[
            "node2 runs PostgreSQL",
            "9 is installed",
            "pgherd restart node2",
        ],
    );
    // The same version, but another program.
    lab.on("node2", &format!("mv /root/postgres {program}"));
    fails(lab, "versions", &["node2 runs a program that was replaced"]);
    lab.on(
        "node2",
        &format!("{PATRONICTL} restart {} node2 --force", lab.name),
    );
}

/// When each PostgreSQL has started.
fn started(lab: &Lab) -> Vec<String> {
    let line = "sed -n 3p /data/patroni/postmaster.pid";
    DATABASES.iter().map(|host| lab.on(host, line)).collect()
}

fn a_library_that_is_missing(lab: &Lab) {
    let before = started(lab);
    for (parameter, words) in [
        (
            "shared_preload_libraries: pg_nonesuch",
            ["pg_nonesuch", "shared_preload_libraries", "FATAL"],
        ),
        (
            "session_preload_libraries: pg_nonesuch",
            ["pg_nonesuch", "session_preload_libraries", "node3"],
        ),
    ] {
        lab.write_inventory(&inventory(parameter));
        let said = lab.expect(1, &["up", "--yes"]).stderr;
        for word in words {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(said.contains("would not start"), "{said}");
    }
    assert_eq!(started(lab), before, "nothing was restarted");
    for host in DATABASES {
        let files = lab.on(host, "cat /etc/patroni.yml /data/patroni/postgresql.conf");
        assert!(!files.contains("nonesuch"), "{files}");
    }
}

/// The latest run's restarts and hand-overs, in order: `node2`, `node1>node2`.
fn order(lab: &Lab) -> Vec<String> {
    let events = lab.workspace().join("runs/latest/events.jsonl");
    let events = fs::read_to_string(events).expect("events");
    let lines = events.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let said = event["line"].as_str()?;
        if let Some(rest) = said.strip_prefix("restarting PostgreSQL on ") {
            return Some(rest.split([',', ' ']).next()?.to_owned());
        }
        let (from, to) = said.split_once(" hands over to ")?;
        Some(format!("{from}>{to}"))
    });
    lines.collect()
}

/// Applies parameters; returns the earlier leader and the order of actions.
fn change(lab: &Lab, parameters: &str) -> (String, Vec<String>) {
    let leader = lab.leader();
    lab.write_inventory(&inventory(parameters));
    lab.expect(0, &["up", "--yes"]);
    (leader, order(lab))
}

fn replicas_then_a_hand_over(leader: &str, order: &[String]) {
    assert_eq!(order.len(), 4, "{leader} led: {order:?}");
    assert!(
        !order[..2].contains(&leader.to_owned()),
        "{leader} led: {order:?}"
    );
    assert!(
        order[2].starts_with(&format!("{leader}>")),
        "{leader} led: {order:?}"
    );
    assert_eq!(order[3], leader, "{order:?}");
}

fn parameters_are_taken_over_in_order(lab: &Lab) {
    let archive = "archive_mode: 'on', archive_command: /bin/true";
    let parameters =
        |connections| format!("shared_buffers: 144MB, max_connections: {connections}, {archive}");
    let (leader, raised) = change(lab, &parameters(150));
    replicas_then_a_hand_over(&leader, &raised);
    // A standby cannot have less than its primary, so the primary goes first, in place.
    let (leader, lowered) = change(lab, &parameters(120));
    assert_eq!(lowered.first(), Some(&leader), "{lowered:?}");
    assert_eq!(lowered.len(), 3, "{lowered:?}");
    assert_eq!(lab.sql("show max_connections"), "120");
    an_archive_that_fails(lab);
}

fn an_archive_that_fails(lab: &Lab) {
    lab.sql("alter system set archive_command = '/bin/false'");
    lab.sql("select pg_reload_conf()");
    lab.sql("create table archived as select 1; select pg_switch_wal()");
    let fails = || failed(lab).get("archive").cloned();
    let told = (0..10).find_map(|_| fails()).expect("the archive fails");
    assert!(told.contains("cannot archive"), "{told}");
    lab.sql("alter system reset archive_command");
    lab.sql("select pg_reload_conf()");
    holds(lab);
}

/// Which of them notices first is a race.
#[test]
fn soak_a_leader_is_restarted_last_however_often() {
    let lab = Lab::new("order", &inventory(""));
    lab.expect(0, &["up", "--yes"]);
    for megabytes in [110, 120, 130, 140, 150, 160, 170, 180] {
        let (leader, order) = change(&lab, &format!("shared_buffers: {megabytes}MB"));
        replicas_then_a_hand_over(&leader, &order);
    }
    lab.expect(0, &["down", "--yes"]);
}
