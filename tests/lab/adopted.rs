//! A cluster that somebody made by the tutorial, with data and clients, becomes pgherd's.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pgherd::inventory::HostName;
use serde_json::Value;

use crate::{
    existing::bare_hosts,
    support::{Lab, docker, kill, prepared_image, prepared_version},
    watch::{Door, Writer, Written},
};

const HOSTS: [(&str, &str); 4] = [
    ("node4", "etcd"),
    ("haproxy", "haproxy"),
    ("node1", "db"),
    ("node2", "db"),
];

const DATABASES: [&str; 2] = ["node1", "node2"];

/// Sets up one host as the tutorial says.
const TUTORIAL: &str = include_str!("adopted/tutorial.sh");

/// The tutorial's passwords.
const REPLICATION: &str = "A1qaz2wsx3edc";
const SUPERUSER: &str = "B1qaz2wsx3edc";

/// Somebody with such a cluster, who has an inventory of it.
struct Reader<'a> {
    lab: &'a Lab,
    dir: tempfile::TempDir,
    door: Door,
}

impl<'a> Reader<'a> {
    /// Makes the cluster.
    fn new(lab: &'a Lab) -> Self {
        let key = lab.dir.path().join("handed-over");
        let machines = bare_hosts(lab, &key, &HOSTS.map(|(host, _)| host));
        let at = |host: &str| machines[&HostName::new(host)].address.expect("an address");
        let databases: Vec<String> = DATABASES
            .iter()
            .map(|host| format!("{host}={}", at(host)))
            .collect();
        for (host, role) in HOSTS {
            let variables = [
                ("ROLE", role.to_owned()),
                ("HOST", host.to_owned()),
                ("ADDRESS", at(host).to_string()),
                ("DATABASES", databases.join(" ")),
                ("ETCD", at("node4").to_string()),
                ("HAPROXY", at("haproxy").to_string()),
            ];
            set_up(&lab.container(host), &variables);
            if host == "node1" {
                // The others would wait until it has made the database.
                await_that("node1 leads", || patroni(lab, at("node1"), "leader"));
            }
        }
        await_that("node2 follows", || patroni(lab, at("node2"), "replica"));
        let dir = tempfile::tempdir().expect("a folder");
        let mut text = format!(
            "cluster: postgres\nprovider: {{ kind: existing }}\nssh: {{ identity_file: {} }}\n\
             ca_bundle: /etc/ssl/certs/ca-certificates.crt\npostgresql: {{ version: {} }}\nhosts:\n",
            key.display(),
            prepared_version()
        );
        let mut known = String::new();
        for (host, role) in HOSTS {
            let role = if role == "db" { "postgres" } else { role };
            text.push_str(&format!(
                "  {host}: {{ roles: [{role}], address: {} }}\n",
                at(host)
            ));
            let shown = machines[&HostName::new(host)]
                .host_key
                .clone()
                .expect("a key");
            known.push_str(&format!("{} {}\n", at(host), shown.trim()));
        }
        fs::write(dir.path().join("pgherd.yaml"), text).expect("an inventory");
        fs::create_dir_all(dir.path().join(".ssh")).expect("a folder");
        fs::write(dir.path().join(".ssh/known_hosts"), known).expect("known hosts");
        let conninfo = format!(
            "host={} port=5000 user=postgres dbname=postgres sslmode=prefer",
            at("haproxy")
        );
        let door = Door {
            conninfo,
            password: SUPERUSER.into(),
        };
        await_that("HAProxy leads there", || {
            door.psql("select 1").status.success()
        });
        Self { lab, dir, door }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.lab.command(words);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path());
        command
    }

    fn pgherd(&self, words: &[&str], code: i32) -> String {
        let begin = Instant::now();
        let output = self.command(words).output().expect("pgherd runs");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "pgherd {words:?}\n{said}");
        println!(
            "pgherd {} ({:.1} s)",
            words.join(" "),
            begin.elapsed().as_secs_f64()
        );
        for password in [REPLICATION, SUPERUSER] {
            assert!(
                !said.contains(password),
                "pgherd {words:?} shows a password"
            );
        }
        said
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.command(words).output().expect("pgherd runs");
        crate::support::schemas::check(words, &output.stdout);
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }

    /// Starts `adopt --yes`, and kills it as soon as it says something.
    fn cut_off(&self, at: &str) {
        let mut child = self
            .command(&["adopt", "--yes"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pgherd runs");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"))
            .lines()
            .map_while(Result::ok);
        assert!(lines.any(|line| line.contains(at)), "it says: {at}");
        kill(&mut child);
        println!("cut off at: {at}");
        assert!(
            !self.dir.path().join(".pgherd/postgres").exists(),
            "no half of a workspace"
        );
    }

    /// A shell line as root on a host, without pgherd.
    fn on(&self, host: &str, line: &str) -> String {
        docker(&["exec", &self.lab.container(host), "sh", "-c", line])
    }

    /// When each PostgreSQL was started, and its process.
    fn started(&self) -> [String; 2] {
        DATABASES.map(|host| self.on(host, "sed -n '1p;3p' /data/patroni/postmaster.pid"))
    }

    fn timeline(&self) -> u32 {
        let asked = self
            .door
            .ask("select timeline_id from pg_control_checkpoint()");
        asked.parse().expect("a number")
    }
}

fn set_up(container: &str, variables: &[(&str, String)]) {
    let mut command = Command::new("docker");
    command.args(["exec", "-i"]);
    for (name, value) in variables {
        command.args(["-e", &format!("{name}={value}")]);
    }
    let mut child = command
        .args([container, "sh", "-s"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("docker runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(TUTORIAL.as_bytes()).expect("it is read");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "{container}");
}

/// Whether a member's REST interface answers with success.
fn patroni(lab: &Lab, address: Ipv4Addr, path: &str) -> bool {
    let ask = format!(
        "import urllib.request as u; u.build_opener(u.ProxyHandler({{}})).open('http://{address}:8008/{path}', timeout=3)"
    );
    let container = lab.container("node1");
    let asked = Command::new("docker")
        .args(["exec", &container, "python3", "-c", &ask])
        .output();
    asked.expect("docker runs").status.success()
}

fn await_that(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "not within two minutes: {what}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn told(what: &str, written: &Written) {
    println!(
        "{what}: {} acknowledged, none missing, {} refused, {:?} at most without one",
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
}

#[test]
fn a_cluster_made_by_the_tutorial_is_taken_in_while_clients_write() {
    let lab = Lab::new(
        "adopted",
        &format!(
            "provider: {{ kind: docker, image: '{}' }}\nhosts:\n  node1: {{ roles: [postgres] }}\n  \
             node2: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  haproxy: {{ roles: [haproxy] }}\n",
            prepared_image()
        ),
    );
    let reader = Reader::new(&lab);
    reader.door.ask("create table orders as select i from generate_series(1, 5000) i; create role shop login password 'a';");
    looking_changes_nothing(&reader);
    what_would_be_lost_is_refused(&reader);

    let (begun, timeline) = (reader.started(), reader.timeline());
    let writer = Writer::start(&reader.door);
    for stage in [
        "every host notes",
        "Patroni starts with its new way",
        "gets the marks",
    ] {
        reader.cut_off(stage);
    }
    let said = reader.pgherd(&["adopt", "--yes"], 0);
    println!("{said}");
    assert!(
        said.contains("PostgreSQL was started again on no host"),
        "{said}"
    );
    let written = writer.end();
    told("adopted", &written);
    assert_eq!(written.refused, [""; 0], "no client was refused anything");
    assert_eq!(reader.started(), begun, "nothing has restarted PostgreSQL");
    let secrets =
        fs::read_to_string(reader.dir.path().join(".pgherd/postgres/secrets.yaml")).unwrap();
    assert!(secrets.contains(SUPERUSER) && secrets.contains(REPLICATION));

    let said = reader.pgherd(&["plan"], 0);
    println!("{said}");
    let said = reader.pgherd(&["status"], 0);
    println!("{said}");
    assert_eq!(reader.timeline(), timeline);
    let writer = Writer::start(&reader.door);
    let said = reader.pgherd(&["up", "--yes"], 0);
    println!("{said}");
    let written = writer.end();
    told("up", &written);
    assert!(reader.timeline() <= timeline + 1, "at most one hand-over");
    reader.pgherd(&["verify"], 0);
    reader.pgherd(&["plan", "--check"], 0);
    let rows = "select count(*), max(i) from orders";
    assert_eq!(reader.door.ask(rows), "5000|5000");
    what_pgherd_did_not_make_stays(&reader);
    assert_eq!(reader.door.ask(rows), "5000|5000");
}

fn looking_changes_nothing(reader: &Reader<'_>) {
    let state = || {
        HOSTS.map(|(host, _)| {
            reader.on(
                host,
                "find /etc /opt /var/lib/pgherd /var/lib/etcd -newer /etc/hosts -type f ! -path '*/member/*' 2>/dev/null | sort; \
                 ls -A /var/lib; cat /etc/patroni.yml /etc/haproxy/haproxy.cfg 2>/dev/null || true",
            )
        })
    };
    let before = state();
    let said = reader.pgherd(&["adopt"], 0);
    println!("{said}");
    for part in [
        "etcd, API version 2",
        "/usr/local/bin/patroni",
        "shop",
        "15/main",
        "postgres at *:5000",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let document = reader.json(&["adopt", "--json"]);
    let rows = document["differences"].as_array().expect("rows");
    assert!(
        rows.iter().all(|row| row["fate"] != "refused"),
        "{document:#}"
    );
    assert!(
        rows.iter().any(|row| row["fate"] == "hand-over"),
        "{document:#}"
    );
    assert_eq!(state(), before, "nothing was changed");
    // Without an adoption, the hosts are somebody else's, as ever.
    reader.pgherd(&["up", "--yes"], 1);
    assert_eq!(state(), before, "nothing was changed");
    // That run has left a workspace of a cluster that it has not made.
    let said = reader.pgherd(&["adopt"], 2);
    assert!(
        said.contains("never made") && said.contains("mv .pgherd/postgres"),
        "{said}"
    );
    let folder = reader.dir.path().join(".pgherd");
    fs::rename(folder.join("postgres"), folder.join("postgres.unused")).expect("it is moved away");
}

fn what_would_be_lost_is_refused(reader: &Reader<'_>) {
    reader.on(
        "haproxy",
        "cp -a /etc/haproxy/haproxy.cfg /root/; printf 'listen web\\n bind *:8080\\n server a 192.0.2.1:80\\n' >>/etc/haproxy/haproxy.cfg",
    );
    for words in [&["adopt"][..], &["adopt", "--yes"]] {
        let said = reader.pgherd(words, 1);
        assert!(
            said.contains("web at *:8080") && said.contains("it would be lost"),
            "{said}"
        );
    }
    reader.on("haproxy", "mv /root/haproxy.cfg /etc/haproxy/haproxy.cfg");
    for (host, _) in HOSTS {
        let there = reader.on(
            host,
            "ls /var/lib/pgherd/adopting /var/lib/pgherd/manifest 2>/dev/null || true",
        );
        assert_eq!(there, "", "{host}");
    }
}

fn what_pgherd_did_not_make_stays(reader: &Reader<'_>) {
    let said = reader.pgherd(&["down", "--yes"], 1);
    assert!(
        said.contains("was adopted") && said.contains("nothing was removed"),
        "{said}"
    );
    reader.pgherd(&["verify"], 0);
    let start = reader.on("node1", "cat /etc/postgresql/*/main/start.conf");
    assert!(start.contains("manual"), "{start}");
}
