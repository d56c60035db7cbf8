//! Data volumes, as EC2 describes them.

use aws_sdk_ec2::types::{Instance, Volume, VolumeState};

/// The name under which it is attached. A host with `NVMe` does not use the name.
pub(super) const DEVICE: &str = "/dev/sdf";

/// The tag of an instance that has a data volume, or is to get one.
pub(super) const TAG: &str = "pgherd:data-volume";

/// A data volume at its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) id: String,
    /// Whether it outlives the instance.
    pub(super) stays: bool,
}

impl Attached {
    pub(super) fn of(instance: &Instance) -> Option<Self> {
        let mut all = instance.block_device_mappings().iter();
        let volume = all.find(|it| it.device_name() == Some(DEVICE))?.ebs()?;
        Some(Self {
            id: volume.volume_id()?.to_owned(),
            stays: volume.delete_on_termination() == Some(false),
        })
    }
}

/// Whether it can be the data volume of a host. A root volume is made of an image's snapshot, and attached under
/// another name. One that goes with its instance never had data.
pub(super) fn is_data(volume: &Volume) -> bool {
    let exists = matches!(
        volume.state(),
        Some(VolumeState::Available | VolumeState::Creating | VolumeState::InUse)
    );
    let mut attachments = volume.attachments().iter();
    let stays = attachments
        .all(|it| it.device() == Some(DEVICE) && it.delete_on_termination() != Some(true));
    exists && stays && volume.snapshot_id().is_none_or(str::is_empty)
}
