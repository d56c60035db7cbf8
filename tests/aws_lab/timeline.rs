//! How long a bring-up takes on instances that come as slowly as those of EC2.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    ACCOUNT,
    delays::Delays,
    give_credentials,
    hypervisor::Hypervisor,
    make_subnet,
    proxy::Proxy,
    server::{REGION, moto},
    support::{Lab, image, prepared_version},
};

#[test]
fn soak_hosts_that_come_one_after_the_other() {
    // If each waited for the slowest, all would begin in the same moment.
    let (answers, begins) = bring_up("ec2-bare", "10.84.15.0/24");
    assert!(begins > answers / 2.0, "each begins when it answers");
    bring_up("ec2", "10.84.16.0/24");
}

/// Prints what happened when; returns the seconds from the first host that answered to the last one, and from the first
/// host on which work began to the last one.
fn bring_up(image_name: &str, network: &str) -> (f64, f64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let subnet = runtime.block_on(make_subnet(network));
    let trusted = std::env::var("SSL_CERT_FILE");
    let trusted = trusted.unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let version = prepared_version();
    let proxy = Proxy::new(moto(), ACCOUNT);
    let lab = Lab::new(
        "ec2t",
        &format!(
            "provider:\n  kind: aws\n  region: {REGION}\n  endpoint_url: http://127.0.0.1:{}\n  \
             connect: private\n  image: ubuntu-24.04\n  subnet_id: {subnet}\n\
             ca_bundle: {trusted}\nssh: {{ port: 2222 }}\npostgresql: {{ version: {version} }}\n\
             hosts:\n  node1: {{ roles: [postgres] }}\n  node2: {{ roles: [postgres] }}\n  \
             node3: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  \
             haproxy: {{ roles: [haproxy] }}\n",
            proxy.port
        ),
    );
    give_credentials(lab.dir.path());
    let delays = Delays::from_environment().unwrap_or_else(|| Delays::new("15-25,15-30"));
    let image = image(image_name);
    let hypervisor = Hypervisor::slow(&proxy, &lab.name, &image, network, Some(delays));
    let said = lab.expect(0, &["up", "--yes", "--json"]);
    let found = told(&said.events());
    lab.expect(0, &["down", "--yes"]);
    hypervisor.settle();
    found
}

fn told(events: &[Value]) -> (f64, f64) {
    let at = |event: &Value| event["t"].as_f64().unwrap();
    let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
    let mut answered = BTreeMap::new();
    let mut begun = BTreeMap::new();
    let mut whole = 0.0;
    for event in events {
        match text(event, "event").as_str() {
            "host" if event["state"] == "created" => {
                answered.insert(text(event, "host"), at(event));
            }
            "step_started" => {
                begun.entry(text(event, "host")).or_insert(at(event));
            }
            "run_finished" => whole = at(event),
            _ => {}
        }
    }
    for (host, t) in &answered {
        println!("{host}: answers {t:.1}, first step {:.1}", begun[host]);
    }
    let last = |of: &BTreeMap<String, f64>| of.values().copied().fold(0.0, f64::max);
    let first = |of: &BTreeMap<String, f64>| of.values().copied().fold(f64::INFINITY, f64::min);
    println!(
        "last host answers {:.1}, proven {whole:.1}: {:.1} s after it",
        last(&answered),
        whole - last(&answered)
    );
    (
        last(&answered) - first(&answered),
        last(&begun) - first(&begun),
    )
}
