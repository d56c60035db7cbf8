//! Providers, which create, find and remove hosts.
//!
//! A provider knows its own engine or cloud and nothing of PostgreSQL. It ends where hosts with
//! addresses and pinned keys begin; everything after is the same for all of them.

use std::{net::Ipv4Addr, path::PathBuf};

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

#[cfg(test)]
pub(crate) use aws::rules_shown as aws_rules;

pub use self::arrivals::{Arrival, Arrivals};
pub use crate::machine::{Machine, MachineState};

/// The label or tag that names the cluster a resource belongs to.
pub const CLUSTER_LABEL: &str = "pgherd:cluster";
/// The label or tag that names the host a resource is or serves.
pub const HOST_LABEL: &str = "pgherd:host";

/// The label or tag with the id of that cluster: names can be had twice.
pub const ID_LABEL: &str = "pgherd:id";

/// Something in the engine or the account that carries the cluster's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `container`, `network`, `instance`, `security group`, …
    pub kind: &'static str,
    pub id: String,
    pub name: String,
    pub host: Option<HostName>,
    /// The id of the cluster that it was made for, where it says so.
    pub cluster_id: Option<String>,
}

/// What a new host must let in, and whose it is.
#[derive(Debug, Clone)]
pub struct Access {
    pub user: String,
    /// The public key in OpenSSH's one-line form.
    pub public_key: String,
    /// Everything that is made gets it as [`ID_LABEL`].
    pub cluster_id: String,
    /// The run that makes it.
    pub holder: Holder,
}

/// Refuses hosts that another workspace has made meanwhile: `whose` are the ids that they carry.
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

/// What `preflight` found: what a launch would create, and what may prevent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// What would be created besides the hosts, one line each: an image, a network.
    pub made: Vec<String>,
    /// What may prevent it, and is no reason not to try.
    pub doubts: Vec<String>,
    /// With `image: prepared`, what the new hosts are made from.
    pub prepared: Option<Choice>,
}

/// What around the hosts is not as the inventory says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drifted {
    /// A line a change that [`Provider::repair`] would make.
    pub changes: Vec<String>,
    /// What may stand in its way, without being a reason not to try.
    pub doubts: Vec<String>,
}

#[async_trait]
pub trait Provider: Send + Sync {
    /// Finds the cluster's hosts, by label, as they are now. Changes nothing.
    async fn discover(&self) -> Result<Vec<Machine>>;

    /// Checks, before anything is made, that `hosts` which let `public_key` in could be made.
    /// Changes nothing.
    async fn preflight(&self, hosts: &[HostName], public_key: &str) -> Result<Preflight>;

    /// Makes or starts `hosts`, all at once, and returns them running and with addresses.
    ///
    /// Safe to call again after any interruption: what is there is taken up, not made twice.
    async fn launch(
        &self,
        hosts: &[HostName],
        access: &Access,
        events: &Events,
    ) -> Result<Vec<Machine>> {
        self.launch_telling(hosts, access, events, &Arrivals::default())
            .await
    }

    /// The same, and tells of each host as it comes: that it runs, and that SSH answers.
    async fn launch_telling(
        &self,
        hosts: &[HostName],
        access: &Access,
        events: &Events,
        arrivals: &Arrivals,
    ) -> Result<Vec<Machine>>;

    /// Which of the running `machines` the inventory wants elsewhere, and where; none where an
    /// address is not the provider's to change.
    fn moves(&self, _machines: &[Machine]) -> Result<Vec<(HostName, Ipv4Addr)>> {
        Ok(Vec::new())
    }

    /// Carries out what [`Provider::moves`] has said. Connections to those hosts break.
    ///
    /// Safe to call again after any interruption.
    async fn readdress(&self, _moves: &[(HostName, Ipv4Addr)], _events: &Events) -> Result<()> {
        Ok(())
    }

    /// What around the hosts is not as the inventory says, such as a firewall's rules. Changes nothing.
    async fn drift(&self) -> Result<Drifted> {
        Ok(Drifted::default())
    }

    /// Puts right what [`Provider::drift`] tells of.
    async fn repair(&self, _events: &Events) -> Result<()> {
        Ok(())
    }

    /// Everything with the cluster's label, whether the inventory knows it or not.
    async fn resources(&self) -> Result<Vec<Resource>>;

    /// Removes `resources`, which [`Provider::resources`] has listed, and waits until they are gone.
    async fn remove(&self, resources: &[Resource], events: &Events) -> Result<()>;

    /// Certificates that the hosts must trust to reach the world, where the inventory has no
    /// `ca_bundle`: hosts on this machine's network see what this machine sees.
    fn ca_bundle(&self) -> Option<PathBuf> {
        None
    }

    /// Makes a running host die at once, as if its power had been cut: nothing on it is told, and
    /// nothing that it was about to send leaves it.
    async fn crash(&self, machine: &Machine) -> Result<()> {
        Err(cannot("make a host die", machine))
    }

    /// Starts a host that [`Provider::crash`] has made die, at the address it had.
    ///
    /// Safe to call again, also when the host runs.
    async fn revive(&self, machine: &Machine) -> Result<()> {
        Err(cannot("start a host", machine))
    }

    /// Cuts a running host off from everybody; what runs on it goes on.
    async fn isolate(&self, machine: &Machine) -> Result<()> {
        Err(cannot("cut a host off", machine))
    }

    /// Connects a host again that [`Provider::isolate`] has cut off, at the address it had.
    ///
    /// Safe to call again, also when the host is connected.
    async fn rejoin(&self, machine: &Machine) -> Result<()> {
        Err(cannot("connect a host", machine))
    }

    /// Whether [`Provider::crash`] does here what it says.
    fn can_crash(&self) -> bool {
        false
    }

    /// Whether [`Provider::isolate`] does here what it says.
    fn can_isolate(&self) -> bool {
        false
    }

    /// Makes the provider hand this public key to hosts that it makes from now on; those that run have
    /// it already. Safe to call again.
    async fn replace_access_key(&self, _public_key: &str) -> Result<()> {
        Ok(())
    }

    /// Whether it can keep prepared images.
    fn keeps_images(&self) -> bool {
        false
    }

    /// What prepared images must hold for this inventory's hosts, one for each architecture.
    async fn recipes(&self) -> Result<Vec<Recipe>> {
        Err(no_images())
    }

    /// The prepared images that are there, of whatever cluster's inventory, the newest first. Changes nothing.
    async fn images(&self) -> Result<Vec<Prepared>> {
        Err(no_images())
    }

    /// Makes an image of a host on which nothing is left that only one host may have. The host stops for it.
    async fn capture(
        &self,
        _machine: &Machine,
        _contents: &Contents,
        _events: &Events,
    ) -> Result<Prepared> {
        Err(no_images())
    }

    /// Removes one of [`Provider::images`], and all that it takes up.
    async fn discard(&self, _image: &Prepared, _events: &Events) -> Result<()> {
        Err(no_images())
    }

    /// Whether `down` removes the hosts themselves; otherwise it clears what `up` put on them.
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

/// The text by which Patroni's versions are pinned, where no template replaces it.
const REQUIREMENTS: &str = include_str!("../../templates/opt/patroni/requirements.txt");

/// The provider that an inventory names.
pub fn from_inventory(inventory: &Inventory) -> Result<Box<dyn Provider>> {
    with_requirements(inventory, REQUIREMENTS)
}

/// The same where Patroni's versions are pinned by `requirements`.
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
