//! Changes of shape, each killed after every one of its steps and taken up by the same command, while clients
//! write.

use std::{fs, thread, time::Duration};

use serde_json::Value;

use crate::{
    etcd_members::members,
    quorum::door,
    shape::traces,
    support::{Lab, docker, prepared_image, prepared_version},
    watch::Writer,
};

/// A host and its roles.
pub(crate) type Host = (&'static str, &'static str);

pub(crate) fn inventory(hosts: &[Host]) -> String {
    let hosts: String = hosts
        .iter()
        .map(|(host, roles)| format!("  {host}: {{ roles: [{roles}] }}\n"))
        .collect();
    format!(
        "provider: {{ kind: docker, image: {} }}\npostgresql: {{ version: {} }}\n\
         patroni: {{ synchronous: true }}\nhosts:\n{hosts}",
        prepared_image(),
        prepared_version(),
    )
}

/// What an event says that a run can be killed after: a step on a host, or what becomes of a host.
fn point(event: &Value) -> Option<String> {
    let word = |key: &str| event[key].as_str().unwrap_or_default();
    match word("event") {
        "step_finished" => Some(format!("{} {}", word("host"), word("name"))),
        "host" if word("state") != "connecting" && word("state") != "connected" => {
            Some(format!("{} {}", word("host"), word("state")))
        }
        "resource" => Some(format!("{} {}", word("name"), word("state"))),
        _ => None,
    }
}

/// Runs the same command again and again, each time killed after what no run was killed after before, until
/// one comes to its end. Returns after what they were killed.
fn killed_after_every_step(lab: &Lab, words: &[&str]) -> Vec<String> {
    let json = [words, &["--json"]].concat();
    let mut killed: Vec<String> = Vec::new();
    loop {
        let mut latest = None;
        let ended = lab.kill_or_end(&json, |event| {
            latest = point(event).filter(|it| !killed.contains(it));
            latest.is_some()
        });
        match ended {
            None => killed.extend(latest),
            Some(status) if status.success() => break,
            // Hosts let go of a dead run's lease within half a minute.
            Some(_) if lab.last_said().contains("another run is at work") => {
                thread::sleep(Duration::from_secs(2));
            }
            Some(status) => panic!("{words:?} after {killed:?}: {status}\n{}", lab.last_said()),
        }
    }
    println!("{}: killed after {}", words.join(" "), killed.join(", "));
    killed
}

/// What the latest runs have begun.
fn begun(lab: &Lab) -> Vec<String> {
    let runs = fs::read_dir(lab.workspace().join("runs")).unwrap();
    let events =
        runs.filter_map(|run| fs::read_to_string(run.unwrap().path().join("events.jsonl")).ok());
    let mut steps = Vec::new();
    for line in events.collect::<String>().lines() {
        // The last line of a run that was killed may be cut short.
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if event["event"] == "step_started" {
            let word = |key: &str| event[key].as_str().unwrap_or_default();
            steps.push(format!("{} {}", word("host"), word("name")));
        }
    }
    steps
}

/// Changes the inventory and has it done under load, cut off everywhere; `expected` is among the steps.
fn change(lab: &Lab, hosts: &[Host], words: &[&str], expected: &[&str]) {
    let writer = Writer::start(&door(lab));
    lab.write_inventory(&inventory(hosts));
    let killed = killed_after_every_step(lab, words);
    // A script that a run has begun may end on its host after the kill.
    let begun = begun(lab);
    for step in expected {
        let there = |steps: &[String]| steps.iter().any(|it| it == step);
        assert!(there(&killed) || there(&begun), "{step}: {killed:?}");
    }
    let written = writer.end();
    println!(
        "{}: cut off {} times; {} acknowledged, none missing, {} refused, {:?} at most without one",
        words.join(" "),
        killed.len(),
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
    lab.holds_within(Duration::from_secs(60));
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["render", "--check"]);
    nothing_is_left(lab, hosts);
}

/// What a run that was cut off could leave on any host.
fn nothing_is_left(lab: &Lab, hosts: &[Host]) {
    for (host, roles) in hosts {
        let line = "ls /etc/pgherd/etcd-join /run/systemd/system/etcd.service.d /run/pgherd/pending/* \
                    /etc/*.pgherd* /etc/*/*.pgherd* 2>/dev/null; grep -il 'nofailover: true' /etc/patroni.yml; true";
        assert_eq!(lab.on(host, line), "", "{host} ({roles})");
        if !roles.contains("etcd") {
            let line = "ls -d /var/lib/etcd/pgherd-*; systemctl is-active etcd; true";
            let left = lab.on(host, line);
            assert!(
                matches!(left.trim(), "inactive" | "unknown"),
                "{host}: {left}"
            );
        }
    }
    let voters: Vec<&str> = hosts
        .iter()
        .filter(|(_, roles)| roles.contains("etcd"))
        .map(|(host, _)| *host)
        .collect();
    let list = members(lab, &voters);
    assert_eq!(list.lines().count(), voters.len(), "{list}");
    assert!(!list.contains("true"), "a learner: {list}");
    let filter = format!("label=pgherd:cluster={}", lab.name);
    let there = docker(&["ps", "-aq", "--filter", &filter]);
    assert_eq!(there.lines().count(), hosts.len());
}

#[test]
fn soak_every_change_of_shape_may_be_cut_off_anywhere() {
    let alpha = ("alpha", "postgres, etcd, haproxy");
    let beta = ("beta", "postgres");
    let lab = Lab::new("cutoff", &inventory(&[alpha, beta, ("gamma", "postgres")]));
    lab.expect(0, &["up", "--yes"]);
    lab.has_lead("gamma");

    // The leader leaves.
    change(
        &lab,
        &[alpha, beta],
        &["up", "--yes", "--remove", "gamma"],
        &["gamma hand-over", "gamma retire-patroni", "gamma drop-slot"],
    );
    assert_eq!(traces(&lab, &["alpha", "beta"], "gamma"), "");

    // A host is made anew, which leads by then.
    for host in ["beta", "beta"] {
        let expected = [
            "beta retire-patroni",
            "beta forget-member",
            "beta start-patroni",
        ];
        change(&lab, &[alpha, beta], &["replace", host, "--yes"], &expected);
        lab.has_lead("beta");
    }

    // etcd comes to a host that is there, and with a new one.
    let beta_three = ("beta", "postgres, etcd");
    let (delta, epsilon) = (("delta", "etcd"), ("epsilon", "etcd"));
    let expected = [
        "beta join-etcd",
        "delta add-etcd-member",
        "delta promote-etcd-member",
    ];
    change(
        &lab,
        &[alpha, beta_three, delta],
        &["up", "--yes"],
        &expected,
    );

    // One of three is made anew, with its database.
    let expected = ["beta remove-etcd-member", "beta promote-etcd-member"];
    change(
        &lab,
        &[alpha, beta_three, delta],
        &["replace", "beta", "--yes"],
        &expected,
    );

    // A member moves to another host.
    // What a run that was killed had begun may be done by then, without a word of it.
    let expected = ["epsilon promote-etcd-member"];
    change(
        &lab,
        &[alpha, beta_three, epsilon],
        &["up", "--yes", "--remove", "delta"],
        &expected,
    );
    assert_eq!(traces(&lab, &["alpha", "beta"], "delta"), "");

    // Three become five, and five become one.
    let five = [alpha, beta_three, epsilon, delta, ("zeta", "etcd")];
    change(&lab, &five, &["up", "--yes"], &["zeta promote-etcd-member"]);
    let remove = ["beta", "epsilon", "delta", "zeta"].map(|host| ["--remove", host]);
    let words = [&["up", "--yes"][..], &remove.concat()].concat();
    let expected = [
        "beta let-etcd-end",
        "beta retire-etcd",
        "zeta remove-etcd-member",
    ];
    change(&lab, &[alpha, beta], &words, &expected);

    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}

#[test]
fn soak_the_only_etcd_and_roles_may_be_cut_off_anywhere_on_their_way() {
    let both = "postgres, haproxy";
    let (one, three) = (("one", both), ("three", "postgres"));
    let lab = Lab::new(
        "cutroles",
        &inventory(&[one, ("two", both), three, ("four", "etcd")]),
    );
    lab.expect(0, &["up", "--yes"]);

    // The only etcd moves with its host, to a host that is there, and away from it again.
    for (hosts, leaves) in [
        (
            [one, ("two", both), three, ("five", "etcd")].as_slice(),
            "four",
        ),
        (
            &[("one", "postgres, etcd, haproxy"), ("two", both), three],
            "five",
        ),
        (&[one, ("two", both), three, ("six", "etcd")], "one"),
    ] {
        let words = ["up", "--yes", "--remove", leaves];
        let removed = format!("{leaves} remove-etcd-member");
        change(&lab, hosts, &words, &[removed.as_str()]);
    }

    // A database that leads and a front door leave hosts that stay.
    lab.has_lead("two");
    let six = ("six", "etcd");
    let hosts = [one, ("two", "haproxy"), three, six];
    let expected = ["two forbid-election", "two hand-over", "two retire-roles"];
    change(&lab, &hosts, &["up", "--yes", "--remove", "two"], &expected);
    let left = lab.on(
        "two",
        "ls -d /data/patroni* /etc/patroni.yml 2>/dev/null; true",
    );
    assert_eq!(left, "");
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}
