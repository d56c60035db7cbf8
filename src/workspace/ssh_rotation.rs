//! Replaces SSH keys: pgherd's own, and the hosts'.
//!
//! | stage | hosts let in | pgherd logs in with |
//! |---|---|---|
//! | `add` | the old key and the new one | the old key |
//! | `use` | both | the new key |
//! | `remove` | the new key | the new key |
//! | `hosts` | the new key; each host gets a new key of its own | the new key |
//!
//! At no moment is there a host that lets in neither key, so that a change that was cut off anywhere goes on
//! where it was. The new key waits in `id_ed25519.next`; the old one is kept in `id_ed25519.old` until
//! every host was seen to refuse it. `ssh.json` says which stage it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    IDENTITY, Identity, Workspace, files, identity,
    known_hosts::{self, Rotated},
    ssh_config,
};
use crate::{
    error::{Code, Error, Result},
    inventory::{self, HostName},
    machine::Machine,
};

/// Says which stage a change of the SSH keys has come to.
pub(super) const SSH_STAGE: &str = "ssh.json";
/// Says which hosts have another key than their provider vouches for.
pub(super) const HOST_KEYS: &str = "host_keys.json";
pub(super) const NEXT: &str = "id_ed25519.next";
pub(super) const OLD: &str = "id_ed25519.old";
/// What `ssh` reads while a key is tried.
pub(super) const TRIAL: &str = "ssh_config.trial";
pub(super) const TRIAL_HOSTS: &str = "known_hosts.trial";

/// How far a change of the SSH keys has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SshStage {
    Add,
    Use,
    Remove,
    Hosts,
}

impl SshStage {
    pub const ALL: [Self; 4] = [Self::Add, Self::Use, Self::Remove, Self::Hosts];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Use => "use",
            Self::Remove => "remove",
            Self::Hosts => "hosts",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    stage: SshStage,
}

/// The hosts whose keys were changed; none where no file is.
pub(super) fn rotated(dir: &Path) -> Result<BTreeMap<HostName, Rotated>> {
    let path = dir.join(HOST_KEYS);
    let Some(text) = files::read(&path)? else {
        return Ok(BTreeMap::new());
    };
    let read: BTreeMap<String, Rotated> = serde_json::from_str(&text).map_err(|error| {
        damaged(&path, "it says which keys the hosts have", error)
            .hint("restore it from a backup: without it the hosts' keys are not known")
    })?;
    let named = |(host, keys): (String, Rotated)| (HostName::new(&host), keys);
    Ok(read.into_iter().map(named).collect())
}

fn damaged(path: &Path, holds: &str, error: serde_json::Error) -> Error {
    Error::new(
        Code::WorkspaceDamaged,
        format!("{} is damaged", files::origin(path).display()),
    )
    .cause(holds)
    .because(error)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| {
        Error::new(
            Code::LocalFileFailed,
            format!("cannot write {}", path.display()),
        )
        .because(e)
    })?;
    files::write(path, files::PRIVATE, format!("{text}\n").as_bytes())
}

impl Workspace {
    /// How far a change of the SSH keys has come; `None` while there is none.
    pub fn ssh_stage(&self) -> Result<Option<SshStage>> {
        let path = self.dir.join(SSH_STAGE);
        let Some(text) = files::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_str::<State>(&text)
            .map(|state| Some(state.stage))
            .map_err(|error| {
                damaged(
                    &path,
                    "it has the stage of the change of the SSH keys",
                    error,
                )
                .hint("restore it from a backup: its `stage` is add, use, remove or hosts")
            })
    }

    /// Goes on to a stage of a change of the SSH keys, or begins one.
    ///
    /// With the stage `use` the new key takes the place of the old one, in one step for each file.
    pub fn advance_ssh(&self, stage: SshStage) -> Result<()> {
        write_json(&self.dir.join(SSH_STAGE), &State { stage })?;
        self.swap_identity(stage)
    }

    /// Puts the new key in place, where a run that was cut off has not come to it.
    fn swap_identity(&self, stage: SshStage) -> Result<()> {
        let [next, now, old] = [NEXT, IDENTITY, OLD].map(|name| self.dir.join(name));
        if stage < SshStage::Use || !next.exists() {
            return Ok(());
        }
        if !old.exists() {
            files::copy(&now, &old, files::PRIVATE)?;
        }
        files::rename(&next, &now)?;
        // Its public half is made anew from the private one, which is the truth.
        files::remove(&identity::beside(&now))?;
        files::remove(&identity::beside(&next))
    }

    /// Ends a change of the SSH keys; the old key is forgotten.
    pub fn end_ssh(&self) -> Result<()> {
        self.forget_old_identity()?;
        for name in [TRIAL, TRIAL_HOSTS] {
            files::remove(&self.dir.join(name))?;
        }
        files::remove(&self.dir.join(SSH_STAGE))
    }

    /// Whether the key by which hosts know pgherd is pgherd's to change.
    pub fn owns_identity(&self) -> Result<bool> {
        let made = match self.inventory.provider {
            inventory::Provider::Docker(_) | inventory::Provider::Aws(_) => true,
            inventory::Provider::Existing => false,
        };
        Ok(made && self.users_identity()?.is_none())
    }

    /// The key that is to take the place of the one in use, made at first use.
    pub fn next_identity(&self) -> Result<Identity> {
        identity::of_cluster(&self.dir.join(NEXT), &self.inventory.cluster)
    }

    /// The key that was in use before, until it is forgotten.
    pub fn old_identity(&self) -> Result<Option<Identity>> {
        let path = self.dir.join(OLD);
        if !path.exists() {
            return Ok(None);
        }
        identity::of_cluster(&path, &self.inventory.cluster).map(Some)
    }

    /// Forgets the key that was in use before.
    pub fn forget_old_identity(&self) -> Result<()> {
        let path = self.dir.join(OLD);
        files::remove(&identity::beside(&path))?;
        files::remove(&path)
    }

    /// Notes that a host has these keys, whatever its provider says of the key that it was made with.
    pub fn note_host_keys(&self, machine: &Machine, keys: &[String]) -> Result<()> {
        let mut all = rotated(&self.dir)?;
        let vouched = machine.host_key.as_deref().and_then(identity::key_of);
        let now = Rotated {
            vouched,
            keys: keys.to_vec(),
        };
        all.insert(machine.host.clone(), now);
        write_json(&self.dir.join(HOST_KEYS), &all)?;
        let path = self.dir.join(super::KNOWN_HOSTS);
        let _alone = self.alone()?;
        let mut known = known_hosts::KnownHosts::read(&path)?;
        let alias = known_hosts::alias(&machine.host, &self.inventory.cluster);
        known.pin(&alias, keys);
        known.write(&path)
    }

    /// Writes a configuration for `ssh` that shows `identity`, and takes only `host_keys` where there
    /// are any; for trying out what is not in use yet, or no longer.
    pub fn trial_ssh_config(
        &self,
        machines: &[Machine],
        identity: Option<&Path>,
        host_keys: Option<&BTreeMap<HostName, Vec<String>>>,
    ) -> Result<PathBuf> {
        let known_path = match host_keys {
            None => self.dir.join(super::KNOWN_HOSTS),
            Some(keys) => {
                let path = self.dir.join(TRIAL_HOSTS);
                files::remove(&path)?;
                let mut known = known_hosts::KnownHosts::default();
                for (host, keys) in keys {
                    known.pin(&known_hosts::alias(host, &self.inventory.cluster), keys);
                }
                known.write(&path)?;
                path
            }
        };
        let in_use = self.identity_path()?;
        let source = ssh_config::Source {
            cluster: &self.inventory.cluster,
            ssh: &self.inventory.ssh,
            known_hosts: &known_path,
            identity: identity.or(in_use.as_deref()),
        };
        let addresses = machines.iter().filter_map(|machine| {
            let address = machine.ssh_address.or(machine.address)?;
            Some((machine.host.clone(), address))
        });
        let text = ssh_config::render(&source, &addresses.collect())?;
        let path = self.dir.join(TRIAL);
        files::write(&path, files::PRIVATE, text.as_bytes())?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_key_can_be_cut_off_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(&super::super::tests::inventory(dir.path())).unwrap();
        let first = workspace.identity().unwrap().public_key;
        assert_eq!(workspace.ssh_stage().unwrap(), None);
        workspace.advance_ssh(SshStage::Add).unwrap();
        let next = workspace.next_identity().unwrap().public_key;
        assert_ne!(first, next);
        assert_eq!(workspace.identity().unwrap().public_key, first);
        // Cut off between the note and the swap: the same call again brings it about.
        write_json(
            &workspace.dir.join(SSH_STAGE),
            &State {
                stage: SshStage::Use,
            },
        )
        .unwrap();
        assert_eq!(workspace.identity().unwrap().public_key, first);
        for _ in 0..2 {
            workspace.advance_ssh(SshStage::Use).unwrap();
            assert_eq!(workspace.identity().unwrap().public_key, next);
            let old = workspace.old_identity().unwrap().map(|it| it.public_key);
            assert_eq!(old, Some(first.clone()));
        }
        workspace.end_ssh().unwrap();
        assert_eq!(workspace.ssh_stage().unwrap(), None);
        assert_eq!(workspace.old_identity().unwrap(), None);
        assert_eq!(workspace.identity().unwrap().public_key, next);
    }
}
