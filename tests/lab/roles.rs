//! Roles that are taken off hosts which stay, while clients write.

use std::time::Duration;

use crate::{
    cut_off::{Host, inventory},
    quorum::door,
    shape::traces_of_member,
    support::Lab,
    watch::Writer,
};

const BEFORE: [Host; 3] = [
    ("alpha", "postgres, etcd, haproxy"),
    ("beta", "postgres, haproxy"),
    ("gamma", "postgres, haproxy"),
];
const AFTER: [Host; 3] = [
    ("alpha", "postgres, etcd, haproxy"),
    ("beta", "haproxy"),
    ("gamma", "postgres"),
];

/// What is on a host of a role's own: units, files, ports. Packages and Patroni's venv are the
/// image's, and stay.
const OF_POSTGRES: &str = "systemctl is-active patroni; \
     ls -d /data/patroni* /etc/patroni.yml /etc/systemd/system/patroni* /etc/pgherd/tls/postgres \
     /var/lib/postgresql/.pgpass-patroni 2>/dev/null; ss -ltnH | grep -E ':(5432|8008) '; \
     grep -E 'postgres|/etc/patroni|patroni.service|/etc/pgherd/patroni' /var/lib/pgherd/manifest; true";
const OF_HAPROXY: &str = "systemctl is-active haproxy; \
     ls -d /etc/systemd/system/haproxy* /etc/pgherd/tls/haproxy 2>/dev/null; \
     grep haproxy /var/lib/pgherd/manifest; grep -l pgherd /etc/haproxy/haproxy.cfg; true";

#[test]
fn a_leader_and_a_front_door_leave_hosts_that_stay() {
    let lab = Lab::new("roles", &inventory(&BEFORE));
    lab.expect(0, &["up", "--yes"]);
    lab.has_lead("beta");
    let before = lab.on("gamma", "systemctl show -p ActiveEnterTimestamp patroni");
    let writer = Writer::start(&door(&lab));
    lab.write_inventory(&inventory(&AFTER));

    let said = lab.expect(0, &["plan"]).stdout;
    for words in [
        "- the role postgres of host beta is to go; the host stays",
        "lost by it: it leads: another member takes over first",
        "take it off: pgherd up --remove beta",
        "- the role haproxy of host gamma is to go; the host stays",
        "lost by it: clients that connect to its address are refused",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("pgherd up --remove beta; else"), "{said}");
    let both = ["up", "--yes", "--remove", "beta", "--remove", "gamma"];
    lab.expect(0, &both);

    assert_eq!(lab.on("beta", OF_POSTGRES).trim(), "inactive");
    assert_eq!(lab.on("gamma", OF_HAPROXY).trim(), "inactive");
    assert_eq!(
        lab.on("beta", "systemctl is-active haproxy").trim(),
        "active"
    );
    assert_eq!(
        lab.on("gamma", "systemctl show -p ActiveEnterTimestamp patroni"),
        before,
        "what stays is not restarted"
    );
    assert_eq!(traces_of_member(&lab, &["alpha", "gamma"], "beta"), "");
    let said = lab.expect(2, &["up", "--yes", "--remove", "alpha"]).stderr;
    assert!(said.contains("it has no role beyond those"), "{said}");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["render", "--check"]);
    lab.expect(0, &["verify"]);
    let written = writer.end();
    println!(
        "{} acknowledged, none missing, {} refused, {:?} at most without one",
        written.acknowledged.len(),
        written.refused.len(),
        written.longest_gap
    );
    assert!(
        written.longest_gap < Duration::from_secs(10),
        "{:?}",
        written.longest_gap
    );
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}
