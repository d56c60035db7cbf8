//! A workspace that is made again from what the hosts have.
//!
//! It is made in a folder of its own, beside the place of the cluster's workspace, and moved there as a whole.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    GITIGNORE, KNOWN_HOSTS, LOCK, PKI, ROTATION, RUNS, RunLock, SECRETS, SSH_CONFIG, Workspace,
    files, identity,
    known_hosts::{self, KnownHosts},
    lock, pki, rotation, secrets, trust,
};
use crate::{
    cluster::{Certificate, Interim},
    error::{Code, Error, Result},
    inventory::{HostName, Inventory},
    machine::Machine,
    secret::{Secret, never_shown},
    shown_key::Question,
};

/// The prefix of the folder in which the workspace is made.
const RECOVERING: &str = ".recovering-";

/// What a run that needs a cluster can leave where there is no workspace. It makes no cluster.
const NO_CLUSTER: [&str; 5] = [RUNS, LOCK, SSH_CONFIG, KNOWN_HOSTS, "known_hosts.old"];

never_shown!(Recovered);

/// What hosts have of a workspace.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The cluster's id.
    pub id: String,
    /// The passwords, by the names of `secrets.yaml`.
    pub passwords: BTreeMap<String, Secret>,
    /// The interim roles, if members log in with them: a change of the passwords is under way.
    pub interim: Option<Interim>,
    /// `None` without TLS.
    pub pki: Option<HostCertificates>,
}

never_shown!(HostCertificates);

/// The certificates that hosts have.
#[derive(Debug, Clone)]
pub struct HostCertificates {
    /// The authorities that the hosts trust, PEM.
    pub trusted: String,
    pub hosts: Vec<(HostName, Certificate)>,
    /// One that is also for clients, for pgherd itself.
    pub operator: Certificate,
}

/// The folder of an unfinished workspace; removed when it is dropped.
#[derive(Debug)]
pub struct Staging {
    dir: PathBuf,
    lock: RunLock,
}

impl Staging {
    pub fn lock(&self) -> &RunLock {
        &self.lock
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Once it is in its place, there is nothing here.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Workspace {
    /// Opens the folder in which the workspace of an existing cluster is made again.
    ///
    /// # Errors
    /// The cluster's workspace is there already.
    pub fn recovering(inventory: &Inventory) -> Result<Self> {
        let place = Self::path_of(inventory)?;
        trust::check(&place)?;
        refuse_existing(&place)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let dir = place.with_file_name(format!("{RECOVERING}{name}"));
        trust::check(&dir)?;
        if let Some(all) = place.parent() {
            files::private_dir(all)?;
            files::create(&all.join(GITIGNORE), files::PUBLIC, b"*\n")?;
        }
        files::private_dir(&dir)?;
        Ok(Self::at(dir, inventory, None))
    }

    /// Begins with an empty folder: a run that was killed may have left something.
    pub fn begin_recovery(&self, lock: RunLock) -> Result<Staging> {
        for name in files::names(&self.dir)? {
            let path = self.dir.join(&name);
            match path.is_dir() {
                _ if name == LOCK => {}
                true => {
                    fs::remove_dir_all(&path)
                        .map_err(|e| files::failed("cannot remove", &path, e))?;
                }
                false => files::remove(&path)?,
            }
        }
        Ok(Staging {
            dir: self.dir.clone(),
            lock,
        })
    }

    /// The id of a cluster that gets its first workspace.
    pub fn new_cluster_id() -> Result<String> {
        secrets::new_id()
    }

    /// The names of the passwords that the inventory needs, and whether the user sets each of them elsewhere.
    pub fn wanted_passwords(&self) -> Result<Vec<(String, bool)>> {
        secrets::names(&self.wanted_secrets())
    }

    /// Stores what the hosts have. Passwords that no host has are made; their names are returned.
    pub fn put_back(&self, recovered: &Recovered) -> Result<Vec<String>> {
        let Recovered {
            id,
            passwords,
            interim,
            pki,
        } = recovered;
        if let Some(it) = pki {
            pki::put_back(&self.dir.join(PKI), &it.trusted, &it.hosts, &it.operator)?;
        }
        if let Some(Interim {
            replication,
            rewind,
            ..
        }) = interim
        {
            rotation::put_back(
                &self.dir.join(ROTATION),
                replication.clone(),
                rewind.clone(),
            )?;
        }
        let path = self.dir.join(SECRETS);
        let wanted = self.wanted_secrets();
        secrets::put_back(&path, &wanted, id, passwords)?;
        let known = |(name, given): &(String, bool)| *given || passwords.contains_key(name);
        let mut made = self.wanted_passwords()?;
        made.retain(|it| !known(it));
        // Makes what is missing.
        self.secrets()?;
        self.take_notes();
        Ok(made.into_iter().map(|(name, _)| name).collect())
    }

    /// Pins the keys that hosts show, where nobody vouches for a host's key or where it is another one than the
    /// provider recorded. Returns their fingerprints.
    ///
    /// Only for a user who has asked for it: whoever answers at an address is trusted.
    pub fn trust_shown_keys(
        &self,
        machines: &[Machine],
    ) -> Result<BTreeMap<HostName, Vec<String>>> {
        // Whatever is known is pinned; the error names the rest.
        let _ = self.pin_host_keys(machines);
        let shown = self.scan(machines)?;
        let mut pinned = self.pinned()?;
        let mut trusted = BTreeMap::new();
        for machine in machines {
            let known = pinned.remove(&machine.host).unwrap_or_default();
            let Some(keys) = shown.get(&machine.host) else {
                continue;
            };
            if keys.iter().any(|key| known.contains(key))
                || (machine.host_key.is_none() && !known.is_empty())
            {
                continue;
            }
            match &machine.host_key {
                // It was changed after the host was made.
                Some(_) => self.note_host_keys(machine, keys)?,
                None => self.pin_keys(&machine.host, keys)?,
            }
            let prints = keys.iter().filter_map(|key| {
                let (kind, blob) = key.split_once(' ')?;
                Some(format!("{kind} {}", identity::fingerprint(blob)?))
            });
            let prints = prints.collect();
            trusted.insert(machine.host.clone(), prints);
        }
        Ok(trusted)
    }

    fn pin_keys(&self, host: &HostName, keys: &[String]) -> Result<()> {
        let path = self.dir.join(KNOWN_HOSTS);
        let _alone = self.alone()?;
        let mut known = KnownHosts::read(&path)?;
        known.pin(&known_hosts::alias(host, &self.inventory.cluster), keys);
        known.write(&path)
    }

    /// The keys that hosts show, as `type base64`.
    fn scan(&self, machines: &[Machine]) -> Result<BTreeMap<HostName, Vec<String>>> {
        if !self.inventory.ssh.is_direct() {
            return self.ask_for_keys(machines);
        }
        let port = self.inventory.ssh.port;
        let at = |machine: &Machine| machine.ssh_address.or(machine.address);
        let mut command = Command::new("ssh-keyscan");
        command.args([
            "-T",
            "10",
            "-t",
            "ed25519,ecdsa,rsa",
            "-p",
            &port.to_string(),
        ]);
        command.args(machines.iter().filter_map(at).map(|it| it.to_string()));
        let output = identity::run(command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut shown: BTreeMap<HostName, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let Some((name, key)) = line.split_once(' ') else {
                continue;
            };
            let Some(key) = identity::key_of(key) else {
                continue;
            };
            let is_its = |machine: &&Machine| {
                at(machine)
                    .is_some_and(|it| name == it.to_string() || name == format!("[{it}]:{port}"))
            };
            for machine in machines.iter().filter(is_its) {
                shown
                    .entry(machine.host.clone())
                    .or_default()
                    .push(key.clone());
            }
        }
        Ok(shown)
    }

    /// The same for hosts that are reached through others.
    fn ask_for_keys(&self, machines: &[Machine]) -> Result<BTreeMap<HostName, Vec<String>>> {
        let config = self.write_ssh_config(machines)?;
        let mut shown: BTreeMap<HostName, Vec<String>> = BTreeMap::new();
        for host in machines.iter().map(|machine| &machine.host) {
            for kind in ["ed25519", "ecdsa", "rsa"] {
                let asked = Question::to(&config, host.as_str(), Some(kind));
                let Some((question, ssh)) = asked else {
                    continue;
                };
                identity::run(ssh)?;
                let answer = question.answer();
                let lines = answer.lines().filter_map(|line| line.split_once(' '));
                let keys = lines.filter_map(|(_, key)| identity::key_of(key));
                shown.entry(host.clone()).or_default().extend(keys);
            }
        }
        shown.retain(|_, keys| !keys.is_empty());
        Ok(shown)
    }

    /// Moves the finished workspace to its place.
    ///
    /// # Errors
    /// Meanwhile there is one, or another run works in that folder.
    pub fn install(&self, staging: Staging, machines: &[Machine]) -> Result<Self> {
        let place = Self::path_of(&self.inventory)?;
        refuse_existing(&place)?;
        // It has paths of this folder.
        files::remove(&self.ssh_config_path())?;
        files::remove(&self.dir.join(LOCK))?;
        let before = self.dir.with_extension("replaced");
        let had = place.exists();
        if had {
            let _alone = lock::acquire(&place.join(LOCK), &self.inventory.cluster, "recover")?;
            files::rename(&place, &before)?;
        }
        if let Err(error) = files::rename(&self.dir, &place) {
            if had {
                files::rename(&before, &place)?;
            }
            return Err(error);
        }
        if had {
            keep_runs(&before, &place)?;
        }
        drop(staging);
        let installed = Self::at(place, &self.inventory, None);
        installed.write_ssh_config(machines)?;
        Ok(installed)
    }
}

/// Keeps the records of runs that made no cluster, and removes what else they left.
fn keep_runs(before: &Path, place: &Path) -> Result<()> {
    let runs = before.join(RUNS);
    if runs.exists() {
        files::rename(&runs, &place.join(RUNS))?;
    }
    for name in files::names(before)? {
        files::remove(&before.join(name))?;
    }
    files::remove_empty(before)
}

/// A workspace is never replaced.
fn refuse_existing(place: &Path) -> Result<()> {
    let names = files::names(place)?;
    let precious = |name: &&String| !NO_CLUSTER.contains(&name.as_str());
    let Some(name) = names.iter().find(precious) else {
        return Ok(());
    };
    Err(Error::new(
        Code::WorkspaceExists,
        format!("{} is a workspace already", place.display()),
    )
    .cause(format!("{name} is in it"))
    .left("nothing was changed")
    .hint("if it is this cluster's, nothing is lost: see how the cluster is: pgherd status")
    .hint("otherwise move it away, and run the same command again"))
}

#[cfg(test)]
mod tests;
