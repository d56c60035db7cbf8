//! How pgherd reaches hosts over SSH: its key, their pinned keys, and their addresses.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    IDENTITY, Identity, KNOWN_HOSTS, SSH_CONFIG, Workspace, absolute, files, identity, kept,
    known_hosts::{self, KnownHosts},
    short_private_dir, ssh_config, ssh_rotation,
};
use crate::{
    error::Result,
    inventory::{self, HostName, Inventory},
    machine::Machine,
};

impl Workspace {
    /// The key for SSH: the inventory's `ssh.identity_file`, or one that is made here at first use.
    pub fn identity(&self) -> Result<Identity> {
        match self.users_identity()? {
            Some(path) => identity::of_user(&path),
            None => identity::of_cluster(&self.dir.join(IDENTITY), &self.inventory.cluster),
        }
    }

    /// `ssh.identity_file`, relative to `~` or the inventory's folder.
    pub(super) fn users_identity(&self) -> Result<Option<PathBuf>> {
        let Some(path) = &self.inventory.ssh.identity_file else {
            return Ok(None);
        };
        let path = match (path.strip_prefix("~"), std::env::home_dir()) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => absolute(&self.inventory.path)?
                .parent()
                .unwrap_or(Path::new("/"))
                .join(path),
        };
        Ok(Some(path))
    }

    /// The key for `ssh`; `None` if `ssh` uses the user's own keys.
    pub fn identity_path(&self) -> Result<Option<PathBuf>> {
        Ok(match (self.users_identity()?, &self.inventory.provider) {
            (Some(path), _) => Some(path),
            (None, inventory::Provider::Existing) => None,
            (None, inventory::Provider::Docker(_) | inventory::Provider::Aws(_)) => {
                Some(self.dir.join(IDENTITY))
            }
        })
    }

    /// Writes `ssh_config`, and returns its path.
    ///
    /// A machine without an address is left out. Hosts of the inventory that are not among `machines` stay in
    /// the file unchanged: `status` may know fewer hosts than an `up` that is launching them at the same time.
    ///
    /// Existing hosts (`existing`) without a named key are reached with the keys and the agent of the user's
    /// own `ssh`: no host would accept a key made here.
    pub fn write_ssh_config(&self, machines: &[Machine]) -> Result<PathBuf> {
        let identity = self.identity_path()?;
        let path = self.ssh_config_path();
        let home = std::env::home_dir();
        let source = ssh_config::Source {
            cluster: &self.inventory.cluster,
            ssh: &self.inventory.ssh,
            known_hosts: &self.dir.join(KNOWN_HOSTS),
            identity: identity.as_deref(),
            path: &path,
            home: home.as_deref(),
        };
        let _alone = self.alone()?;
        let old = files::read(&path)?.unwrap_or_default();
        let mut addresses = ssh_config::addresses(&old);
        // Hosts that left the inventory are in the file until they are cleared.
        let known = self.members()?;
        addresses.retain(|host, _| {
            let ours = self.inventory.hosts.contains_key(host)
                || known.iter().any(|known| known.name == *host);
            ours && machines.iter().all(|m| m.host != *host)
        });
        addresses.extend(machines.iter().filter_map(|machine| {
            let address = machine.ssh_address.or(machine.address)?;
            Some((machine.host.clone(), address))
        }));
        let text = ssh_config::render(&source, &addresses)?;
        if old != text {
            files::write(&path, files::PRIVATE, text.as_bytes())?;
        }
        Ok(path)
    }

    /// Keeps other processes from writing SSH's files between our reading and our writing.
    ///
    /// The lock is on the folder itself and lasts only for moments. It is not a run's lock, because verbs that
    /// only look write these files too.
    pub(super) fn alone(&self) -> Result<fs::File> {
        fs::File::open(&self.dir)
            .and_then(|dir| dir.lock().map(|()| dir))
            .map_err(|e| files::failed("cannot lock", &self.dir, e))
    }

    /// The addresses at which the last run reached each host.
    pub fn known_addresses(&self) -> Result<BTreeMap<HostName, Ipv4Addr>> {
        let config = files::read(&self.ssh_config_path())?.unwrap_or_default();
        Ok(ssh_config::addresses(&config))
    }

    pub fn ssh_config_path(&self) -> PathBuf {
        self.dir.join(SSH_CONFIG)
    }

    /// Pins the host keys of `machines`.
    ///
    /// # Errors
    /// A host's key is not trusted yet; the keys of the other hosts are pinned anyway.
    pub fn pin_host_keys(&self, machines: &[Machine]) -> Result<()> {
        self.pin_host_keys_trusting(machines, &known_hosts::trusted_files())
    }

    pub(super) fn pin_host_keys_trusting(
        &self,
        machines: &[Machine],
        trusted: &[PathBuf],
    ) -> Result<()> {
        let path = self.dir.join(KNOWN_HOSTS);
        let _alone = self.alone()?;
        let mut known = KnownHosts::read(&path)?;
        let Inventory { cluster, ssh, .. } = &self.inventory;
        let rotated = ssh_rotation::rotated(&self.dir)?;
        let port = ssh.port;
        let pinned = known_hosts::pin(&mut known, machines, &rotated, cluster, port, trusted);
        let pinned = pinned.map_err(|unknown| unknown.taught(port, ssh.to_bastion().as_deref()));
        known.write(&path)?;
        pinned
    }

    /// The pinned keys (`type base64`) of the inventory's hosts.
    pub fn pinned(&self) -> Result<BTreeMap<HostName, Vec<String>>> {
        let known = KnownHosts::read(&self.dir.join(KNOWN_HOSTS))?;
        let hosts = self.inventory.hosts.keys();
        Ok(known_hosts::pinned(&known, hosts, &self.inventory.cluster))
    }

    /// Forgets a host's key, for example when the host is gone.
    pub fn forget(&self, host: &HostName) -> Result<()> {
        let path = self.dir.join(KNOWN_HOSTS);
        let _alone = self.alone()?;
        let mut known = KnownHosts::read(&path)?;
        known.forget(&known_hosts::alias(host, &self.inventory.cluster));
        known.write(&path)
    }

    pub fn known_hosts_path(&self) -> PathBuf {
        self.dir.join(KNOWN_HOSTS)
    }

    /// The folder in which this cluster's connections are kept between runs, created if it is missing. It is on
    /// the file system of `sockets`, which is a run's [`Self::control_dir`].
    ///
    /// `None` if another user has a folder with that name, or could write to it.
    pub fn kept_dir(&self, sockets: &Path) -> Result<Option<PathBuf>> {
        // A preview uses those of the real workspace.
        let real = Self::path_of(&self.inventory)?;
        let parent = sockets.parent().unwrap_or(Path::new("/tmp"));
        Ok(kept::folder(parent, &real))
    }

    /// A private folder for SSH's control sockets, whose paths must be short; removed when it is dropped.
    pub fn control_dir(&self) -> Result<TempDir> {
        short_private_dir("pgherd-")
    }
}
