//! Disks for hosts: for each data volume that moto has, a loop device on a file of this machine.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_sdk_ec2::types::Instance;

/// The name under which pgherd attaches data volumes, and that of the device on a host without `NVMe`.
const ATTACHED: &str = "/dev/sdf";
const SEEN: &str = "/dev/xvdf";

/// Enough for a small database.
const SIZE: &str = "2G";

#[derive(Debug, Default)]
pub(crate) struct Disks {
    made: Mutex<BTreeMap<String, Disk>>,
    spoiled: AtomicBool,
}

#[derive(Debug)]
struct Disk {
    device: String,
    file: PathBuf,
}

impl Disks {
    /// The option that gives a container the disk of its instance. `None` while the instance is to get a disk, and
    /// has none yet.
    pub(crate) fn option(&self, instance: &Instance, cluster: &str) -> Option<Vec<String>> {
        let mut all = instance.block_device_mappings().iter();
        let mapped = all.find(|it| it.device_name() == Some(ATTACHED));
        let volume = mapped.and_then(|it| it.ebs()).and_then(|it| it.volume_id());
        let mut tags = instance.tags().iter();
        let waits = tags.any(|it| it.key() == Some("pgherd:data-volume"));
        match volume {
            Some(volume) => {
                let device = self.device(volume, cluster);
                Some(vec!["--device".into(), format!("{device}:{SEEN}:rwm")])
            }
            None => (!waits).then(Vec::new),
        }
    }

    /// The device for a volume; it is made when it is first needed.
    fn device(&self, volume: &str, cluster: &str) -> String {
        let mut made = self.made.lock().unwrap();
        let disk = made.entry(volume.to_owned()).or_insert_with(|| {
            // In memory where that is possible: PostgreSQL waits for every write to its disk.
            let memory = PathBuf::from("/dev/shm");
            let folder = match memory.is_dir() {
                true => memory,
                false => std::env::temp_dir(),
            };
            let file = folder.join(format!("{cluster}-{volume}.disk"));
            let path = file.to_str().unwrap();
            run("truncate", &["-s", SIZE, path]);
            if self.spoiled.swap(false, Ordering::SeqCst) {
                run("mkfs.ext4", &["-qF", "-L", "precious", path]);
            }
            let device = run("losetup", &["--find", "--show", path]);
            Disk { device, file }
        });
        disk.device.clone()
    }

    /// Removes all disks; no container uses one any more.
    pub(crate) fn remove(&self) {
        for (_, disk) in std::mem::take(&mut *self.made.lock().unwrap()) {
            run("losetup", &["--detach", &disk.device]);
            run("rm", &["-f", disk.file.to_str().unwrap()]);
        }
    }

    /// The next disk that is made has something on it.
    pub(crate) fn spoil_the_next(&self) {
        self.spoiled.store(true, Ordering::SeqCst);
    }
}

/// Runs a program as root.
fn run(program: &str, arguments: &[&str]) -> String {
    let me = fs::metadata("/proc/self").unwrap().uid();
    let mut command = match me {
        0 => Command::new(program),
        _ => Command::new("sudo"),
    };
    if me != 0 {
        command.args(["-n", program]);
    }
    let ran = command.args(arguments).output().unwrap();
    assert!(ran.status.success(), "{program} {arguments:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}
