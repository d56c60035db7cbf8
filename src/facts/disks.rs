//! The disks of an EC2 host that can be its data volume, and what is mounted where that belongs.

use std::collections::BTreeMap;

use crate::{
    inventory::Inventory,
    remote::{Script, quote},
};

/// What is mounted where the data volume belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataMount {
    pub device: String,
    /// Whether it is mounted at boot too.
    pub at_boot: bool,
    /// The size of its file system in bytes, if that is known.
    pub bytes: Option<u64>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its device, such as `/dev/nvme1n1`.
    pub device: String,
    /// Nothing is on it, as far as can be told without reading all of it.
    pub blank: bool,
    /// Its size in bytes, if that is known.
    pub bytes: Option<u64>,
}

/// Asked only on EC2, on hosts with a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disks {
    pub data_mount: Option<DataMount>,
    /// By EC2's id, such as `vol-0123456789abcdef0`. Where hosts cannot see that, by the device's name.
    pub found: BTreeMap<String, Disk>,
    /// The host does not exist yet, and is expected to have a disk with nothing on it.
    pub expected_blank: bool,
}

impl Disks {
    /// The disk that is this volume.
    pub fn of(&self, volume: &str) -> Option<&Disk> {
        let ids_are_seen = self.found.keys().any(|name| name.starts_with("vol-"));
        let by_name = ["xvdf", "sdf"].iter().filter(|_| !ids_are_seen);
        let mut names = std::iter::once(volume).chain(by_name.copied());
        names.find_map(|name| self.found.get(name))
    }

    /// Whether nothing is on the volume: it is certainly no database.
    pub fn is_blank(&self, volume: &str) -> bool {
        self.expected_blank || self.of(volume).is_some_and(|disk| disk.blank)
    }

    /// Whether another disk is mounted where the volume belongs.
    pub fn is_another_mounted(&self, volume: &str) -> bool {
        let disk = self.of(volume).zip(self.data_mount.as_ref());
        disk.is_some_and(|(disk, mount)| disk.device != mount.device)
    }

    /// The size of the volume, if its file system can grow to it. A file system ends with a whole group of
    /// blocks, so it may be a little smaller.
    pub fn can_grow_to(&self, volume: &str) -> Option<u64> {
        const SPARE: u64 = 256 << 20;
        let disk = self.of(volume)?.bytes?;
        let used = self.data_mount.as_ref()?.bytes?;
        (disk > used + SPARE).then_some(disk)
    }

    pub(super) fn read(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["data-mount", device, at_boot, bytes] => {
                self.data_mount = Some(DataMount {
                    device: (*device).into(),
                    at_boot: *at_boot == "yes",
                    bytes: bytes.parse().ok(),
                });
            }
            ["disk", name, device, blank, bytes] => {
                let disk = Disk {
                    device: (*device).into(),
                    blank: *blank == "yes",
                    bytes: bytes.parse().ok(),
                };
                self.found.insert((*name).into(), disk);
            }
            _ => return false,
        }
        true
    }
}

/// `blkid` ends with 2 if it recognises nothing. On hosts with `NVMe`, udev names disks by EC2's ids; on others,
/// the device has the name under which EC2 attached it.
const SCRIPT: &str = r#"m=$(findmnt -nro SOURCE --mountpoint "$MOUNT_POINT" 2>/dev/null)
if [ -n "$m" ]; then
  b=no
  systemctl is-enabled --quiet "$(systemd-escape -p --suffix=mount "$MOUNT_POINT")" 2>/dev/null && b=yes
  m=$(readlink -f "$m")
  fact data-mount "$m" "$b" "$(dumpe2fs -h "$m" 2>/dev/null |
    awk -F ': *' '$1 == "Block count" { n = $2 } $1 == "Block size" { s = $2 } END { if (n) printf "%.0f", n * s }')"
fi
for d in /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol* /dev/xvdf /dev/sdf; do
  [ -b "$d" ] || continue
  case $d in
    *_vol*)
      n=${d##*_vol}
      case $n in *[!0-9a-f]*) continue ;; esac
      n=vol-$n ;;
    *) n=${d##*/} ;;
  esac
  b=no
  blkid -p "$d" >/dev/null 2>&1
  [ $? != 2 ] || b=yes
  fact disk "$n" "$(readlink -f "$d")" "$b" "$(blockdev --getsize64 "$d" 2>/dev/null)"
done"#;

pub(super) fn ask(script: Script, inventory: &Inventory) -> Script {
    script
        .line(format!("MOUNT_POINT={}", quote(inventory.mount_point())))
        .line(SCRIPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_found_by_its_id_or_where_there_are_none_by_its_name() {
        let mut disks = Disks::default();
        assert!(disks.read(&["disk", "xvdf", "/dev/xvdf", "yes", ""]));
        assert!(disks.is_blank("vol-1") && !disks.is_another_mounted("vol-1"));
        assert!(disks.read(&["data-mount", "/dev/xvdg", "yes", ""]));
        assert!(disks.is_another_mounted("vol-1"));
        // A disk of that name on a host that shows ids is another one.
        assert!(disks.read(&["disk", "vol-0a", "/dev/nvme0n1", "no", ""]));
        assert_eq!(disks.of("vol-1"), None);
        assert!(!disks.is_blank("vol-1"));
        assert!(disks.read(&["disk", "vol-1", "/dev/nvme1n1", "no", "4294967296"]));
        assert!(!disks.is_blank("vol-1") && disks.is_another_mounted("vol-1"));
        assert!(disks.read(&["data-mount", "/dev/nvme1n1", "no", "4294836224"]));
        assert!(!disks.is_another_mounted("vol-1"));
        assert_eq!(disks.can_grow_to("vol-1"), None, "less than a group");
        assert!(disks.read(&["data-mount", "/dev/nvme1n1", "no", "2147483648"]));
        assert_eq!(disks.can_grow_to("vol-1"), Some(4_294_967_296));
        assert!(!disks.data_mount.unwrap().at_boot);
    }

    #[test]
    fn the_question_is_a_valid_shell_script() {
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", SCRIPT])
            .status()
            .unwrap();
        assert!(status.success());
    }
}
