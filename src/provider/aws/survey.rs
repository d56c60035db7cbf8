//! What the account and the region offer for new hosts.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{Client, types};
use ipnet::Ipv4Net;

use super::{
    AwsProvider,
    account::Account,
    failure::{Doing, Failure},
    image::Image,
    instance::{Found, filter},
    placement::{self, Subnet, Wish},
    public_address::PublicAddress,
    volumes::{self, Kept},
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Aws, Connect, HostName, Role},
    prepared::Choice,
};

/// The place of a host that does not exist yet, and what it will be created from.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) subnet: Subnet,
    pub(super) image: Image,
    pub(super) kind: Kind,
    /// GiB.
    pub(super) volume_gb: u32,
    /// The data volume that an earlier host of this name has left.
    pub(super) data_volume: Option<Kept>,
}

/// What an instance type is.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) architecture: String,
    pub(super) vcpus: i32,
    /// Whether it earns and spends CPU credits.
    pub(super) burstable: bool,
}

/// Everything that must be known before anything is created.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    pub(super) vpc: String,
    /// The networks from which SSH and the statistics page are reachable.
    pub(super) operators: Vec<Ipv4Net>,
    pub(super) places: BTreeMap<HostName, Place>,
    /// If the inventory asks for prepared images: the image for hosts of each architecture.
    pub(super) prepared: Vec<Choice>,
}

/// The account and the client.
pub(super) struct Asked<'a> {
    pub(super) account: &'a Account,
    pub(super) provider: &'a AwsProvider,
    pub(super) public_address: &'a PublicAddress,
}

/// Finds out everything that launching `missing` needs; changes nothing.
pub(super) async fn survey(
    asked: Asked<'_>,
    missing: &[HostName],
    found: &[Found],
) -> Result<Survey> {
    let Asked {
        account,
        provider,
        public_address,
    } = asked;
    let (inventory, settings) = (&provider.inventory, &provider.settings);
    let ec2 = &account.ec2;
    let types: BTreeSet<&str> = missing
        .iter()
        .filter_map(|host| Some(settings.hosts.get(host)?.instance_type.as_str()))
        .collect();
    let (subnets, offers, kinds, kept) = tokio::try_join!(
        subnets(ec2, settings),
        async { Ok(offers(ec2, &types).await?) },
        async { Ok(kinds(ec2, &types).await?) },
        data_volumes(ec2, provider, missing),
    )?;
    let vpc = one_vpc(&subnets, found)?;
    let wishes: Vec<Wish<'_>> = missing
        .iter()
        .filter_map(|host| {
            let desired = inventory.hosts.get(host)?;
            let own = settings.hosts.get(host)?;
            Some(Wish {
                host,
                roles: &desired.roles,
                // A volume cannot leave its zone.
                zone: own
                    .zone
                    .as_deref()
                    .or(kept.get(host).map(|it| it.zone.as_str())),
                address: desired.address,
                instance_type: &own.instance_type,
                offered: offers.get(&own.instance_type).cloned().unwrap_or_default(),
            })
        })
        .collect();
    let there: Vec<(Vec<Role>, String)> = found
        .iter()
        .filter_map(|it| {
            Some((
                inventory.hosts.get(&it.host)?.roles.clone(),
                it.zone.clone(),
            ))
        })
        .collect();
    let chosen = placement::place(&wishes, &there, &subnets)?;
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut prepared = Vec::new();
    for (host, subnet) in chosen {
        let own = &settings.hosts[host];
        let kind = kinds.get(&own.instance_type).cloned();
        let kind = kind.unwrap_or_else(|| Kind {
            architecture: "x86_64".to_owned(),
            vcpus: 0,
            burstable: false,
        });
        let architecture = kind.architecture.as_str();
        let image = match images.get(architecture) {
            Some(image) => image.clone(),
            None => {
                let (image, choice) = provider.image_for(account, architecture, found).await?;
                prepared.extend(choice);
                images.insert(architecture.to_owned(), image.clone());
                image
            }
        };
        let volume_gb = match own.volume_grows {
            true => own.volume_gb.max(image.least_gb),
            false => own.volume_gb,
        };
        if volume_gb < image.least_gb {
            return Err(Error::new(
                Code::ProviderSettingUnusable,
                format!(
                    "a volume of {} GiB is too small for the image {}, which needs {}",
                    volume_gb, image.id, image.least_gb
                ),
            )
            .on(host)
            .hint("raise volume_gb"));
        }
        let place = Place {
            subnet: subnet.clone(),
            image,
            kind,
            volume_gb,
            data_volume: kept.get(host).cloned(),
        };
        places.insert(host.clone(), place);
    }
    let operators = operators(ec2, settings, public_address, &vpc).await?;
    Ok(Survey {
        vpc,
        operators,
        places,
        prepared,
    })
}

/// The data volumes of the missing hosts that are to have one, as far as they are there.
async fn data_volumes(
    ec2: &Client,
    provider: &AwsProvider,
    missing: &[HostName],
) -> Result<BTreeMap<HostName, Kept>> {
    let hosts = &provider.settings.hosts;
    let has = |host: &&HostName| hosts.get(*host).is_some_and(|it| it.data_volume.is_some());
    let wanted: Vec<&HostName> = missing.iter().filter(has).collect();
    let kept = volumes::kept(ec2, &provider.inventory.cluster, &wanted).await?;
    for (host, volume) in &kept {
        volumes::refuse_another_zone(host, &hosts[host], &volume.id, &volume.zone)?;
    }
    Ok(kept)
}

/// The networks from which SSH and the statistics page are reachable.
pub(super) async fn operators(
    ec2: &Client,
    settings: &Aws,
    public_address: &PublicAddress,
    vpc: &str,
) -> Result<Vec<Ipv4Net>> {
    match (settings.operator_cidrs.as_slice(), settings.connect) {
        ([], Connect::Private) => networks_of(ec2, vpc).await,
        ([], Connect::Public) => Ok(vec![public_address.address(settings).await?.into()]),
        (named, _) => Ok(named.to_vec()),
    }
}

/// The subnets that the inventory names, or those of the default VPC.
async fn subnets(ec2: &Client, settings: &Aws) -> Result<Vec<Subnet>> {
    let call = ec2.describe_subnets();
    let call = match settings.subnet_ids.as_slice() {
        [] => call
            .filters(filter("default-for-az", ["true"]))
            .filters(filter("state", ["available"])),
        ids => call.set_subnet_ids(Some(ids.to_vec())),
    };
    let answer = call.send().await.doing("look at the subnets");
    let answer = answer.map_err(|failure| {
        let unknown = failure.is(&["InvalidSubnetID.NotFound"]);
        let error = Error::from(failure);
        match unknown {
            true => error.hint("a subnet belongs to one region; see provider.region"),
            false => error,
        }
    })?;
    let found: Vec<Subnet> = answer.subnets().iter().filter_map(subnet).collect();
    let without_ipv4: Vec<&str> = answer
        .subnets()
        .iter()
        .filter(|it| subnet(it).is_none())
        .filter_map(|it| it.subnet_id())
        .collect();
    // Of the default VPC's subnets, those that are suitable are used.
    if !without_ipv4.is_empty() && (found.is_empty() || !settings.subnet_ids.is_empty()) {
        return Err(Error::new(
            Code::NetworkUnsuitable,
            "a subnet has only IPv6 addresses, and pgherd's hosts need IPv4",
        )
        .cause(format!(
            "without an IPv4 network: {}",
            without_ipv4.join(", ")
        ))
        .left("nothing was made")
        .hint("name subnets with an IPv4 network in provider.subnet_ids"));
    }
    if found.is_empty() {
        return Err(Error::new(Code::NetworkUnsuitable, "there is no default VPC with subnets here")
            .hint("name subnets in provider.subnet_ids, or make a default VPC: aws ec2 create-default-vpc"));
    }
    Ok(found)
}

/// `None` if it has no IPv4 network.
fn subnet(subnet: &types::Subnet) -> Option<Subnet> {
    Some(Subnet {
        id: subnet.subnet_id()?.to_owned(),
        vpc: subnet.vpc_id()?.to_owned(),
        zone: subnet.availability_zone()?.to_owned(),
        network: subnet.cidr_block()?.parse().ok()?,
        free: subnet.available_ip_address_count().unwrap_or(1),
    })
}

/// Security groups belong to one VPC, so all hosts must be in one, including existing ones.
fn one_vpc(subnets: &[Subnet], found: &[Found]) -> Result<String> {
    let vpc = subnets.first().map(|it| it.vpc.clone()).unwrap_or_default();
    if let Some(other) = subnets.iter().find(|it| it.vpc != vpc) {
        return Err(Error::new(
            Code::ProviderSettingUnusable,
            format!(
                "{} is in {}, and {} in {vpc}",
                other.id, other.vpc, subnets[0].id
            ),
        )
        .hint("the subnets of a cluster must be in one VPC"));
    }
    let stray = found
        .iter()
        .find(|it| it.vpc.as_ref().is_some_and(|other| *other != vpc));
    match stray {
        Some(stray) => Err(Error::new(
            Code::NetworkUnsuitable,
            format!(
                "the host is in {}, and the inventory's subnets are in {vpc}",
                stray.vpc.as_deref().unwrap_or_default()
            ),
        )
        .on(&stray.host)
        .left("nothing was touched")
        .hint("a cluster cannot move to another VPC; make another cluster there")),
        None => Ok(vpc),
    }
}

/// The zones that have each instance type.
async fn offers(
    ec2: &Client,
    wanted: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let offerings = ec2
        .describe_instance_type_offerings()
        .location_type(types::LocationType::AvailabilityZone)
        .filters(filter("instance-type", wanted.iter().copied()))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("see which zones have the instance type")?;
    let mut zones: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for offering in offerings {
        if let (Some(kind), Some(zone)) = (offering.instance_type, offering.location) {
            zones
                .entry(kind.as_str().to_owned())
                .or_default()
                .push(zone);
        }
    }
    Ok(zones)
}

/// The facts about each instance type.
pub(super) async fn kinds(
    ec2: &Client,
    wanted: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Kind>, Failure> {
    let known = ec2
        .describe_instance_types()
        .filters(filter("instance-type", wanted.iter().copied()))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("look at the instance type")?;
    Ok(known
        .into_iter()
        .filter_map(|kind| {
            let all = kind.processor_info()?.supported_architectures();
            let first = all
                .iter()
                .find(|it| matches!(it.as_str(), "x86_64" | "arm64"))?;
            let vcpus = kind.v_cpu_info().and_then(types::VCpuInfo::default_v_cpus);
            Some((
                kind.instance_type()?.as_str().to_owned(),
                Kind {
                    architecture: first.as_str().to_owned(),
                    vcpus: vcpus.unwrap_or_default(),
                    burstable: kind.burstable_performance_supported().unwrap_or_default(),
                },
            ))
        })
        .collect())
}

/// The networks of a VPC: a private address is reached from there, directly or through a bastion.
async fn networks_of(ec2: &Client, vpc: &str) -> Result<Vec<Ipv4Net>> {
    let answer = ec2.describe_vpcs().vpc_ids(vpc).send().await;
    let answer = answer.doing(format!("look at {vpc}"))?;
    let networks: Vec<Ipv4Net> = answer
        .vpcs()
        .iter()
        .flat_map(|vpc| {
            let more = vpc.cidr_block_association_set().iter();
            vpc.cidr_block()
                .into_iter()
                .chain(more.filter_map(|it| it.cidr_block()))
        })
        .filter_map(|network| network.parse().ok())
        .collect();
    let networks: BTreeSet<Ipv4Net> = networks.into_iter().collect();
    Ok(networks.into_iter().collect())
}
