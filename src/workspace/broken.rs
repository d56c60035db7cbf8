//! The note of a drill's fault, so that the fault is repaired whatever happens to the drill.
//!
//! The note is on disk before anything is broken, and is removed when everything is right again. A running
//! drill holds a lock on it: a note without a lock is from a killed drill.

use std::{
    fs::{File, TryLockError},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::files;
use crate::{
    error::Result,
    inventory::HostName,
    machine::{Machine, MachineState},
    scenario::Scenario,
};

/// What a drill has broken, or is about to break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broken {
    pub scenario: Scenario,
    pub since: jiff::Timestamp,
    pub hosts: Vec<BrokenHost>,
    /// Whether replication may be delayed there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held_up: bool,
}

/// A host as it was before: a host that is cut off does not show its address any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokenHost {
    pub name: String,
    pub id: String,
    pub address: Option<Ipv4Addr>,
    pub ssh_address: Option<Ipv4Addr>,
}

impl BrokenHost {
    pub fn of(machine: &Machine) -> Self {
        Self {
            name: machine.host.to_string(),
            id: machine.id.clone(),
            address: machine.address,
            ssh_address: machine.ssh_address,
        }
    }

    /// The machine as its provider knew it.
    pub fn machine(&self) -> Machine {
        Machine {
            host: HostName::new(&self.name),
            id: self.id.clone(),
            state: MachineState::Running,
            address: self.address,
            ssh_address: self.ssh_address,
            host_key: None,
            published_on: None,
            balancer: None,
            cluster_id: None,
            data_volume: None,
        }
    }
}

/// The note of a running drill: its own.
#[derive(Debug)]
#[must_use = "without it nobody knows what the drill has broken"]
pub struct Note {
    path: PathBuf,
    _held: File,
}

impl Note {
    /// Removes the note: everything is right again.
    pub fn clear(self) -> Result<()> {
        files::remove(&self.path)
    }
}

/// Records what is about to be broken.
pub(super) fn note(path: &Path, broken: &Broken) -> Result<Note> {
    files::write_note(path, broken)?;
    take(path)
}

/// What a killed drill left broken, with its note; `None` if a drill is running, or nothing is broken.
pub(super) fn left(path: &Path) -> Result<Option<(Broken, Note)>> {
    let hint = "it says what a drill broke: see what with the verb `status`, repair it, and remove the file";
    let Some(broken) = files::read_note(path, hint)? else {
        return Ok(None);
    };
    let file = File::open(path).map_err(|error| files::failed("cannot open", path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some((
            broken,
            Note {
                path: path.to_owned(),
                _held: file,
            },
        ))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(files::failed("cannot lock", path, error)),
    }
}

fn take(path: &Path) -> Result<Note> {
    let file = File::open(path).map_err(|error| files::failed("cannot open", path, error))?;
    // Others lock it only for moments, to see whether a drill holds it.
    file.lock()
        .map_err(|error| files::failed("cannot lock", path, error))?;
    Ok(Note {
        path: path.to_owned(),
        _held: file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Broken {
        Broken {
            scenario: Scenario::CrashHost,
            since: jiff::Timestamp::UNIX_EPOCH,
            hosts: vec![BrokenHost {
                name: "node1".into(),
                id: "abc".into(),
                address: Some(Ipv4Addr::new(10, 0, 0, 1)),
                ssh_address: None,
            }],
            held_up: true,
        }
    }

    #[test]
    fn only_a_drill_that_died_has_left_something() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("broken.json");
        assert!(left(&path).expect("nothing there").is_none());

        let held = note(&path, &broken()).expect("a note");
        assert!(left(&path).expect("a drill is at work").is_none());
        drop(held);
        let (found, held) = left(&path).expect("readable").expect("left behind");
        assert_eq!(found, broken());
        assert_eq!(found.hosts[0].machine().host.as_str(), "node1");
        assert!(left(&path).expect("one repairs it").is_none());

        held.clear().expect("removed");
        assert!(left(&path).expect("nothing there").is_none());
    }
}
