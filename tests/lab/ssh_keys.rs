//! `rotate ssh` on hosts that run: killed at each stage, completed, and tried from outside.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Lab, prepared_image};

/// How long sshd may take to end a session that it was told to end.
const ENDED: Duration = Duration::from_secs(60);

fn ssh(config: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).arg("one");
    ssh.stdin(Stdio::null()).stderr(Stdio::null());
    ssh
}

fn pinned(lab: &Lab) -> String {
    fs::read_to_string(lab.workspace().join("known_hosts")).unwrap()
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
    let mut session = ssh(&thief).arg("sleep 600").spawn().unwrap();

    // Killed at each stage, pgherd still gets in, and the next run goes on.
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
    lab.expect(0, &["down", "--yes"]);
}
