//! Runs that are killed anywhere, and PostgreSQL 16 at the tutorial's own addresses.

use serde_json::Value;

use crate::support::{Lab, docker, image_with_postgresql_16};

fn ended(name: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "step_finished" && event["name"] == name
}

#[test]
fn whatever_kills_a_run_the_next_completes_it() {
    let image = image_with_postgresql_16();
    // These packages' PostgreSQL is built without TLS.
    let lab = Lab::new(
        "cut",
        &format!(
            "provider: {{ kind: docker, image: \"{image}\", subnet: 192.168.0.0/24 }}\n\
             postgresql: {{ version: 16 }}\ntls: {{ enabled: false }}\nhosts:\n  \
             node1: {{ roles: [postgres], address: 192.168.0.249 }}\n  \
             node2: {{ roles: [postgres], address: 192.168.0.248 }}\n  \
             node3: {{ roles: [postgres], address: 192.168.0.21 }}\n  \
             node4: {{ roles: [etcd], address: 192.168.0.179 }}\n  \
             haproxy: {{ roles: [haproxy], address: 192.168.0.173 }}\n"
        ),
    );
    assert!(
        lab.kill_up(|event| event["event"] == "host" && event["state"] == "created"),
        "killed while hosts are made"
    );
    assert!(
        lab.kill_up(|event| event["event"] == "step_started" && event["name"] == "install-packages"),
        "killed while packages come"
    );
    assert!(
        lab.kill_up(ended("configure-patroni")),
        "killed before Patroni starts"
    );
    // The databases' hosts die with it, in the middle of the first bootstrap.
    assert!(
        lab.kill_up(ended("start-patroni")),
        "killed as Patroni bootstraps"
    );
    for node in ["node1", "node2", "node3"] {
        docker(&["kill", &lab.container(node)]);
    }
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
    assert!(lab.sql("select version()").starts_with("PostgreSQL 16."));
    let status = lab.json(&["status", "--json"]);
    assert_eq!(status["members"][2]["address"], "192.168.0.21");
    assert!(
        lab.on("node1", "cat /etc/hosts")
            .contains("192.168.0.179  node4"),
        "every host knows every host"
    );
    let said = lab.expect(0, &["up"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}
