//! Databases on disks of their own, which outlive their hosts.

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    ACCOUNT, give_credentials,
    hypervisor::Hypervisor,
    make_subnet,
    proxy::Proxy,
    server::{REGION, moto},
    support::{Lab, image, prepared_version},
    tagged,
};

const NETWORK: &str = "10.84.17.0/24";

/// What is mounted where the databases are.
const MOUNTED: &str = "findmnt -nro SOURCE,FSTYPE --mountpoint /data";

/// How often Patroni has copied the data of another member on a host.
const COPIES: &str = "journalctl -u patroni | grep -c 'replica has been created' || true";

#[test]
fn a_database_keeps_its_disk() {
    let runtime = Runtime::new().unwrap();
    let subnet = runtime.block_on(make_subnet(NETWORK));
    let trusted = std::env::var("SSL_CERT_FILE");
    let trusted = trusted.unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let proxy = Proxy::new(moto(), ACCOUNT);
    let inventory = format!(
        "provider:\n  kind: aws\n  region: {REGION}\n  endpoint_url: http://127.0.0.1:{}\n  \
         connect: private\n  image: ubuntu-24.04\n  subnet_id: {subnet}\n  data_volume_gb: 10\n\
         ca_bundle: {trusted}\nssh: {{ port: 2222 }}\npostgresql: {{ version: {} }}\nhosts:\n  \
         node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
         door: {{ roles: [etcd, haproxy] }}\n",
        proxy.port,
        prepared_version()
    );
    let lab = Lab::new("ec2v", &inventory);
    give_credentials(lab.dir.path());
    let hypervisor = Hypervisor::start(&proxy, &lab.name, &image("ec2"), NETWORK);

    let plan = lab.expect(4, &["plan", "--check"]).stdout;
    assert!(
        plan.contains("data volume of node1: 10 GiB, for /data"),
        "{plan}"
    );
    let said = lab.expect(0, &["up", "--yes"]);
    println!("{}", said.stderr);
    for host in ["node1", "node2"] {
        let mounted = lab.on(host, MOUNTED);
        assert_eq!(mounted.trim(), "/dev/xvdf ext4", "{host}");
        lab.on(host, "touch /data/keepsake");
    }
    assert!(mount_check(&lab, 0).1, "it is mounted");
    lab.expect(0, &["plan", "--check"]);
    lab.sql("create table kept as select generate_series(1, 1000) as id");

    without_its_disk_nothing_starts(&lab);

    // A replica, then the leader: each goes on from its own data.
    let leader = lab.leader();
    let replica = other(&leader);
    for host in [replica, leader.as_str()] {
        let before = runtime.block_on(hypervisor.instance(host));
        let unasked = lab.run(&["replace", host]);
        let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
        assert!(said.contains("its data stay on vol-"), "{said}");
        lab.expect(0, &["replace", host, "--yes"]);
        let after = runtime.block_on(hypervisor.instance(host));
        assert_ne!(after.instance_id, before.instance_id);
        lab.on(host, "test -e /data/keepsake");
        assert_eq!(
            lab.on(host, COPIES).trim(),
            "0",
            "{host} has copied nothing"
        );
        assert_eq!(lab.sql("select count(*) from kept"), "1000");
        lab.expect(0, &["plan", "--check"]);
    }

    // A host that dies leaves its disk too.
    let leader = lab.leader();
    let replica = other(&leader);
    runtime.block_on(hypervisor.terminate(replica));
    let plan = lab.expect(4, &["plan", "--check"]).stdout;
    assert!(
        plan.contains(&format!("{replica} gets its data volume vol-")),
        "{plan}"
    );
    lab.expect(0, &["up", "--yes"]);
    lab.on(replica, "test -e /data/keepsake");
    assert_eq!(lab.on(replica, COPIES).trim(), "0");

    what_is_on_a_disk_is_not_lost(&lab, &hypervisor, replica);
    let left = runtime.block_on(tagged(&lab.name));
    assert_eq!(left["volumes"], 5, "three roots, and two with data");

    let said = lab.run(&["down"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(&format!("volume {replica} (vol-")), "{said}");
    lab.expect(0, &["down", "--yes"]);
    hypervisor.settle();
    let left = runtime.block_on(tagged(&lab.name));
    assert!(left.values().all(|count| *count == 0), "{left:?}");
}

fn other(host: &str) -> &'static str {
    match host {
        "node1" => "node2",
        _ => "node1",
    }
}

/// What `verify` says of the disks, and whether that is good.
fn mount_check(lab: &Lab, code: i32) -> (String, bool) {
    let said = lab.expect(code, &["verify", "--json"]).stdout;
    let proof: Value = serde_json::from_str(&said).unwrap();
    let checks = proof["checks"].as_array().unwrap();
    let check = checks.iter().find(|it| it["name"] == "mount").unwrap();
    let detail = check["detail"].as_str().unwrap().to_owned();
    (detail, check["passed"] == true)
}

/// Somebody takes the disk of a replica away. Nothing is written to the disk of its system.
fn without_its_disk_nothing_starts(lab: &Lab) {
    let host = other(&lab.leader());
    lab.on(
        host,
        "systemctl stop patroni && systemctl disable --quiet --now data.mount && \
         mv /etc/systemd/system/data.mount /root/ && systemctl daemon-reload && \
         ! systemctl start patroni",
    );
    let state = lab.on(
        host,
        "ls -A /data; systemctl show -p AssertResult,ActiveState patroni",
    );
    assert!(state.contains("AssertResult=no"), "{state}");
    assert!(!state.contains("patroni\n"), "nothing is there: {state}");
    let (said, passed) = mount_check(lab, 3);
    assert!(
        !passed && said.contains("is not mounted on /data"),
        "{said}"
    );
    lab.expect(0, &["up", "--yes"]);
    lab.on(host, "test -e /data/keepsake");
    assert_eq!(
        lab.on(host, COPIES).trim(),
        "1",
        "the copy of its beginning"
    );
    assert!(mount_check(lab, 0).1);
}

/// A disk with something on it is never formatted.
fn what_is_on_a_disk_is_not_lost(lab: &Lab, hypervisor: &Hypervisor, replica: &str) {
    hypervisor.spoil_the_next_disk();
    let replace = ["replace", replica, "--new-volume", "--yes"];
    let said = lab.expect(1, &replace).stderr;
    for part in [
        "is not blank",
        "LABEL=precious",
        "nothing was written to it",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    lab.on(
        replica,
        "wipefs -qa /dev/xvdf && head -c 1M /dev/zero >/dev/xvdf",
    );
    lab.expect(0, &["up", "--yes"]);
    lab.on(replica, "test ! -e /data/keepsake");
    assert_eq!(lab.on(replica, COPIES).trim(), "1");
    lab.expect(0, &["verify"]);
}
