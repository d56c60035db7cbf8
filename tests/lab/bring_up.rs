//! One cluster from nothing to nothing, with everything that a user does in between.

use std::{fs, process::Command, time::Duration};

use crate::support::{Lab, base_image, docker, prepared_image, prepared_version};

const FIVE: &str = "hosts:\n  node1: { roles: [postgres] }\n  node2: { roles: [postgres] }\n  \
                    node3: { roles: [postgres] }\n  node4: { roles: [etcd] }\n  haproxy: { roles: [haproxy] }\n";

fn inventory(image: &str, postgresql: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: \"{image}\" }}\npostgresql: {{ {postgresql} }}\n{FIVE}"
    )
}

#[test]
fn from_nothing_to_nothing() {
    let lab = Lab::new("life", &inventory(&base_image(), "version: distro"));

    // Before there is a cluster, the verbs say so.
    let said = lab.expect(1, &["status"]);
    assert!(said.stderr.contains("pgherd up"), "{}", said.stderr);
    lab.expect(4, &["plan", "--check"]);
    assert!(!lab.workspace().exists(), "plan leaves no trace");

    // Without a terminal and without --yes, nothing is created.
    let said = lab.expect(2, &["up"]);
    assert!(said.stderr.contains("--yes"), "{}", said.stderr);
    assert_eq!(lab.leftovers(), "");

    let events = lab.expect(0, &["up", "--yes", "--json"]).events();
    let finished = events.last().expect("events");
    assert_eq!(finished["event"], "run_finished");
    assert_eq!(finished["exit_code"], 0);
    let checks: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "check" && event["passed"] == true)
        .filter_map(|event| event["check"].as_str())
        .collect();
    assert_eq!(
        checks,
        [
            "units",
            "leader",
            "members",
            "replication",
            "etcd",
            "front-door",
            "backends",
            "configs",
            "pending-restart",
            "clock",
            "certificates",
            "roles",
            "disk",
            "alarms",
            "pause",
            "settings",
            "versions",
            "network",
            "archive",
            "backups",
        ]
    );

    the_run_is_reported(&lab);
    the_second_run_changes_nothing(&lab);
    people_get_there(&lab);
    nothing_secret_shows(&lab);
    drift_is_shown_and_mended(&lab);

    // Another user's cluster of the same name is not taken for this one.
    let stranger = tempfile::tempdir().unwrap();
    fs::copy(lab.inventory(), stranger.path().join("pgherd.yaml")).unwrap();
    let output = lab
        .command(&["up", "--yes"])
        .current_dir(stranger.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("its workspace is not"), "{stderr}");
    lab.expect(0, &["verify"]);

    let said = lab.expect(2, &["down"]);
    assert!(said.stderr.contains("--yes"), "{}", said.stderr);
    assert_ne!(lab.leftovers(), "");
    lab.expect(0, &["down", "--yes", "--keep-secrets"]);
    assert_eq!(lab.leftovers(), "");
    assert!(lab.workspace().join("secrets.yaml").exists());
    lab.expect(0, &["down", "--yes"]);
    assert!(!lab.workspace().join("secrets.yaml").exists());
    // The records of a cluster's runs outlive it.
    assert_eq!(lab.json(&["report", "--json"])["verb"], "down");
    assert!(!lab.workspace().join("pki").exists());
}

fn the_run_is_reported(lab: &Lab) {
    let page = lab.expect(0, &["report"]).stdout;
    let page = fs::read_to_string(page.trim()).unwrap();
    assert!(page.contains("install-packages"), "{page}");
    let report = lab.json(&["report", "--json"]);
    assert_eq!(report["verdict"], "done");
    assert_eq!(report["steps"]["never_ran"], 0);
    let versions = &report["software"]["node1"]["packages"];
    assert_eq!(versions["patroni"], "4.1.5", "{versions}");
    // The critical path covers the whole run, without notable gaps, up to its end.
    let links = report["critical_path"].as_array().unwrap();
    let took: f64 = links
        .iter()
        .filter_map(|link| link["seconds"].as_f64())
        .sum();
    let whole = report["seconds"].as_f64().unwrap();
    assert!(
        took > whole * 0.9 && took <= whole,
        "{took} of {whole}: {links:?}"
    );
    assert_eq!(links.last().unwrap()["name"], "prove");
}

fn the_second_run_changes_nothing(lab: &Lab) {
    let said = lab.expect(0, &["up"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);
    lab.expect(0, &["plan", "--check"]);
    let plan = lab.json(&["plan", "--json"]);
    assert_eq!(plan["steps"].as_array().map(Vec::len), Some(0));
    assert!(plan["unchanged"].as_array().unwrap().len() > 10);
}

fn people_get_there(lab: &Lab) {
    let status = lab.json(&["status", "--json"]);
    let members = status["members"].as_array().unwrap();
    assert_eq!(
        members
            .iter()
            .filter(|member| member["role"] == "leader")
            .count(),
        1
    );
    assert_eq!(
        members
            .iter()
            .filter(|member| member["state"] == "streaming")
            .count(),
        2
    );
    assert_eq!(status["etcd"][0]["healthy"], true);

    assert_eq!(lab.sql("select pg_is_in_recovery()"), "f");
    assert_eq!(
        lab.expect(
            0,
            &[
                "psql",
                "--read",
                "--",
                "-Atqc",
                "select pg_is_in_recovery()"
            ]
        )
        .stdout
        .trim(),
        "t"
    );
    assert_eq!(
        lab.expect(0, &["ssh", "node2", "--", "hostname"])
            .stdout
            .trim(),
        "node2"
    );
    lab.expect(7, &["ssh", "node2", "--", "exit 7"]);
    assert!(
        lab.expect(0, &["logs", "node1", "patroni", "-n", "5"])
            .stdout
            .contains("node1")
    );
    let said = lab.expect(2, &["ssh", "nodeX"]);
    assert!(said.stderr.contains("node1"), "{}", said.stderr);

    // As in the README, without pgherd: from this machine, with full verification.
    let psql = Command::new("psql")
        .args(["-Atqc", "select 1"])
        .env("PGPASSWORD", secret(lab, "superuser"))
        .args(["-d", &format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres sslmode=verify-full sslrootcert={}",
            lab.write_port,
            lab.workspace().join("pki/ca.crt").display()
        )])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&psql.stdout).trim(),
        "1",
        "{}",
        String::from_utf8_lossy(&psql.stderr)
    );
    let ssh = Command::new("ssh")
        .arg("-F")
        .arg(lab.workspace().join("ssh_config"))
        .args(["node3", "hostname"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ssh.stdout).trim(), "node3");
}

fn secret(lab: &Lab, key: &str) -> String {
    let text = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{key}:")))
        .unwrap();
    line.split_once(": ")
        .unwrap()
        .1
        .trim_matches('"')
        .to_owned()
}

fn nothing_secret_shows(lab: &Lab) {
    let mut seen = lab.logs();
    for words in [
        &["plan", "-v"][..],
        &["status", "--json"],
        &["verify", "--json"],
    ] {
        let output = lab.run(words);
        seen.push_str(&String::from_utf8_lossy(&output.stdout));
        seen.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    // What is collected for a ticket, uncompressed.
    let said = lab.expect(0, &["diagnose", "-o", "ticket.tar"]);
    assert!(!said.stderr.contains("missing"), "{}", said.stderr);
    let ticket = fs::read(lab.file("ticket.tar")).unwrap();
    let ticket = String::from_utf8_lossy(&ticket);
    for part in [
        "ticket/verify.json",
        "ticket/hosts/node4/state.txt",
        "ticket/hosts/node1/journal.txt",
        "ticket/hosts/haproxy/files/etc/haproxy/haproxy.cfg",
    ] {
        assert!(ticket.contains(part), "{part}");
    }
    assert!(!ticket.contains("PRIVATE KEY"), "a key shows");
    seen.push_str(&ticket);
    for host in ["node1", "node2", "node3", "node4", "haproxy"] {
        seen.push_str(&lab.on(
            host,
            "journalctl --no-pager -q; cat /proc/[0-9]*/cmdline | tr \"\\0\" \" \"",
        ));
    }
    let passwords = lab.passwords();
    assert!(passwords.len() >= 5);
    for password in passwords {
        assert!(!seen.contains(&password), "a password shows");
    }
    // On the hosts, only the services that need them can read them.
    assert_eq!(
        lab.on("node1", "stat -c \"%a %U\" /etc/patroni.yml").trim(),
        "600 postgres"
    );
}

fn drift_is_shown_and_mended(lab: &Lab) {
    lab.on("haproxy", "echo \"# by hand\" >>/etc/haproxy/haproxy.cfg");
    let pid = lab.on("haproxy", "systemctl show -p MainPID --value haproxy");
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(said.stdout.contains("-# by hand"), "{}", said.stdout);
    lab.expect(3, &["verify"]);
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
    assert_eq!(
        lab.on("haproxy", "systemctl show -p MainPID --value haproxy"),
        pid,
        "reloaded, not restarted"
    );
}

#[test]
fn what_has_changed_is_put_right_and_hosts_come_back() {
    let lab = Lab::new("kept", &prepared(""));
    lab.expect(0, &["up", "--yes"]);
    parameters_take_effect(&lab);
    a_missing_role_is_made(&lab);
    hosts_come_back_by_themselves(&lab);
}

/// Prepared hosts, with these keys of `postgresql`.
fn prepared(keys: &str) -> String {
    let version = prepared_version();
    inventory(&prepared_image(), &format!("version: {version}{keys}"))
}

fn parameters_take_effect(lab: &Lab) {
    lab.write_inventory(&prepared(
        ", parameters: { max_connections: 77, work_mem: 5MB, application_name: \"it's # {{ x }}\" }",
    ));
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(said.stdout.contains("max_connections"), "{}", said.stdout);
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(lab.sql("show max_connections"), "77");
    assert_eq!(lab.sql("show work_mem"), "5MB");
    assert_eq!(lab.sql("select boot_val = setting or setting = 'it''s # {{ x }}' or reset_val is not null from pg_settings where name = 'application_name'"), "t");
    lab.write_inventory(&prepared(""));
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(lab.sql("show max_connections"), "100");
    lab.expect(0, &["plan", "--check"]);
}

/// What a bootstrap leaves that was interrupted right after initdb, as far as it can be distinguished.
fn a_missing_role_is_made(lab: &Lab) {
    lab.sql("drop owned by rewind; drop role rewind");
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(said.stdout.contains("ensure-roles"), "{}", said.stdout);
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(
        lab.sql("select has_function_privilege('rewind', 'pg_read_binary_file(text)', 'execute')"),
        "t"
    );
}

fn hosts_come_back_by_themselves(lab: &Lab) {
    lab.sql("create table kept as select generate_series(1, 1000) as id");
    let leader = lab.leader();
    docker(&["restart", "-t", "10", &lab.container(&leader)]);
    lab.holds_within(Duration::from_secs(120));
    docker(&["kill", &lab.container("node4"), &lab.container("haproxy")]);
    docker(&["start", &lab.container("node4"), &lab.container("haproxy")]);
    lab.holds_within(Duration::from_secs(120));
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    let said = lab.expect(0, &["up"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);

    // `up` starts a stopped host, and says so before.
    docker(&["stop", "-t", "10", &lab.container("node3")]);
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(
        said.stdout.contains("host node3 is started"),
        "{}",
        said.stdout
    );
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
}
