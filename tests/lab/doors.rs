//! Front doors, and an address that moves between them.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::support::{Lab, docker, prepared_image};

const SUBNET: &str = "10.84.33";

/// Two members with the only etcd on the first, and front doors with the address.
fn write(lab: &Lab, vip: &str, doors: &[&str]) {
    let vip = match vip {
        "" => String::new(),
        vip => format!(", vip: {SUBNET}.{vip}"),
    };
    let door = |door: &&str| format!("  {door}: {{ roles: [haproxy] }}\n");
    let doors: Vec<String> = doors.iter().map(door).collect();
    let text = format!(
        "cluster: {}\nprovider: {{ kind: docker, image: \"{}\", subnet: {SUBNET}.0/24 }}\n\
         haproxy: {{ write_port: {}, read_port: {}, stats_port: {}{vip} }}\n\
         postgresql: {{ version: distro }}\n\
         patroni: {{ synchronous: true, ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         db1: {{ roles: [postgres, etcd] }}\n  db2: {{ roles: [postgres] }}\n{}",
        lab.name,
        prepared_image(),
        lab.write_port,
        lab.read_port,
        lab.read_port + 1,
        doors.concat(),
    );
    fs::write(lab.inventory(), text).unwrap();
}

/// The hosts that have the cluster's address.
fn holders(lab: &Lab, vip: &str, doors: &[&'static str]) -> Vec<&'static str> {
    let line = format!("ip -4 -o address show to {SUBNET}.{vip}/32");
    let mut doors = doors.to_vec();
    doors.retain(|door| !lab.on(door, &line).trim().is_empty());
    doors
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(15), "never: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_address_moves_between_front_doors() {
    let lab = Lab::new("doors", "");
    let three = ["door1", "door2", "door3"];
    write(&lab, "100", &three);
    let said = lab.expect(0, &["up", "--yes"]).stderr;
    assert!(said.contains(&format!("psql -h {SUBNET}.100 -p")), "{said}");
    let status = lab.json(&["status", "--json"]);
    assert_eq!(status["vip"]["address"], format!("{SUBNET}.100"));
    assert_eq!(status["vip"]["on"].as_array().unwrap().len(), 1);
    assert_eq!(status["front_doors"].as_array().unwrap().len(), 3);
    lab.expect(0, &["plan", "--check"]);

    let two = the_holder_leaves(&lab, &three);
    the_holders_host_dies(&lab, &two);
    a_killed_keepalived_leaves_no_second_address(&lab, &two);
    render_moves_it(&lab, &two);
    it_is_given_up(&lab, &two);

    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}

/// Another front door has the address before the leaver hears nothing of it any more. Returns those that stay.
fn the_holder_leaves(lab: &Lab, doors: &[&'static str]) -> Vec<&'static str> {
    let leaver = holders(lab, "100", doors)[0];
    let mut stay = doors.to_vec();
    stay.retain(|door| *door != leaver);
    write(lab, "100", &stay);
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(
        said.contains(&format!("pgherd up --remove {leaver}")),
        "{said}"
    );
    lab.expect(0, &["up", "--remove", leaver, "--yes"]);
    assert_eq!(holders(lab, "100", &stay).len(), 1);
    stay
}

/// Clients at the address lose no more than a few seconds, and no commit is missing.
fn the_holders_host_dies(lab: &Lab, doors: &[&'static str]) {
    let holder = holders(lab, "100", doors)[0];
    let words = [
        "drill",
        "haproxy-down",
        "--yes",
        "--json",
        "--max-outage",
        "6s",
    ];
    let said = lab.run(&words);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}");
    let kept = lab.workspace().join("runs/latest/drill.json");
    let document: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(kept).unwrap()).unwrap();
    let drill = &document["drills"][0];
    assert_eq!(drill["hosts"][0], holder);
    assert_eq!(drill["measured"]["missing"], 0);
    assert!(drill["measured"]["acknowledged"].as_u64() > Some(50));
    let outage = drill["measured"]["write_outage"].as_f64().unwrap();
    println!("haproxy-down: no writes for {outage:.2} s");
    // The host that came back has not taken the address from the other one.
    assert_ne!(holders(lab, "100", doors), [holder]);
    lab.expect(0, &["verify"]);
}

fn a_killed_keepalived_leaves_no_second_address(lab: &Lab, doors: &[&'static str]) {
    let holder = holders(lab, "100", doors)[0];
    lab.on(holder, "systemctl kill -s KILL keepalived");
    until("the other one has it alone", || {
        let now = holders(lab, "100", doors);
        now.len() == 1 && now[0] != holder
    });
    until("keepalived runs again", || {
        let state = lab.on(holder, "systemctl is-active keepalived || true");
        state.trim() == "active"
    });
}

fn render_moves_it(lab: &Lab, doors: &[&'static str]) {
    write(lab, "101", doors);
    lab.expect(4, &["render", "--check"]);
    lab.expect(0, &["render", "--yes"]);
    assert_eq!(holders(lab, "101", doors).len(), 1);
    assert_eq!(holders(lab, "100", doors), [""; 0]);
    // With a certificate that names it.
    let asked = format!(
        "PGPASSWORD=x psql 'host={SUBNET}.101 port={} user=nobody dbname=postgres sslmode=verify-full \
         sslrootcert=/etc/pgherd/tls/postgres/ca.crt' -c 'select 1' 2>&1 || true",
        lab.write_port
    );
    let said = docker(&["exec", &lab.container("db1"), "sh", "-c", &asked]);
    assert!(said.contains("password authentication failed"), "{said}");
}

/// The key is taken out: no host has the address or keepalived any more, and no certificate names it.
fn it_is_given_up(lab: &Lab, doors: &[&'static str]) {
    write(lab, "", doors);
    let said = lab.expect(0, &["plan"]).stdout;
    let words = format!("~ {SUBNET}.101 is given up, for haproxy.vip is not in the inventory");
    assert!(said.contains(&words), "{said}");
    lab.expect(3, &["verify"]);
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(holders(lab, "101", doors), [""; 0]);
    let line = "systemctl is-active keepalived; ls -d /etc/keepalived/keepalived.conf /etc/pgherd/vip \
                /etc/systemd/system/keepalived* 2>/dev/null; grep keepalived /var/lib/pgherd/manifest; true";
    for door in doors {
        assert_eq!(lab.on(door, line).trim(), "inactive", "{door}");
        assert_eq!(lab.on(door, "systemctl is-active haproxy").trim(), "active");
    }
    let named = "openssl x509 -noout -text -in /etc/pgherd/tls/postgres/server.crt | grep -c 84.33.101; true";
    assert_eq!(lab.on("db1", named).trim(), "0");
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
}
