//! The cluster's network: one bridge, on which every host has a permanent address of its own.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    net::Ipv4Addr,
    time::Duration,
};

use bollard::models::{Ipam, IpamConfig, Network as NetworkSummary, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};
use indexmap::IndexMap;
use ipnet::Ipv4Net;

use super::{
    engine::{self, Engine},
    subnet::{self, Taken},
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    inventory::HostName,
    provider::{CLUSTER_LABEL, ID_LABEL},
};

/// How many other subnets are tried if somebody else took the chosen one meanwhile.
const ATTEMPTS: usize = 8;

/// What the inventory says about the network.
pub(super) struct Desired<'a> {
    pub(super) cluster: &'a str,
    /// The cluster's id, if a network may have to be created.
    pub(super) id: Option<&'a str>,
    pub(super) subnet: Option<Ipv4Net>,
    pub(super) fixed: &'a IndexMap<HostName, Ipv4Addr>,
    /// An address that no host may have.
    pub(super) vip: Option<Ipv4Addr>,
}

impl Desired<'_> {
    pub(super) fn name(&self) -> String {
        format!("{}-net", self.cluster)
    }
}

/// A network that exists.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) name: String,
    pub(super) subnet: Ipv4Net,
    pub(super) gateway: Ipv4Addr,
}

/// The network as it is, or as it would be created.
pub(super) enum Plan {
    Exists(Network),
    /// Subnets to try, the best first; only one if the inventory sets it.
    Create(Vec<Ipv4Net>),
}

/// Compares the inventory with the engine and this machine. Changes nothing.
pub(super) async fn plan(engine: &Engine, desired: &Desired<'_>) -> Result<Plan> {
    let wanted = subnet::wanted(desired.subnet, desired.fixed)?;
    let name = desired.name();
    let networks = engine::call(
        "list its networks",
        engine.api().list_networks(None::<ListNetworksOptions>),
    )
    .await?;
    if let Some(network) = networks
        .iter()
        .find(|network| network.name.as_ref() == Some(&name))
    {
        return existing(network, desired, wanted).map(Plan::Exists);
    }

    let mut taken: Vec<Taken> = networks.iter().flat_map(ranges).collect();
    let engines = taken.len();
    if engine.local {
        // After the engine's networks, whose bridges are routes too: the first overlap is named.
        taken.extend(subnet::routes(&read("/proc/net/route")));
        taken.extend(subnet::nameservers(&read("/etc/resolv.conf")));
    }
    if let Some(wanted) = wanted {
        if let Some(other) = subnet::overlap(wanted, &taken) {
            let error = Error::new(
                Code::NetworkUnsuitable,
                format!(
                    "the network {name} cannot have the subnet {wanted}: it overlaps {}",
                    other.by
                ),
            )
            .left("nothing was made");
            let network = taken[..engines].contains(other);
            return Err(if network {
                error.hint("remove that network with `docker network rm`, or choose other addresses: provider.subnet, hosts.<name>.address")
            } else {
                error.hint(
                    "choose other addresses, or none at all: provider.subnet, hosts.<name>.address",
                )
            });
        }
        return Ok(Plan::Create(vec![wanted]));
    }
    let candidates: Vec<_> = subnet::unused(&taken).take(ATTEMPTS).collect();
    if candidates.is_empty() {
        return Err(Error::new(
            Code::NetworkUnsuitable,
            "this machine has no free private subnet for the cluster's network",
        )
        .hint("name a subnet to use: provider.subnet"));
    }
    Ok(Plan::Create(candidates))
}

/// Creates the network unless it exists.
pub(super) async fn ensure(
    engine: &Engine,
    desired: &Desired<'_>,
    events: &Events,
) -> Result<Network> {
    remove_twins(engine, desired).await?;
    let candidates = match plan(engine, desired).await? {
        Plan::Exists(network) => return Ok(network),
        Plan::Create(candidates) => candidates,
    };
    let name = desired.name();
    let mut last = None;
    for subnet in candidates {
        let gateway = subnet::gateway(subnet, desired.fixed)?;
        match create(engine, desired, subnet, gateway).await {
            Ok(id) => {
                events.emit(Event::Resource {
                    kind: "network".into(),
                    id,
                    name: name.clone(),
                    state: HostState::Created,
                });
                remove_twins(engine, desired).await?;
                if let Plan::Exists(network) = plan(engine, desired).await? {
                    return Ok(network);
                }
                return Ok(Network {
                    name,
                    subnet,
                    gateway,
                });
            }
            Err(error) if error.code() == Code::NetworkUnsuitable => {
                // Either an interrupted `up` requested this very network a moment ago, and the engine continued
                // alone; or another cluster was faster, or the engine knows networks that pgherd does not see.
                tokio::time::sleep(Duration::from_millis(300)).await;
                if let Plan::Exists(network) = plan(engine, desired).await? {
                    return Ok(network);
                }
                last = Some(
                    error.hint("name a subnet that nothing on this machine uses: provider.subnet"),
                );
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| {
        Error::new(
            Code::NetworkUnsuitable,
            format!("no subnet for the network {name}"),
        )
    }))
}

/// Removes all networks of this cluster but the oldest. The engine allows several with one name, and goes on with what
/// a run that was cut off has asked for: that network can come after the next run has looked.
async fn remove_twins(engine: &Engine, desired: &Desired<'_>) -> Result<()> {
    let name = desired.name();
    let networks = engine::call(
        "list its networks",
        engine.api().list_networks(None::<ListNetworksOptions>),
    )
    .await?;
    let label = |network: &NetworkSummary, label| {
        let labels = network.labels.as_ref();
        labels.and_then(|labels| labels.get(label)).cloned()
    };
    let mut ours: Vec<NetworkSummary> = networks
        .into_iter()
        .filter(|it| it.name.as_ref() == Some(&name))
        .filter(|it| label(it, CLUSTER_LABEL).as_deref() == Some(desired.cluster))
        .filter(|it| desired.id.is_some() && label(it, ID_LABEL).as_deref() == desired.id)
        .collect();
    ours.sort_by_key(|it| it.created.as_ref().map(ToString::to_string));
    for twin in ours.into_iter().skip(1) {
        let Some(id) = twin.id else { continue };
        // The engine refuses to remove one that is used.
        engine::lookup(
            &format!("remove the second network {name}"),
            engine.api().remove_network(&id),
        )
        .await?;
    }
    Ok(())
}

/// Whether this cluster has a network that does not have `subnet`.
pub(super) async fn is_elsewhere(
    engine: &Engine,
    desired: &Desired<'_>,
    subnet: Ipv4Net,
) -> Result<bool> {
    Ok(elsewhere(engine, desired, subnet).await?.is_some())
}

/// Removes the cluster's own network if it is not the inventory's; no host is on it.
pub(super) async fn renumber(engine: &Engine, desired: &Desired<'_>) -> Result<()> {
    let Some(wanted) = subnet::wanted(desired.subnet, desired.fixed)? else {
        return Ok(());
    };
    let Some(id) = elsewhere(engine, desired, wanted).await? else {
        return Ok(());
    };
    let doing = format!("remove the network {}", desired.name());
    engine::lookup(&doing, engine.api().remove_network(&id))
        .await
        .map(|_| ())
        .map_err(|error| {
            error
                .left(
                    "the hosts that should move have no address until the next run gives them one",
                )
                .hint(format!(
                    "see who else is on it: docker network inspect {}",
                    desired.name()
                ))
        })
}

async fn elsewhere(
    engine: &Engine,
    desired: &Desired<'_>,
    wanted: Ipv4Net,
) -> Result<Option<String>> {
    let name = desired.name();
    let network = engine::lookup(
        &format!("inspect the network {name}"),
        engine
            .api()
            .inspect_network(&name, None::<InspectNetworkOptions>),
    )
    .await?;
    let Some(network) = network else {
        return Ok(None);
    };
    let ours = network
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CLUSTER_LABEL));
    let subnet = network
        .ipam
        .as_ref()
        .and_then(|ipam| ipam.config.as_ref())
        .and_then(|configs| configs.iter().find_map(ipv4_subnet));
    let fits = match (desired.subnet, subnet) {
        (_, None) => false,
        (Some(_), Some(subnet)) => subnet == wanted,
        // Addresses without `subnet:` only have to be inside.
        (None, Some(subnet)) => desired.fixed.values().all(|it| subnet.contains(it)),
    };
    Ok(network
        .id
        .filter(|_| !fits && ours.map(String::as_str) == Some(desired.cluster)))
}

async fn create(
    engine: &Engine,
    desired: &Desired<'_>,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
) -> Result<String> {
    let name = desired.name();
    // The engine gives its networks an MTU of 1500, whatever the machine has. On a machine with less (many
    // clouds and tunnels), large packets would vanish and downloads would hang.
    let mtu = engine.local.then(default_mtu).flatten();
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".into()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.to_string()),
                gateway: Some(gateway.to_string()),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        options: mtu
            .filter(|mtu| *mtu < 1500)
            .map(|mtu| HashMap::from([("com.docker.network.driver.mtu".into(), mtu.to_string())])),
        labels: Some(
            [
                (CLUSTER_LABEL, Some(desired.cluster)),
                (ID_LABEL, desired.id),
            ]
            .into_iter()
            .filter_map(|(label, value)| Some((label.to_owned(), value?.to_owned())))
            .collect(),
        ),
        ..Default::default()
    };
    let response = engine::call(
        &format!("make the network {name} with {subnet}"),
        engine.api().create_network(request),
    )
    .await?;
    Ok(response.id)
}

/// Addresses on the network that do not belong to this cluster's hosts, such as a container that a person
/// connected to it.
pub(super) async fn addresses(engine: &Engine, name: &str) -> Result<BTreeSet<Ipv4Addr>> {
    let network = engine::lookup(
        &format!("inspect the network {name}"),
        engine
            .api()
            .inspect_network(name, None::<InspectNetworkOptions>),
    )
    .await?;
    Ok(network
        .and_then(|network| network.containers)
        .unwrap_or_default()
        .into_values()
        .filter_map(|endpoint| endpoint.ipv4_address)
        .filter_map(|address| address.parse::<Ipv4Net>().ok())
        .map(|net| net.addr())
        .collect())
}

fn existing(
    network: &NetworkSummary,
    desired: &Desired<'_>,
    wanted: Option<Ipv4Net>,
) -> Result<Network> {
    let name = desired.name();
    let owner = network
        .labels
        .as_ref()
        .and_then(|labels| labels.get(CLUSTER_LABEL));
    if owner.map(String::as_str) != Some(desired.cluster) {
        return Err(Error::new(
            Code::NameTaken,
            format!(
                "the engine already has a network {name}, which does not belong to the cluster {}",
                desired.cluster
            ),
        )
        .left("nothing was touched")
        .hint(format!(
            "remove it with `docker network rm {name}`, or give the cluster another name"
        )));
    }
    let config = network
        .ipam
        .as_ref()
        .and_then(|ipam| ipam.config.as_ref())
        .and_then(|configs| configs.iter().find(|config| ipv4_subnet(config).is_some()));
    let Some(subnet) = config.and_then(ipv4_subnet) else {
        return Err(Error::new(
            Code::InfrastructureDiffers,
            format!("the engine's network {name} has no IPv4 subnet"),
        ));
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != subnet) {
        // Addresses without `subnet:` only have to be inside.
        let fits = desired.subnet.is_none()
            && desired
                .fixed
                .values()
                .all(|address| subnet.contains(address));
        if !fits {
            return Err(Error::new(Code::InfrastructureDiffers, format!(
                "the network {name} has the subnet {subnet}, and the inventory asks for {wanted}"
            ))
            .cause("the subnet of a network cannot be changed while hosts are on it")
            .left("nothing was touched")
            .hint(format!(
                "keep {subnet} in the inventory, or take the cluster down and up again"
            )));
        }
    }
    let gateway = config
        .and_then(|config| config.gateway.as_deref())
        .and_then(|gateway| gateway.parse().ok());
    Ok(Network {
        name,
        subnet,
        gateway: match gateway {
            Some(gateway) => gateway,
            None => subnet::gateway(subnet, &IndexMap::new())?,
        },
    })
}

fn ipv4_subnet(config: &IpamConfig) -> Option<Ipv4Net> {
    config.subnet.as_deref()?.parse().ok()
}

fn ranges(network: &NetworkSummary) -> Vec<Taken> {
    let name = network.name.as_deref().unwrap_or("?");
    network
        .ipam
        .iter()
        .filter_map(|ipam| ipam.config.as_ref())
        .flatten()
        .filter_map(ipv4_subnet)
        .map(|range| Taken {
            range,
            by: format!("{range} of the engine's network {name}"),
        })
        .collect()
}

/// What cannot be read restricts nothing; the engine makes its own checks too.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn default_mtu() -> Option<u32> {
    let table = read("/proc/net/route");
    let interface = subnet::default_interface(&table)?;
    read(&format!("/sys/class/net/{interface}/mtu"))
        .trim()
        .parse()
        .ok()
}
