//! The cluster's instances in EC2.

use std::net::Ipv4Addr;

use aws_sdk_ec2::{
    Client,
    primitives::DateTime,
    types::{Filter, Instance, InstanceStateName as State, StateReason, Tag},
};

use super::{
    attached::{self, Attached},
    failure::{Doing, Failure},
    vcpus::counted,
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Connect, HostName},
    provider::{CLUSTER_LABEL, HOST_LABEL, ID_LABEL, Machine, MachineState},
};

/// The tag with the host's public key, which every pgherd that discovers the host pins.
pub(super) const HOST_KEY: &str = "pgherd:host-key";
/// The tag with the image that an instance was made from, in the inventory's words.
pub(super) const IMAGE: &str = "pgherd:image";

/// The tag with the user and machine that launched it.
pub(super) const BY: &str = "pgherd:by";

/// The states of an instance that exists or will exist.
pub(super) const ALIVE: [State; 4] = [
    State::Pending,
    State::Running,
    State::Stopping,
    State::Stopped,
];

#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) host: HostName,
    pub(super) state: State,
    pub(super) private: Option<Ipv4Addr>,
    pub(super) public: Option<Ipv4Addr>,
    pub(super) zone: String,
    pub(super) image_id: String,
    pub(super) image: Option<String>,
    pub(super) architecture: String,
    pub(super) host_key: Option<String>,
    pub(super) cluster_id: Option<String>,
    pub(super) key_name: Option<String>,
    pub(super) vpc: Option<String>,
    pub(super) subnet: Option<String>,
    /// The network interface that it was launched with, and the security groups of that.
    pub(super) interface: Option<String>,
    pub(super) groups: Vec<String>,
    /// The name of its instance profile.
    pub(super) profile: Option<String>,
    /// When it was launched, in seconds since 1970, and by whom.
    pub(super) launched: i64,
    pub(super) by: Option<String>,
    /// How much of the account's quota it uses while it runs.
    pub(super) vcpus: i32,
    /// The reason for its state, if EC2 gives one.
    pub(super) reason: Option<String>,
    /// Whether it has a data volume, or is to get one.
    pub(super) has_data_volume: bool,
    /// The data volume, once it is there.
    pub(super) data_volume: Option<Attached>,
}

impl Found {
    /// `None` if the instance has no tag with a host.
    pub(super) fn new(instance: Instance) -> Option<Self> {
        let tag = |key| tag(instance.tags(), key).map(str::to_owned);
        let address = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let interface = instance.network_interfaces().first();
        let groups = interface.map_or(&[][..], |it| it.groups());
        Some(Self {
            interface: interface
                .and_then(|it| it.network_interface_id())
                .map(str::to_owned),
            groups: groups
                .iter()
                .filter_map(|it| it.group_id().map(str::to_owned))
                .collect(),
            profile: instance
                .iam_instance_profile()
                .and_then(|it| it.arn())
                .map(|arn| name_in(arn).to_owned()),
            host: HostName::new(tag(HOST_LABEL)?),
            state: instance.state()?.name()?.clone(),
            private: address(instance.private_ip_address()),
            public: address(instance.public_ip_address()),
            zone: instance.placement()?.availability_zone()?.to_owned(),
            image: tag(IMAGE),
            image_id: instance.image_id().unwrap_or_default().to_owned(),
            architecture: instance
                .architecture()
                .map_or("x86_64", |it| it.as_str())
                .to_owned(),
            host_key: tag(HOST_KEY),
            cluster_id: tag(ID_LABEL),
            key_name: instance.key_name().map(str::to_owned),
            vpc: instance.vpc_id().map(str::to_owned),
            subnet: instance.subnet_id().map(str::to_owned),
            launched: instance.launch_time().map_or(0, DateTime::secs),
            by: tag(BY),
            vcpus: counted(&instance),
            reason: instance.state_reason().map(in_words),
            has_data_volume: tag(attached::TAG).is_some(),
            data_volume: Attached::of(&instance),
            id: instance.instance_id?,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        ALIVE.contains(&self.state)
    }

    /// Whether `up` must start it.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped | State::Stopping)
    }

    /// The address for SSH, if it has one yet.
    pub(super) fn door(&self, connect: Connect) -> Option<Ipv4Addr> {
        match connect {
            Connect::Public => self.public,
            Connect::Private => self.private,
        }
    }

    /// The data volume that is known to be one.
    pub(super) fn own_data_volume(&self) -> Option<&Attached> {
        self.data_volume.as_ref().filter(|_| self.has_data_volume)
    }

    /// An instance without all its addresses, or without its data volume, counts as stopped, so that `up`
    /// completes it.
    pub(super) fn machine(&self, connect: Connect) -> Machine {
        let data_volume = self.own_data_volume().map(|it| it.id.clone());
        let there = self.state == State::Running
            && self.private.is_some()
            && self.door(connect).is_some()
            && (data_volume.is_some() || !self.has_data_volume);
        Machine {
            host: self.host.clone(),
            id: self.id.clone(),
            state: match there {
                true => MachineState::Running,
                false => MachineState::Stopped,
            },
            address: self.private,
            ssh_address: match connect {
                Connect::Public => self.public,
                Connect::Private => None,
            },
            host_key: self.host_key.clone(),
            published_on: None,
            balancer: None,
            cluster_id: self.cluster_id.clone(),
            data_volume,
        }
    }
}

/// Usually the message contains the code.
fn in_words(reason: &StateReason) -> String {
    let (code, message) = (reason.code(), reason.message().unwrap_or_default());
    match code {
        Some(code) if !message.contains(code) => format!("{code}: {message}"),
        _ => message.to_owned(),
    }
}

/// The name in the ARN of an instance profile, which may have a path before it.
pub(super) fn name_in(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

pub(super) fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter()
        .find(|tag| tag.key() == Some(key))
        .and_then(Tag::value)
}

/// A filter for resources with the cluster's tag.
pub(super) fn of_cluster(cluster: &str) -> Filter {
    filter(&format!("tag:{CLUSTER_LABEL}"), [cluster])
}

pub(super) fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().map(str::to_owned).collect()))
        .build()
}

/// All instances of the cluster in one of `states`, from all pages.
pub(super) async fn find(
    ec2: &Client,
    cluster: &str,
    states: &[State],
) -> Result<Vec<Found>, Failure> {
    let filters = vec![of_cluster(cluster), in_states(states)];
    let found = list(ec2, filters, "list the cluster's instances").await?;
    Ok(found.into_iter().filter_map(Found::new).collect())
}

/// A filter for instances in one of these states.
pub(super) fn in_states(states: &[State]) -> Filter {
    filter("instance-state-name", states.iter().map(State::as_str))
}

/// All instances that the filters let through, from all pages.
pub(super) async fn list(
    ec2: &Client,
    filters: Vec<Filter>,
    doing: &str,
) -> Result<Vec<Instance>, Failure> {
    let found = ec2
        .describe_instances()
        .set_filters(Some(filters))
        .into_paginator()
        .page_size(PAGE)
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing(doing)?;
    let instances = found.into_iter();
    let instances = instances.flat_map(|reservation| reservation.instances.unwrap_or_default());
    Ok(instances.collect())
}

/// EC2's maximum for a page.
const PAGE: i32 = 1000;

/// The living instances, one for each host.
pub(super) async fn alive(ec2: &Client, cluster: &str) -> Result<Vec<Found>> {
    let mut found = find(ec2, cluster, &ALIVE).await?;
    found.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
    for pair in found.windows(2) {
        if let [one, other] = pair
            && one.host == other.host
        {
            return Err(Error::new(
                Code::InfrastructureDiffers,
                "two instances say that they are this host",
            )
            .on(&one.host)
            .cause(format!("{} and {} carry its tags", one.id, other.id))
            .left("nothing was touched")
            .hint(
                "terminate the one that is not the cluster's, or take its tag pgherd:host away",
            ));
        }
    }
    Ok(found)
}
