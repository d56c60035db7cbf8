//! A cluster for a test, and the tests' own questions to the engine.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use bollard::{
    Docker,
    models::{Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::RemoveContainerOptionsBuilder,
};
use indexmap::IndexMap;
use pgherd::{
    error::Error,
    event::{Event, Events, HostState, Stamped},
    inventory::{self, Haproxy, Host, HostName, Inventory, Role},
    provider::{self, Access, Machine, Provider},
};
use tokio::{io::AsyncReadExt, sync::mpsc::UnboundedReceiver};

use super::{ports, run};

pub(super) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test";

/// A cluster for one test, removed when the test ends in any way.
pub(super) struct Lab {
    pub(super) inventory: Inventory,
    pub(super) events: Events,
    seen: UnboundedReceiver<Stamped>,
}

impl Lab {
    pub(super) fn new(test: &str, hosts: &[(&str, Role)]) -> Self {
        let first = ports::free::<3>();
        let hosts: IndexMap<_, _> = hosts
            .iter()
            .map(|(name, role)| {
                let host = Host {
                    roles: vec![*role],
                    address: None,
                };
                (HostName::new(*name), host)
            })
            .collect();
        let smallest = "
cluster: pg
provider: { kind: docker }
ssh: { connect_timeout: 30 }
postgresql: { version: distro, allow: [] }
tls: { enabled: false }
hosts: { node1: { roles: [postgres, etcd, haproxy] } }
";
        let inventory = Inventory {
            cluster: format!("pgherd-test-{}-{test}", run::id()),
            haproxy: Haproxy {
                write_port: first,
                read_port: first + 1,
                stats_port: first + 2,
                ..Haproxy::default()
            },
            hosts,
            ..Inventory::parse(Path::new("pgherd.yaml"), smallest).unwrap()
        };
        let (events, seen) = Events::channel();
        Self {
            inventory,
            events,
            seen,
        }
    }

    pub(super) fn docker(&mut self) -> &mut inventory::Docker {
        match &mut self.inventory.provider {
            inventory::Provider::Docker(docker) => docker,
            _ => unreachable!(),
        }
    }

    pub(super) fn fix(&mut self, host: &str, address: &str) {
        let host = self.inventory.hosts.get_mut(&HostName::new(host)).unwrap();
        host.address = Some(address.parse().unwrap());
    }

    pub(super) fn cluster(&self) -> String {
        self.inventory.cluster.clone()
    }

    pub(super) fn provider(&self) -> Box<dyn Provider> {
        provider::from_inventory(&self.inventory).unwrap()
    }

    pub(super) fn hosts(&self) -> Vec<HostName> {
        self.inventory.hosts.keys().cloned().collect()
    }

    pub(super) async fn launch(&self) -> Result<Vec<Machine>, Error> {
        let access = Access {
            user: self.inventory.ssh.user.clone(),
            public_key: KEY.into(),
            cluster_id: "0a1b2c3d4e5f".into(),
            holder: pgherd::holder::Holder::now("up"),
        };
        self.provider()
            .launch(&self.hosts(), &access, &self.events)
            .await
    }

    pub(super) async fn discover(&self) -> BTreeMap<String, Machine> {
        let machines = self.provider().discover().await.unwrap();
        machines
            .into_iter()
            .map(|machine| (machine.host.to_string(), machine))
            .collect()
    }

    pub(super) fn container(&self, host: &str) -> String {
        format!("{}-{host}", self.inventory.cluster)
    }

    pub(super) fn states_of(&mut self, host: &str) -> Vec<HostState> {
        let mut states = Vec::new();
        while let Ok(stamped) = self.seen.try_recv() {
            if let Event::Host {
                host: of, state, ..
            } = stamped.event
                && of.as_str() == host
            {
                states.push(state);
            }
        }
        states
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let inventory = self.inventory.clone();
        let cleaned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let provider = provider::from_inventory(&inventory).unwrap();
                let left = provider.resources().await.unwrap();
                let (events, _seen) = Events::channel();
                provider.remove(&left, &events).await.unwrap();
                assert_eq!(provider.resources().await.unwrap(), []);
            });
        })
        .join();
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

pub(super) fn engine() -> Docker {
    Docker::connect_with_defaults().expect("these tests need a container engine")
}

pub(super) async fn exec(container: &str, command: &[&str]) -> String {
    let output = tokio::process::Command::new("docker")
        .arg("exec")
        .arg(container)
        .args(command)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub(super) async fn greeting(address: Ipv4Addr, port: u16) -> String {
    let mut stream = tokio::net::TcpStream::connect((address, port))
        .await
        .unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.unwrap();
    String::from_utf8_lossy(&greeting).into_owned()
}

pub(super) async fn scanned(address: Ipv4Addr) -> String {
    let output = tokio::process::Command::new("ssh-keyscan")
        .args(["-t", "ed25519", &address.to_string()])
        .output()
        .await
        .unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    let (_, key) = line.trim().split_once(' ').unwrap();
    key.to_owned()
}

pub(super) async fn remove_container(name: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    engine()
        .remove_container(name, Some(options))
        .await
        .unwrap();
}

pub(super) fn host_image() -> String {
    let tag = std::process::Command::new("bash")
        .args(["scripts/host-image", "--tag"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    String::from_utf8(tag.stdout).unwrap().trim().to_owned()
}

/// Makes the host image, for tests that use it directly.
pub(super) async fn lab_image() {
    static MADE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    MADE.get_or_init(|| async {
        let lab = Lab::new("made", &[("x", Role::Etcd)]);
        lab.launch().await.unwrap();
    })
    .await;
}

pub(super) async fn make_network(name: &str, subnet: &str) {
    let request = NetworkCreateRequest {
        name: name.into(),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.into()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    };
    engine().create_network(request).await.unwrap();
}
