//! Inventories that would change the members: refused, and reported by verbs that only look.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Output,
};

use pgherd::inventory::HostName;
use serde_json::Value;

use crate::{
    existing::bare_hosts,
    support::{Lab, docker, pause, prepared_image, prepared_version},
    watch::{Door, Writer},
};

const HOSTS: [&str; 3] = ["one", "two", "three"];

/// Three existing hosts, and an inventory whose roles change.
struct Own<'a> {
    lab: &'a Lab,
    dir: tempfile::TempDir,
    key: PathBuf,
    addresses: BTreeMap<&'static str, Ipv4Addr>,
}

impl Own<'_> {
    /// Writes the inventory with these hosts in it.
    fn wants(&self, roles: &[(&str, &str)]) {
        let mut text = format!(
            "cluster: members\nprovider: {{ kind: existing }}\n\
             ssh: {{ identity_file: {}, connect_timeout: 4 }}\n\
             postgresql: {{ version: {} }}\nhosts:\n",
            self.key.display(),
            prepared_version()
        );
        for (host, roles) in roles {
            let address = self.addresses[host];
            text.push_str(&format!(
                "  {host}: {{ roles: [{roles}], address: {address} }}\n"
            ));
        }
        fs::write(self.dir.path().join("pgherd.yaml"), text).unwrap();
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = self.lab.command(words);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path());
        let output = command.output().unwrap();
        crate::support::schemas::check_if_json(words, &output.stdout);
        output
    }

    fn expect(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "pgherd {words:?}\n{said}");
        said
    }

    fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a shell line as root on a host, not through pgherd.
    fn on(&self, host: &str, line: &str) -> String {
        docker(&["exec", &self.lab.container(host), "sh", "-c", line])
    }

    fn door(&self) -> Door {
        let secrets = self.dir.path().join(".pgherd/members/secrets.yaml");
        let secrets = fs::read_to_string(secrets).unwrap();
        let line = secrets.lines().find(|line| line.starts_with("superuser: "));
        let (_, password) = line.unwrap().split_once(": ").unwrap();
        Door {
            conninfo: format!(
                "host={} port=5000 user=postgres dbname=postgres sslmode=require",
                self.addresses["one"]
            ),
            password: password.trim_matches('"').to_owned(),
        }
    }
}

fn trust(dir: &Path, keys: &BTreeMap<Ipv4Addr, String>) {
    fs::create_dir_all(dir.join(".ssh")).unwrap();
    let known: String = keys
        .iter()
        .map(|(address, key)| format!("{address} {key}\n"))
        .collect();
    fs::write(dir.join(".ssh/known_hosts"), known).unwrap();
}

/// Files, units and data of the cluster on a host, which would show any change.
const TRACES: &str = "cat /etc/hosts /etc/patroni.yml /etc/default/etcd 2>/dev/null | md5sum; \
                      systemctl is-active etcd patroni haproxy; ls -d /var/lib/etcd/pgherd-* 2>/dev/null; true";

const ALL: [(&str, &str); 3] = [
    ("one", "postgres, etcd, haproxy"),
    ("two", "postgres"),
    ("three", "postgres"),
];

#[test]
fn who_is_a_member_is_not_changed_by_an_inventory() {
    let hosts = "hosts:\n  one: { roles: [postgres, etcd, haproxy] }\n  two: { roles: [postgres] }\n  \
                 three: { roles: [postgres] }\n";
    let lab = Lab::new(
        "member",
        &format!(
            "provider: {{ kind: docker, image: {} }}\n{hosts}",
            prepared_image()
        ),
    );
    let key = lab.dir.path().join("handed-over");
    let machines = bare_hosts(&lab, &key, &HOSTS);
    let address = |host| machines[&HostName::new(host)].address.unwrap();
    let own = Own {
        lab: &lab,
        dir: tempfile::tempdir().unwrap(),
        key,
        addresses: HOSTS.map(|host| (host, address(host))).into(),
    };
    let keys = machines.values().map(|machine| {
        let key = machine.host_key.as_deref().unwrap().trim();
        (machine.address.unwrap(), key.to_owned())
    });
    trust(own.dir.path(), &keys.collect());

    own.wants(&ALL);
    own.expect(0, &["up", "--yes"]);
    own.expect(0, &["switchover", "--to", "two", "--yes"]);
    let before = HOSTS.map(|host| own.on(host, TRACES));
    let writer = Writer::start(&own.door());

    etcd_grows_by_up_alone(&own);
    a_replica_does_not_leave(&own);
    the_leader_does_not_leave(&own);
    a_role_is_not_taken_off(&own);

    assert_eq!(HOSTS.map(|host| own.on(host, TRACES)), before);
    own.wants(&ALL);
    own.expect(0, &["verify"]);
    let written = writer.end();
    assert_eq!(written.refused, [""; 0]);
    let count = format!("{} acknowledged", written.acknowledged.len());
    println!("{count}, {:?} at most without one", written.longest_gap);
    down_takes_along_who_left(&own);
}

fn etcd_grows_by_up_alone(own: &Own<'_>) {
    own.wants(&[
        ("one", "postgres, etcd, haproxy"),
        ("two", "postgres, etcd"),
        ("three", "postgres, etcd"),
    ]);
    // Only `up` adds them, and says so before.
    let said = own.expect(0, &["plan"]);
    assert!(said.contains("etcd grows from 1 to 3 members"), "{said}");
    own.expect(4, &["render", "--check"]);
    own.expect(1, &["rotate", "secrets", "--yes"]);
    let verbs: [&[&str]; 2] = [
        &["switchover", "--yes"],
        &["rotate", "ssh", "--host-keys", "--yes"],
    ];
    for verb in verbs {
        let said = own.expect(2, verb);
        let named = "the inventory wants etcd on two, three; etcd's members are one (says one)";
        assert!(said.contains(named), "{verb:?}\n{said}");
        assert!(said.contains("nothing was touched"), "{verb:?}\n{said}");
    }
    let said = own.expect(2, &["drill", "kill-leader", "--yes"]);
    assert!(said.contains("the inventory wants etcd on two"), "{said}");
}

fn a_replica_does_not_leave(own: &Own<'_>) {
    own.wants(&ALL[..2]);
    let said = own.expect(2, &["up", "--yes"]);
    assert!(
        said.contains("three (postgres) is a member, and is not in the inventory"),
        "{said}"
    );
    assert!(
        said.contains(&format!(
            "three: {{ roles: [postgres], address: {} }}",
            own.addresses["three"]
        )),
        "{said}"
    );
    let said = own.expect(3, &["verify"]);
    assert!(said.contains("members"), "{said}");
    let said = own.expect(0, &["status"]);
    assert!(said.contains("replica (undeclared)"), "{said}");
    let status = own.status();
    let left = &status["left_inventory"][0];
    assert_eq!(left["name"], "three");
    assert_eq!(left["seen_by"], serde_json::json!(["patroni", "workspace"]));
    assert_eq!(status["etcd"][0]["members"], serde_json::json!(["one"]));
}

fn the_leader_does_not_leave(own: &Own<'_>) {
    own.wants(&[ALL[0], ALL[2]]);
    let said = own.expect(2, &["render", "--yes"]);
    assert!(said.contains("Patroni has it as leader"), "{said}");
    let said = own.expect(3, &["verify"]);
    assert!(
        said.contains("two leads, and is not in the inventory"),
        "{said}"
    );
}

fn a_role_is_not_taken_off(own: &Own<'_>) {
    own.wants(&[("one", "etcd, haproxy"), ALL[1], ALL[2]]);
    let said = own.expect(2, &["up", "--yes"]);
    assert!(
        said.contains("one still has the role postgres, which the inventory does not give it"),
        "{said}"
    );
    let said = own.expect(3, &["verify"]);
    assert!(said.contains("one still has the role postgres"), "{said}");
}

/// A host that cannot be reached stays, which is reported; the next `down` needs only that host.
fn down_takes_along_who_left(own: &Own<'_>) {
    const TRACE: &str = "ls -d /etc/pgherd /etc/patroni.yml /data/patroni 2>/dev/null; true";
    own.wants(&ALL[..2]);
    let three = own.lab.container("three");
    pause(&three);
    let said = own.expect(1, &["down", "--yes"]);
    docker(&["unpause", &three]);
    assert!(
        said.contains("three left the inventory, and pgherd could not clear them"),
        "{said}"
    );
    assert_eq!(own.on("one", TRACE), "");
    assert!(own.on("three", TRACE).contains("/data/patroni"));
    own.expect(0, &["down", "--yes"]);
    assert_eq!(own.on("three", TRACE), "");
    assert!(!own.dir.path().join(".pgherd/members/members.json").exists());
}
