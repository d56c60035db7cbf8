//! A cluster with etcd beside each database: what changes under a quorum that must stay.

use std::fs;

use serde_json::Value;

use crate::{
    addresses::{NODES, started},
    support::{Lab, prepared_image, prepared_version},
    watch::{Door, Writer},
};

const SUBNET: &str = "10.84.11";

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
         postgresql: {{ version: {} }}\ntls: {{ enabled: {tls} }}\n\
         patroni: {{ synchronous: true }}\nhosts:\n{hosts}  \
         haproxy: {{ roles: [haproxy], address: {SUBNET}.{} }}\n",
        prepared_image(),
        prepared_version(),
        set * 10 + 5
    )
}

/// A client that takes TLS where it is offered, as clients do unless they are told otherwise.
fn door(lab: &Lab) -> Door {
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

#[test]
fn three_etcd_members_change_and_the_cluster_goes_on() {
    let lab = Lab::new("quorum", &inventory(false, 1));
    lab.expect(0, &["up", "--yes"]);
    let begun = started(&lab);
    let leader = lab.leader();
    let stage = lab.workspace().join("tls");
    let encrypted =
        "select count(*) from pg_stat_replication join pg_stat_ssl using (pid) where ssl";

    // TLS comes, in a run that is killed where half of the members speak it, and the next one.
    let writer = Writer::start(&door(&lab));
    lab.write_inventory(&inventory(true, 1));
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(said.stdout.contains("TLS is turned on"), "{}", said.stdout);
    assert!(!stage.exists(), "a plan leaves no trace");
    let half =
        |event: &Value| event["event"] == "step_finished" && event["name"] == "exchange-patroni";
    assert!(lab.kill_run(&["up", "--yes", "--json"], half));
    assert_eq!(fs::read_to_string(&stage).unwrap(), "used\n");
    let said = lab.expect(0, &["up", "--yes"]);
    assert!(said.stderr.contains("TLS is turned on"), "{}", said.stderr);
    assert!(!stage.exists());
    assert_eq!(lab.sql(encrypted), "2");
    let plain = Door {
        conninfo: door(&lab).conninfo.replace("prefer", "disable"),
        ..door(&lab)
    };
    assert!(
        !plain.psql("select 1").status.success(),
        "plaintext is refused"
    );

    // Another authority, which every member of etcd must trust before one shows its certificate.
    lab.expect(0, &["rotate", "certs", "--yes"]);

    // And TLS goes again.
    lab.write_inventory(&inventory(false, 1));
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(lab.sql("show ssl"), "off");
    assert!(plain.psql("select 1").status.success());
    let written = writer.end();
    println!(
        "{} rows, {} refused, {:?} at most without one",
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
    assert_eq!(started(&lab), begun, "no PostgreSQL was restarted");
    assert_eq!(lab.leader(), leader, "nobody was deposed");
    lab.expect(0, &["plan", "--check"]);

    // Every member of etcd is elsewhere, so that none finds another: they look by name.
    lab.sql("create table kept as select generate_series(1, 1000) as id");
    lab.write_inventory(&inventory(false, 3));
    lab.expect(0, &["render", "--yes"]);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    lab.expect(0, &["render", "--check"]);
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}
