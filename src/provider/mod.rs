//! Providers, which create, find and remove hosts.
//!
//! A provider knows its own engine or cloud and nothing of PostgreSQL. Its work ends with hosts that have
//! addresses and pinned keys; everything after that is the same for all providers.

use std::{collections::BTreeMap, net::Ipv4Addr, path::PathBuf};

use async_trait::async_trait;

use crate::{
    error::{Code, Error, Result},
    event::Events,
    holder::Holder,
    inventory::{self, HostName, Inventory},
    prepared::{Choice, Contents, Prepared, Recipe},
};

mod arrivals;
#[cfg(feature = "aws")]
mod aws;
mod docker;
mod existing;
mod ssh_probe;
#[cfg(feature = "aws")]
mod through_bastions;

#[cfg(test)]
pub(crate) use aws::rules_shown as aws_rules;

pub use self::arrivals::{Arrival, Arrivals};
pub use crate::machine::{Machine, MachineState};

/// The label or tag that names the cluster a resource belongs to.
pub const CLUSTER_LABEL: &str = "pgherd:cluster";
/// The label or tag that names a resource's host.
pub const HOST_LABEL: &str = "pgherd:host";

/// The label or tag with that cluster's id: two clusters can have the same name.
pub const ID_LABEL: &str = "pgherd:id";

/// Something in the engine or the account with the cluster's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `container`, `network`, `instance`, `security group`, …
    pub kind: &'static str,
    pub id: String,
    pub name: String,
    pub host: Option<HostName>,
    /// The id of the cluster that it was made for, if it has one.
    pub cluster_id: Option<String>,
    /// A disk with a host's data, which another machine of that host can have.
    pub keeps_data: bool,
}

/// Who may log in to a new host, and which cluster it belongs to.
#[derive(Debug, Clone)]
pub struct Access {
    pub user: String,
    /// The public key in OpenSSH's one-line form.
    pub public_key: String,
    /// Everything that is created gets it as [`ID_LABEL`].
    pub cluster_id: String,
    /// The run that creates it.
    pub holder: Holder,
}

/// Refuses hosts that another workspace has created meanwhile: `whose` are the ids on them.
fn refuse_hosts_of_others<'a>(
    mut whose: impl Iterator<Item = (&'a HostName, &'a str)>,
    access: &Access,
) -> Result<()> {
    match whose.find(|(_, id)| *id != access.cluster_id) {
        None => Ok(()),
        Some((host, id)) => Err(Error::new(
            Code::HostOfAnotherCluster,
            "meanwhile, the cluster was made from another workspace",
        )
        .on(host)
        .cause(format!("it belongs to the cluster with the id {id}; this one has {}", access.cluster_id))
        .left("nothing was made")
        .hint("copy the workspace (.pgherd) of the person who made it beside this inventory, or give this cluster another name")),
    }
}

/// The result of `preflight`: what a launch would create, and what may prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// What would be created besides the hosts, one line each: an image, a network.
    pub made: Vec<String>,
    /// What may prevent it, but is no reason not to try.
    pub doubts: Vec<String>,
    /// With `image: prepared`, the image for new hosts.
    pub prepared: Option<Choice>,
}

/// Differences from the inventory in what surrounds the hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drifted {
    /// One line for each change that [`Provider::repair`] would make.
    pub changes: Vec<String>,
    /// What may prevent it, but is no reason not to try.
    pub doubts: Vec<String>,
}

/// A load balancer before the front doors, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    pub name: String,
    /// The name that clients use; none while it is not there.
    pub address: Option<String>,
    /// The provider's word for its state.
    pub state: String,
    /// How each front door is behind each port.
    pub targets: Vec<Target>,
}

/// A front door behind a load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The host, or the provider's name of a machine that is none of the cluster's.
    pub host: String,
    pub port: u16,
    /// The provider's word for its state.
    pub state: String,
    /// Whether clients are led to it.
    pub healthy: bool,
    /// Whether the provider may find it healthy soon.
    pub coming: bool,
    /// Why it is in that state, where the provider says so.
    pub why: Option<String>,
}

/// How much of a drift is put right.
///
/// What services of today still need is taken away only once they need it no more: a member of etcd that is
/// to leave must hear the others until they have removed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is missing, before the hosts' turn.
    Missing,
    /// All of it, once the hosts are as declared.
    All,
}

#[async_trait]
pub trait Provider: Send + Sync {
    /// Finds the cluster's hosts by label, as they are now. Changes nothing.
    async fn discover(&self) -> Result<Vec<Machine>>;

    /// Checks, before anything is created, whether `hosts` with `public_key` could be created. Changes nothing.
    async fn preflight(&self, hosts: &[HostName], public_key: &str) -> Result<Preflight>;

    /// Creates or starts `hosts`, all in parallel, and returns them running and with addresses.
    ///
    /// May be repeated after any interruption: existing resources are used, not created twice.
    async fn launch(
        &self,
        hosts: &[HostName],
        access: &Access,
        events: &Events,
    ) -> Result<Vec<Machine>> {
        self.launch_telling(hosts, access, events, &Arrivals::default())
            .await
    }

    /// The same; also reports each host when it runs, and when SSH answers.
    async fn launch_telling(
        &self,
        hosts: &[HostName],
        access: &Access,
        events: &Events,
        arrivals: &Arrivals,
    ) -> Result<Vec<Machine>>;

    /// Makes running hosts accept another public key of pgherd, without logging in to them. The keys that they accept
    /// already stay.
    async fn admit(&self, _machines: &[Machine], _access: &Access) -> Result<()> {
        Err(Error::new(
            Code::SshPermissionDenied,
            "the key with which pgherd logged in to the hosts was in the workspace",
        )
        .cause("this provider lets nobody in without it")
        .left("nothing was changed")
        .hint("name a key that the hosts accept: ssh: { identity_file: ~/.ssh/id_ed25519 }")
        .hint("or, if a backup of the workspace's id_ed25519 is there, name that file"))
    }

    /// The public SSH keys that running hosts have now, where the provider itself can read them in the hosts. Others
    /// know a key only from a host's creation, and `rotate ssh` may have changed it since.
    async fn present_host_keys(
        &self,
        _machines: &[Machine],
    ) -> Result<BTreeMap<HostName, Vec<String>>> {
        Ok(BTreeMap::new())
    }

    /// Which of the running `machines` must move to another address, and to which; empty if the provider cannot
    /// change addresses.
    fn moves(&self, _machines: &[Machine]) -> Result<Vec<(HostName, Ipv4Addr)>> {
        Ok(Vec::new())
    }

    /// Makes the moves of [`Provider::moves`]. Connections to those hosts break.
    ///
    /// May be repeated after any interruption.
    async fn readdress(&self, _moves: &[(HostName, Ipv4Addr)], _events: &Events) -> Result<()> {
        Ok(())
    }

    /// Refuses a host whose next machine could not have the disk with the data of its present one. Changes
    /// nothing.
    async fn check_successor(&self, _host: &HostName) -> Result<()> {
        Ok(())
    }

    /// Differences from the inventory in what surrounds the hosts, such as a firewall's rules. Changes nothing.
    async fn drift(&self) -> Result<Drifted> {
        Ok(Drifted::default())
    }

    /// Corrects what [`Provider::drift`] reports, or only what is missing.
    async fn repair(&self, _part: Part, _events: &Events) -> Result<()> {
        Ok(())
    }

    /// The load balancer before the front doors, as it is now; none where the inventory has none. Changes nothing.
    async fn balancer(&self) -> Result<Option<Balancer>> {
        Ok(None)
    }

    /// Everything with the cluster's label, in the inventory or not.
    async fn resources(&self) -> Result<Vec<Resource>>;

    /// Removes `resources` from [`Provider::resources`], and waits until they are gone.
    async fn remove(&self, resources: &[Resource], events: &Events) -> Result<()>;

    /// Certificates that the hosts must trust to reach other networks, if the inventory has no `ca_bundle`.
    /// Hosts behind this machine's network see the same proxy as this machine.
    fn ca_bundle(&self) -> Option<PathBuf> {
        None
    }

    /// Makes a running host die at once, as in a power cut: nothing on it is notified, and nothing more is
    /// sent.
    async fn crash(&self, machine: &Machine) -> Result<()> {
        Err(cannot("make a host die", machine))
    }

    /// Starts a host again after [`Provider::crash`], with its old address.
    ///
    /// May be repeated, even if the host runs.
    async fn revive(&self, machine: &Machine) -> Result<()> {
        Err(cannot("start a host", machine))
    }

    /// Disconnects a running host from all others; its processes continue.
    async fn isolate(&self, machine: &Machine) -> Result<()> {
        Err(cannot("cut a host off", machine))
    }

    /// Connects a host again after [`Provider::isolate`], with its old address.
    ///
    /// May be repeated, even if the host is connected.
    async fn rejoin(&self, machine: &Machine) -> Result<()> {
        Err(cannot("connect a host", machine))
    }

    /// Whether this provider supports [`Provider::crash`].
    fn can_crash(&self) -> bool {
        false
    }

    /// Whether this provider supports [`Provider::isolate`].
    fn can_isolate(&self) -> bool {
        false
    }

    /// Makes the provider give this public key to hosts that it creates from now on. Running hosts have it
    /// already. May be repeated.
    async fn replace_access_key(&self, _public_key: &str) -> Result<()> {
        Ok(())
    }

    /// Whether it can keep prepared images.
    fn keeps_images(&self) -> bool {
        false
    }

    /// What prepared images must hold for this inventory's hosts, one recipe for each architecture.
    async fn recipes(&self) -> Result<Vec<Recipe>> {
        Err(no_images())
    }

    /// The existing prepared images, for any cluster's inventory, the newest first. Changes nothing.
    async fn images(&self) -> Result<Vec<Prepared>> {
        Err(no_images())
    }

    /// Makes an image of a host from which everything was removed that only one host may have. The host is
    /// stopped for it.
    async fn capture(
        &self,
        _machine: &Machine,
        _contents: &Contents,
        _events: &Events,
    ) -> Result<Prepared> {
        Err(no_images())
    }

    /// Removes one of [`Provider::images`], with everything that belongs to it.
    async fn discard(&self, _image: &Prepared, _events: &Events) -> Result<()> {
        Err(no_images())
    }

    /// Whether `down` removes the hosts themselves; otherwise it removes what `up` installed on them.
    fn owns_hosts(&self) -> bool {
        true
    }
}

fn cannot(what: &str, machine: &Machine) -> Error {
    Error::new(Code::Unsupported, format!("this provider cannot {what}")).on(&machine.host)
}

fn no_images() -> Error {
    Error::new(
        Code::Unsupported,
        "prepared images are for hosts that pgherd makes",
    )
    .cause("the hosts of `kind: existing` are there already")
    .hint("they are for `kind: docker` and `kind: aws`: docs/images.md")
}

/// The text that pins Patroni's versions, if no template replaces it.
const REQUIREMENTS: &str = include_str!("../../templates/opt/patroni/requirements.txt");

/// The provider of an inventory.
pub fn from_inventory(inventory: &Inventory) -> Result<Box<dyn Provider>> {
    with_requirements(inventory, REQUIREMENTS)
}

/// The same if `requirements` pins Patroni's versions.
#[allow(
    clippy::unnecessary_wraps,
    reason = "it can fail where EC2 is not built in"
)]
pub(crate) fn with_requirements(
    inventory: &Inventory,
    requirements: &str,
) -> Result<Box<dyn Provider>> {
    match &inventory.provider {
        inventory::Provider::Docker(settings) => {
            let provider = docker::DockerProvider::new(inventory, settings, requirements);
            Ok(Box::new(provider))
        }
        inventory::Provider::Existing => Ok(Box::new(existing::ExistingProvider::new(inventory))),
        #[cfg(feature = "aws")]
        inventory::Provider::Aws(settings) => {
            let provider = aws::AwsProvider::new(inventory, settings, requirements);
            Ok(Box::new(provider))
        }
        #[cfg(not(feature = "aws"))]
        inventory::Provider::Aws(_) => Err(crate::error::Error::new(
            Code::Unsupported,
            "this pgherd was built without the EC2 provider",
        )
        .hint("build it with the default features: cargo build --release")),
    }
}
