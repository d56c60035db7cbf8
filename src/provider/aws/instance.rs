//! The cluster's instances in EC2.

use std::net::Ipv4Addr;

use aws_sdk_ec2::{
    Client,
    primitives::DateTime,
    types::{Filter, Instance, InstanceStateName as State, StateReason, Tag},
};

use super::{
    failure::{Doing, Failure},
    vcpus::counted,
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Connect, HostName},
    provider::{CLUSTER_LABEL, HOST_LABEL, ID_LABEL, Machine, MachineState},
};

/// The tag with the host's public key: what discovery, by anybody, pins.
pub(super) const HOST_KEY: &str = "pgherd:host-key";
/// The tag with the inventory's word for the image that an instance was made from.
pub(super) const IMAGE: &str = "pgherd:image";

/// The tag that says who launched it: user and machine.
pub(super) const BY: &str = "pgherd:by";

/// States of an instance that is there, or will be.
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
    /// The interface that it was launched with, and the security groups that this is in.
    pub(super) interface: Option<String>,
    pub(super) groups: Vec<String>,
    /// When it was launched, in seconds since 1970, and by whom.
    pub(super) launched: i64,
    pub(super) by: Option<String>,
    /// What it takes of the account's quota while it runs.
    pub(super) vcpus: i32,
    /// Why it is in its state, where EC2 says so.
    pub(super) reason: Option<String>,
}

impl Found {
    /// Nothing where the instance does not say which host it is.
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
            id: instance.instance_id?,
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        ALIVE.contains(&self.state)
    }

    /// Whether `up` starts it.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped | State::Stopping)
    }

    /// Where SSH goes, once there is such an address.
    pub(super) fn door(&self, connect: Connect) -> Option<Ipv4Addr> {
        match connect {
            Connect::Public => self.public,
            Connect::Private => self.private,
        }
    }

    /// Running with all its addresses; anything less is for `up` to complete.
    pub(super) fn machine(&self, connect: Connect) -> Machine {
        let there =
            self.state == State::Running && self.private.is_some() && self.door(connect).is_some();
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
        }
    }
}

/// Usually the code is a part of the message.
fn in_words(reason: &StateReason) -> String {
    let (code, message) = (reason.code(), reason.message().unwrap_or_default());
    match code {
        Some(code) if !message.contains(code) => format!("{code}: {message}"),
        _ => message.to_owned(),
    }
}

pub(super) fn tag<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter()
        .find(|tag| tag.key() == Some(key))
        .and_then(Tag::value)
}

/// Keeps what is tagged as the cluster's.
pub(super) fn of_cluster(cluster: &str) -> Filter {
    filter(&format!("tag:{CLUSTER_LABEL}"), [cluster])
}

pub(super) fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.into_iter().map(str::to_owned).collect()))
        .build()
}

/// Every instance of the cluster in one of `states`, over as many pages as it takes.
pub(super) async fn find(
    ec2: &Client,
    cluster: &str,
    states: &[State],
) -> Result<Vec<Found>, Failure> {
    let found = ec2
        .describe_instances()
        .filters(of_cluster(cluster))
        .filters(filter(
            "instance-state-name",
            states.iter().map(State::as_str),
        ))
        .into_paginator()
        .page_size(PAGE)
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the cluster's instances")?;
    Ok(found
        .into_iter()
        .flat_map(|reservation| reservation.instances.unwrap_or_default())
        .filter_map(Found::new)
        .collect())
}

/// Far more than a cluster has; EC2's own pages hold up to 1000.
const PAGE: i32 = 200;

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
