//! Hosts for the instances that moto only simulates.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use aws_sdk_ec2::{
    Client,
    types::{Filter, Instance, InstanceAttributeName},
};
use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    ACCOUNT,
    delays::Delays,
    disks::Disks,
    proxy::{Call, Proxy, Verdict},
    server::{client, moto},
    support::docker,
};

/// A client of the server, without the proxy.
pub(crate) fn direct() -> Client {
    client(&format!("http://127.0.0.1:{}", moto()))
}

/// How a host went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// Its system stopped all units first.
    InOrder,
    /// Its power was cut.
    AtOnce,
}

/// What the provider has asked for, and what happened, by instance.
#[derive(Debug, Default)]
struct Power {
    /// Hosts that must not shut their system down: `SkipOsShutdown`.
    cut: Mutex<BTreeSet<String>>,
    downs: Mutex<Vec<(String, Down)>>,
    /// Hosts that are to be removed. moto reports them as terminated at once, and may give their addresses to
    /// others.
    ending: Mutex<BTreeSet<String>>,
    /// The engine's images that were made of stopped instances, by EC2's name.
    images: Mutex<BTreeMap<String, String>>,
    disks: Disks,
}

impl Power {
    /// As on EC2: `SkipOsShutdown` cuts the power, and `Force` does not.
    fn asked(&self, call: &Call, cluster: &str) {
        if call.is("CreateImage") {
            let parameter = |name| call.parameter(name).unwrap().to_owned();
            self.capture(&parameter("InstanceId"), parameter("Name"), cluster);
        }
        if !(call.is("StopInstances") || call.is("TerminateInstances")) {
            return;
        }
        let ids = (1..).map_while(|n| call.parameter(&format!("InstanceId.{n}")));
        let skip = call.parameter("SkipOsShutdown") == Some("true");
        for id in ids {
            let mut cut = self.cut.lock().unwrap();
            match skip {
                true => cut.insert(id.to_owned()),
                false => cut.remove(id),
            };
            drop(cut);
            if call.is("TerminateInstances") && self.ending.lock().unwrap().insert(id.to_owned()) {
                let name = format!("name={id}");
                let runs = docker(&["ps", "-q", "--filter", &name]);
                if !runs.is_empty() {
                    self.off(id);
                }
            }
        }
    }

    /// Makes an image of a host that is off.
    fn capture(&self, id: &str, name: String, cluster: &str) {
        docker(&["wait", id]);
        let image = format!("pgherd-ami-{cluster}:{id}");
        docker(&["commit", id, &image]);
        self.images.lock().unwrap().insert(name, image);
    }

    /// The engine's image for an image of EC2.
    fn image(&self, name: &str) -> Option<String> {
        self.images.lock().unwrap().get(name).cloned()
    }

    fn is_ending(&self, id: &str) -> bool {
        self.ending.lock().unwrap().contains(id)
    }

    fn off(&self, id: &str) {
        let how = match self.cut.lock().unwrap().remove(id) {
            true => Down::AtOnce,
            false => Down::InOrder,
        };
        match how {
            Down::AtOnce => docker(&["kill", id]),
            Down::InOrder => docker(&["stop", "-t", "20", id]),
        };
        self.downs.lock().unwrap().push((id.to_owned(), how));
    }
}

/// Keeps containers in the state that moto reports for their instances, until it is dropped.
pub(crate) struct Hypervisor {
    power: Arc<Power>,
    cluster: String,
    network: String,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hypervisor {
    /// Creates the network before any instance exists, so that connections to an address without a host stay on
    /// this machine. Calls through `proxy` say how hosts are to be stopped.
    pub(crate) fn start(proxy: &Proxy, cluster: &str, image: &str, subnet: &str) -> Self {
        Self::slow(proxy, cluster, image, subnet, Delays::from_environment())
    }

    /// The same, but instances take time to start and to stop.
    pub(crate) fn slow(
        proxy: &Proxy,
        cluster: &str,
        image: &str,
        subnet: &str,
        delays: Option<Delays>,
    ) -> Self {
        let network = format!("{cluster}-vpc");
        docker(&["network", "create", "--subnet", subnet, &network]);
        let power = Arc::<Power>::default();
        let (asked, done) = (power.clone(), power.clone());
        let delays = Arc::new(delays);
        let late = delays.clone();
        let whose = cluster.to_owned();
        proxy.judge(move |call| {
            asked.asked(call, &whose);
            match late.as_ref() {
                Some(delays) => delays.judge(call, ACCOUNT),
                None => Verdict::Pass,
            }
        });
        serve_metadata(cluster, image, &network, subnet);
        let stopped = Arc::new(AtomicBool::new(false));
        let (flag, name, image, vpc) = (
            stopped.clone(),
            cluster.to_owned(),
            image.to_owned(),
            network.clone(),
        );
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let ec2 = direct();
            while !flag.load(Ordering::SeqCst) {
                let delays = delays.as_ref().as_ref();
                runtime.block_on(follow(&ec2, &done, delays, &name, &image, &vpc));
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            power,
            cluster: cluster.to_owned(),
            network,
            stopped,
            thread: Some(thread),
        }
    }

    /// The containers, by the ids of their instances.
    pub(crate) fn hosts(&self) -> Vec<String> {
        containers(&self.cluster).into_keys().collect()
    }

    /// How hosts went down since the last time, in order.
    pub(crate) fn downs(&self) -> Vec<Down> {
        let downs = std::mem::take(&mut *self.power.downs.lock().unwrap());
        downs.into_iter().map(|(_, how)| how).collect()
    }

    /// Waits until the hosts are as moto reports them.
    pub(crate) fn settle(&self) {
        for _ in 0..100 {
            if self.hosts().is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Terminates an instance as if by hand, and returns once the host is gone.
    pub(crate) async fn terminate(&self, host: &str) {
        let ec2 = direct();
        let id = self.id_of(&ec2, host).await;
        ec2.terminate_instances()
            .instance_ids(&id)
            .send()
            .await
            .unwrap();
        while self.hosts().contains(&id) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn stop(&self, host: &str) {
        let ec2 = direct();
        let id = self.id_of(&ec2, host).await;
        ec2.stop_instances().instance_ids(&id).send().await.unwrap();
        while containers(&self.cluster).get(&id).map(String::as_str) == Some("running") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn spoil_the_next_disk(&self) {
        self.power.disks.spoil_the_next();
    }

    /// The engine's image that was made of an instance last.
    pub(crate) fn captured(&self) -> String {
        let images = self.power.images.lock().unwrap();
        images.values().next_back().unwrap().clone()
    }

    /// The address of a host, as EC2 reports it.
    pub(crate) async fn address_of(&self, host: &str) -> String {
        let instance = self.instance_of(&direct(), host).await;
        instance.private_ip_address.unwrap()
    }

    /// EC2's description of a host.
    pub(crate) async fn instance(&self, host: &str) -> Instance {
        self.instance_of(&direct(), host).await
    }

    async fn id_of(&self, ec2: &Client, host: &str) -> String {
        self.instance_of(ec2, host).await.instance_id.unwrap()
    }

    async fn instance_of(&self, ec2: &Client, host: &str) -> Instance {
        let all = instances(ec2, &self.cluster).await;
        all.into_iter()
            .find(|it| state(it) != "terminated" && tag(it, "pgherd:host") == host)
            .unwrap()
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if std::env::var_os("PGHERD_LAB_KEEP").is_some() {
            return;
        }
        for id in self.hosts() {
            docker(&["rm", "-f", "-v", &id]);
        }
        self.power.disks.remove();
        for image in self.power.images.lock().unwrap().values() {
            docker(&["image", "rm", "-f", image]);
        }
        docker(&["rm", "-f", "-v", &metadata_name(&self.cluster)]);
        docker(&["network", "rm", &self.network]);
    }
}

fn containers(cluster: &str) -> BTreeMap<String, String> {
    let filter = format!("label=pgherd-lab={cluster}");
    docker(&[
        "ps",
        "-a",
        "--filter",
        &filter,
        "--format",
        "{{.Names}} {{.State}}",
    ])
    .lines()
    .filter_map(|line| line.split_once(' '))
    .map(|(name, state)| (name.to_owned(), state.to_owned()))
    .collect()
}

async fn instances(ec2: &Client, cluster: &str) -> Vec<Instance> {
    let ours = Filter::builder()
        .name("tag:pgherd:cluster")
        .values(cluster)
        .values(format!("image.{cluster}"))
        .build();
    let answer = ec2.describe_instances().filters(ours).send().await.unwrap();
    let reservations = answer.reservations.unwrap_or_default();
    reservations
        .into_iter()
        .flat_map(|it| it.instances.unwrap_or_default())
        .collect()
}

fn state(instance: &Instance) -> &str {
    instance
        .state()
        .and_then(|it| it.name())
        .map_or("", |it| it.as_str())
}

fn tag<'a>(instance: &'a Instance, key: &str) -> &'a str {
    let tag = instance.tags().iter().find(|it| it.key() == Some(key));
    tag.and_then(|it| it.value()).unwrap_or_default()
}

/// Makes the containers match the instances.
async fn follow(
    ec2: &Client,
    power: &Power,
    delays: Option<&Delays>,
    cluster: &str,
    image: &str,
    network: &str,
) {
    let there = containers(cluster);
    for instance in instances(ec2, cluster).await {
        let id = instance.instance_id().unwrap();
        match (state(&instance), there.get(id).map(String::as_str)) {
            ("running", _) if power.is_ending(id) => {}
            ("running", None) => {
                let host = tag(&instance, "pgherd:host");
                // On EC2 it would boot, and get its disk a moment later.
                let disk = power.disks.option(&instance, cluster);
                if let Some(disk) = disk
                    && delays.is_none_or(|it| it.may_boot(id, host))
                {
                    let made_from = image_name(ec2, &instance).await;
                    let made_from = power.image(&made_from);
                    let image = made_from.as_deref().unwrap_or(image);
                    boot(ec2, &instance, cluster, image, network, &disk).await;
                }
            }
            ("running", Some("exited")) => drop(docker(&["start", id])),
            ("stopped" | "terminated", Some("running")) if !power.is_ending(id) => power.off(id),
            ("terminated", Some(_)) => drop(docker(&["rm", "-f", "-v", id])),
            _ => {}
        }
    }
}

/// The name on EC2 of the image that an instance was made from.
async fn image_name(ec2: &Client, instance: &Instance) -> String {
    let id = instance.image_id().unwrap_or_default();
    let found = ec2.describe_images().image_ids(id).send().await.unwrap();
    let image = found.images().first();
    let name = image.and_then(aws_sdk_ec2::types::Image::name);
    name.unwrap_or_default().to_owned()
}

async fn boot(
    ec2: &Client,
    instance: &Instance,
    cluster: &str,
    image: &str,
    network: &str,
    disk: &[String],
) {
    let id = instance.instance_id().unwrap();
    let data = user_data(ec2, id).await;
    let pair = ec2
        .describe_key_pairs()
        .key_names(instance.key_name().unwrap())
        .include_public_key(true)
        .send()
        .await
        .unwrap();
    let key = pair.key_pairs()[0].public_key().unwrap().trim().to_owned();
    let label = format!("pgherd-lab={cluster}");
    let address = instance.private_ip_address().unwrap();
    let hostname = format!("ip-{}", address.replace('.', "-"));
    let mut create = vec!["create", "--name", id, "--hostname", &hostname];
    create.extend(["--label", &label, "--network", network, "--ip", address]);
    create.extend(MACHINE);
    create.extend(disk.iter().map(String::as_str));
    create.extend(["--entrypoint", "/sbin/pgherd-init", image]);
    docker(&create);
    // On EC2, cloud-init gets this from the metadata service. Its code is the same for both.
    let seed = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(seed.path().join(name), text).unwrap();
    write("user-data", &data);
    write(
        "meta-data",
        &format!("instance-id: {id}\nlocal-hostname: {hostname}\npublic-keys:\n  - {key}\n"),
    );
    let octets: Vec<&str> = address.split('.').collect();
    let beside = |last: u8| format!("{}.{last}", octets[..3].join("."));
    write(
        "network-config",
        &format!(
            "version: 2\nethernets:\n  eth0:\n    addresses: [{address}/24]\n    routes:\n      \
             - {{ to: 0.0.0.0/0, via: {} }}\n      - {{ to: 169.254.169.254/32, via: {} }}\n",
            beside(1),
            beside(METADATA_HOST)
        ),
    );
    put(seed.path(), &format!("{id}:/var/lib/cloud/seed/nocloud"));
    let known = seed.path().join("known");
    fs::create_dir(&known).unwrap();
    fs::write(known.join(address), &data).unwrap();
    put(&known, &format!("{}:/srv", metadata_name(cluster)));
    docker(&["start", id]);
}

/// Copies the content of a folder.
fn put(from: &Path, to: &str) {
    docker(&["cp", &format!("{}/.", from.display()), to]);
}

/// The options that a container needs to run as a host.
const MACHINE: [&str; 15] = [
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "NET_ADMIN",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--cgroupns=private",
    "--tmpfs",
    "/run",
    "--tmpfs",
    "/run/lock",
    "--shm-size",
    "1g",
];

/// The last number of this metadata service's address, which differs from the well-known one.
const METADATA_HOST: u8 = 250;

fn metadata_name(cluster: &str) -> String {
    format!("{cluster}-metadata")
}

/// A metadata service at a link-local address that gives each host its own user data, as EC2's does.
fn serve_metadata(cluster: &str, image: &str, network: &str, subnet: &str) {
    const SERVER: &str = "\
import http.server, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = os.path.join('/srv', self.client_address[0])
        found = self.path == '/latest/user-data' and os.path.exists(known)
        self.send_response(200 if found else 404)
        self.end_headers()
        if found: self.wfile.write(open(known, 'rb').read())
http.server.ThreadingHTTPServer(('169.254.169.254', 80), Answer).serve_forever()
";
    let (net, _) = subnet.rsplit_once('.').unwrap();
    let address = format!("{net}.{METADATA_HOST}");
    let command =
        format!("ip address add 169.254.169.254/32 dev eth0 && exec python3 -c \"{SERVER}\"");
    let name = metadata_name(cluster);
    docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        network,
        "--ip",
        &address,
        "--cap-add",
        "NET_ADMIN",
        "--entrypoint",
        "/bin/sh",
        image,
        "-c",
        &command,
    ]);
}

async fn user_data(ec2: &Client, id: &str) -> String {
    let answer = ec2
        .describe_instance_attribute()
        .instance_id(id)
        .attribute(InstanceAttributeName::UserData)
        .send()
        .await
        .unwrap();
    let data = answer.user_data().and_then(|it| it.value()).unwrap();
    String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap()
}
