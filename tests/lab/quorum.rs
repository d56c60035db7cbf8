//! A cluster with etcd beside each database: changes during which a quorum must stay.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;

use crate::{
    addresses::{NODES, started},
    support::{Lab, docker, prepared_image, prepared_version},
    watch::{Door, Writer},
};

const SUBNET: &str = "10.84.11";

/// Two users; the owner of one keeps its password in their own file.
const OWN: &str = "users:\n  shop: own-word-1234567890\n";

fn inventory(tls: bool, set: usize) -> String {
    let hosts: String = NODES
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let address = set * 10 + at;
            format!("  {host}: {{ roles: [postgres, etcd], address: {SUBNET}.{address} }}\n")
        })
        .collect();
    format!(
        "provider: {{ kind: docker, image: {}, subnet: {SUBNET}.0/24 }}\n\
         postgresql: {{ version: {}, users: {{ shop: {{}}, web: {{}} }}, databases: {{ shop: {{}} }} }}\n\
         secrets: {{ file: own.yaml }}\ntls: {{ enabled: {tls} }}\n\
         patroni: {{ synchronous: true }}\nhosts:\n{hosts}  \
         haproxy: {{ roles: [haproxy], address: {SUBNET}.{} }}\n",
        prepared_image(),
        prepared_version(),
        set * 10 + 5
    )
}

/// A client that uses TLS if it is offered, like most clients by default.
pub(crate) fn door(lab: &Lab) -> Door {
    let secrets = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let line = secrets.lines().find(|line| line.starts_with("superuser: "));
    let (_, password) = line.unwrap().split_once(": ").unwrap();
    Door {
        conninfo: format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=prefer",
            lab.write_port
        ),
        password: password.trim_matches('"').to_owned(),
    }
}

fn plain(lab: &Lab) -> Door {
    let door = door(lab);
    Door {
        conninfo: door.conninfo.replace("prefer", "disable"),
        ..door
    }
}

/// Writes the file with the passwords that pgherd does not make.
fn own(lab: &Lab, text: &str) {
    let path = lab.dir.path().join("own.yaml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Whether an application's user can log in with `password`.
fn lets_in(lab: &Lab, user: &str, password: &str) -> bool {
    let door = Door {
        conninfo: door(lab)
            .conninfo
            .replace("user=postgres", &format!("user={user}")),
        password: password.to_owned(),
    };
    door.psql("select 1").status.success()
}

fn password_of(lab: &Lab, user: &str) -> String {
    let secrets = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let start = format!("  \"{user}\": ");
    let line = secrets.lines().find(|line| line.starts_with(&start));
    line.unwrap()[start.len()..].trim_matches('"').to_owned()
}

/// Passwords of applications' users: made by pgherd, and set by the user.
fn users_passwords_change(lab: &Lab) {
    assert!(lets_in(lab, "shop", "own-word-1234567890"));
    let old = password_of(lab, "web");
    assert!(lets_in(lab, "web", &old));
    lab.expect(0, &["rotate", "secrets", "--users", "--yes"]);
    let new = password_of(lab, "web");
    assert!(lets_in(lab, "web", &new) && !lets_in(lab, "web", &old));
    assert!(
        lets_in(lab, "shop", "own-word-1234567890"),
        "it is not pgherd's to change"
    );
    own(lab, &OWN.replace("own-word", "new-word"));
    lab.expect(0, &["up", "--yes"]);
    assert!(lets_in(lab, "shop", "new-word-1234567890"));
    assert!(!lets_in(lab, "shop", "own-word-1234567890"));
}

#[test]
fn three_etcd_members_change_and_the_cluster_goes_on() {
    let lab = Lab::new("quorum", &inventory(false, 1));
    own(&lab, OWN);
    lab.expect(0, &["up", "--yes"]);
    let begun = started(&lab);
    let leader = lab.leader();
    let stage = lab.workspace().join("tls");
    let encrypted =
        "select count(*) from pg_stat_replication join pg_stat_ssl using (pid) where ssl";

    // TLS is turned on, in a run that is killed when half of the members use it, and in the next run.
    let writer = Writer::start(&door(&lab));
    lab.write_inventory(&inventory(true, 1));
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(said.stdout.contains("TLS is turned on"), "{}", said.stdout);
    assert!(!stage.exists(), "a plan leaves no trace");
    let half = |event: &Value| {
        event["event"] == "step_finished" && event["name"] == "restart-patroni-alone"
    };
    assert!(lab.kill_run(&["up", "--yes", "--json"], half));
    assert_eq!(fs::read_to_string(&stage).unwrap(), "used\n");
    let said = lab.expect(0, &["up", "--yes"]);
    assert!(said.stderr.contains("TLS is turned on"), "{}", said.stderr);
    assert!(!stage.exists());
    assert_eq!(lab.sql(encrypted), "2");
    assert!(
        !plain(&lab).psql("select 1").status.success(),
        "plaintext is refused"
    );

    // Another authority, which every member of etcd must trust before one presents its certificate.
    lab.expect(0, &["rotate", "certs", "--yes"]);
    let written = writer.end();
    assert_eq!(written.refused, [""; 0]);
    users_passwords_change(&lab);
    let writer = Writer::start(&door(&lab));

    // And TLS is turned off again.
    lab.write_inventory(&inventory(false, 1));
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(lab.sql("show ssl"), "off");
    assert!(plain(&lab).psql("select 1").status.success());
    let back = writer.end();
    assert_eq!(back.refused, [""; 0]);
    println!(
        "{} and {} rows, {:?} and {:?} at most without one",
        written.acknowledged.len(),
        back.acknowledged.len(),
        written.longest_gap,
        back.longest_gap
    );
    assert_eq!(started(&lab), begun, "no PostgreSQL was restarted");
    assert_eq!(lab.leader(), leader, "nobody was deposed");
    lab.expect(0, &["plan", "--check"]);

    // All members of etcd move, so that none finds another by address: they look for names.
    lab.sql("create table kept as select generate_series(1, 1000) as id");
    lab.write_inventory(&inventory(false, 3));
    lab.expect(0, &["render", "--yes"]);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    lab.expect(0, &["render", "--check"]);
    a_member_made_anew_joins_again(&lab);
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}

/// One of three etcd hosts is gone with its data: its old entry is removed, and it joins again.
fn a_member_made_anew_joins_again(lab: &Lab) {
    // Not the leader's host, because the test below is whether writes continue without a failover.
    let leader = lab.leader();
    let host = NODES.into_iter().find(|host| *host != leader);
    let host = host.expect("a replica");
    docker(&["rm", "-f", "-v", &lab.container(host)]);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    let said = lab.expect(0, &["plan"]).stdout;
    let words = format!("{host} lost its data: its old entry is removed");
    assert!(said.contains(&words), "{said}");
    let writer = Writer::start(&door(lab));
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(writer.end().refused, [""; 0]);
    lab.expect(0, &["plan", "--check"]);
}
