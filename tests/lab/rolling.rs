//! Rolling work: hosts that boot again, and updates, while clients write.

use std::collections::BTreeMap;

use crate::{
    quorum::door,
    support::{Lab, docker, prepared_image, prepared_version},
    watch::Writer,
};

fn inventory() -> String {
    format!(
        "provider: {{ kind: docker, image: {} }}\npostgresql: {{ version: {} }}\n\
         hosts:\n  db1: {{ roles: [postgres] }}\n  db2: {{ roles: [postgres] }}\n  \
         db3: {{ roles: [postgres] }}\n  door: {{ roles: [etcd, haproxy] }}\n",
        prepared_image(),
        prepared_version(),
    )
}

const HOSTS: [&str; 4] = ["db1", "db2", "db3", "door"];

/// When each host's container was started last.
fn boots(lab: &Lab) -> BTreeMap<&'static str, String> {
    let started = |host| {
        let format = "{{.State.StartedAt}} {{.RestartCount}}";
        docker(&["inspect", "--format", format, &lab.container(host)])
    };
    HOSTS
        .into_iter()
        .map(|host| (host, started(host)))
        .collect()
}

#[test]
fn hosts_boot_again_and_software_is_renewed_while_clients_write() {
    let lab = Lab::new("rolling", &inventory());
    lab.expect(0, &["up", "--yes"]);
    every_host_boots_again_once_wherever_the_run_was_cut_off(&lab);
    newer_versions_come_and_only_what_uses_them_restarts(&lab);
    indexes_are_built_anew_when_their_collation_has_changed(&lab);
}

fn every_host_boots_again_once_wherever_the_run_was_cut_off(lab: &Lab) {
    let said = lab.expect(0, &["reboot", "--needed", "--yes"]).stderr;
    assert!(said.contains("no host waits for a reboot"), "{said}");
    lab.on(
        "db2",
        "echo libc6 >/run/reboot-required.pkgs; touch /run/reboot-required",
    );
    let outlook = lab.json(&["reboot", "--needed", "--dry-run", "--json"]);
    assert_eq!(outlook["hosts"][0]["host"], "db2", "{outlook}");
    assert_eq!(
        outlook["hosts"][0]["reasons"][0], "libc6 asks for it",
        "{outlook}"
    );

    let before = boots(lab);
    let leader = lab.leader();
    let writer = Writer::start(&door(lab));
    let words = ["reboot", "--yes", "--json"];
    // Killed while the first host goes down, and when the second is back.
    let mut reboots = 0;
    assert!(lab.kill_run(&words, |it| {
        it["event"] == "step_output"
            && it["name"] == "reboot"
            && it["line"]
                .as_str()
                .is_some_and(|line| line.contains("shutting down"))
    }));
    let status = lab.expect(0, &["status"]).stderr;
    assert!(status.contains("a reboot of 4 hosts"), "{status}");
    assert!(lab.kill_run(&words, |it| {
        reboots += usize::from(it["event"] == "step_finished" && it["name"] == "reboot");
        reboots == 2
    }));
    let said = lab.expect(0, &["reboot", "--yes"]).stderr;
    println!("{said}");
    let written = writer.end();
    println!(
        "{} acknowledged, none missing, {} refused, {:?} at most without one",
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
    let after = boots(lab);
    for host in HOSTS {
        assert_ne!(before[host], after[host], "{host}");
        let count =
            |boot: &str| -> u32 { boot.trim().rsplit(' ').next().unwrap().parse().unwrap() };
        assert_eq!(
            count(&after[host]) - count(&before[host]),
            1,
            "{host}: {after:?}"
        );
    }
    assert_ne!(lab.leader(), leader);
    lab.expect(0, &["verify"]);
    lab.expect(0, &["plan", "--check"]);
    assert!(!lab.workspace().join("rebooting.json").exists());
}

/// Makes newer versions of these installed packages on a host, in a local repository that is one of its sources.
const NEWER: &str = r#"set -eu
repo=/var/lib/lab-apt
mkdir -p $repo
cd $repo
for p in $PACKAGES; do
  mkdir work
  (cd work && apt-get -q download "$p" >/dev/null 2>&1)
  dpkg-deb -R work/*.deb work/tree
  sed -i 's/^\(Version: .*\)$/\1.1/' work/tree/DEBIAN/control
  dpkg-deb -Zgzip -z1 -b work/tree "$repo/$p.deb" >/dev/null 2>&1
  rm -rf work
done
for f in *.deb; do
  dpkg-deb -f "$f"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$f" "$(stat -c %s "$f")" "$(sha256sum "$f" | cut -d' ' -f1)"
done >Packages
printf 'Origin: Lab\nLabel: Lab\nSuite: lab\nCodename: lab\nDate: %s\nSHA256:\n %s %s Packages\n' "$(date -Ru)" \
  "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)" >Release
echo "deb [trusted=yes] file:$repo ./" >/etc/apt/sources.list.d/lab.list"#;

fn newer(lab: &Lab, host: &str, packages: &str) {
    let script = format!("PACKAGES='{packages}'\n{NEWER}");
    docker(&["exec", &lab.container(host), "sh", "-c", &script]);
}

/// The same repository on another host.
fn copy(lab: &Lab, from: &str, to: &str) {
    let line = format!(
        "docker exec {} tar -c -C / var/lib/lab-apt etc/apt/sources.list.d/lab.list | docker exec -i {} tar -x -C /",
        lab.container(from),
        lab.container(to)
    );
    let done = std::process::Command::new("sh")
        .args(["-c", &line])
        .status();
    assert!(done.unwrap().success());
}

/// When PostgreSQL started, and which process is Patroni.
fn of_database(lab: &Lab, host: &str) -> (String, String) {
    let line = "su postgres -c \"psql -Atqc 'select pg_postmaster_start_time()'\"";
    let started = docker(&["exec", &lab.container(host), "sh", "-c", line]);
    (started, pid(lab, host, "patroni"))
}

fn pid(lab: &Lab, host: &str, unit: &str) -> String {
    let words = [
        "exec",
        &lab.container(host),
        "systemctl",
        "show",
        "-p",
        "MainPID",
        "--value",
        unit,
    ];
    docker(&words)
}

fn newer_versions_come_and_only_what_uses_them_restarts(lab: &Lab) {
    const DATABASES: [&str; 3] = ["db1", "db2", "db3"];
    let postgresql = format!("postgresql-{}", prepared_version());
    newer(lab, "db1", &postgresql);
    copy(lab, "db1", "db2");
    copy(lab, "db1", "db3");
    newer(lab, "door", "etcd-server haproxy");
    let said = lab.expect(4, &["update", "--check", "--json"]).stdout;
    let check: serde_json::Value = serde_json::from_str(&said).unwrap();
    let hosts = check["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 4, "{check}");
    for host in hosts {
        let lab_only = |it: &&serde_json::Value| it["origin"] == "Lab:lab";
        let updates = host["updates"].as_array().unwrap();
        let updates: Vec<_> = updates.iter().filter(lab_only).collect();
        let expected = if host["host"] == "door" { 2 } else { 1 };
        assert_eq!(updates.len(), expected, "{host}");
        assert!(
            updates.iter().all(|it| it["restarts"].is_string()),
            "{host}"
        );
    }
    println!("{}", lab.expect(4, &["update", "--check"]).stdout);

    let before = DATABASES.map(|host| of_database(lab, host));
    let (etcd, haproxy) = (pid(lab, "door", "etcd"), pid(lab, "door", "haproxy"));
    let writer = Writer::start(&door(lab));
    // Killed when a host has its packages, before anything uses them.
    let words = ["update", "--yes", "--json"];
    assert!(
        lab.kill_run(&words, |it| it["event"] == "step_finished"
            && it["name"] == "update-packages"),
        "{}",
        lab.last_said()
    );
    let said = lab.expect(3, &["verify"]).stdout;
    assert!(said.contains("was replaced after it started"), "{said}");
    let said = lab.expect(0, &["update", "--yes"]).stderr;
    println!("{said}");
    let written = writer.end();
    println!(
        "{} acknowledged, none missing, {} refused, {:?} at most without one",
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
    for (host, (started, patroni)) in DATABASES.into_iter().zip(before) {
        let now = of_database(lab, host);
        assert_ne!(now.0, started, "{host}: PostgreSQL has restarted");
        assert_eq!(now.1, patroni, "{host}: Patroni has not");
        let version = lab.on(
            host,
            &format!("dpkg-query -W -f '${{Version}}' {postgresql}"),
        );
        assert!(version.ends_with(".1"), "{host}: {version}");
    }
    assert_ne!(pid(lab, "door", "etcd"), etcd);
    assert_eq!(pid(lab, "door", "haproxy"), haproxy, "it was reloaded");
    lab.expect(0, &["verify"]);
    lab.expect(0, &["update", "--check"]);
    lab.expect(0, &["plan", "--check"]);
    let said = lab.expect(0, &["update", "--yes"]).stderr;
    assert!(said.contains("everything is up to date"), "{said}");
}

fn indexes_are_built_anew_when_their_collation_has_changed(lab: &Lab) {
    lab.sql("create collation german (provider = icu, locale = 'de')");
    lab.sql("create table words (word text collate german)");
    lab.sql("create index words_word on words (word)");
    lab.sql("insert into words select md5(n::text) from generate_series(1, 1000) n");
    lab.expect(0, &["update", "--check"]);
    // As after an update of ICU.
    lab.sql("update pg_collation set collversion = '1' where collname = 'german'");
    let built = || lab.sql("select relfilenode from pg_class where relname = 'words_word'");
    let before = built();
    let said = lab.expect(4, &["update", "--check"]).stdout;
    assert!(said.contains("public.german: 1, now "), "{said}");
    assert!(said.contains("public.words_word"), "{said}");
    let said = lab.expect(0, &["update", "--yes"]).stderr;
    assert!(said.contains("update --reindex"), "{said}");
    assert_eq!(built(), before);
    let said = lab.expect(0, &["update", "--reindex", "--yes"]).stderr;
    assert!(said.contains("1 index built anew"), "{said}");
    assert_ne!(built(), before);
    lab.expect(0, &["update", "--check"]);
}
