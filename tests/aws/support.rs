//! A server that answers EC2's calls, and a cluster in it for a test.

use std::{
    fs,
    sync::atomic::{AtomicU16, Ordering},
};

use aws_sdk_ec2::{
    Client,
    types::{Filter, Instance, ResourceType, Tag, TagSpecification},
};
use pgherd::{
    error::Result,
    event::Events,
    inventory::{HostName, Inventory},
    provider::{self, Access, Machine, Provider},
};
use tokio::{io::AsyncWriteExt, net::TcpSocket};

use crate::{
    proxy::Proxy,
    server::{REGION, client, moto},
};

pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test";
pub(crate) const FIVE: [&str; 5] = ["node1", "node2", "node3", "node4", "haproxy"];

pub(crate) fn hosts() -> Vec<HostName> {
    FIVE.into_iter().map(HostName::new).collect()
}

/// Runs are cut off at every eighth call, or at every one in the soak.
pub(crate) fn stride() -> usize {
    match std::env::var_os("PGHERD_AWS_EVERY_CALL") {
        Some(_) => 1,
        None => 8,
    }
}

/// The calls at which a run is cut off, before they are `done` or after.
pub(crate) fn cut_offs(done: bool) -> impl Iterator<Item = usize> {
    let first = if done { stride() / 2 } else { 0 };
    (first..).step_by(stride())
}

/// A cluster in its own account and VPC, whose addresses are all on this machine's loopback.
pub(crate) struct Lab {
    pub dir: tempfile::TempDir,
    /// The address that the provider uses.
    pub proxy: Proxy,
    /// The server itself, without the proxy and its checks and counts.
    pub ec2: Client,
    pub account: String,
    pub subnet: String,
    pub vpc: String,
    /// The first three numbers of every address in its subnet.
    pub network: String,
    pub name: String,
    pub port: u16,
    pub events: Events,
    /// Stopped with the lab: a sweep makes hundreds of labs, each with a socket for every address.
    _greeters: tokio::task::JoinSet<()>,
}

impl Lab {
    pub(crate) async fn new(name: &str) -> Self {
        static LABS: AtomicU16 = AtomicU16::new(0);
        // The number of these calls depends on how often a run polls, and so on the machine's speed.
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let network = format!("127.{}.{}", 1 + lab / 200, 1 + lab % 200);
        let account = format!("{:012}", 100_000_000_000 + u64::from(lab));
        let ec2 = client(&Proxy::lenient(moto(), &account).url());
        let made = ec2
            .create_vpc()
            .cidr_block(format!("{network}.0/24"))
            .send()
            .await
            .unwrap();
        let vpc = made.vpc.unwrap().vpc_id.unwrap();
        let made = ec2
            .create_subnet()
            .vpc_id(&vpc)
            .cidr_block(format!("{network}.0/24"))
            .send()
            .await
            .unwrap();
        let subnet = made.subnet.unwrap().subnet_id.unwrap();
        let (port, greeters) = greet(&network);
        Self {
            dir: tempfile::tempdir().unwrap(),
            proxy: Proxy::new(moto(), &account),
            ec2,
            account,
            subnet,
            vpc,
            network,
            name: name.to_owned(),
            port,
            events: Events::channel().0,
            _greeters: greeters,
        }
    }

    /// Another cluster in the same account and subnet.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            proxy: Proxy::new(moto(), &self.account),
            ec2: self.ec2.clone(),
            account: self.account.clone(),
            subnet: self.subnet.clone(),
            vpc: self.vpc.clone(),
            network: self.network.clone(),
            name: name.to_owned(),
            port: self.port,
            events: Events::channel().0,
            _greeters: tokio::task::JoinSet::new(),
        }
    }

    pub(crate) fn text(&self, provider: &str, hosts: &str) -> String {
        format!(
            "cluster: {}\nprovider:\n  kind: aws\n  region: {REGION}\n  endpoint_url: {}\n  \
             connect: private\n  subnet_id: {}\n{provider}ssh: {{ port: {} }}\nhosts:\n{hosts}",
            self.name,
            self.proxy.url(),
            self.subnet,
            self.port
        )
    }

    pub(crate) fn five(&self, provider: &str) -> Inventory {
        let roles = ["postgres", "postgres", "postgres", "etcd", "haproxy"];
        let hosts: String = FIVE
            .iter()
            .zip(roles)
            .map(|(host, role)| format!("  {host}: {{ roles: [{role}] }}\n"))
            .collect();
        self.parse(&self.text(provider, &hosts))
    }

    pub(crate) fn parse(&self, text: &str) -> Inventory {
        let path = self.dir.path().join("pgherd.yaml");
        fs::write(&path, text).unwrap();
        Inventory::load(&path).unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub(crate) fn provider(&self) -> Box<dyn Provider> {
        provider::from_inventory(&self.five("")).unwrap()
    }

    /// The id that every cluster here has.
    pub(crate) const ID: &str = "0a1b2c3d4e5f";

    pub(crate) async fn launch(&self, hosts: &[&str]) -> Result<Vec<Machine>> {
        launch(&*self.provider(), hosts, &self.events).await
    }

    /// Checks, launches, lists and removes all hosts.
    pub(crate) async fn remove(&self) -> Result<()> {
        let provider = self.provider();
        let resources = provider.resources().await?;
        provider.remove(&resources, &self.events).await
    }

    /// Everything on the server with this cluster's tag, by kind.
    pub(crate) async fn left(&self) -> Vec<String> {
        let resources = self.provider().resources().await.unwrap();
        resources
            .iter()
            .map(|it| format!("{} {}", it.kind, it.name))
            .collect()
    }

    /// The instances of the cluster that have not terminated, asked without proxy and provider.
    pub(crate) async fn instances(&self) -> Vec<Instance> {
        let answer = self
            .ec2
            .describe_instances()
            .filters(
                Filter::builder()
                    .name("tag:pgherd:cluster")
                    .values(&self.name)
                    .build(),
            )
            .send()
            .await
            .unwrap();
        answer
            .reservations
            .unwrap_or_default()
            .into_iter()
            .flat_map(|it| it.instances.unwrap_or_default())
            .filter(|it| it.state.as_ref().unwrap().name.as_ref().unwrap().as_str() != "terminated")
            .collect()
    }

    pub(crate) async fn id_of(&self, host: &str) -> String {
        let all = self.instances().await;
        let one = all
            .into_iter()
            .find(|it| tag(it.tags(), "pgherd:host") == host);
        one.unwrap_or_else(|| panic!("no {host}"))
            .instance_id
            .unwrap()
    }

    /// An instance that somebody else launched, with any tags.
    pub(crate) async fn stray(&self, image: &str, tags: &[(&str, &str)]) -> String {
        let tags = tags
            .iter()
            .map(|(key, value)| Tag::builder().key(*key).value(*value).build());
        let made = self
            .ec2
            .run_instances()
            .image_id(image)
            .instance_type("t2.medium".into())
            .subnet_id(&self.subnet)
            .min_count(1)
            .max_count(1)
            .tag_specifications(
                TagSpecification::builder()
                    .resource_type(ResourceType::Instance)
                    .set_tags(Some(tags.collect()))
                    .build(),
            )
            .send()
            .await
            .unwrap();
        made.instances()[0].instance_id().unwrap().to_owned()
    }
}

pub(crate) async fn launch(
    provider: &dyn Provider,
    hosts: &[&str],
    events: &Events,
) -> Result<Vec<Machine>> {
    let hosts: Vec<HostName> = hosts.iter().map(|host| HostName::new(*host)).collect();
    let access = Access {
        user: "ubuntu".into(),
        public_key: KEY.into(),
        cluster_id: Lab::ID.into(),
        holder: pgherd::holder::Holder::now("up"),
    };
    provider.launch(&hosts, &access, events).await
}

pub(crate) fn tag<'a>(tags: &'a [Tag], key: &str) -> &'a str {
    let tag = tags.iter().find(|it| it.key() == Some(key));
    tag.and_then(Tag::value).unwrap_or_default()
}

/// Listens like an SSH server on every address that the server may assign; returns the port.
fn greet(network: &str) -> (u16, tokio::task::JoinSet<()>) {
    let mut port = 0;
    let mut greeters = tokio::task::JoinSet::new();
    for last in 4..120 {
        let socket = TcpSocket::new_v4().unwrap();
        let address = format!("{network}.{last}:{port}").parse().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(16).unwrap();
        port = listener.local_addr().unwrap().port();
        greeters.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"SSH-2.0-lab\r\n").await;
            }
        });
    }
    (port, greeters)
}
