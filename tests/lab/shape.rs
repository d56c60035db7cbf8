//! Databases that leave for good, and hosts that are created anew, while clients write.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    quorum::door,
    support::{Lab, docker, prepared_image, prepared_version},
    watch::Writer,
};

/// Asks etcd for a key's name, as root on its host.
const ETCDCTL: &str = "ETCDCTL_API=3 etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/pgherd/tls/etcd/ca.crt \
                       --cert=/etc/pgherd/tls/etcd/server.crt --key=/etc/pgherd/tls/etcd/server.key get --keys-only --prefix";

fn inventory(replicas: &[&str]) -> String {
    let hosts: String = replicas
        .iter()
        .map(|host| format!("  {host}: {{ roles: [postgres] }}\n"))
        .collect();
    format!(
        "provider: {{ kind: docker, image: {} }}\npostgresql: {{ version: {} }}\n\
         patroni: {{ synchronous: true }}\n\
         hosts:\n  alpha: {{ roles: [postgres, etcd, haproxy] }}\n{hosts}",
        prepared_image(),
        prepared_version(),
    )
}

/// An event that ends a step.
fn ended(name: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "step_finished" && event["name"] == name
}

fn removed(event: &Value) -> bool {
    event["event"] == "resource" && event["state"] == "removed"
}

/// What is left of a member on those that stay: its slot, its key, its line, and what Patroni was told to drop it.
pub(crate) fn traces_of_member(lab: &Lab, stay: &[&str], host: &str) -> String {
    let mut found = String::new();
    for other in stay {
        let line = format!(
            "grep -lw {host} /etc/patroni.yml /etc/haproxy/haproxy.cfg 2>/dev/null; \
             su postgres -c \"psql -Atqc \\\"select 'slot' from pg_replication_slots where slot_name = '{host}'\\\"\"; true"
        );
        found.push_str(&docker(&["exec", &lab.container(other), "sh", "-c", &line]));
    }
    let keys = format!("{ETCDCTL} /db/{}/members/{host}", lab.name);
    found.push_str(docker(&["exec", &lab.container("alpha"), "sh", "-c", &keys]).trim());
    let config = format!(
        "{} /db/{}/config",
        ETCDCTL.replace("--keys-only", ""),
        lab.name
    );
    let config = docker(&["exec", &lab.container("alpha"), "sh", "-c", &config]);
    if config.contains("member_slots_ttl") {
        found.push_str("member_slots_ttl is set");
    }
    found
}

/// What is left of a host on those that stay, and here.
pub(crate) fn traces(lab: &Lab, stay: &[&str], host: &str) -> String {
    let mut found = traces_of_member(lab, stay, host);
    for other in stay {
        let line = format!("grep -lw {host} /etc/hosts /etc/pgherd/hosts 2>/dev/null; true");
        found.push_str(&docker(&["exec", &lab.container(other), "sh", "-c", &line]));
    }
    let workspace = lab.workspace();
    for file in ["members.json", "known_hosts", "ssh_config"] {
        let text = std::fs::read_to_string(workspace.join(file)).unwrap();
        if text.contains(host) {
            found.push_str(file);
        }
    }
    if workspace.join(format!("pki/{host}.key")).exists() {
        found.push_str("its key");
    }
    let filter = format!("name=^{}$", lab.container(host));
    found.push_str(&docker(&["ps", "-aq", "--filter", &filter]));
    found
}

#[test]
fn the_leader_leaves_and_a_replica_is_replaced_while_clients_write() {
    let all = ["beta", "gamma", "delta"];
    let lab = Lab::new("shape", &inventory(&all[..2]));
    lab.expect(0, &["up", "--yes"]);
    lab.write_inventory(&inventory(&all));
    lab.expect(0, &["up", "--yes"]);
    if lab.leader() == "alpha" {
        lab.expect(0, &["switchover", "--yes"]);
    }
    let leader = lab.leader();
    let leaver = leader.as_str();
    let stay: Vec<&str> = all.into_iter().filter(|host| *host != leaver).collect();
    lab.write_inventory(&inventory(&stay));
    let command = format!("pgherd up --remove {leaver}");

    let said = lab.expect(0, &["plan"]).stdout;
    assert!(
        said.starts_with(&format!("- host {leaver} (postgres)")),
        "{said}"
    );
    assert!(
        said.contains("it leads: another member takes over first"),
        "{said}"
    );
    assert!(said.contains(&format!("take it out: {command}")), "{said}");
    lab.expect(4, &["plan", "--check"]);
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains(&command), "{said}");
    // Too few remaining members are refused, with the arithmetic.
    lab.write_inventory(&inventory(&[]));
    let remove = [
        "up", "--yes", "--remove", "beta", "--remove", "gamma", "--remove", "delta",
    ];
    let said = lab.expect(2, &remove).stderr;
    assert!(said.contains("of 4 databases 3 would leave"), "{said}");
    assert!(said.contains("needs 2 databases"), "{said}");
    lab.write_inventory(&inventory(&stay));

    let writer = Writer::start(&door(&lab));
    let remove = ["up", "--yes", "--json", "--remove", leaver];
    for step in [
        "hand-over",
        "retire-patroni",
        "forget-member",
        "configure-patroni",
    ] {
        assert!(
            lab.kill_run(&remove, ended(step)),
            "{step}: {}",
            lab.last_said()
        );
    }
    assert!(lab.kill_run(&remove, removed), "{}", lab.last_said());
    let said = lab.expect(
        0,
        &remove[..2]
            .iter()
            .chain(&remove[3..])
            .copied()
            .collect::<Vec<_>>(),
    );
    println!("{}", said.stderr);
    let there: Vec<&str> = ["alpha"].into_iter().chain(stay.clone()).collect();
    assert_eq!(traces(&lab, &there, leaver), "");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
    // Repeated, there is nothing to do.
    lab.expect(0, &["up", "--yes", "--remove", leaver]);

    a_replica_is_replaced(&lab, &stay);
    let written = writer.end();
    let count = written.acknowledged.len();
    println!(
        "{count} acknowledged, none missing, {} refused, {:?} at most without one",
        written.refused.len(),
        written.longest_gap
    );
    let limit = Duration::from_secs(40);
    assert!(written.longest_gap < limit, "{:?}", written.longest_gap);
}

fn a_replica_is_replaced(lab: &Lab, stay: &[&str]) {
    let leader = lab.leader();
    let replica = stay.iter().copied().find(|host| *host != leader).unwrap();
    let id = || docker(&["inspect", "--format", "{{.Id}}", &lab.container(replica)]);
    let before = id();
    let begin = Instant::now();
    lab.expect(0, &["replace", replica, "--yes"]);
    let took = begin.elapsed();
    println!("{replica} was replaced and proven in {took:?}");
    assert!(took < Duration::from_secs(120), "{took:?}");
    let after = id();
    assert_ne!(before, after, "it is another machine");
    // Killed when the old host is gone, and when the new one is there: the next run continues with the new one.
    let replace = ["replace", replica, "--yes", "--json"];
    assert!(lab.kill_run(&replace, removed));
    assert!(lab.kill_run(&replace, ended("start-patroni")));
    let new = id();
    assert_ne!(after, new);
    lab.expect(0, &replace[..3]);
    assert_eq!(id(), new, "it was not made once more");
    lab.expect(0, &["verify"]);
    let said = lab.expect(2, &["replace", "nobody", "--yes"]).stderr;
    assert!(said.contains("no host is called nobody"), "{said}");
}
