//! Runs that are killed at any point, and PostgreSQL 16 at the tutorial's own addresses.

use std::time::Duration;

use serde_json::Value;

use crate::{
    quorum::door,
    support::{Lab, docker, image_with_postgresql_16, prepared_image, prepared_version},
    watch::Writer,
};

fn ended(name: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "step_finished" && event["name"] == name
}

#[test]
fn whatever_kills_a_run_the_next_completes_it() {
    let image = image_with_postgresql_16();
    // The PostgreSQL of these packages is built without TLS.
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
    // A Patroni that boots may begin to serve a database while the run takes it for what a dead bootstrap left. The run
    // leaves it alone, and says that the same command goes on.
    let said = lab.run(&["up", "--yes"]);
    if !said.status.success() {
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(
            said.contains("a server has come up on it after all"),
            "{said}"
        );
        lab.expect(0, &["up", "--yes"]);
    }
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

fn cluster(tls: bool) -> String {
    format!(
        "provider: {{ kind: docker, image: {}, subnet: 10.84.23.0/24 }}\n\
         postgresql: {{ version: {}, users: {{ shop: {{}} }}, databases: {{ shop: {{}} }} }}\n\
         tls: {{ enabled: {tls} }}\nhosts:\n  \
         node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
         node3: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  \
         haproxy: {{ roles: [haproxy] }}\n",
        prepared_image(),
        prepared_version(),
    )
}

/// Repeats a run, each time killed after a kind of step after which no earlier run was killed, until one run
/// completes. Returns those kinds.
fn killed_after_every_step(lab: &Lab, words: &[&str]) -> Vec<String> {
    let json = [words, &["--json"]].concat();
    let mut killed: Vec<String> = Vec::new();
    loop {
        let mut latest = None;
        let reached = lab.kill_run(&json, |event| {
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let name = match event["event"].as_str() {
                Some("step_finished") => Some(word("name")),
                Some("host") => Some(word("state")),
                Some("resource") => Some(format!("{} {}", word("kind"), word("state"))),
                _ => None,
            };
            latest = name.filter(|name| !killed.contains(name));
            latest.is_some()
        });
        match latest.filter(|_| reached) {
            Some(step) => killed.push(step),
            // Hosts release a dead run's lease within half a minute.
            None if lab.last_said().contains("another run is at work") => {
                std::thread::sleep(Duration::from_secs(2));
            }
            None => break,
        }
    }
    println!("{}: killed after {}", words.join(" "), killed.join(", "));
    lab.expect(0, words);
    killed
}

#[test]
fn soak_a_run_may_be_killed_after_every_kind_of_step() {
    let lab = Lab::new("steps", &cluster(true));
    let killed = killed_after_every_step(&lab, &["up", "--yes"]);
    assert!(
        killed.iter().any(|step| step == "start-patroni"),
        "{killed:?}"
    );
    lab.expect(0, &["verify"]);

    let writer = Writer::start(&door(&lab));
    for tls in [false, true] {
        lab.write_inventory(&cluster(tls));
        let killed = killed_after_every_step(&lab, &["up", "--yes"]);
        let changed = killed.iter().any(|step| step == "configure-patroni");
        assert!(changed, "{killed:?}");
        lab.holds_within(Duration::from_secs(60));
    }
    for words in [&["rotate", "certs", "--yes"][..], &["restart", "--yes"]] {
        killed_after_every_step(&lab, words);
        lab.holds_within(Duration::from_secs(60));
    }
    let written = writer.end();
    println!(
        "{} rows, {:?} at most without one, {} refused",
        written.acknowledged.len(),
        written.longest_gap,
        written.refused.len()
    );
    killed_after_every_step(&lab, &["rotate", "secrets", "--yes"]);
    lab.holds_within(Duration::from_secs(60));
    let killed = killed_after_every_step(&lab, &["down", "--yes"]);
    assert!(!killed.is_empty());
    assert_eq!(lab.leftovers(), "");
}
