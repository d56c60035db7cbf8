//! Replaces SSH keys: pgherd's own, and the hosts'.
//!
//! | stage | hosts let in | pgherd logs in with |
//! |---|---|---|
//! | `add` | the old key and the new one | the old key |
//! | `use` | both | the new key |
//! | `remove` | the new key | the new key |
//! | `hosts` | the new key; each host gets a new key of its own | the new key |
//!
//! At every moment, each host accepts at least one of the keys, so a change that was interrupted anywhere can
//! continue. The new key waits in `id_ed25519.next`; the old one is kept in `id_ed25519.old` until every host
//! has refused it. `ssh.json` has the stage.

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
    error::Result,
    inventory::{self, HostName},
    machine::Machine,
};

/// The stage of a change of the SSH keys.
pub(super) const SSH_STAGE: &str = "ssh.json";
/// The hosts with another key than their provider reports.
pub(super) const HOST_KEYS: &str = "host_keys.json";
pub(super) const NEXT: &str = "id_ed25519.next";
pub(super) const OLD: &str = "id_ed25519.old";
/// The `ssh_config` for the test of a key.
pub(super) const TRIAL: &str = "ssh_config.trial";
pub(super) const TRIAL_HOSTS: &str = "known_hosts.trial";

/// The stage of a change of the SSH keys.
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

/// The hosts whose keys were changed; empty if there is no file.
pub(super) fn rotated(dir: &Path) -> Result<BTreeMap<HostName, Rotated>> {
    let path = dir.join(HOST_KEYS);
    let hint = "it says which keys the hosts have; restore it from a backup: without it the hosts' keys are not known";
    let read: BTreeMap<String, Rotated> = files::read_note(&path, hint)?.unwrap_or_default();
    let named = |(host, keys): (String, Rotated)| (HostName::new(&host), keys);
    Ok(read.into_iter().map(named).collect())
}

impl Workspace {
    /// The stage of a change of the SSH keys; `None` if there is none.
    pub fn ssh_stage(&self) -> Result<Option<SshStage>> {
        let path = self.dir.join(SSH_STAGE);
        let hint = "it has the stage of the change of the SSH keys; restore it from a backup: its `stage` is \
                    add, use, remove or hosts";
        Ok(files::read_note::<State>(&path, hint)?.map(|state| state.stage))
    }

    /// Goes to a stage of a change of the SSH keys, or begins one.
    ///
    /// At the stage `use`, the new key replaces the old one, in one step for each file.
    pub fn advance_ssh(&self, stage: SshStage) -> Result<()> {
        files::write_note(&self.dir.join(SSH_STAGE), &State { stage })?;
        self.swap_identity(stage)
    }

    /// Puts the new key in place, if an interrupted run has not done it.
    fn swap_identity(&self, stage: SshStage) -> Result<()> {
        let [next, now, old] = [NEXT, IDENTITY, OLD].map(|name| self.dir.join(name));
        if stage < SshStage::Use || !next.exists() {
            return Ok(());
        }
        if !old.exists() {
            files::copy(&now, &old, files::PRIVATE)?;
        }
        files::rename(&next, &now)?;
        // The public key is made from the private one, which decides.
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

    /// Whether pgherd may change the key that it logs in with.
    pub fn owns_identity(&self) -> Result<bool> {
        let made = match self.inventory.provider {
            inventory::Provider::Docker(_) | inventory::Provider::Aws(_) => true,
            inventory::Provider::Existing => false,
        };
        Ok(made && self.users_identity()?.is_none())
    }

    /// The key that will replace the present one, made at first use.
    pub fn next_identity(&self) -> Result<Identity> {
        identity::of_cluster(&self.dir.join(NEXT), &self.inventory.cluster)
    }

    /// The previous key, until it is forgotten.
    pub fn old_identity(&self) -> Result<Option<Identity>> {
        let path = self.dir.join(OLD);
        if !path.exists() {
            return Ok(None);
        }
        identity::of_cluster(&path, &self.inventory.cluster).map(Some)
    }

    /// Forgets the previous key.
    pub fn forget_old_identity(&self) -> Result<()> {
        let path = self.dir.join(OLD);
        files::remove(&identity::beside(&path))?;
        files::remove(&path)
    }

    /// Records that a host has these keys, whatever its provider reports from the host's creation.
    pub fn note_host_keys(&self, machine: &Machine, keys: &[String]) -> Result<()> {
        let mut all = rotated(&self.dir)?;
        let vouched = machine.host_key.as_deref().and_then(identity::key_of);
        let now = Rotated {
            vouched,
            keys: keys.to_vec(),
        };
        all.insert(machine.host.clone(), now);
        files::write_note(&self.dir.join(HOST_KEYS), &all)?;
        let path = self.dir.join(super::KNOWN_HOSTS);
        let _alone = self.alone()?;
        let mut known = known_hosts::KnownHosts::read(&path)?;
        let alias = known_hosts::alias(&machine.host, &self.inventory.cluster);
        known.pin(&alias, keys);
        known.write(&path)
    }

    /// Writes a configuration with which `ssh` presents `identity`, and accepts only `host_keys` if there are
    /// any; for the test of a key that is not used yet, or no longer.
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
        let path = self.dir.join(TRIAL);
        let home = std::env::home_dir();
        let source = ssh_config::Source {
            cluster: &self.inventory.cluster,
            ssh: &self.inventory.ssh,
            known_hosts: &known_path,
            identity: identity.or(in_use.as_deref()),
            path: &path,
            home: home.as_deref(),
        };
        let addresses = machines.iter().filter_map(|machine| {
            let address = machine.ssh_address.or(machine.address)?;
            Some((machine.host.clone(), address))
        });
        let text = ssh_config::render(&source, &addresses.collect())?;
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
        // Interrupted between the record and the replacement: the same call again completes it.
        files::write_note(
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
