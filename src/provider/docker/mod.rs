//! Hosts as containers of a local engine, each with systemd, sshd and an address of its own.
//!
//! A host is found only by its labels; nothing without this cluster's label is ever touched. Host images belong
//! to no cluster: they stay in the engine when clusters are removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future;
use indexmap::IndexMap;
use tokio::sync::OnceCell;

use self::{
    container::{Found, Spec},
    engine::Engine,
    launch::Launch,
    ports::Port,
};
use super::{Access, Arrivals, Machine, Preflight, Provider, Resource, refuse_hosts_of_others};
use crate::{
    error::{Code, Error, Result},
    event::Events,
    inventory::{self, HostName, Inventory, Role},
    prepared::{Contents, Prepared, Recipe},
    quantity::count,
};

mod account;
mod archive;
mod build;
#[cfg(target_os = "linux")]
mod claim;
mod container;
mod convert;
mod engine;
mod faults;
mod host_key;
mod image;
mod launch;
mod network;
mod obstacles;
mod ports;
mod prepared;
mod readdress;
mod removal;
mod subnet;

/// How long a host may take from its start until SSH answers, unless `ssh.connect_timeout` is longer.
const BOOT_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes, finds and removes containers that carry the cluster's label.
pub(super) struct DockerProvider {
    inventory: Inventory,
    /// The rendered requirements of Patroni's venv.
    requirements: String,
    cluster: String,
    settings: inventory::Docker,
    /// In the inventory's order.
    hosts: Vec<HostName>,
    fixed: IndexMap<HostName, Ipv4Addr>,
    /// The host whose ports are published on this machine.
    publisher: Option<HostName>,
    ports: Vec<Port>,
    ssh_port: u16,
    timeout: Duration,
    /// Connected at first use, so that verbs that do not need the engine work without it.
    engine: OnceCell<Engine>,
    /// Held from the first launch to the run's end.
    #[cfg(target_os = "linux")]
    claim: OnceCell<Option<claim::Claim>>,
}

impl DockerProvider {
    pub(super) fn new(
        inventory: &Inventory,
        settings: &inventory::Docker,
        requirements: &str,
    ) -> Self {
        let timeout = Duration::from_secs(inventory.ssh.connect_timeout.into());
        Self {
            inventory: inventory.clone(),
            requirements: requirements.to_owned(),
            cluster: inventory.cluster.clone(),
            settings: settings.clone(),
            hosts: inventory.hosts.keys().cloned().collect(),
            fixed: inventory
                .hosts
                .iter()
                .filter_map(|(name, host)| Some((name.clone(), host.address?)))
                .collect(),
            publisher: inventory
                .with_role(Role::Haproxy)
                .next()
                .filter(|_| !settings.unpublished)
                .cloned(),
            ports: ports::of(&inventory.haproxy, inventory.pgbouncer.as_ref()),
            ssh_port: inventory.ssh.port,
            timeout: timeout.max(BOOT_TIMEOUT),
            engine: OnceCell::new(),
            #[cfg(target_os = "linux")]
            claim: OnceCell::new(),
        }
    }

    async fn engine(&self) -> Result<&Engine> {
        self.engine.get_or_try_init(Engine::connect).await
    }

    fn network(&self) -> network::Desired<'_> {
        network::Desired {
            cluster: &self.cluster,
            id: None,
            subnet: self.settings.subnet,
            fixed: &self.fixed,
            vip: self.inventory.haproxy.vip,
        }
    }

    async fn found(&self, engine: &Engine) -> Result<Vec<Found>> {
        container::find_all(engine, &self.cluster, &self.network().name()).await
    }

    fn ports_of(&self, host: &HostName) -> &[Port] {
        match self.publisher.as_ref() == Some(host) {
            true => &self.ports,
            false => &[],
        }
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn ca_bundle(&self) -> Option<PathBuf> {
        // Containers reach other networks like this machine, through the same inspecting proxy if there is one.
        std::env::var_os("SSL_CERT_FILE")
            .map(PathBuf::from)
            .into_iter()
            .chain([PathBuf::from("/etc/ssl/certs/ca-certificates.crt")])
            .find(|bundle| bundle.is_file())
    }

    async fn discover(&self) -> Result<Vec<Machine>> {
        let engine = self.engine().await?;
        let found = self.found(engine).await?;
        let mut machines: Vec<Machine> = found
            .into_iter()
            .filter(|found| !found.going())
            .map(Found::machine)
            .collect();
        machines.sort_by(|a, b| a.host.cmp(&b.host));
        Ok(machines)
    }

    /// Also compares what exists with the inventory, so it is useful without any `hosts` too.
    async fn preflight(&self, hosts: &[HostName], _public_key: &str) -> Result<Preflight> {
        let engine = self.engine().await?;
        let found = self.found(engine).await?;
        self.check(engine, hosts, &found).await?;
        let mut lines = Vec::new();
        let mut prepared = None;
        if Self::anything_new(hosts, &found) {
            prepared = self.choice(engine).await?;
            let named = self.image_of(prepared.as_ref());
            let source = image::source(engine, named.as_deref()).await?;
            lines.extend(source.line());
        }
        match network::plan(engine, &self.network()).await? {
            network::Plan::Create(subnets) if !hosts.is_empty() => {
                lines.extend(
                    subnets
                        .first()
                        .map(|subnet| format!("network {} with {subnet}", self.network().name())),
                );
            }
            _ => {}
        }
        Ok(Preflight {
            made: lines,
            doubts: Vec::new(),
            prepared,
        })
    }

    async fn launch_telling(
        &self,
        hosts: &[HostName],
        access: &Access,
        events: &Events,
        arrivals: &Arrivals,
    ) -> Result<Vec<Machine>> {
        let engine = self.engine().await?;
        self.claim(engine, access).await?;
        let found = self.found(engine).await?;
        let ids = found.iter();
        let ids = ids.filter_map(|found| Some((&found.host, found.cluster_id.as_deref()?)));
        refuse_hosts_of_others(ids, access)?;
        self.check(engine, hosts, &found).await?;
        let image = match Self::anything_new(hosts, &found) {
            true => {
                // An impossible network must be reported before the minute that an image may take.
                network::plan(engine, &self.network()).await?;
                let named = self.image_of(self.choice(engine).await?.as_ref());
                Some(image::ensure(engine, named.as_deref(), events).await?)
            }
            false => None,
        };
        let desired = network::Desired {
            id: Some(&access.cluster_id),
            ..self.network()
        };
        let network = network::ensure(engine, &desired, events).await?;
        let addresses = self.addresses(engine, &network, &found).await?;

        let mut found: BTreeMap<HostName, Found> = found
            .into_iter()
            .map(|found| (found.host.clone(), found))
            .collect();
        let launch = Launch {
            engine,
            image,
            access,
            ssh_port: self.ssh_port,
            timeout: self.timeout,
            events,
            arrivals,
            account: OnceCell::new(),
        };
        let mut launches = Vec::new();
        for host in hosts {
            let address = *addresses.get(host).ok_or_else(|| {
                Error::new(Code::InternalError, "the host is not in the inventory").on(host)
            })?;
            let spec = Spec {
                cluster: &self.cluster,
                host,
                network: &network.name,
                address,
                ports: self.ports_of(host),
            };
            let (launch, found) = (&launch, found.remove(host));
            launches.push(async move { launch.host(&spec, found).await });
        }
        let mut machines = Vec::new();
        let mut failures = Vec::new();
        for launched in future::join_all(launches).await {
            match launched {
                Ok(machine) => machines.push(machine),
                Err(error) => failures.push(error),
            }
        }
        match failures.len() {
            0 => Ok(machines),
            1 => Err(failures.remove(0)),
            failed => Err(Error::several(
                format!(
                    "{failed} of {} could not be launched",
                    count(hosts.len(), "host")
                ),
                failures,
            )),
        }
    }

    async fn admit(&self, machines: &[Machine], access: &Access) -> Result<()> {
        let engine = self.engine().await?;
        let admitted = machines.iter().map(|machine| async move {
            let done = launch::authorize(engine, &machine.id, access).await;
            done.map_err(|error| error.on(&machine.host))
        });
        future::try_join_all(admitted).await.map(|_| ())
    }

    async fn present_host_keys(
        &self,
        machines: &[Machine],
    ) -> Result<BTreeMap<HostName, Vec<String>>> {
        let engine = self.engine().await?;
        let read = machines.iter().map(|machine| async move {
            let keys = host_key::present(engine, &machine.id).await;
            let keys = keys.map_err(|error| error.on(&machine.host))?;
            Ok::<_, Error>((machine.host.clone(), keys))
        });
        Ok(future::try_join_all(read).await?.into_iter().collect())
    }

    fn moves(&self, machines: &[Machine]) -> Result<Vec<(HostName, Ipv4Addr)>> {
        readdress::moves(&self.network(), self.hosts.iter(), machines)
    }

    async fn readdress(&self, moves: &[(HostName, Ipv4Addr)], events: &Events) -> Result<()> {
        let engine = self.engine().await?;
        let found = self.found(engine).await?;
        let desired = network::Desired {
            id: found.iter().find_map(|it| it.cluster_id.as_deref()),
            ..self.network()
        };
        let network = desired.name();
        let specs: Vec<Spec> = moves
            .iter()
            .map(|(host, address)| Spec {
                cluster: &self.cluster,
                host,
                network: &network,
                address: *address,
                ports: self.ports_of(host),
            })
            .collect();
        let ssh = (self.ssh_port, self.timeout);
        readdress::readdress(engine, &desired, &specs, &found, ssh, events).await
    }

    async fn resources(&self) -> Result<Vec<Resource>> {
        removal::resources(self.engine().await?, &self.cluster).await
    }

    async fn remove(&self, resources: &[Resource], events: &Events) -> Result<()> {
        removal::remove(self.engine().await?, resources, events).await
    }

    async fn crash(&self, machine: &Machine) -> Result<()> {
        let network = self.network().name();
        faults::crash(self.engine().await?, &network, machine).await
    }

    async fn revive(&self, machine: &Machine) -> Result<()> {
        let network = self.network().name();
        faults::revive(self.engine().await?, &network, machine).await
    }

    async fn isolate(&self, machine: &Machine) -> Result<()> {
        let network = self.network().name();
        faults::isolate(self.engine().await?, &network, machine).await
    }

    async fn rejoin(&self, machine: &Machine) -> Result<()> {
        let network = self.network().name();
        faults::rejoin(self.engine().await?, &network, machine).await
    }

    fn keeps_images(&self) -> bool {
        true
    }

    async fn recipes(&self) -> Result<Vec<Recipe>> {
        Ok(vec![self.recipe()])
    }

    async fn images(&self) -> Result<Vec<Prepared>> {
        prepared::list(self.engine().await?).await
    }

    async fn capture(
        &self,
        machine: &Machine,
        contents: &Contents,
        events: &Events,
    ) -> Result<Prepared> {
        prepared::capture(self.engine().await?, machine, contents, events).await
    }

    async fn discard(&self, image: &Prepared, events: &Events) -> Result<()> {
        prepared::discard(self.engine().await?, image, events).await
    }

    fn can_crash(&self) -> bool {
        true
    }

    fn can_isolate(&self) -> bool {
        true
    }
}

impl DockerProvider {
    /// Refuses to go on if another run creates containers of the cluster.
    #[cfg(target_os = "linux")]
    async fn claim(&self, engine: &Engine, access: &Access) -> Result<()> {
        let socket = engine.socket.as_deref();
        let take = || claim::take(&self.cluster, &access.holder, socket);
        self.claim.get_or_try_init(take).await.map(|_| ())
    }

    #[cfg(target_os = "linux")]
    async fn refuse_if_claimed(&self, engine: &Engine) -> Result<()> {
        claim::refuse_if_taken(&self.cluster, engine.socket.as_deref()).await
    }

    #[cfg(not(target_os = "linux"))]
    async fn refuse_if_claimed(&self, _engine: &Engine) -> Result<()> {
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    async fn claim(&self, _engine: &Engine, _access: &Access) -> Result<()> {
        Ok(())
    }

    fn anything_new(hosts: &[HostName], found: &[Found]) -> bool {
        hosts.iter().any(|host| {
            !found
                .iter()
                .any(|found| found.host == *host && !found.never_started() && !found.going())
        })
    }

    /// An address for every host of the inventory, launched now or not.
    async fn addresses(
        &self,
        engine: &Engine,
        network: &network::Network,
        found: &[Found],
    ) -> Result<BTreeMap<HostName, Ipv4Addr>> {
        let ours: BTreeSet<Ipv4Addr> = found.iter().filter_map(|found| found.address).collect();
        let taken = network::addresses(engine, &network.name)
            .await?
            .difference(&ours)
            .copied()
            .chain(self.inventory.haproxy.vip)
            .collect();
        // A stopped host that will be started moves to the inventory's address.
        let existing = found
            .iter()
            .filter(|found| !found.never_started() && !found.going())
            .filter(|found| found.running() || !self.fixed.contains_key(&found.host))
            .filter_map(|found| Some((found.host.clone(), found.address?)))
            .collect();
        subnet::assign(
            network.subnet,
            network.gateway,
            self.hosts.iter(),
            &self.fixed,
            &existing,
            &taken,
        )
    }
}
