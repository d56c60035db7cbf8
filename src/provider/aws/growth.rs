//! Data volumes of which the inventory wants more: they are changed while they are in use.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_ec2::{Client, types::Volume};

use super::{
    failure::{Doing, Failure, allowed},
    instance::Found,
};
use crate::{
    error::{Code, Error, Result},
    inventory::{Aws, DataVolume, HostName},
    poll::{self, Pauses},
};

/// How long EC2 may take until a volume has its new size. After that it is still slow for a while.
const GROWING: Duration = Duration::from_secs(300);

/// What a data volume gets.
#[derive(Debug, Clone)]
pub(super) struct Growth {
    pub(super) host: HostName,
    /// The volume.
    pub(super) id: String,
    /// For people: `the data volume vol-1 of node1 grows from 100 to 200 GiB`.
    pub(super) line: String,
    size_gb: Option<i32>,
    iops: Option<i32>,
    throughput: Option<i32>,
}

/// The data volumes that are not what the inventory says. One that is larger stays so: EBS cannot take it back.
pub(super) async fn find(
    ec2: &Client,
    settings: &Aws,
    found: &[Found],
) -> Result<Vec<Growth>, Failure> {
    let wanted: BTreeMap<&str, (&HostName, &DataVolume)> = found
        .iter()
        .filter_map(|it| {
            let wanted = settings.hosts.get(&it.host)?.data_volume.as_ref()?;
            let there = it.own_data_volume()?;
            Some((there.id.as_str(), (&it.host, wanted)))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = wanted.keys().map(|id| (*id).to_owned()).collect();
    let volumes = look(ec2, ids).await?;
    let growths = volumes.iter().filter_map(|volume| {
        let (host, wanted) = wanted.get(volume.volume_id()?)?;
        Growth::of(host, wanted, volume)
    });
    Ok(growths.collect())
}

async fn look(ec2: &Client, ids: Vec<String>) -> Result<Vec<Volume>, Failure> {
    let looked = ec2.describe_volumes().set_volume_ids(Some(ids)).send();
    let looked = looked.await.doing("look at the data volumes")?;
    Ok(looked.volumes.unwrap_or_default())
}

impl Growth {
    fn of(host: &HostName, wanted: &DataVolume, volume: &Volume) -> Option<Self> {
        let number = |it: u32| i32::try_from(it).unwrap_or(i32::MAX);
        let other = |wanted: Option<u32>, there: Option<i32>| {
            wanted
                .map(number)
                .filter(|it| there.is_some_and(|there| there != *it))
        };
        let size = volume.size()?;
        let size_gb = Some(number(wanted.size_gb)).filter(|it| *it > size);
        let iops = other(wanted.iops, volume.iops());
        let throughput = other(wanted.throughput, volume.throughput());
        let id = volume.volume_id()?.to_owned();
        let mut parts = Vec::new();
        if let Some(to) = size_gb {
            parts.push(format!("grows from {size} to {to} GiB"));
        }
        if let Some(to) = iops {
            parts.push(format!("gets {to} IOPS"));
        }
        if let Some(to) = throughput {
            parts.push(format!("gets {to} MiB/s"));
        }
        (!parts.is_empty()).then(|| Self {
            line: format!("the data volume {id} of {host} {}", parts.join(", ")),
            host: host.clone(),
            id,
            size_gb,
            iops,
            throughput,
        })
    }

    async fn call(&self, ec2: &Client, ask: bool) -> Result<(), Failure> {
        let called = ec2
            .modify_volume()
            .volume_id(&self.id)
            .set_size(self.size_gb)
            .set_iops(self.iops)
            .set_throughput(self.throughput)
            .set_dry_run(ask.then_some(true))
            .send()
            .await;
        let doing = format!("change the data volume {} (ec2:ModifyVolume)", self.id);
        called.doing(doing).map(|_| ())
    }

    /// Asks EC2 whether the change is allowed; changes nothing.
    pub(super) async fn ask(&self, ec2: &Client) -> Result<Option<String>, Failure> {
        allowed(self.call(ec2, true).await)
    }

    /// Changes the volume, and returns when it has its new size.
    pub(super) async fn apply(&self, ec2: &Client) -> Result<()> {
        match self.call(ec2, false).await {
            // EC2 is still at work on it, perhaps for a run that died.
            Err(failure) if failure.is(&["IncorrectModificationState"]) => {}
            Err(failure) if failure.is(&["VolumeModificationRateExceeded"]) => {
                return Err(Error::from(failure).on(&self.host).hint(
                    "EC2 changes a volume only once in six hours: run the same command again later",
                ));
            }
            called => called.map_err(|failure| Error::from(failure).on(&self.host))?,
        }
        let Some(size) = self.size_gb else {
            return Ok(());
        };
        let pauses = Pauses::growing(Duration::from_millis(500), Duration::from_secs(5));
        let grown = poll::until_found(GROWING, pauses, || async {
            let there = look(ec2, vec![self.id.clone()]).await?;
            let there = there.first().and_then(Volume::size);
            Ok::<_, Failure>(there.filter(|there| *there >= size))
        });
        match grown.await? {
            Some(_) => Ok(()),
            None => Err(Error::new(
                Code::AwsFailed,
                format!(
                    "{} does not have {size} GiB after {} s",
                    self.id,
                    GROWING.as_secs()
                ),
            )
            .on(&self.host)
            .hint("run the same command again: it goes on from there")),
        }
    }
}
