//! Connections that stay open for the next command, and `rotate ssh` on running hosts: killed at each stage,
//! completed, and tested from outside.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Lab, docker, output, prepared_image};

/// How long sshd may take to end a session that it was told to end.
const ENDED: Duration = Duration::from_secs(60);

fn ssh(config: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).arg("one");
    ssh.stdin(Stdio::null()).stderr(Stdio::null());
    ssh
}

/// This machine's connections to the lab's host: the process ids of their `ssh`.
fn connections(lab: &Lab) -> Vec<String> {
    let own = format!("^ssh .*-M .*{}", lab.dir.path().display());
    let found = Command::new("pgrep").args(["-f", &own]).output().unwrap();
    let ids = String::from_utf8_lossy(&found.stdout).into_owned();
    ids.lines().map(str::to_owned).collect()
}

/// The number of connections that wait for the next command. A run that was killed leaves none.
fn kept(lab: &Lab) -> usize {
    let folders = "find pgherd-ssh-*/*/* -maxdepth 0 2>/dev/null | wc -l";
    let mut shell = Command::new("sh");
    shell.args(["-c", folders]).current_dir(lab.dir.path());
    output(&mut shell).parse().unwrap()
}

fn tell(signal: &str, ids: &[String]) {
    output(Command::new("kill").arg(signal).args(ids));
}

/// Runs a shell line on the host without SSH.
fn inside(lab: &Lab, line: &str) -> String {
    docker(&["exec", &lab.container("one"), "sh", "-c", line])
}

/// How often sshd has accepted a login.
fn logins(lab: &Lab) -> u32 {
    let count =
        "journalctl -q --no-pager -t sshd -t sshd-session | grep -c 'Accepted publickey' || true";
    inside(lab, count).trim().parse().unwrap()
}

/// How many new connections a verb needs.
fn new_logins(lab: &Lab, words: &[&str]) -> u32 {
    let before = logins(lab);
    lab.expect(0, words);
    logins(lab) - before
}

fn a_connection_outlives_its_command(lab: &Lab) {
    let one = connections(lab);
    assert_eq!(one.len(), 1, "that of `up`");
    for words in [
        &["status"][..],
        &["plan"],
        &["verify"],
        &["psql", "--", "-c", "select 1"],
        &["up", "--yes"],
    ] {
        assert_eq!(new_logins(lab, words), 0, "{words:?}");
    }
    assert_eq!(connections(lab), one);
    // Two at once have one each, and one of them is kept.
    let mut second = lab.command(&["status"]);
    let mut second = second
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    lab.expect(0, &["verify"]);
    assert!(second.wait().unwrap().success());
    assert_eq!(connections(lab).len(), 1);

    let closed = lab.expect(0, &["ssh", "--close"]);
    assert!(
        closed.stderr.contains("closed: 1 connection"),
        "{}",
        closed.stderr
    );
    assert_eq!(connections(lab), [""; 0]);
    let closed = lab.expect(0, &["ssh", "--close"]);
    assert!(
        closed.stderr.contains("no connection was kept open"),
        "{}",
        closed.stderr
    );
    assert_eq!(new_logins(lab, &["status"]), 1);
}

/// A connection that leads nowhere costs the next verb only the time to notice it.
fn a_connection_that_is_dead_is_made_anew(lab: &Lab) {
    tell("-KILL", &connections(lab));
    assert_eq!(new_logins(lab, &["status"]), 1, "its process has died");

    let hangs = connections(lab);
    tell("-STOP", &hangs);
    assert_eq!(new_logins(lab, &["status"]), 1, "its process hangs");
    assert_eq!(new_logins(lab, &["status"]), 0);
    tell("-KILL", &hangs);

    // The other end is silent, as if a cable had been pulled.
    inside(lab, "pkill -STOP -f '^sshd[^ ]*: ubuntu'");
    let begin = Instant::now();
    assert_eq!(new_logins(lab, &["status"]), 1, "the host is silent");
    println!("{:?} with a host that was silent", begin.elapsed());
    inside(lab, "pkill -KILL -f '^sshd[^ ]*: ubuntu'");
    assert_eq!(new_logins(lab, &["status"]), 1, "the host has ended it");
}

/// A run over a kept connection that is killed gives its lease back when it dies.
fn a_killed_run_holds_nothing(lab: &Lab) {
    let before = logins(lab);
    let begun = lab.kill_up(|event| event["event"] == "planned");
    assert!(begun, "{}", lab.last_said());
    let begin = Instant::now();
    let free = "exec 9<>/run/pgherd.lease; flock -w 20 9";
    inside(lab, &format!("bash -c '{free}'"));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(logins(lab), before, "it had taken the connection");
    lab.expect(0, &["up", "--yes"]);
}

fn pinned(lab: &Lab) -> Vec<String> {
    let text = fs::read_to_string(lab.workspace().join("known_hosts")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn an_ssh_key_that_leaked_opens_nothing_any_more() {
    let lab = Lab::new(
        "ssh",
        &format!(
            "provider: {{ kind: docker, image: \"{}\" }}\npostgresql: {{ version: distro }}\n\
             patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
             one: {{ roles: [postgres, etcd, haproxy] }}\n",
            prepared_image()
        ),
    );
    lab.expect(0, &["up", "--yes"]);
    a_connection_outlives_its_command(&lab);
    a_connection_that_is_dead_is_made_anew(&lab);
    a_killed_run_holds_nothing(&lab);
    let config = lab.workspace().join("ssh_config");
    let stolen = lab.dir.path().join("stolen");
    fs::copy(lab.workspace().join("id_ed25519"), &stolen).unwrap();
    let (keys, hosts) = (lab.workspace().join("id_ed25519"), pinned(&lab));
    let thief = lab.dir.path().join("thief");
    let text = fs::read_to_string(&config).unwrap();
    let key = format!("\"{}\"", keys.display());
    assert!(text.contains(&key));
    let with_it = text.replace(&key, &format!("\"{}\"", stolen.display()));
    let elsewhere = with_it.replace("StrictHostKeyChecking yes", "StrictHostKeyChecking no");
    fs::write(&thief, elsewhere).unwrap();
    assert!(ssh(&thief).arg("true").status().unwrap().success());
    assert_eq!(
        new_logins(&lab, &["status"]),
        0,
        "with the key that will leak"
    );
    let mut session = ssh(&thief).arg("sleep 600").spawn().unwrap();

    // Killed at each stage, pgherd can still log in, and the next run continues.
    for stage in ["add", "use", "remove", "hosts"] {
        let there = lab.kill_run(&["rotate", "ssh", "--yes", "--json"], |event| {
            event["event"] == "stage" && event["stage"] == stage
        });
        assert!(there, "killed at {stage}");
        lab.expect(0, &["ssh", "one", "--", "true"]);
        let plan = lab.expect(0, &["up"]);
        assert!(plan.stderr.contains("rotate ssh"), "{}", plan.stderr);
    }
    lab.expect(0, &["rotate", "ssh", "--yes"]);
    assert_eq!(kept(&lab), 0, "none of the old key, or of the change");

    assert!(!ssh(&thief).arg("true").status().unwrap().success());
    let begin = Instant::now();
    while session.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < ENDED, "the thief is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_ne!(pinned(&lab), hosts, "the host shows another key");
    assert!(ssh(&config).arg("true").status().unwrap().success());
    for left in [
        "id_ed25519.old",
        "id_ed25519.next",
        "ssh.json",
        "ssh_config.trial",
    ] {
        assert!(!lab.workspace().join(left).exists(), "{left}");
    }
    let said = lab.expect(0, &["up"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
    assert_eq!(kept(&lab), 1);
    a_lost_workspace_comes_back(&lab);
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(kept(&lab), 0);
}

/// Only the lost workspace knew the host's new key.
fn a_lost_workspace_comes_back(lab: &Lab) {
    let keys = pinned(lab);
    fs::remove_dir_all(lab.workspace()).unwrap();
    let said = lab.expect(0, &["recover"]);
    println!("{}", said.stderr);
    assert_eq!(pinned(lab), keys);
    let said = lab.expect(0, &["up", "--yes"]);
    println!("{}", said.stderr);
}
