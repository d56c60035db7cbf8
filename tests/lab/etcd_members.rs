//! etcd's members are added, lose their data and leave, while clients write.

use serde_json::Value;

use crate::{
    quorum::door,
    support::{Lab, docker, prepared_image, prepared_version},
    watch::Writer,
};

fn inventory(hosts: &[(&str, &str)]) -> String {
    let hosts: String = hosts
        .iter()
        .map(|(host, roles)| format!("  {host}: {{ roles: [{roles}] }}\n"))
        .collect();
    format!(
        "provider: {{ kind: docker, image: {} }}\npostgresql: {{ version: {} }}\npatroni: {{ synchronous: true }}\nhosts:\n{hosts}",
        prepared_image(),
        prepared_version()
    )
}

/// etcd on one host.
const ONE: [(&str, &str); 3] = [
    ("one", "postgres, etcd"),
    ("two", "postgres"),
    ("door", "haproxy"),
];
/// The role is given to an existing host, and to a new one.
const THREE: [(&str, &str); 4] = [
    ("one", "postgres, etcd"),
    ("two", "postgres, etcd"),
    ("three", "etcd"),
    ("door", "haproxy"),
];

const MEMBERS: &str = "ETCDCTL_API=3 etcdctl member list | sort";

/// etcd's list according to each of `hosts`; all must be the same.
pub(crate) fn members(lab: &Lab, hosts: &[&str]) -> String {
    let one = |host: &&str| {
        let endpoint = format!("--endpoints=https://{host}:2379");
        lab.on(
            host,
            &MEMBERS.replace("etcdctl member", &format!("etcdctl {endpoint} member")),
        )
    };
    let mut lists: Vec<String> = hosts.iter().map(one).collect();
    lists.dedup();
    assert_eq!(lists.len(), 1, "{lists:#?}");
    lists.remove(0)
}

fn finished(name: &'static str, host: &'static str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "step_finished" && event["name"] == name && event["host"] == host
}

/// The only etcd is to move to a new host: whoever is asked, and cannot answer, has no new host either.
fn nothing_changes_until_the_host_is_named(lab: &Lab) {
    let moved = [
        ("one", "postgres"),
        ("two", "postgres"),
        ("three", "etcd"),
        ("door", "haproxy"),
    ];
    lab.write_inventory(&inventory(&moved));
    let said = lab.expect(2, &["up", "--remove", "one"]).stderr;
    assert!(
        said.contains("its copy of etcd's data is deleted"),
        "{said}"
    );
    let all = docker(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(!all.contains(&lab.container("three")), "{all}");
}

fn end(writer: Writer) {
    let written = writer.end();
    println!(
        "{} acknowledged, {:?} at most without one",
        written.acknowledged.len(),
        written.longest_gap
    );
    assert_eq!(written.refused, [""; 0]);
}

/// A new store, while a leader takes writes: two of its members had joined the old one, and no Patroni trusts it yet.
/// etcd is stopped: a member that has begun again by itself, alone, cannot be told from one that has its data.
fn all_members_lose_their_data(lab: &Lab) {
    let leader = lab.leader();
    for host in ["one", "two", "three"] {
        lab.on(
            host,
            "systemctl stop etcd; rm -rf /var/lib/etcd/pgherd-*/member",
        );
    }
    let writer = Writer::start(&door(lab));
    let first = |event: &Value| {
        event["event"] == "step_finished" && event["name"] == "restart-patroni-alone"
    };
    assert!(lab.kill_run(&["up", "--yes", "--json"], first));
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
    assert_eq!(lab.leader(), leader, "nobody was deposed");
    end(writer);
    // Another member takes over, because every Patroni follows the store.
    lab.expect(0, &["drill", "stop-leader", "--yes"]);
    assert_ne!(lab.leader(), leader);
}

#[test]
fn etcd_grows_heals_and_shrinks_while_clients_write() {
    let lab = Lab::new("etcdm", &inventory(&ONE));
    lab.expect(0, &["up", "--yes"]);
    let before = members(&lab, &["one"]);
    nothing_changes_until_the_host_is_named(&lab);
    let writer = Writer::start(&door(&lab));

    lab.write_inventory(&inventory(&THREE));
    let said = lab.expect(0, &["plan"]).stdout;
    println!("{}", said.lines().take(12).collect::<Vec<_>>().join("\n"));
    assert!(
        said.starts_with("~ etcd grows from 1 to 3 members"),
        "{said}"
    );
    // A learner that was added and never started; one that started, and has no vote.
    // The member may start before the first kill gets there: then the second run has no such step, and completes it all.
    for step in ["add-etcd-member", "join-etcd"] {
        let ended = lab.kill_or_end(&["up", "--yes", "--json"], finished(step, "two"));
        assert!(ended.is_none_or(|it| it.success()), "{step}");
        println!("{}", members(&lab, &["one"]));
    }
    lab.expect(0, &["up", "--yes"]);
    let all = members(&lab, &["one", "two", "three"]);
    println!("{all}");
    assert_eq!(all.lines().count(), 3, "{all}");
    assert!(all.contains(before.trim()), "the first is the same member");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["render", "--check"]);
    let left = lab.on(
        "two",
        "ls /etc/pgherd/etcd-join /etc/systemd/system/etcd.service.d; true",
    );
    assert_eq!(
        left.trim(),
        "/etc/systemd/system/etcd.service.d:\npgherd-join.conf\npgherd.conf"
    );

    // A member's data is gone, and its unit tries in vain; then a host is gone with everything on it.
    lab.on(
        "two",
        "systemctl kill -s KILL etcd; rm -rf /var/lib/etcd/pgherd-*/member",
    );
    let said = lab.expect(0, &["up", "--yes"]).stderr;
    println!("{said}");
    docker(&["rm", "-f", "-v", &lab.container("three")]);
    lab.expect(0, &["up", "--yes"]);
    let again = members(&lab, &["one", "two", "three"]);
    println!("{again}");
    assert_eq!(again.lines().count(), 3, "{again}");
    assert!(again.contains(before.trim()));
    lab.expect(0, &["verify"]);
    end(writer);
    all_members_lose_their_data(&lab);
    let writer = Writer::start(&door(&lab));
    let before = members(&lab, &["one", "two", "three"]);
    let before = before.lines().find(|line| line.contains("https://one:"));
    let before = format!("{}\n", before.expect("one is a member"));

    // And back to one: one host keeps its database, and another one's machine is removed.
    lab.write_inventory(&inventory(&ONE));
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("pgherd up --remove two"), "{said}");
    let said = lab.expect(0, &["plan"]).stdout;
    println!("{}", said.lines().take(6).collect::<Vec<_>>().join("\n"));
    assert!(said.contains("etcd shrinks from 3 to 1 member"), "{said}");
    let shrink = ["up", "--yes", "--remove", "two", "--remove", "three"];
    let json = [&shrink[..], &["--json"]].concat();
    assert!(lab.kill_run(&json, |event| {
        event["event"] == "step_finished" && event["name"] == "remove-etcd-member"
    }));
    lab.expect(0, &shrink);
    assert_eq!(members(&lab, &["one"]), before);
    let left = lab.on(
        "two",
        "ls -d /var/lib/etcd/pgherd-*; grep -l pgherd /etc/default/etcd; systemctl is-active etcd; true",
    );
    assert_eq!(left.trim(), "inactive");
    lab.expect(0, &["plan", "--check"]);
    end(writer);
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}
