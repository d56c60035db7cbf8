//! Where the hosts come from: the settings of each kind of provider.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ipnet::Ipv4Net;

use super::limits;
use crate::host::HostName;

#[derive(Debug, Clone)]
pub enum Provider {
    Docker(Docker),
    Aws(Box<Aws>),
    Existing,
}

impl Provider {
    pub fn kind(&self) -> ProviderKind {
        match self {
            Provider::Docker(_) => ProviderKind::Docker,
            Provider::Aws(_) => ProviderKind::Aws,
            Provider::Existing => ProviderKind::Existing,
        }
    }

    /// Whether a host that is made again gets the address that it had.
    pub fn gives_addresses_back(&self) -> bool {
        match self {
            Provider::Docker(_) | Provider::Existing => true,
            Provider::Aws(_) => false,
        }
    }

    /// Whether the hosts run on one machine and share its processors.
    pub fn shares_a_machine(&self) -> bool {
        match self {
            Provider::Docker(_) => true,
            Provider::Aws(_) | Provider::Existing => false,
        }
    }

    /// Whether hosts are created from the newest prepared image.
    pub fn is_prepared(&self) -> bool {
        match self {
            Provider::Docker(settings) => settings.is_prepared(),
            Provider::Aws(settings) => settings.is_prepared(),
            Provider::Existing => false,
        }
    }
}

/// The kind of provider, without its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Containers on this machine.
    Docker,
    /// EC2 instances.
    Aws,
    /// Existing hosts of the user.
    Existing,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Docker {
    /// An image that the engine already has, one that the user wants pulled, or `prepared`.
    pub image: Option<String>,
    /// The network's subnet; if it is not set, an unused one is chosen.
    pub subnet: Option<Ipv4Net>,
    /// Whether no port of a host is published on this machine.
    pub unpublished: bool,
}

impl Docker {
    /// Whether hosts are created from the newest prepared image.
    pub fn is_prepared(&self) -> bool {
        self.image.as_deref() == Some(limits::PREPARED)
    }

    /// The settings for a host that becomes an image: it is created from the base image, in a network of its
    /// own.
    pub(crate) fn of_builder(&self) -> Self {
        Self {
            image: self.image.clone().filter(|_| !self.is_prepared()),
            subnet: None,
            unpublished: true,
        }
    }
}

/// Which of a host's addresses SSH connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connect {
    Public,
    Private,
}

/// What happens when a burstable instance has used up its CPU credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuCredits {
    /// It is slowed down to its baseline.
    Standard,
    /// It keeps its speed, and costs more.
    Unlimited,
}

/// What is before the front doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadBalancer {
    /// A Network Load Balancer.
    Network,
}

/// From where a load balancer can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// By the private addresses of its subnets.
    Internal,
    /// By public addresses.
    InternetFacing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    pub region: Option<String>,
    pub profile: Option<String>,
    pub endpoint_url: Option<String>,
    /// If it is not set, EC2's default for the instance type.
    pub cpu_credits: Option<CpuCredits>,
    /// An AMI id, `ubuntu-24.04` or `ubuntu-24.04-minimal`.
    pub image: String,
    /// If empty, those of the default VPC.
    pub subnet_ids: Vec<String>,
    pub connect: Connect,
    pub operator_cidrs: Vec<Ipv4Net>,
    pub tags: BTreeMap<String, String>,
    /// The scheme of the load balancer before the front doors, if there is to be one.
    pub load_balancer: Option<Scheme>,
    /// The settings of each host, in the inventory's order.
    pub hosts: IndexMap<HostName, AwsHost>,
}

impl Aws {
    /// The base image, from which prepared images are made, and hosts if there is no prepared image.
    pub const BASE: &str = limits::AWS_IMAGE;

    /// Whether hosts are created from the newest prepared image.
    pub fn is_prepared(&self) -> bool {
        self.image == limits::PREPARED
    }

    /// The settings for a host that becomes an image: it is created from the base image, with the settings of
    /// the first host except for its place.
    pub(crate) fn of_builder(&self, host: &HostName) -> Self {
        let image = match self.is_prepared() {
            true => Self::BASE.to_owned(),
            false => self.image.clone(),
        };
        let first = self.hosts.values().next();
        let hosts = first.map(|first| {
            let builder = AwsHost {
                zone: None,
                // A host's volume cannot be smaller than its image.
                volume_gb: limits::LEAST_VOLUME_GB,
                volume_grows: true,
                iops: None,
                data_volume: None,
                ..first.clone()
            };
            (host.clone(), builder)
        });
        Self {
            image,
            load_balancer: None,
            hosts: hosts.into_iter().collect(),
            ..self.clone()
        }
    }
}

/// The settings of an instance, with the provider's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsHost {
    /// The availability zone; if it is not set, one is chosen.
    pub zone: Option<String>,
    pub instance_type: String,
    /// GiB.
    pub volume_gb: u32,
    /// The volume is larger if the image needs it.
    pub volume_grows: bool,
    pub iops: Option<u32>,
    /// Only of hosts with a database.
    pub data_volume: Option<DataVolume>,
}

/// A disk of its own for a host's data, an encrypted gp3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataVolume {
    /// GiB.
    pub size_gb: u32,
    /// If it is not set, EC2's default; so are the next two.
    pub iops: Option<u32>,
    /// MiB/s.
    pub throughput: Option<u32>,
    pub kms_key: Option<String>,
}
