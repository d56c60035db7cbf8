//! A prepared image made of an instance, and a cluster that is made from it.

use std::{collections::BTreeSet, fs};

use serde_json::Value;

use crate::{
    ACCOUNT, give_credentials,
    hypervisor::{Hypervisor, direct},
    make_subnet,
    proxy::Proxy,
    server::{REGION, moto},
    support::{Lab, docker, image, prepared_version},
    tagged,
};

const NETWORK: &str = "10.84.17.0/24";

/// Prints what must not be in an image, one item a line. The seed is the lab's: on EC2 it comes over the
/// network.
const TRACES: &str = r#"
rm -rf /var/lib/cloud/seed
find /etc/ssh -name 'ssh_host_*'
find / -xdev -name authorized_keys -not -path '/proc/*'
find /etc /home /root /var /opt /srv -xdev -type f -exec grep -lE 'BEGIN ([A-Z]+ )?PRIVATE KEY' {} + 2>/dev/null |
  grep -v '\.py$'
[ ! -s /etc/machine-id ] || echo 'a machine-id'
ls -d /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/sem /etc/pgherd /var/lib/pgherd \
  /etc/netplan/50-cloud-init.yaml /etc/systemd/network/*cloud-init* 2>/dev/null
find /var/log -type f
grep -rlsF "$NAME" /etc /home /root /var /opt
true"#;

/// apt's daily upgrades start while packages are installed, and end later, with a log of their own.
const DAILY: [(&str, &str); 2] = [
    (
        "apt-daily-upgrade.timer",
        "[Timer]\nOnBootSec=15s\nRandomizedDelaySec=0\n",
    ),
    (
        "apt-daily-upgrade.service",
        "[Service]\nExecStart=\nExecStart=/bin/sh -c 'for i in $(seq 75); do date; sleep 1; done \
         >/var/log/unattended-upgrades/daily.log'\n",
    ),
];

/// A host image that calls itself Ubuntu 24.04, as pgherd expects it of instances.
struct Ubuntu(String);

impl Ubuntu {
    fn of(base: &str, lab: &Lab) -> Self {
        let release = lab.dir.path().join("os-release");
        let text = "PRETTY_NAME=\"Ubuntu 24.04.1 LTS\"\nID=ubuntu\nID_LIKE=debian\n\
                    VERSION_ID=\"24.04\"\nVERSION_CODENAME=noble\n";
        fs::write(&release, text).unwrap();
        let name = format!("pgherd-ubuntu-{}:latest", lab.name);
        let container = docker(&["create", base, "/bin/true"]);
        let container = container.trim();
        let to = format!("{container}:/usr/lib/os-release");
        docker(&["cp", &release.display().to_string(), &to]);
        for (unit, text) in DAILY {
            let folder = lab.dir.path().join(format!("{unit}.d"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("lab.conf"), text).unwrap();
            let to = format!("{container}:/etc/systemd/system/");
            docker(&["cp", &folder.display().to_string(), &to]);
        }
        docker(&["commit", container, &name]);
        docker(&["rm", "-v", container]);
        Self(name)
    }
}

impl Drop for Ubuntu {
    fn drop(&mut self) {
        docker(&["image", "rm", "-f", &self.0]);
    }
}

fn installs(events: &[Value]) -> usize {
    let installs = events.iter().filter(|event| {
        event["event"] == "step_started"
            && ["install-packages", "install-patroni"]
                .contains(&event["name"].as_str().unwrap_or(""))
    });
    installs.count()
}

#[test]
fn soak_a_cluster_comes_up_from_an_image_of_an_instance() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let subnet = runtime.block_on(make_subnet(NETWORK));
    let trusted = std::env::var("SSL_CERT_FILE");
    let trusted = trusted.unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let version = prepared_version();
    let proxy = Proxy::new(moto(), ACCOUNT);
    let lab = Lab::new(
        "ec2i",
        &format!(
            "provider:\n  kind: aws\n  region: {REGION}\n  endpoint_url: http://127.0.0.1:{}\n  \
             connect: private\n  image: prepared\n  subnet_id: {subnet}\n\
             ca_bundle: {trusted}\nssh: {{ port: 2222 }}\npostgresql: {{ version: {version} }}\n\
             hosts:\n  node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
             node3: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  \
             haproxy: {{ roles: [haproxy] }}\n",
            proxy.port
        ),
    );
    give_credentials(lab.dir.path());
    let ubuntu = Ubuntu::of(&image("ec2-bare"), &lab);
    let hypervisor = Hypervisor::start(&proxy, &lab.name, &ubuntu.0, NETWORK);
    let plan = lab.expect(0, &["plan"]).stdout;
    assert!(plan.contains("no prepared image holds"), "{plan}");

    let said = lab.expect(0, &["image", "build", "--yes"]);
    println!("{}{}", said.stdout, said.stderr);
    hypervisor.settle();
    assert_eq!(hypervisor.hosts(), [""; 0], "the builder is gone");
    let left = runtime.block_on(tagged(&format!("image.{}", lab.name)));
    assert!(left.values().all(|count| *count == 0), "{left:?}");
    let list = lab.json(&["image", "list", "--json"]);
    let images = list["images"].as_array().unwrap();
    assert_eq!(images.len(), 1, "{list}");
    assert_eq!(images[0]["used_next"], true, "{list}");
    let id = images[0]["id"].as_str().unwrap().to_owned();
    let name = format!("NAME={}", lab.name);
    let made = hypervisor.captured();
    let traces = docker(&[
        "run",
        "--rm",
        "-e",
        &name,
        "--entrypoint",
        "sh",
        &made,
        "-c",
        TRACES,
    ]);
    assert_eq!(traces.trim(), "", "traces in the image");

    let plan = lab.expect(0, &["plan"]).stdout;
    assert!(plan.contains(&format!("the prepared image {id}")), "{plan}");
    let said = lab.expect(0, &["up", "--yes", "--json"]);
    assert_eq!(installs(&said.events()), 0, "all of it is in the image");
    lab.expect(0, &["verify"]);
    let hosts = ["node1", "node2", "node3", "node4", "haproxy"];
    for told in [
        "cat /etc/machine-id",
        "cat /etc/ssh/ssh_host_ed25519_key.pub",
        "hostname",
    ] {
        let all: BTreeSet<String> = hosts.iter().map(|host| lab.on(host, told)).collect();
        assert_eq!(all.len(), hosts.len(), "{told}: {all:?}");
    }
    let said = lab.expect(1, &["image", "remove", &id, "--yes"]);
    assert!(said.stderr.contains("node1"), "{}", said.stderr);
    let said = lab.expect(0, &["down", "--yes"]);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains(&id), "down says what stays: {all}");
    hypervisor.settle();
    lab.expect(0, &["image", "remove", &id, "--yes"]);
    let list = lab.json(&["image", "list", "--json"]);
    assert_eq!(list["images"], Value::Array(Vec::new()));
    let prepared = aws_sdk_ec2::types::Filter::builder()
        .name("tag-key")
        .values("pgherd:prepared")
        .build();
    let snapshots = direct().describe_snapshots().filters(prepared).send();
    let snapshots = runtime.block_on(snapshots).unwrap();
    assert_eq!(snapshots.snapshots(), [], "its snapshots went with it");
}
