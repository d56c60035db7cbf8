//! The call that launches a host, also as a dry run.

use std::collections::BTreeMap;

use aws_sdk_ec2::{
    Client,
    operation::run_instances::builders::RunInstancesFluentBuilder,
    types::{
        BlockDeviceMapping, CreditSpecificationRequest, EbsBlockDevice, HttpTokensState,
        InstanceMetadataEndpointState, InstanceMetadataOptionsRequest,
        InstanceNetworkInterfaceSpecification, InstanceType, ResourceType, ShutdownBehavior,
        VolumeType,
    },
};

use super::{
    Tags, attached,
    instance::{BY, HOST_KEY, IMAGE},
    profile,
    survey::Place,
    volumes,
};
use crate::{
    inventory::{Aws, AwsHost, Connect, Host, HostName, Role},
    provider::HOST_LABEL,
    secret::Secret,
};

/// The value of the tag for instances with a data volume.
const DATA: &str = "yes";

/// The settings of one host.
pub(super) struct Spec<'a> {
    pub(super) host: &'a HostName,
    pub(super) desired: &'a Host,
    pub(super) own: &'a AwsHost,
    pub(super) settings: &'a Aws,
    /// The instance profile that the host gets.
    pub(super) profile: Option<&'a str>,
    pub(super) place: &'a Place,
}

impl Spec<'_> {
    /// What its launch does, as messages say it.
    pub(super) fn in_words(&self) -> String {
        let profile = self.profile.map_or_else(String::new, |name| {
            format!(" with the instance profile {name}")
        });
        format!(
            "launch the host ({} in {}){profile}",
            self.own.instance_type, self.place.subnet.zone
        )
    }
}

/// Input that exists only when the launch has begun.
pub(super) struct Made<'a> {
    pub(super) groups: &'a BTreeMap<Role, String>,
    pub(super) key_name: &'a str,
    pub(super) token: &'a str,
    pub(super) host_key: &'a str,
    pub(super) user_data: &'a Secret,
    pub(super) by: &'a str,
}

/// The call; without that input, it can only be used as a dry run.
///
/// Tags are set in the same call, so nothing ever exists without showing that it is the cluster's.
pub(super) fn run_instance(
    ec2: &Client,
    spec: &Spec<'_>,
    tags: &Tags<'_>,
    made: Option<&Made<'_>>,
) -> RunInstancesFluentBuilder {
    let name = format!("{}-{}", tags.cluster(), spec.host);
    let common = [("Name", name.as_str()), (HOST_LABEL, spec.host.as_str())];
    let mut about: Vec<(&str, &str)> = common.to_vec();
    about.push((IMAGE, &spec.settings.image));
    if spec.own.data_volume.is_some() {
        about.push((attached::TAG, DATA));
    }
    let mut interface = InstanceNetworkInterfaceSpecification::builder()
        .device_index(0)
        .subnet_id(&spec.place.subnet.id)
        .associate_public_ip_address(spec.settings.connect == Connect::Public)
        .delete_on_termination(true)
        .set_private_ip_address(spec.desired.address.map(|it| it.to_string()));
    if let Some(made) = made {
        about.push((HOST_KEY, made.host_key));
        about.push((BY, made.by));
        let groups = spec.desired.roles.iter();
        let groups = groups.filter_map(|role| made.groups.get(role).cloned());
        interface = interface.set_groups(Some(groups.collect()));
    }
    let volume = EbsBlockDevice::builder()
        .volume_type(VolumeType::Gp3)
        .volume_size(i32::try_from(spec.place.volume_gb).unwrap_or(i32::MAX))
        .set_iops(spec.own.iops.and_then(|iops| iops.try_into().ok()))
        .encrypted(true)
        .delete_on_termination(true)
        .build();
    let root = BlockDeviceMapping::builder()
        .device_name(&spec.place.image.root)
        .ebs(volume)
        .build();
    // A volume that is there already is attached to the instance later.
    let data = spec.own.data_volume.as_ref();
    let data = data.filter(|_| spec.place.data_volume.is_none());
    let devices = std::iter::once(root).chain(data.map(volumes::mapping));
    let devices: Vec<BlockDeviceMapping> = devices.collect();
    let metadata = InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .build();
    let credits = spec
        .settings
        .cpu_credits
        .filter(|_| spec.place.kind.burstable);
    let credits = credits.map(|it| {
        CreditSpecificationRequest::builder()
            .cpu_credits(it.as_str())
            .build()
    });
    let call = ec2
        .run_instances()
        .min_count(1)
        .max_count(1)
        .image_id(&spec.place.image.id)
        .instance_type(InstanceType::from(spec.own.instance_type.as_str()))
        .set_block_device_mappings(Some(devices))
        .network_interfaces(interface.build())
        .set_iam_instance_profile(spec.profile.map(profile::named))
        .metadata_options(metadata)
        .set_credit_specification(credits)
        // `poweroff` on a host must not destroy it.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Stop)
        .tag_specifications(tags.with(ResourceType::Instance, about))
        .tag_specifications(tags.with(ResourceType::Volume, common))
        .tag_specifications(tags.with(ResourceType::NetworkInterface, common));
    match made {
        Some(made) => call
            .client_token(made.token)
            .key_name(made.key_name)
            .user_data(made.user_data.expose()),
        None => call.dry_run(true),
    }
}
