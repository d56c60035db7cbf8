//! Hosts that get other addresses while clients write.

use std::{
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::support::{Lab, docker, prepared_image, prepared_version};

const HOSTS: [&str; 5] = ["node1", "node2", "node3", "node4", "haproxy"];
pub(crate) const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// The step after which a run is killed: that at which most is half done. With `PGHERD_LAB_EVERY_STEP=1`, it is killed
/// after every kind of step, two hosts swap their addresses, and all move to another network, which takes minutes more.
const HALF_DONE: &str = "configure-patroni";

/// The cluster with every host at a fixed address: those of set `n`, except for `others`.
fn inventory(subnet: &str, n: usize, others: &[(&str, usize)]) -> String {
    let address = |host: &str| {
        let set = others.iter().find(|(name, _)| *name == host);
        let set = set.map_or(n, |(_, set)| *set);
        let place = HOSTS.iter().position(|it| *it == host).unwrap();
        format!("{subnet}.{}", set * 10 + place + 1)
    };
    let hosts: String = HOSTS
        .iter()
        .map(|host| {
            let role = match *host {
                "node4" => "etcd",
                "haproxy" => "haproxy",
                _ => "postgres",
            };
            format!(
                "  {host}: {{ roles: [{role}], address: {} }}\n",
                address(host)
            )
        })
        .collect();
    format!(
        "provider: {{ kind: docker, image: {}, subnet: {subnet}.0/24 }}\n\
         postgresql: {{ version: {} }}\npatroni: {{ synchronous: true }}\nhosts:\n{hosts}",
        prepared_image(),
        prepared_version()
    )
}

#[test]
fn a_cluster_goes_on_while_its_hosts_move() {
    const SUBNET: &str = "10.84.9";
    let lab = Lab::new("move", &inventory(SUBNET, 1, &[]));
    lab.expect(0, &["up", "--yes"]);
    let begun = started(&lab);
    let leader = lab.leader();
    let replica = NODES.into_iter().find(|node| *node != leader).unwrap();

    files_need_no_host(&lab, SUBNET);

    // The engine moves the host, as DHCP or a cloud would; then the inventory is changed.
    let watch = watch(&lab);
    lab.write_inventory(&inventory(SUBNET, 1, &[(replica, 2)]));
    let said = lab.expect(4, &["render", "--check"]);
    assert!(said.stdout.contains(&format!("host {replica} moves")));
    lab.expect(0, &["render", "--yes"]);
    lab.write_inventory(&inventory(SUBNET, 1, &[(replica, 2), ("node4", 2)]));
    lab.expect(0, &["render", "--yes"]);
    let measured = watched(watch);
    println!("a replica and etcd moved: {measured}");
    assert_eq!(measured["missing"], 0);
    assert_eq!(measured["two_leaders"], serde_json::json!([]));
    assert_eq!(started(&lab), begun, "no PostgreSQL was restarted");
    assert_eq!(lab.leader(), leader, "nobody was deposed");
    lab.expect(0, &["render", "--check"]);

    let every = std::env::var_os("PGHERD_LAB_EVERY_STEP").is_some();
    let rows = rows(&lab, 1000);
    if every {
        // Two hosts swap their addresses, one of them the leader.
        let swapped = swap(
            &inventory(SUBNET, 1, &[(replica, 2), ("node4", 2)]),
            &leader,
            replica,
        );
        lab.write_inventory(&swapped);
        lab.expect(0, &["render", "--yes"]);
        assert_eq!(lab.sql("select count(*) from kept"), rows);
    }

    // All at once, and the run is killed on the way.
    let mut set = 3;
    let mut killed = Vec::new();
    loop {
        lab.write_inventory(&inventory(SUBNET, set, &[]));
        let mut latest = None;
        let reached = lab.kill_run(&["render", "--yes", "--json"], |event| {
            let name = event["name"].as_str().unwrap_or_default();
            let wanted = every || name == HALF_DONE;
            let new =
                wanted && event["event"] == "step_finished" && !killed.iter().any(|it| it == name);
            if new {
                latest = Some(name.to_owned());
            }
            new
        });
        let Some(step) = latest.filter(|_| reached) else {
            break;
        };
        println!("killed after {step}");
        killed.push(step);
        lab.expect(0, &["render", "--yes"]);
        lab.expect(0, &["render", "--check"]);
        assert_eq!(lab.sql("select count(*) from kept"), rows);
        if !every {
            break;
        }
        set = if set == 3 { 4 } else { 3 };
    }
    assert!(!killed.is_empty());

    // A hand-edited file is shown before it is overwritten.
    lab.on("node2", "echo '# by hand' >>/etc/patroni.yml");
    let said = lab.expect(4, &["render", "--check"]);
    assert!(said.stdout.contains("-# by hand"), "{}", said.stdout);
    lab.expect(0, &["render", "--yes"]);

    // A dead replica does not prevent the repair of the others.
    let dead = NODES
        .into_iter()
        .find(|node| *node != lab.leader())
        .unwrap();
    docker(&["kill", &lab.container(dead)]);
    lab.write_inventory(&inventory(SUBNET, 5, &[(dead, set)]));
    let said = lab.expect(1, &["render", "--yes"]);
    assert!(
        said.stderr.contains("the host does not run"),
        "{}",
        said.stderr
    );
    assert_eq!(lab.sql("select count(*) from kept"), rows);
    lab.expect(0, &["up", "--yes"]);

    if every {
        // Another network altogether.
        lab.write_inventory(&inventory("10.84.10", 1, &[]));
        lab.expect(0, &["render", "--yes"]);
        assert_eq!(lab.sql("select count(*) from kept"), rows);
    }
    lab.holds_within(Duration::from_secs(20));
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}

fn files_need_no_host(lab: &Lab, subnet: &str) {
    let out = lab.dir.path().join("out");
    let said = lab.expect(0, &["render", "--out", &out.display().to_string()]);
    assert!(
        said.stderr.contains("no host was touched"),
        "{}",
        said.stderr
    );
    let config = std::fs::read_to_string(out.join("node1/etc/patroni.yml")).unwrap();
    assert!(config.contains(&format!("{subnet}.11:8008")), "{config}");
}

/// When each PostgreSQL was started, according to itself.
pub(crate) fn started(lab: &Lab) -> Vec<String> {
    let when = |node: &&str| lab.on(node, "sed -n 3p /data/patroni/postmaster.pid");
    NODES.iter().map(when).collect()
}

/// Fills a table; returns its number of rows.
fn rows(lab: &Lab, count: usize) -> String {
    lab.sql(&format!(
        "create table kept as select generate_series(1, {count}) as id"
    ));
    count.to_string()
}

fn swap(inventory: &str, one: &str, other: &str) -> String {
    let line = |host: &str| {
        let start = format!("  {host}: ");
        let found = inventory.lines().find(|line| line.starts_with(&start));
        found.unwrap().rsplit(' ').nth(1).unwrap().to_owned()
    };
    let (a, b) = (
        format!("address: {} ", line(one)),
        format!("address: {} ", line(other)),
    );
    inventory
        .replace(&a, "address: X ")
        .replace(&b, &a)
        .replace("address: X ", &b)
}

/// Writers and readers, as long as the replica and etcd take to move.
fn watch(lab: &Lab) -> Child {
    lab.command(&["drill", "watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Ends the watch as Ctrl-C would; returns what it measured.
fn watched(child: Child) -> Value {
    let pid = child.id().to_string();
    let status = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(status.unwrap().success());
    let output = child.wait_with_output().unwrap();
    crate::support::schemas::check(&["drill"], &output.stdout);
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    document["drills"][0]["measured"].clone()
}
