//! The machine with the workspace is lost, and another one goes on with the cluster.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pgherd::{inventory::HostName, provider::Machine};
use serde_json::Value;

use crate::{
    existing::bare_hosts,
    support::{Lab, docker, kill, prepared_image},
};

const ROLES: &str =
    "hosts:\n  node1: { roles: [postgres, etcd, haproxy] }\n  node2: { roles: [postgres] }\n";

/// A machine of somebody: the inventory, the key that opens the hosts, and nothing else.
struct Desk<'a> {
    lab: &'a Lab,
    dir: tempfile::TempDir,
    user: &'static str,
    /// The password that the application has, if this machine knows it.
    app: Option<String>,
}

impl<'a> Desk<'a> {
    fn new(lab: &'a Lab, user: &'static str, key: &Path, machines: &Machines) -> Self {
        let desk = Self {
            lab,
            dir: tempfile::tempdir().expect("a folder"),
            user,
            app: None,
        };
        let address = |host| machines[&HostName::new(host)].address.expect("an address");
        let text = format!(
            "cluster: lost\nprovider: {{ kind: existing }}\nssh: {{ identity_file: {} }}\n\
             ca_bundle: /etc/ssl/certs/ca-certificates.crt\n\
             postgresql: {{ version: distro, users: {{ app: }} }}\nhosts:\n  \
             node1: {{ roles: [postgres, etcd, haproxy], address: {} }}\n  \
             node2: {{ roles: [postgres], address: {} }}\n",
            key.display(),
            address("node1"),
            address("node2")
        );
        fs::write(desk.dir.path().join("pgherd.yaml"), text).expect("an inventory");
        desk
    }

    /// The hosts' keys, as somebody compared them once.
    fn knows(&self, machines: &Machines) {
        let known: String = machines
            .values()
            .map(|machine| {
                format!(
                    "{} {}\n",
                    machine.address.expect("an address"),
                    machine.host_key.as_deref().expect("a key").trim()
                )
            })
            .collect();
        fs::create_dir_all(self.dir.path().join(".ssh")).expect("a folder");
        fs::write(self.dir.path().join(".ssh/known_hosts"), known).expect("known hosts");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.lab.command(words);
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .env("USER", self.user);
        if let Some(app) = &self.app {
            command.env("PGHERD_SECRET_USER_APP", app);
        }
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
            "{}: pgherd {} ({:.1} s)",
            self.user,
            words.join(" "),
            begin.elapsed().as_secs_f64()
        );
        said
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.command(words).output().expect("pgherd runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pgherd {words:?}\n{said}");
        crate::support::schemas::check(words, &output.stdout);
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }

    fn sql(&self, statement: &str) -> String {
        let output = self
            .command(&["psql", "--", "-Atqc", statement])
            .output()
            .expect("pgherd runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}\n{said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn workspace(&self) -> PathBuf {
        self.dir.path().join(".pgherd/lost")
    }
}

type Machines = BTreeMap<HostName, Machine>;

#[test]
fn a_cluster_goes_on_from_another_machine_after_its_workspace_is_lost() {
    let image = prepared_image();
    let lab = Lab::new(
        "recovered",
        &format!("provider: {{ kind: docker, image: '{image}' }}\n{ROLES}"),
    );
    let key = lab.dir.path().join("handed-over");
    let machines = bare_hosts(&lab, &key, &["node1", "node2"]);
    let alice = Desk::new(&lab, "alice", &key, &machines);
    alice.knows(&machines);
    alice.pgherd(&["up", "--yes"], 0);
    let rows = "create table ledger as select i from generate_series(1, 5000) i";
    alice.sql(rows);
    let secrets = fs::read_to_string(alice.workspace().join("secrets.yaml")).unwrap();
    let app = secrets
        .lines()
        .find_map(|line| line.trim().strip_prefix("\"app\": "));
    let app = app.expect("a password").trim_matches('"').to_owned();
    let begun = started(&lab);

    // Alice's laptop is gone, with its disk.
    fs::remove_dir_all(alice.dir.path()).unwrap();

    let bob = Desk::new(&lab, "bob", &key, &machines);
    bob.knows(&machines);
    who_has_no_workspace_is_told_so(&bob);
    a_run_that_is_at_work_is_respected(&lab, &bob);
    let said = bob.pgherd(&["recover"], 0);
    println!("{said}");
    for part in [
        "password superuser",
        "key of the authority",
        "`up` would make 3 changes",
        "ensure-databases",
        "rotate certs",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = bob.pgherd(&["recover"], 2);
    assert!(said.contains("is a workspace already"), "{said}");
    same_secrets(&bob, &secrets, "app");

    let mut carol = Desk::new(&lab, "carol", &key, &machines);
    carol.app = Some(app);
    host_keys_are_not_trusted_by_themselves(&carol);
    let recovered = carol.json(&["recover", "--trust-host-keys", "--json"]);
    println!("{recovered:#}");
    assert_eq!(recovered["pending"], serde_json::json!([]), "{recovered}");
    let state = |what: &str| {
        let mut items = recovered["items"].as_array().unwrap().iter();
        let item = items.find(|item| item["what"] == what);
        item.unwrap_or_else(|| panic!("{what}: {recovered}"))["state"].clone()
    };
    for (what, is) in [
        ("password superuser", "found"),
        ("password stats", "found"),
        ("password users.app", "given"),
        ("key of the authority", "lost"),
        ("host keys", "made"),
    ] {
        assert_eq!(state(what), is, "{what}");
    }
    let said = carol.pgherd(&["plan"], 0);
    assert!(
        said.contains("nothing to do") && said.contains("the key of the certificate authority"),
        "{said}"
    );
    carol.pgherd(&["plan", "--check"], 0);
    let said = carol.pgherd(&["status"], 0);
    assert!(said.contains("rotate certs"), "{said}");
    carol.pgherd(&["verify"], 0);
    let said = carol.pgherd(&["up"], 0);
    assert!(said.contains("nothing to do"), "{said}");
    assert_eq!(
        carol.sql("select count(*), max(i) from ledger"),
        "5000|5000"
    );
    assert_eq!(started(&lab), begun, "nothing has restarted PostgreSQL");
    another_authority_while_clients_write(&carol);
    assert_eq!(
        carol.sql("select count(*), max(i) from ledger"),
        "5000|5000"
    );
    the_hosts_remember_who_did_what(&lab, &carol);
    carol.pgherd(&["down", "--yes"], 0);
    let left = docker(&["exec", &lab.container("node1"), "ls", "-a", "/var/lib"]);
    assert!(!left.lines().any(|name| name == "pgherd"), "{left}");
}

/// Runs of three machines, one of which is gone, and a run that is killed.
fn the_hosts_remember_who_did_what(lab: &Lab, desk: &Desk<'_>) {
    let mut killed = desk
        .command(&["drill", "stop-leader", "--yes", "--json", "--verbose"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(killed.stderr.take().unwrap()).lines();
    let broken = lines
        .map_while(Result::ok)
        .any(|line| line.contains("broken now"));
    assert!(broken, "the drill has come that far");
    let history = desk.json(&["history", "--json"]);
    assert_eq!(history["runs"][0]["at_work"], true, "{history}");
    assert_eq!(history["runs"][0]["verb"], "drill");
    kill(&mut killed);
    desk.pgherd(&["drill", "--repair"], 0);
    println!("{}", desk.pgherd(&["history"], 0));
    let history = desk.json(&["history", "--json", "--limit", "100"]);
    let runs = history["runs"].as_array().unwrap();
    let one = |user: &str, verb: &str, ended: &Value| {
        let by = format!("{user}@");
        runs.iter().any(|run| {
            run["by"].as_str().unwrap().starts_with(&by)
                && run["verb"] == verb
                && run["ended"]["exit_code"] == *ended
        })
    };
    let (well, never) = (serde_json::json!(0), Value::Null);
    for (user, verb, ended) in [
        ("alice", "up", &well),
        ("bob", "recover", &well),
        ("carol", "recover", &well),
        ("carol", "up", &well),
        ("carol", "rotate", &well),
        ("carol", "drill", &never),
    ] {
        assert!(one(user, verb, ended), "{user} {verb}: {history:#}");
    }
    let first = runs.last().unwrap();
    assert_eq!(first["command"], "up --yes", "{first}");
    assert!(first["ended"]["changes"].as_u64() > Some(10), "{first}");
    // Where a run was refused, it did not get each host.
    for run in runs.iter().filter(|run| run["ended"]["exit_code"] == 0) {
        assert_eq!(run["hosts"].as_array().unwrap().len(), 2, "{run}");
    }
    let began: Vec<&str> = runs
        .iter()
        .map(|run| run["began"].as_str().unwrap())
        .collect();
    assert!(began.is_sorted_by(|one, other| one >= other), "{began:?}");
    let container = lab.container("node2");
    let stat = ["stat", "-c", "%a %U", "/var/lib/pgherd/history.jsonl"];
    let mode = docker(&[&["exec", &container], &stat[..]].concat());
    assert_eq!(mode.trim(), "600 root");
}

/// When PostgreSQL was started on each host.
fn started(lab: &Lab) -> [String; 2] {
    let asked = ["sed", "-n", "3p", "/data/patroni/postmaster.pid"];
    ["node1", "node2"].map(|host| {
        let container = lab.container(host);
        docker(&[&["exec", &container], &asked[..]].concat())
    })
}

/// No verb takes the hosts for new ones, or makes a workspace that is not the cluster's.
fn who_has_no_workspace_is_told_so(desk: &Desk<'_>) {
    for words in [
        &["status"][..],
        &["plan"],
        &["up", "--yes"],
        &["render", "--yes"],
        &["verify"],
    ] {
        let said = desk.pgherd(words, 1);
        for part in [
            "hosts of the cluster lost are there, and its workspace is not",
            "pgherd recover",
            "node1",
            "nothing was touched",
        ] {
            assert!(said.contains(part), "{words:?}, {part}: {said}");
        }
        assert!(!desk.workspace().join("secrets.yaml").exists());
        assert!(!desk.workspace().join("pki").exists());
    }
}

fn a_run_that_is_at_work_is_respected(lab: &Lab, desk: &Desk<'_>) {
    let holder =
        r#"{"pid":7,"verb":"up","since":"2026-11-26T12:00:00Z","by":"anna@laptop","run":"00"}"#;
    let script = format!(
        "exec 9<>/run/pgherd.lease; flock 9; printf '%s\\n%s\\n' '{holder}' $$ >/run/pgherd.lease; \
         while read -r -t 2 _ || [ $? -gt 128 ]; do touch /run/pgherd.lease; done"
    );
    let mut other = Command::new("docker")
        .args(["exec", "-i", &lab.container("node1"), "bash", "-c", &script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let said = desk.pgherd(&["recover"], 1);
    assert!(
        said.contains("another run is at work") && said.contains("anna@laptop"),
        "{said}"
    );
    assert!(!desk.workspace().join("secrets.yaml").exists());
    drop(other.stdin.take());
    other.wait().unwrap();
}

/// The passwords are those of before, but for one.
fn same_secrets(desk: &Desk<'_>, before: &str, but: &str) {
    let now = fs::read_to_string(desk.workspace().join("secrets.yaml")).unwrap();
    let differs: Vec<(&str, &str)> = before
        .lines()
        .zip(now.lines())
        .filter(|(one, other)| one != other)
        .collect();
    assert_eq!(before.lines().count(), now.lines().count());
    // No password is shown.
    assert_eq!(differs.len(), 1);
    assert!(differs[0].0.contains(but));
}

fn host_keys_are_not_trusted_by_themselves(desk: &Desk<'_>) {
    let said = desk.pgherd(&["recover"], 1);
    assert!(
        said.contains("is not trusted yet") && said.contains("pgherd recover --trust-host-keys"),
        "{said}"
    );
    assert!(!desk.workspace().exists());
}

fn another_authority_while_clients_write(desk: &Desk<'_>) {
    let ca = || fs::read_to_string(desk.workspace().join("pki/ca.crt")).unwrap();
    let before = ca();
    // Clients that verify must know both authorities before the certificates change.
    desk.pgherd(&["rotate", "certs", "--prepare", "--yes"], 0);
    let watch = desk
        .command(&["drill", "watch", "--for", "45s", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(4));
    desk.pgherd(&["rotate", "certs", "--yes"], 0);
    let watched = watch.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(watched.status.success(), "{told}");
    let record: Value = serde_json::from_str(&told).expect(&told);
    let measured = &record["drills"][0]["measured"];
    println!("{measured}");
    assert_eq!(measured["missing"], 0);
    assert!(measured["acknowledged"].as_u64() > Some(500), "{measured}");
    assert_ne!(ca(), before);
    assert_eq!(ca().matches("BEGIN CERTIFICATE").count(), 1);
    assert!(desk.workspace().join("pki/ca.key").exists());
    desk.pgherd(&["verify"], 0);
    let said = desk.pgherd(&["plan", "--check"], 0);
    assert!(!said.contains("key of the certificate authority"), "{said}");
}
