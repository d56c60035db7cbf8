//! From EC2's calls to a verified cluster. A moto server answers the calls, and a lab host starts at every
//! private address that it assigns. cloud-init runs there with the instance's user data.
//!
//! Needs a container engine and moto: `cargo test --test aws_lab`.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

mod acceptance;
mod delays;
mod disks;
mod hypervisor;
mod images;
#[path = "../aws/model.rs"]
mod model;
#[path = "../aws/nature.rs"]
#[expect(dead_code, reason = "other tests need the rest of it")]
mod nature;
#[path = "../aws/proxy.rs"]
#[expect(dead_code, reason = "other tests need the rest of it")]
mod proxy;
#[path = "../aws/refusals.rs"]
mod refusals;
#[path = "../aws/server.rs"]
mod server;
#[path = "../lab/support.rs"]
#[expect(dead_code, reason = "other tests need the rest of it")]
mod support;
mod timeline;
mod volumes;
#[path = "../aws/xml.rs"]
mod xml;

use hypervisor::{Down, Hypervisor, direct};
use proxy::Proxy;
use serde_json::Value;
use server::{REGION, moto};
use support::{Lab, image, prepared_version};
use tokio::runtime::Runtime;

/// Another one than in other tests, which may run at the same time.
const NETWORK: &str = "10.84.12.0/24";
/// moto's own account, for calls that name none.
const ACCOUNT: &str = "123456789012";
/// Prints when a host's PostgreSQL was started, according to itself.
const STARTED: &str = "sed -n 3p /data/patroni/postmaster.pid";

#[test]
fn from_calls_to_a_cluster_and_back() {
    life(&image("ec2"), false);
}

/// Packages are installed while cloud-init and apt-daily are at work. A load balancer comes, a host is replaced, and
/// another one leaves.
#[test]
fn soak_bare_hosts_come_to_a_cluster_and_go() {
    life(&image("ec2-bare"), true);
}

#[expect(
    clippy::too_many_lines,
    reason = "it is one story, told from its begin to its end"
)]
fn life(image: &str, whole: bool) {
    let runtime = Runtime::new().unwrap();
    let subnet = runtime.block_on(make_subnet(NETWORK));
    // The hosts must trust the same authorities as this machine.
    let trusted = std::env::var("SSL_CERT_FILE");
    let trusted = trusted.unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let version = prepared_version();
    let proxy = Proxy::new(moto(), ACCOUNT);
    let inventory = |operators: &str, node3: &str| {
        format!(
            "provider:\n  kind: aws\n  region: {REGION}\n  endpoint_url: http://127.0.0.1:{}\n  \
             connect: private\n  image: ubuntu-24.04\n  subnet_id: {subnet}\n{operators}\
             ca_bundle: {trusted}\nssh: {{ port: 2222 }}\npostgresql: {{ version: {version} }}\nhosts:\n  \
             node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
             node3: {{ roles: [postgres], address: 10.84.12.77{node3} }}\n  \
             node4: {{ roles: [etcd], address: 10.84.12.179 }}\n  \
             haproxy: {{ roles: [haproxy], address: 10.84.12.173 }}\n",
            proxy.port
        )
    };
    let lab = Lab::new("ec2", &inventory("", ""));
    give_credentials(lab.dir.path());
    let hypervisor = Hypervisor::start(&proxy, &lab.name, image, NETWORK);

    let plan = lab.expect(4, &["plan", "--check"]).stdout;
    println!("{}", plan.lines().take(20).collect::<Vec<_>>().join("\n"));
    assert!(
        plan.contains("host node1 (postgres) is launched by aws"),
        "{plan}"
    );
    assert!(plan.contains("in the account 123456789012"), "{plan}");
    assert_eq!(hypervisor.hosts(), [""; 0], "plan makes nothing");

    let said = lab.expect(0, &["up", "--yes"]);
    println!("{}", said.stderr);
    lab.expect(0, &["verify"]);
    for host in ["node1", "haproxy"] {
        assert_eq!(lab.on(host, "hostname").trim(), host);
    }
    only_root_may_ask_for_user_data(&lab);
    let runs = format!("PostgreSQL {version}.");
    assert!(lab.sql("select version()").starts_with(&runs));
    lab.sql("create table kept as select generate_series(1, 1000) as id");
    let said = lab.expect(0, &["up"]);
    assert!(said.stderr.contains("nothing to do"), "{}", said.stderr);

    // With another network of operators, the groups of running hosts change, and nothing else does.
    let operators = "  operator_cidrs: [10.84.12.0/24, 192.0.2.0/24]\n";
    lab.write_inventory(&inventory(operators, ""));
    let said = lab.expect(4, &["plan", "--check"]);
    let group = format!(
        "security group pgherd-{}-etcd opens 2222 to 192.0.2.0/24",
        lab.name
    );
    assert!(said.stdout.contains(&group), "{}", said.stdout);
    let said = lab.expect(0, &["up", "--yes"]);
    assert!(said.stderr.contains("3 changed"), "{}", said.stderr);
    lab.expect(0, &["plan", "--check"]);

    let keyed = format!("{operators}  load_balancer: network\n");
    let mut hosts = 5;
    if whole {
        hosts_end_and_come_back(&lab, &hypervisor, &runtime, &subnet);
        lab.write_inventory(&inventory(&keyed, ""));
        clients_get_one_name(&lab);
        let larger = inventory(&keyed, ", instance_type: m5.large");
        one_is_replaced_and_one_leaves(&lab, &hypervisor, &runtime, &larger);
        hosts -= 1;
    }

    // An instance that an earlier version made has no tag with an id. Then the manifest on the host counts.
    runtime.block_on(take_id_tag(&lab.name, "node3"));
    let mark = "/etc/pgherd/cluster";
    let sed = format!("sudo sed -i.mine -E 's/[0-9a-f]{{12}}/ffffffffffff/' {mark}");
    lab.on("node3", &sed);
    let said = lab.expect(1, &["down", "--yes"]);
    for part in [
        "node3: it is not known which cluster this host belongs to",
        "--cluster-id unmarked",
    ] {
        assert!(said.stderr.contains(part), "{}", said.stderr);
    }
    assert_eq!(hypervisor.hosts().len(), hosts, "nothing was removed");
    lab.on("node3", &format!("sudo mv {mark}.mine {mark}"));
    let unasked = lab.run(&["down"]);
    let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert!(said.contains("This removes the cluster"), "{said}");

    // Everything is found by its tags, even if no file is left on this machine. But then the user must say that
    // the cluster is theirs.
    let secrets = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let id = secrets
        .lines()
        .find_map(|line| line.strip_prefix("cluster_id: "))
        .unwrap()
        .trim_matches(['"', '\'']);
    fs::remove_dir_all(lab.workspace()).unwrap();
    let said = lab.expect(1, &["down", "--yes"]);
    let wanted = format!("--cluster-id {id}");
    assert!(said.stderr.contains(&wanted), "{}", said.stderr);
    let said = lab.expect(0, &["down", "--yes", "--cluster-id", id]);
    println!("{}", said.stderr);
    assert!(!lab.workspace().join("secrets.yaml").exists());
    hypervisor.settle();
    assert_eq!(hypervisor.hosts(), [""; 0]);
    assert_eq!(
        hypervisor.downs(),
        vec![Down::AtOnce; hosts],
        "nothing of them is kept"
    );
    let left = runtime.block_on(tagged(&lab.name));
    assert!(left.values().all(|count| *count == 0), "{left:?}");
    assert!(said.stderr.contains("removed pgherd-"), "{}", said.stderr);
    assert_eq!(
        said.stderr.contains("load balancer"),
        whole,
        "{}",
        said.stderr
    );
}

/// Instances that are terminated, stopped, and crash.
fn hosts_end_and_come_back(lab: &Lab, hypervisor: &Hypervisor, runtime: &Runtime, subnet: &str) {
    // Somebody terminates an instance, and another one gets its address at once. Its successor has another id,
    // another key and another address, and all other hosts are told the new address.
    let leader = lab.leader();
    // node3 has an address of its own.
    let replica = ["node1", "node2"]
        .into_iter()
        .find(|host| *host != leader)
        .unwrap();
    let before = runtime.block_on(hypervisor.address_of(replica));
    let begun = lab.on(&leader, STARTED);
    runtime.block_on(hypervisor.terminate(replica));
    runtime.block_on(take_address(subnet, &before));
    let said = lab.expect(4, &["plan", "--check"]);
    let launched = format!("host {replica} (postgres) is launched");
    assert!(said.stdout.contains(&launched), "{}", said.stdout);
    let plan = lab.json(&["plan", "--json"]);
    let steps = plan["steps"].as_array().unwrap();
    let bare: Vec<&str> = steps
        .iter()
        .filter(|step| step["name"] == "install-packages")
        .filter_map(|step| step["host"].as_str())
        .collect();
    assert_eq!(bare, [replica], "those that run are seen as they are");
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
    lab.expect(0, &["render", "--check"]);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    let after = runtime.block_on(hypervisor.address_of(replica));
    assert_ne!(after, before);
    let known = lab.on("haproxy", "cat /etc/hosts /etc/haproxy/haproxy.cfg");
    assert!(
        known.contains(&after) && !known.contains(&before),
        "{known}"
    );
    assert_eq!(lab.on(&leader, STARTED), begun, "the leader went on");

    // A host that was only stopped is started.
    runtime.block_on(hypervisor.stop("haproxy"));
    let said = lab.expect(4, &["plan", "--check"]);
    assert!(
        said.stdout.contains("host haproxy is started"),
        "{}",
        said.stdout
    );
    let plan = lab.json(&["plan", "--json"]);
    assert_eq!(
        plan["steps"],
        serde_json::json!([]),
        "nothing else is wrong"
    );
    assert_eq!(plan["unseen"], serde_json::json!(["haproxy"]));
    let said = lab.expect(0, &["up", "--yes"]);
    assert!(!said.stderr.contains("nothing to do"), "{}", said.stderr);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");

    // Those two shut their systems down in order. The host of a drill must not.
    assert_eq!(hypervisor.downs(), [Down::InOrder; 2]);
    let leader = lab.leader();
    let drill = lab.json(&["drill", "crash-host", "--yes", "--json"]);
    assert_eq!(hypervisor.downs(), [Down::AtOnce]);
    assert_ne!(
        drill["drills"][0]["measured"]["leader_after"],
        leader.as_str()
    );
    lab.expect(0, &["plan", "--check"]);
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
}

/// A running cluster gets a load balancer, and its name comes into the certificates.
fn clients_get_one_name(lab: &Lab) {
    let said = lab.expect(4, &["plan", "--check"]).stdout;
    assert!(said.contains("~ load balancer pgherd-"), "{said}");
    assert!(said.contains("is made: network, internal"), "{said}");
    let said = lab.expect(0, &["up", "--yes"]);
    let said = format!("{}{}", said.stdout, said.stderr);
    let status = lab.json(&["status", "--json"]);
    let balancer = &status["load_balancer"];
    assert_eq!(balancer["state"], "active");
    assert_eq!(balancer["targets"].as_array().unwrap().len(), 2);
    let address = balancer["address"].as_str().unwrap();
    assert!(address.ends_with(".elb.amazonaws.com"), "{address}");
    assert!(said.contains(&format!("psql -h {address} -p ")), "{said}");
    let write = status["connect"]["write"].as_str().unwrap();
    assert!(
        write.starts_with(&format!("host={address} port=")),
        "{write}"
    );
    let names = "openssl x509 -noout -ext subjectAltName -in /etc/pgherd/tls/postgres/server.crt";
    for host in ["node1", "node2", "node3"] {
        assert!(lab.on(host, &format!("sudo {names}")).contains(address));
    }
    let said = lab.expect(0, &["verify"]);
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("load-balancer"), "{said}");
    lab.expect(0, &["plan", "--check"]);
}

/// A host at a fixed address becomes a larger instance, although the run is interrupted after the old one was
/// terminated. A replica leaves for good.
fn one_is_replaced_and_one_leaves(
    lab: &Lab,
    hypervisor: &Hypervisor,
    runtime: &Runtime,
    larger: &str,
) {
    let instance = |host: &str| runtime.block_on(hypervisor.instance(host));
    let before = instance("node3");
    let others = hypervisor.hosts();
    lab.write_inventory(larger);
    let replace = ["replace", "node3", "--yes", "--json"];
    let removed = |event: &Value| event["event"] == "resource" && event["state"] == "removed";
    assert!(lab.kill_run(&replace, removed), "{}", lab.last_said());
    lab.expect(0, &replace[..3]);
    let after = instance("node3");
    assert_ne!(after.instance_id, before.instance_id);
    assert_eq!(after.private_ip_address(), Some("10.84.12.77"));
    assert_eq!(after.instance_type().unwrap().as_str(), "m5.large");
    let old = before.instance_id().unwrap();
    let mut expected: Vec<&str> = others.iter().map(String::as_str).collect();
    expected.retain(|id| *id != old);
    expected.push(after.instance_id().unwrap());
    expected.sort_unstable();
    assert_eq!(hypervisor.hosts(), expected, "no other host was touched");
    assert_eq!(lab.sql("select count(*) from kept"), "1000");

    let leader = lab.leader();
    let leaves = ["node1", "node2"].into_iter().find(|it| *it != leader);
    let leaves = leaves.unwrap();
    let gone = instance(leaves).instance_id.unwrap();
    let lines = larger.lines().filter(|it| !it.contains(leaves));
    let without: String = lines.map(|line| format!("{line}\n")).collect();
    lab.write_inventory(&without);
    lab.expect(0, &["up", "--yes", "--remove", leaves]);
    lab.expect(0, &["verify"]);
    lab.expect(0, &["plan", "--check"]);
    assert!(!hypervisor.hosts().contains(&gone));
    let known = lab.on("haproxy", "cat /etc/hosts /etc/haproxy/haproxy.cfg");
    assert!(!known.contains(leaves), "{known}");
    let left = runtime.block_on(tagged(&lab.name));
    let wanted = [
        ("groups", 3),
        ("instances", 4),
        ("pairs", 1),
        ("volumes", 4),
    ];
    assert_eq!(left, BTreeMap::from(wanted));
    assert_eq!(hypervisor.downs(), [Down::AtOnce; 2]);
}

/// Prints whether the metadata service shows the host's first key.
const ASKS: &str = "python3 -c 'import urllib.request as u
try:
    said = u.urlopen(\"http://169.254.169.254/latest/user-data\", timeout=5).read().decode()
except OSError as error:
    said = str(error)
print(\"shown\" if \"ed25519_private\" in said else said)'";

/// What an update of its package does to networkd.
const REREAD: &str =
    "networkctl reconfigure eth0 && sleep 2 && systemctl restart systemd-networkd && sleep 2";

/// The rule of earlier versions, which is not marked as the kernel's.
const OLD: &str = "systemctl disable --now pgherd-metadata-guard && ip rule del pref 100 && \
                   ip rule add pref 100 to 169.254.169.254/32 uidrange 1-4294967294 prohibit";

/// The guard's rule survives whatever networkd does. A rule of an earlier version survives only until networkd
/// restarts.
fn only_root_may_ask_for_user_data(lab: &Lab) {
    let shut_out = |host: &str| {
        assert_eq!(lab.on(host, ASKS).trim(), "shown");
        let said = lab.on(host, &format!("runuser -u ubuntu -- {ASKS}"));
        assert!(said.contains("Permission denied"), "{said}");
    };
    lab.on("node4", REREAD);
    shut_out("node4");
    lab.on("node4", OLD);
    shut_out("node4");
    let said = lab.expect(3, &["verify"]);
    assert!(
        said.stderr.contains("is gone when networkd restarts"),
        "{}",
        said.stderr
    );
    lab.on("node4", REREAD);
    assert_eq!(
        lab.on("node4", &format!("runuser -u ubuntu -- {ASKS}"))
            .trim(),
        "shown",
        "networkd took the old rule away"
    );
    let said = lab.expect(3, &["verify"]);
    assert!(
        said.stderr.contains("every user can ask"),
        "{}",
        said.stderr
    );
    let said = lab.expect(0, &["up", "--yes"]);
    assert!(said.stderr.contains("1 changed"), "{}", said.stderr);
    lab.on("node4", REREAD);
    shut_out("node4");
}

async fn make_subnet(network: &str) -> String {
    let ec2 = direct();
    let made = ec2.create_vpc().cidr_block(network).send().await.unwrap();
    let vpc = made.vpc.unwrap().vpc_id.unwrap();
    let made = ec2
        .create_subnet()
        .vpc_id(vpc)
        .cidr_block(network)
        .send()
        .await;
    made.unwrap().subnet.unwrap().subnet_id.unwrap()
}

/// Launches an instance of somebody else, which gets an address that has just become free.
async fn take_address(subnet: &str, address: &str) {
    let made = direct()
        .run_instances()
        .image_id("ami-0aaaaaaaaaaaaaaa2")
        .subnet_id(subnet)
        .private_ip_address(address)
        .min_count(1)
        .max_count(1)
        .send()
        .await
        .unwrap();
    assert_eq!(made.instances()[0].private_ip_address(), Some(address));
}

/// Removes the tags that earlier versions did not set.
async fn take_id_tag(cluster: &str, host: &str) {
    let filter = |name: &str, value: &str| {
        aws_sdk_ec2::types::Filter::builder()
            .name(name)
            .values(value)
            .build()
    };
    let ec2 = direct();
    let found = ec2
        .describe_instances()
        .filters(filter("tag:pgherd:cluster", cluster))
        .filters(filter("tag:pgherd:host", host))
        .filters(filter("instance-state-name", "running"))
        .send()
        .await
        .unwrap();
    let id = found.reservations()[0].instances()[0]
        .instance_id()
        .unwrap();
    let tag = aws_sdk_ec2::types::Tag::builder().key("pgherd:id").build();
    ec2.delete_tags()
        .resources(id)
        .tags(tag)
        .send()
        .await
        .unwrap();
}

/// As in a user's shell; `HOME` is the lab's own folder.
fn give_credentials(home: &Path) {
    fs::create_dir(home.join(".aws")).unwrap();
    let text = "[default]\naws_access_key_id = lab\naws_secret_access_key = lab\n";
    fs::write(home.join(".aws/credentials"), text).unwrap();
}

/// The number of resources that the server still has, counted without pgherd.
async fn tagged(cluster: &str) -> BTreeMap<&'static str, usize> {
    let ec2 = direct();
    let ours = aws_sdk_ec2::types::Filter::builder()
        .name("tag:pgherd:cluster")
        .values(cluster)
        .build();
    let groups = ec2
        .describe_security_groups()
        .filters(ours.clone())
        .send()
        .await
        .unwrap();
    let pairs = ec2
        .describe_key_pairs()
        .filters(ours.clone())
        .send()
        .await
        .unwrap();
    let volumes = ec2
        .describe_volumes()
        .filters(ours.clone())
        .send()
        .await
        .unwrap();
    let instances = ec2.describe_instances().filters(ours).send().await.unwrap();
    let alive = instances
        .reservations()
        .iter()
        .flat_map(aws_sdk_ec2::types::Reservation::instances)
        .filter(|it| it.state().unwrap().name().unwrap().as_str() != "terminated");
    BTreeMap::from([
        ("groups", groups.security_groups().len()),
        ("pairs", pairs.key_pairs().len()),
        ("volumes", volumes.volumes().len()),
        ("instances", alive.count()),
    ])
}
