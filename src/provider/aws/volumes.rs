//! Data volumes: the disks for databases, which outlive their instances.
//!
//! A new volume comes with its instance, in the same call. So nothing is left if that instance ends before it
//! answers, or gives way to another run's. Once it runs, it is told to leave the volume behind. The next host of
//! that name gets the volume, which is found by its tags.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_ec2::{
    Client,
    types::{
        BlockDeviceMapping, EbsBlockDevice, EbsInstanceBlockDeviceSpecification,
        InstanceBlockDeviceMappingSpecification, Volume, VolumeType,
    },
};

use super::{
    attached::{Attached, DEVICE, is_data},
    failure::{Doing, Failure, NOT_YET, insist},
    instance::{Found, filter, list, of_cluster, tag},
    late::{LATE, seen},
};
use crate::{
    error::{Code, Error, Result},
    inventory::{AwsHost, DataVolume, HostName},
    provider::HOST_LABEL,
};

/// How long an instance that ends may keep its volume.
const RELEASE: Duration = Duration::from_secs(180);

/// The volume that an earlier host of this name has left.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) id: String,
    pub(super) zone: String,
    /// GiB.
    pub(super) size_gb: u32,
    /// The instance that has it, or had it a moment ago.
    holder: Option<String>,
}

impl Kept {
    fn new(volume: &Volume) -> Option<Self> {
        let mut attachments = volume.attachments().iter();
        Some(Self {
            id: volume.volume_id()?.to_owned(),
            zone: volume.availability_zone()?.to_owned(),
            size_gb: u32::try_from(volume.size()?).ok()?,
            holder: attachments.find_map(|it| it.instance_id().map(str::to_owned)),
        })
    }
}

/// The volumes that `hosts` have left, by host. An error if one host has left two.
pub(super) async fn kept(
    ec2: &Client,
    cluster: &str,
    hosts: &[&HostName],
) -> Result<BTreeMap<HostName, Kept>> {
    let mut kept = BTreeMap::new();
    if hosts.is_empty() {
        return Ok(kept);
    }
    let names = hosts.iter().map(|host| host.as_str());
    let found = ec2
        .describe_volumes()
        .filters(of_cluster(cluster))
        .filters(filter(&format!("tag:{HOST_LABEL}"), names))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("look for the data volumes of the hosts")?;
    for volume in found.iter().filter(|it| is_data(it)) {
        let host = tag(volume.tags(), HOST_LABEL).map(HostName::new);
        let (Some(host), Some(volume)) = (host, Kept::new(volume)) else {
            continue;
        };
        let id = volume.id.clone();
        if let Some(other) = kept.insert(host.clone(), volume) {
            return Err(Error::new(
                Code::InfrastructureDiffers,
                "two data volumes carry this host's tags",
            )
            .on(&host)
            .cause(format!("{} and {id}", other.id))
            .left("nothing was touched")
            .hint("see which one has its data, and delete the other one, or take its tag pgherd:host away"));
        }
    }
    Ok(kept)
}

/// Refuses a host whose volume is in another zone than the inventory says.
pub(super) fn refuse_another_zone(
    host: &HostName,
    own: &AwsHost,
    volume: &str,
    zone: &str,
) -> Result<()> {
    match own.zone.as_deref() {
        Some(wanted) if wanted != zone => Err(Error::new(
            Code::ProviderSettingUnusable,
            format!("its data volume {volume} is in {zone}, and the inventory has it in {wanted}"),
        )
        .cause("a volume of EBS cannot leave its zone")
        .on(host)
        .left("nothing was changed")
        .hint(format!("give it back `zone: {zone}`"))
        .hint(format!(
            "or have it copy the data of another member to a new volume: pgherd replace {host} --new-volume"
        ))),
        _ => Ok(()),
    }
}

/// The part of a launch that makes a data volume.
pub(super) fn mapping(volume: &DataVolume) -> BlockDeviceMapping {
    let number = |number: Option<u32>| number.and_then(|it| i32::try_from(it).ok());
    let ebs = EbsBlockDevice::builder()
        .volume_type(VolumeType::Gp3)
        .set_volume_size(number(Some(volume.size_gb)))
        .set_iops(number(volume.iops))
        .set_throughput(number(volume.throughput))
        .set_kms_key_id(volume.kms_key.clone())
        .encrypted(true)
        // Until the instance is known to run, see `keep`.
        .delete_on_termination(true)
        .build();
    BlockDeviceMapping::builder()
        .device_name(DEVICE)
        .ebs(ebs)
        .build()
}

/// Gives a running instance the data volume that it is to have, and has the volume stay when the instance goes.
/// Returns what `found` is then.
///
/// May be repeated after any interruption.
pub(super) async fn give(ec2: &Client, cluster: &str, mut found: Found) -> Result<Found> {
    if !found.has_data_volume {
        return Ok(found);
    }
    let volume = match found.data_volume.take() {
        Some(volume) => volume,
        None => attach(ec2, cluster, &found)
            .await
            .map_err(|error| error.on(&found.host))?,
    };
    if !volume.stays {
        keep(ec2, &found.id)
            .await
            .map_err(|failure| Error::from(failure).on(&found.host))?;
    }
    found.data_volume = Some(Attached {
        stays: true,
        ..volume
    });
    Ok(found)
}

/// Finds the volume that came with the instance, or attaches the one that its predecessor has left.
async fn attach(ec2: &Client, cluster: &str, found: &Found) -> Result<Attached> {
    // EC2 may list a new volume late.
    let there = seen(LATE, || async {
        let filters = vec![filter("instance-id", [found.id.as_str()])];
        let instances = list(ec2, filters, "look at the instance's volumes").await?;
        Ok(instances.first().and_then(Attached::of))
    });
    let kept = kept(ec2, cluster, &[&found.host]).await?;
    let Some(volume) = kept.get(&found.host) else {
        return there.await?.ok_or_else(|| {
            Error::new(
                Code::InfrastructureDiffers,
                format!("{} has no data volume, and was launched with one", found.id),
            )
            .cause("none with the host's tags is in the account")
            .left("nothing was changed")
            .hint(format!(
                "make the host anew; it copies the data of another member: pgherd replace {} --new-volume",
                found.host
            ))
        });
    };
    if volume.holder.as_ref() == Some(&found.id) {
        return Ok(there.await?.unwrap_or_else(|| Attached {
            id: volume.id.clone(),
            stays: false,
        }));
    }
    // An instance that is being terminated has it until it has ended.
    let busy = [
        "IncorrectState",
        "IncorrectInstanceState",
        "VolumeInUse",
        "InvalidVolume.NotFound",
        "InvalidInstanceID.NotFound",
    ];
    let attached = insist(&busy, RELEASE, || async {
        let call = ec2
            .attach_volume()
            .device(DEVICE)
            .instance_id(&found.id)
            .volume_id(&volume.id);
        match call.send().await.doing(format!(
            "attach the data volume {} to {}",
            volume.id, found.id
        )) {
            // An earlier answer may have been lost.
            Err(failure) if failure.is(&["VolumeInUse"]) => {
                match holder(ec2, &volume.id).await? == Some(found.id.clone()) {
                    true => Ok(()),
                    false => Err(failure),
                }
            }
            other => other.map(|_| ()),
        }
    });
    attached.await?;
    Ok(Attached {
        id: volume.id.clone(),
        // EC2's default of an attached volume.
        stays: true,
    })
}

/// The instance that has a volume.
async fn holder(ec2: &Client, volume: &str) -> Result<Option<String>, Failure> {
    let found = ec2.describe_volumes().volume_ids(volume).send().await;
    let found = found.doing(format!("look at the volume {volume}"))?;
    Ok(found
        .volumes()
        .first()
        .and_then(Kept::new)
        .and_then(|it| it.holder))
}

/// Has an instance leave its data volume behind when it is terminated.
pub(super) async fn keep(ec2: &Client, instance: &str) -> Result<(), Failure> {
    let late = [&NOT_YET[..], &["InvalidInstanceAttributeValue"]].concat();
    insist(&late, LATE, || async {
        let stays = EbsInstanceBlockDeviceSpecification::builder()
            .delete_on_termination(false)
            .build();
        let volume = InstanceBlockDeviceMappingSpecification::builder()
            .device_name(DEVICE)
            .ebs(stays)
            .build();
        let call = ec2
            .modify_instance_attribute()
            .instance_id(instance)
            .block_device_mappings(volume);
        let done = call.send().await;
        done.doing(format!(
            "have {instance} leave its data volume behind (ec2:ModifyInstanceAttribute)"
        ))
        .map(|_| ())
    })
    .await
}
