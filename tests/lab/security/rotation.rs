//! Certificates and passwords that change while clients write.

use std::{
    fs,
    io::{BufRead, BufReader, Read as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{HOSTS, SERVER, Secrets, Seen, address, door, overwrite, within};
use crate::{
    support::{Lab, kill},
    watch::Writer,
};

/// The certificate that PostgreSQL presents.
fn shown(address: &str) -> String {
    let output = Command::new("openssl")
        .args([
            "s_client",
            "-starttls",
            "postgres",
            "-connect",
            &format!("{address}:5432"),
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find("-----BEGIN").expect("a certificate");
    text[begin..]
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next()
        .unwrap()
        .to_owned()
}

pub(super) fn a_certificate_that_ends_soon_is_renewed_without_a_restart(lab: &Lab) {
    let pki = lab.workspace().join("pki");
    let csr = tempfile::NamedTempFile::new().unwrap();
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl")
            .args(words)
            .current_dir(&pki)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let request = csr.path().to_str().unwrap();
    openssl(&[
        "x509",
        "-x509toreq",
        "-copy_extensions",
        "copyall",
        "-in",
        "node2.crt",
        "-signkey",
        "node2.key",
        "-out",
        request,
    ]);
    openssl(&[
        "x509",
        "-req",
        "-days",
        "12",
        "-copy_extensions",
        "copyall",
        "-in",
        request,
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-out",
        "node2.crt",
    ]);
    let short = fs::read_to_string(pki.join("node2.crt")).unwrap();
    overwrite(lab, "node2", &format!("{SERVER}.crt"), &short);
    let running = "systemctl show -p MainPID --value patroni; head -1 /data/patroni/postmaster.pid";
    let before = lab.on("node2", running);

    let said = lab.expect(0, &["status"]);
    assert!(
        said.stderr.contains("the first to expire is node2's") && said.stderr.contains("renew: "),
        "{}",
        said.stderr
    );
    lab.expect(0, &["up", "--yes"]);
    let new = fs::read_to_string(pki.join("node2.crt")).unwrap();
    assert_ne!(new, short);
    let at = address(lab, "node2");
    within(
        Duration::from_secs(10),
        "PostgreSQL shows the new one",
        || shown(&at).trim() == new.trim(),
    );
    assert_eq!(lab.on("node2", running), before, "nothing has restarted");
}

/// An intruder with the superuser's password who keeps a session open.
fn intruder(lab: &Lab, port: u16) -> Child {
    let door = door(lab);
    let conninfo = door
        .conninfo
        .replace(&format!("port={}", lab.write_port), &format!("port={port}"))
        .replace("user=shop", "user=postgres");
    let mut child = Command::new("psql")
        .args(["-XAtq", "-d", &conninfo, "-c", "select 'in'"])
        .args(["-c", "select pg_sleep(3600)"])
        .env("PGPASSWORD", Secrets::of(lab).get("superuser"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = [0; 3];
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut line).expect("it is in");
    child
}

const PGPASS: &str = "/dev/shm/pgherd-lab-thief";

/// An intruder on a member's host who takes the WAL with a stolen password, under the name of a member that
/// does not stream itself.
fn wal_thief(lab: &Lab) {
    let line = format!("*:*:*:replicator:{}\n", Secrets::of(lab).get("replication"));
    lab.on("node3", &format!("install -m 0600 /dev/null {PGPASS}"));
    overwrite(lab, "node3", PGPASS, &line);
    let name = lab.leader();
    let leader = address(lab, &name);
    lab.on(
        "node3",
        &format!(
            "mkdir -p /tmp/thief && PGPASSFILE={PGPASS} setsid pg_receivewal -n --no-sync -D /tmp/thief \
             -d \"host={leader} user=replicator sslmode=require application_name={name}\" >/dev/null 2>&1 </dev/null &"
        ),
    );
    within(Duration::from_secs(5), "the thief is in", || {
        lab.sql("select count(*) from pg_stat_replication where client_addr is not null") == "3"
    });
}

pub(super) fn passwords_change_without_a_lost_write(lab: &Lab, seen: &mut Seen) {
    let old = Secrets::of(lab);
    wal_thief(lab);
    let mut intruders = [lab.write_port, lab.read_port].map(|port| intruder(lab, port));
    let writer = Writer::start(&door(lab));
    // Killed in the stage in which most is under way.
    let mut child = lab
        .command(&["rotate", "secrets", "--yes", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let mut stage = String::new();
    let cut = lines.any(|line| {
        seen.text(&line);
        let event: Value = serde_json::from_str(&line).unwrap();
        crate::support::schemas::check_one(&["rotate"], &event);
        if event["event"] == "stage" {
            event["stage"].as_str().unwrap().clone_into(&mut stage);
        }
        stage == "change" && event["event"] == "step_started" && event["name"] == "ensure-roles"
    });
    assert!(cut, "it came as far as the database");
    kill(&mut child);
    // Other runs in between undo nothing, and if the leader fails, every member's login still works.
    let said = lab.expect(0, &["up", "--yes"]);
    assert!(
        said.stderr
            .contains("a change of the passwords is under way"),
        "{}",
        said.stderr
    );
    assert_eq!(
        lab.sql("select count(*) from pg_stat_replication where usename = 'replicator_interim'"),
        "2"
    );
    seen.output(&lab.run(&["rotate", "secrets", "--yes"]));
    let written = writer.end();
    assert!(
        written.longest_gap < Duration::from_secs(15),
        "{:?}: {:?}",
        written.longest_gap,
        written.refused
    );

    for intruder in &mut intruders {
        let ended = intruder.try_wait().unwrap();
        assert!(
            ended.is_some_and(|status| !status.success()),
            "who came in with the old password is still there"
        );
    }

    // It ends with its connection, and so does what would connect again.
    assert_eq!(
        lab.on("node3", "pgrep -c pg_receivewal || true").trim(),
        "0"
    );
    lab.on("node3", &format!("rm -rf {PGPASS} /tmp/thief"));

    let new = Secrets::of(lab);
    for key in ["superuser", "replication", "rewind", "rest_api", "stats"] {
        assert_ne!(old.get(key), new.get(key), "{key}");
    }
    assert_eq!(old.get("\"shop\""), new.get("\"shop\""));
    assert_eq!(
        lab.sql("select count(*) from pg_roles where rolname like '%interim'"),
        "0"
    );
    assert_eq!(
        lab.sql("select count(*) from pg_stat_replication where usename = 'replicator'"),
        "2"
    );
}

pub(super) fn the_authority_changes_without_a_lost_write(lab: &Lab, seen: &mut Seen) {
    let path = lab.workspace().join("pki/ca.crt");
    let old = fs::read_to_string(&path).unwrap();
    let writer = Writer::start(&door(lab));
    seen.output(&lab.run(&["rotate", "certs", "--prepare", "--yes"]));
    // What clients get now stays valid until the end.
    let both = fs::read_to_string(&path).unwrap();
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(both.starts_with(old.trim_end()));
    seen.output(&lab.run(&["rotate", "certs", "--yes"]));
    let written = writer.end();
    assert!(
        written.longest_gap < Duration::from_secs(15),
        "{:?}: {:?}",
        written.longest_gap,
        written.refused
    );
    let new = fs::read_to_string(&path).unwrap();
    assert_eq!(new.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(both.ends_with(&new));
    let line = old.lines().nth(2).unwrap();
    for host in HOSTS {
        let left = lab.on(host, &format!("grep -rlF {line} /etc/pgherd || true"));
        assert_eq!(left, "", "{host} knows the old authority");
    }
    lab.expect(0, &["plan", "--check"]);
}
