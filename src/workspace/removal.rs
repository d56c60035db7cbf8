//! Removes the workspace's files for `down`.

use super::{
    BROKEN, GITIGNORE, IDENTITY, KNOWN_HOSTS, LAUNCHES, LOCK, MEMBERS, PKI, ROTATION, RunLock,
    SECRETS, SSH_CONFIG, TLS, Workspace, files, identity, making_bucket::MAKING_BUCKET, pki,
    rebooting::REBOOTING, replacing::REPLACING, restoring::RESTORING, shared, ssh_rotation,
    upgrading::UPGRADING,
};
use crate::error::Result;

/// The backup file of `ssh-keygen -R`, which a user runs to accept a host's new key, as the error says.
const KNOWN_HOSTS_OLD: &str = "known_hosts.old";

impl Workspace {
    /// Removes what pgherd made here, for `down`; `runs/` stays.
    ///
    /// With `keep_secrets`, everything that a later `up` needs to create the same cluster stays too: passwords,
    /// authority and SSH key. Files that were not made here stay, and so do folders with such files.
    pub fn remove(&self, _lock: &RunLock, keep_secrets: bool) -> Result<()> {
        let launches = self.dir.join(LAUNCHES);
        for name in files::names(&launches)? {
            files::remove(&launches.join(name))?;
        }
        files::remove_empty(&launches)?;
        let mut names = vec![
            KNOWN_HOSTS,
            KNOWN_HOSTS_OLD,
            SSH_CONFIG,
            BROKEN,
            TLS,
            MEMBERS,
            MAKING_BUCKET,
            REPLACING,
            REBOOTING,
            RESTORING,
            UPGRADING,
            ssh_rotation::HOST_KEYS,
            ssh_rotation::SSH_STAGE,
            ssh_rotation::TRIAL,
            ssh_rotation::TRIAL_HOSTS,
        ];
        for name in [ssh_rotation::NEXT, ssh_rotation::OLD] {
            let key = self.dir.join(name);
            files::remove(&identity::beside(&key))?;
            files::remove(&key)?;
        }
        if !keep_secrets {
            shared::remove(&self.dir)?;
            names.extend([SECRETS, ROTATION, IDENTITY, "id_ed25519.pub"]);
            pki::remove(&self.dir.join(PKI), self.inventory.hosts.keys())?;
        }
        for name in names {
            files::remove(&self.dir.join(name))?;
        }
        self.remove_unfinished()?;
        // Last of all: from here on, another run may begin.
        files::remove(&self.dir.join(LOCK))?;
        files::remove_empty(&self.dir)?;
        match self.dir.parent() {
            Some(all) if files::names(all)? == [GITIGNORE] => {
                files::remove(&all.join(GITIGNORE))?;
                files::remove_empty(all)
            }
            _ => Ok(()),
        }
    }

    /// Unfinished files of killed runs, and folders with a new key in them.
    fn remove_unfinished(&self) -> Result<()> {
        for name in files::names(&self.dir)? {
            if !name.starts_with(files::UNFINISHED) {
                continue;
            }
            let path = self.dir.join(name);
            if path.is_dir() {
                files::remove(&path.join("key"))?;
                files::remove(&path.join("key.pub"))?;
                files::remove_empty(&path)?;
            } else {
                files::remove(&path)?;
            }
        }
        Ok(())
    }
}
