//! The claims of docs/security.md, tested on one cluster.

use std::{
    fs,
    io::Write,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    support::{Lab, prepared_image},
    watch::{Arguments, Door},
};

mod closed;
mod rotation;
mod strangers;

use closed::{
    a_crowd_that_says_nothing_shuts_nobody_out, a_server_that_lets_no_client_write_does_not_hold,
    a_systems_user_is_no_role_of_the_same_name, ciphers_without_authentication_are_refused,
    haproxy_has_no_capability_that_it_does_not_need, haproxys_host_cannot_write_to_etcd,
    pgherds_own_schema_is_not_shared, strangers_at_patronis_port_shut_nobody_out,
    what_an_application_makes_in_public_is_not_run_by_pgherd,
};
use rotation::{
    a_certificate_that_ends_soon_is_renewed_without_a_restart,
    passwords_change_without_a_lost_write, the_authority_changes_without_a_lost_write,
};
use strangers::{
    nobody_is_believed_who_shows_another_authoritys_certificate,
    the_front_door_is_closed_to_strangers,
};

const HOSTS: [&str; 5] = ["node1", "node2", "node3", "node4", "haproxy"];
const SERVER: &str = "/etc/pgherd/tls/postgres/server";

fn inventory(more: &str) -> String {
    let image = prepared_image();
    format!(
        "provider: {{ kind: docker, image: \"{image}\" }}\n\
         postgresql: {{ version: distro, users: {{ shop: {{}}{more} }}, databases: {{ shop: {{}} }} }}\n\
         hosts:\n  node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
         node3: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  haproxy: {{ roles: [haproxy] }}\n"
    )
}

#[test]
fn secure_by_default() {
    let lab = Lab::new("secure", &inventory(""));
    let arguments = Arguments::watch();
    let mut seen = Seen::default();
    seen.output(&lab.command(&["up", "--yes", "--json"]).output().unwrap());
    lab.expect(0, &["verify"]);

    the_front_door_is_closed_to_strangers(&lab);
    haproxys_host_cannot_write_to_etcd(&lab);
    ciphers_without_authentication_are_refused(&lab);
    haproxy_has_no_capability_that_it_does_not_need(&lab);
    a_systems_user_is_no_role_of_the_same_name(&lab);
    what_an_application_makes_in_public_is_not_run_by_pgherd(&lab);
    pgherds_own_schema_is_not_shared(&lab);
    a_server_that_lets_no_client_write_does_not_hold(&lab);
    users_and_databases_are_made_and_never_dropped(&lab);
    // These mostly wait. They belong to the soak tests.
    if std::env::var_os("PGHERD_LAB_EVERY_STEP").is_some() {
        strangers_at_patronis_port_shut_nobody_out(&lab);
        a_crowd_that_says_nothing_shuts_nobody_out(&lab);
        nobody_is_believed_who_shows_another_authoritys_certificate(&lab);
        a_certificate_that_ends_soon_is_renewed_without_a_restart(&lab);
    }
    let before = Secrets::of(&lab);
    passwords_change_without_a_lost_write(&lab, &mut seen);
    the_authority_changes_without_a_lost_write(&lab, &mut seen);
    let after = Secrets::of(&lab);
    errors_and_plans_come_without_secrets(&lab, &mut seen);

    seen.text(&arguments.end());
    seen.text(&lab.logs());
    for host in HOSTS {
        seen.text(&lab.on(host, "journalctl --no-pager -q"));
    }
    for (what, secret) in before.0.iter().chain(&after.0) {
        assert!(!seen.0.contains(secret), "{what} shows");
    }
    secrets_are_only_where_they_are_needed(&lab, &after);

    let said = lab.expect(0, &["up"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
    lab.expect(0, &["down", "--yes"]);
    assert!(!lab.workspace().join("secrets.yaml").exists());
}

/// Everything that anybody could have read.
#[derive(Default)]
struct Seen(String);

impl Seen {
    fn text(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn output(&mut self, output: &Output) {
        self.text(&String::from_utf8_lossy(&output.stdout));
        self.text(&String::from_utf8_lossy(&output.stderr));
    }
}

/// What must not be visible, each with its name: passwords, and a line of each private key.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn of(lab: &Lab) -> Self {
        let text = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
        let mut all: Vec<(String, String)> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with("cluster_id"))
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        assert!(all.len() >= 6, "five of the cluster's own and the users'");
        for entry in fs::read_dir(lab.workspace().join("pki")).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "key") {
                let pem = fs::read_to_string(&path).unwrap();
                let line = pem.lines().nth(1).unwrap().to_owned();
                all.push((path.display().to_string(), line));
            }
        }
        Self(all)
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        &found.unwrap_or_else(|| panic!("no {name}")).1
    }
}

fn door(lab: &Lab) -> Door {
    Door {
        conninfo: format!(
            "host=127.0.0.1 port={} user=shop dbname=shop sslmode=verify-full sslrootcert={}",
            lab.write_port,
            lab.workspace().join("pki/ca.crt").display()
        ),
        password: Secrets::of(lab).get("\"shop\"").to_owned(),
    }
}

fn address(lab: &Lab, host: &str) -> String {
    let hosts = lab.on(host, "cat /etc/hosts");
    let line = hosts
        .lines()
        .rev()
        .find(|line| line.ends_with(&format!("  {host}")));
    line.unwrap().split_whitespace().next().unwrap().to_owned()
}

fn users_and_databases_are_made_and_never_dropped(lab: &Lab) {
    assert_eq!(lab.sql("select rolsuper or rolcreaterole or rolreplication from pg_roles where rolname = 'shop'"), "f");
    lab.sql("create role by_hand");
    lab.sql("create database by_hand");
    lab.write_inventory(&inventory(
        ", \"o'dd \\\"x\": { roles: [pg_monitor, shop] }",
    ));
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(
        said.stdout
            .contains("user o'dd \"x becomes a member of pg_monitor"),
        "{}",
        said.stdout
    );
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
    assert_eq!(
        lab.sql("select pg_has_role('o''dd \"x', 'pg_monitor', 'member')"),
        "t"
    );
    lab.write_inventory(&inventory(""));
    lab.expect(0, &["plan", "--check"]);
    assert_eq!(
        lab.sql("select count(*) from pg_roles where rolname in ('by_hand', 'o''dd \"x')"),
        "2"
    );
    // A password that is changed in the file is changed in the database.
    let path = lab.workspace().join("secrets.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let old = Secrets::of(lab).get("\"shop\"").to_owned();
    fs::write(&path, text.replace(&old, "it's \\\" mine")).unwrap();
    lab.expect(0, &["up", "--yes"]);
    let door = Door {
        password: "it's \" mine".into(),
        ..door(lab)
    };
    assert_eq!(door.ask("select current_user"), "shop");
    fs::write(&path, text).unwrap();
    lab.expect(0, &["up", "--yes"]);
}

/// Writes a file of a host in place, so that owner and mode stay.
fn overwrite(lab: &Lab, host: &str, path: &str, text: &str) {
    let mut child = lab
        .command(&["ssh", host, "--", "sudo", "tee", path])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// The machine is shared with other tests, so a short limit must be a minute too.
fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let limit = limit.max(Duration::from_secs(60));
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn errors_and_plans_come_without_secrets(lab: &Lab, seen: &mut Seen) {
    let templates = lab.dir.path().join("templates/etc/haproxy");
    fs::create_dir_all(&templates).unwrap();
    let built_in = include_str!("../../../templates/etc/haproxy/haproxy.cfg");
    fs::write(
        templates.join("haproxy.cfg"),
        built_in.replace("stats auth", "stats auths"),
    )
    .unwrap();
    let templates = lab.dir.path().join("templates").display().to_string();
    for words in [
        &["plan", "-v"][..],
        &["up", "--yes", "-vv"],
        &["up", "--yes", "--json"],
    ] {
        let output = lab.run(&[&["--templates", &templates], words].concat());
        seen.output(&output);
    }
    for words in [
        &["plan", "-v"][..],
        &["plan", "--json"],
        &["status"],
        &["status", "--json"],
        &["verify", "--json"],
        &["up", "--yes", "-vv"],
    ] {
        seen.output(&lab.run(words));
    }
    lab.expect(0, &["verify"]);
}

/// Searches the hosts themselves for all of them at once.
fn secrets_are_only_where_they_are_needed(lab: &Lab, secrets: &Secrets) {
    const PATTERNS: &str = "/dev/shm/pgherd-lab-patterns";
    let patterns: String = secrets
        .0
        .iter()
        .map(|(_, secret)| format!("{secret}\n"))
        .collect();
    for host in HOSTS {
        overwrite(lab, host, PATTERNS, &patterns);
        let found = lab.on(
            host,
            &format!(
                "cd / && grep -rlsFf {PATTERNS} etc home opt root run srv tmp usr/local var \
                 | xargs -r stat -c \"/%n %U %a\"; rm {PATTERNS}"
            ),
        );
        assert_ne!(found, "", "{host} has its own key at least");
        for line in found.lines() {
            let (path, owner) = line.split_once(' ').unwrap();
            let allowed = match path {
                "/etc/patroni.yml" | "/var/lib/postgresql/.pgpass-patroni" => "postgres 600",
                "/etc/haproxy/haproxy.cfg" => "root 640",
                path if path.starts_with("/etc/pgherd/tls/postgres/") => "postgres 600",
                path if path.starts_with("/etc/pgherd/tls/etcd/") => "etcd 600",
                path if path.starts_with("/etc/pgherd/tls/haproxy/") => "root 600",
                _ => "nobody",
            };
            assert_eq!(owner, allowed, "{path} on {host}");
        }
    }
}
