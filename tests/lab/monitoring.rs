//! Metrics of every host, a Prometheus that reads them, and alerts that fire and go.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Lab, prepared_image};

mod dashboards;

const ALERTS: &str = include_str!("../../alerts/pgherd.yml");

/// Those that appear only while something is amiss that this test does not bring about.
const RARE: [&str; 1] = ["pgherd_package_behind"];

fn rest() -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\nmonitoring: {{}}\npostgresql: {{ version: distro }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5, synchronous: true }}\nhosts:\n  \
         db1: {{ roles: [postgres, etcd] }}\n  db2: {{ roles: [postgres] }}\n  \
         door: {{ roles: [haproxy] }}\n  watch: {{ roles: [monitoring, backup] }}\n",
        prepared_image()
    )
}

/// `pgherd` with alerts that fire as soon as their condition is true, which every run must be given.
fn with<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["--templates", "hasty"], words].concat()
}

#[test]
fn every_metric_is_there_and_alerts_fire_and_go() {
    let lab = Lab::new("monitoring", &rest());
    hasty(&lab);
    let said = lab.expect(0, &with(&["up", "--yes"]));
    assert!(said.stderr.contains("monitoring"), "{}", said.stderr);
    lab.expect(0, &with(&["plan", "--check"]));
    lab.expect(0, &with(&["verify"]));

    the_alerts_pass_their_own_tests(&lab);
    who_may_read(&lab);
    targets_are_told(&lab);
    every_metric_that_an_alert_names_is_there(&lab);
    dashboards::every_panel_is_answered(&lab);
    alerts_fire_and_go(&lab);
    lab.expect(0, &with(&["verify"]));
}

/// The alerts without their patience.
fn hasty(lab: &Lab) {
    let folder = lab.file("hasty/etc/pgherd/monitoring");
    fs::create_dir_all(&folder).unwrap();
    let lines = ALERTS.lines().map(|line| match line.trim_start() {
        it if it.starts_with("for: ") => line.replace(it, "for: 0s"),
        _ => line.to_owned(),
    });
    let text: Vec<String> = lines.collect();
    let text = format!("{{% raw %}}{}\n{{% endraw %}}", text.join("\n"));
    fs::write(folder.join("alerts.yml"), text).unwrap();
}

fn the_alerts_pass_their_own_tests(lab: &Lab) {
    let files = [
        ("pgherd.yml", ALERTS),
        ("tests.yml", include_str!("../../alerts/tests.yml")),
        (
            "tests-slow.yml",
            include_str!("../../alerts/tests-slow.yml"),
        ),
    ];
    lab.on("watch", "mkdir -p /tmp/alerts");
    for (name, text) in files {
        let path = lab.file(name);
        fs::write(&path, text).unwrap();
        let to = format!("{}:/tmp/alerts/{name}", lab.container("watch"));
        crate::support::docker(&["cp", path.to_str().unwrap(), &to]);
    }
    lab.on(
        "watch",
        "cd /tmp/alerts && promtool test rules tests.yml tests-slow.yml",
    );
}

/// A request with Python, which every host of the lab has; the status and the beginning of the answer.
fn get(lab: &Lab, from: &str, url: &str) -> String {
    let authority = match from {
        "watch" => "/etc/pgherd/tls/monitoring/ca.crt",
        _ => "/etc/pgherd/tls/metrics/ca.crt",
    };
    let program = format!(
        "import ssl, sys, urllib.request, urllib.error\n\
         tls = ssl.create_default_context(cafile=\"{authority}\")\n\
         try:\n    print(urllib.request.urlopen(\"{url}\", timeout=20, context=tls).read().decode())\n\
         except urllib.error.HTTPError as error:\n    print(\"refused\", error.code)\n\
         except Exception as error:\n    print(\"failed\", error)\n"
    );
    lab.on(from, &format!("python3 -c '{program}'"))
}

fn who_may_read(lab: &Lab) {
    let url = "https://db1:9998/proxy?module=postgres";
    let read = get(lab, "watch", url);
    assert!(
        read.contains("pg_up 1") && read.contains("pgherd_connections_used"),
        "{read}"
    );
    // Another host of the cluster, which is no host that reads metrics.
    assert_eq!(get(lab, "db2", url).trim(), "refused 403");
    // Nothing else can be reached from elsewhere.
    for port in [9100, 9187] {
        let read = get(lab, "watch", &format!("http://db1:{port}/metrics"));
        assert!(read.starts_with("failed"), "{port}: {read}");
    }
    for port in [9090, 9093] {
        let read = get(lab, "db1", &format!("https://watch:{port}/"));
        assert!(read.starts_with("failed"), "{port}: {read}");
    }
    let role = "select rolsuper, rolpassword is null, pg_has_role('pgherd_monitor', 'pg_monitor', 'member') \
                from pg_authid where rolname = 'pgherd_monitor'";
    assert_eq!(lab.sql(role), "f|t|t");
}

fn targets_are_told(lab: &Lab) {
    let targets = lab.json(&with(&["targets", "db1"]));
    let jobs: Vec<&str> = targets
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["labels"]["job"].as_str().unwrap())
        .collect();
    assert_eq!(jobs, ["node", "postgres", "patroni", "etcd"]);
    let said = lab.expect(0, &with(&["targets", "--prometheus", "-o", "sd"]));
    assert!(said.stdout.contains("pki/ca.crt") && said.stdout.contains("sd/*.json"));
    assert!(lab.file("sd/watch.json").exists());
}

/// An answer of Prometheus to a query of its interface.
fn prometheus(lab: &Lab, path: &str) -> Value {
    let said = get(
        lab,
        "watch",
        &format!("https://localhost:9090/api/v1/{path}"),
    );
    let answer: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{path}: {said}"));
    answer["data"].clone()
}

/// The names of metrics in the expressions of the alerts.
fn named() -> BTreeSet<String> {
    let words = ALERTS.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    let prefixes = ["pgherd_", "patroni_", "etcd_", "haproxy_", "node_"];
    let is_metric = |word: &&str| prefixes.iter().any(|it| word.starts_with(it)) || *word == "up";
    words.filter(is_metric).map(str::to_owned).collect()
}

fn every_metric_that_an_alert_names_is_there(lab: &Lab) {
    let wanted = named();
    assert!(wanted.len() > 25, "{wanted:?}");
    let missing = || -> Vec<String> {
        let there = prometheus(lab, "label/__name__/values");
        let there: BTreeSet<&str> = there
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let gone = wanted
            .iter()
            .filter(|it| !there.contains(it.as_str()) && !RARE.contains(&it.as_str()));
        gone.cloned().collect()
    };
    let begin = Instant::now();
    while !missing().is_empty() {
        assert!(
            begin.elapsed() < Duration::from_secs(240),
            "no metric {:?}",
            missing()
        );
        thread::sleep(Duration::from_secs(5));
    }
}

/// The alerts that fire.
fn firing(lab: &Lab) -> BTreeSet<String> {
    let alerts = prometheus(lab, "alerts");
    let all = alerts["alerts"].as_array().unwrap().iter();
    let firing = all.filter(|it| it["state"] == "firing");
    firing
        .map(|it| it["labels"]["alertname"].as_str().unwrap().to_owned())
        .collect()
}

fn until(lab: &Lab, what: &str, holds: impl Fn(&BTreeSet<String>) -> bool) {
    let begin = Instant::now();
    loop {
        let now = firing(lab);
        if holds(&now) {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "never {what}: {now:?}"
        );
        thread::sleep(Duration::from_secs(3));
    }
}

/// Brings something about, sees `alerts` fire, puts it right, and sees them go.
fn fire(lab: &Lab, alerts: &[&str], spoil: impl Fn(), repair: impl Fn()) {
    until(lab, &format!("{alerts:?} to be quiet before"), |now| {
        !alerts.iter().any(|it| now.contains(*it))
    });
    spoil();
    until(lab, &format!("{alerts:?} to fire"), |now| {
        alerts.iter().all(|it| now.contains(*it))
    });
    repair();
    until(lab, &format!("{alerts:?} to go"), |now| {
        !alerts.iter().any(|it| now.contains(*it))
    });
    println!("fired, and went: {}", alerts.join(", "));
}

fn alerts_fire_and_go(lab: &Lab) {
    let on = |host: &str, line: &str| drop(lab.on(host, line));
    fire(
        lab,
        &["UnitStopped"],
        || on("db1", "systemctl stop pgherd-heartbeat.timer"),
        || on("db1", "systemctl start pgherd-heartbeat.timer"),
    );
    // Alertmanager was told.
    let told = get(
        lab,
        "watch",
        "https://localhost:9093/api/v2/alerts?active=true",
    );
    assert!(told.contains("alertname"), "{told}");
    fire(
        lab,
        &["CertificateExpires"],
        || {
            on(
                "door",
                "mkdir -p /etc/pgherd/tls/short && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                 -keyout /dev/null -out /etc/pgherd/tls/short/server.crt -subj /CN=short -days 2 2>/dev/null",
            );
        },
        || on("door", "rm -r /etc/pgherd/tls/short"),
    );
    fire(
        lab,
        &["RebootRequired"],
        || on("db2", "touch /run/reboot-required"),
        || on("db2", "rm /run/reboot-required"),
    );
    fire(
        lab,
        &["MetricsMissing"],
        || on("door", "systemctl stop prometheus-node-exporter"),
        || on("door", "systemctl start prometheus-node-exporter"),
    );
    fire(
        lab,
        &["Paused"],
        || drop(lab.expect(0, &with(&["pause", "--yes"]))),
        || drop(lab.expect(0, &with(&["resume", "--yes"]))),
    );
    let replica = match lab.leader().as_str() {
        "db1" => "db2",
        _ => "db1",
    };
    fire(
        lab,
        &["ReplicaMissing", "NoSynchronousStandby"],
        || on(replica, "systemctl stop patroni"),
        || on(replica, "systemctl start patroni"),
    );
    fire(
        lab,
        &["NoLeader", "FrontDoorLeadsNowhere"],
        || {
            for host in ["db1", "db2"] {
                on(host, "systemctl stop patroni");
            }
        },
        || {
            for host in ["db1", "db2"] {
                on(host, "systemctl start patroni");
            }
        },
    );
    fire(
        lab,
        &["EtcdWithoutQuorum", "EtcdMemberDown"],
        || on("db1", "systemctl stop etcd"),
        || on("db1", "systemctl start etcd"),
    );
    // The repository is away: WAL waits, and what is due is not made.
    fire(
        lab,
        &["ArchivingFails"],
        || on("watch", "systemctl stop pgherd-backup"),
        || on("watch", "systemctl start pgherd-backup"),
    );
    fire(
        lab,
        &["ProofFailed"],
        || {
            on(
                "db1",
                "echo \"{\\\"wrong\\\": [\\\"x\\\"]}\" >/var/lib/pgherd-rehearsal/verdict.json",
            );
        },
        || on("db1", "rm /var/lib/pgherd-rehearsal/verdict.json"),
    );
}
