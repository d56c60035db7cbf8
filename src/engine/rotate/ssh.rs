//! Replaces pgherd's SSH key and the hosts' keys.
//!
//! After each stage, all hosts still accept pgherd. The workspace has the present stage
//! (`workspace/ssh_rotation.rs`), so the next run can continue an interrupted change. Each stage is tested: a
//! login with only the new key must work, and a login with the old key must be refused.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::Intent;
use crate::{
    engine::{connected::Connected, context::Context, run::Run},
    error::{Code, Error, Result},
    event::Event,
    inventory::HostName,
    machine::Machine,
    plan::{
        Plan,
        ssh_keys::{self, AccessKey},
    },
    quantity::count,
    remote::Remote,
    workspace::{SshStage, fingerprint},
};

/// How long a host may take to print its new public keys. Making an RSA key takes seconds.
const MAKING: Duration = Duration::from_secs(60);

/// What will happen; an error if the change is not possible.
pub(super) fn intent(context: &Context, host_keys: bool) -> Result<Intent> {
    let own = context.workspace.owns_identity()?;
    if own || host_keys {
        return Ok(Intent::Ssh { own });
    }
    Err(
        Error::new(Code::NotPossibleNow, "the key that logs in to the hosts belongs to you, not to pgherd")
            .cause("ssh.identity_file names it, or your own ssh chooses it")
            .hint("change it with your own tools: add the new one on each host, name it in the inventory, remove the old one")
            .hint("to change the hosts' own keys: pgherd rotate ssh --host-keys"),
    )
}

/// A change of the SSH keys of running hosts.
pub(super) struct SshKeys<'a> {
    pub run: &'a Run<'a>,
    pub machines: &'a [Machine],
}

impl SshKeys<'_> {
    pub(super) async fn rotate(&self) -> Result<()> {
        let workspace = &self.run.context.workspace;
        let begun = workspace.ssh_stage()?;
        // A stage is tested over connections of its own.
        self.connect().await?.remote.keep_none();
        let owns = workspace.owns_identity()?;
        for stage in SshStage::ALL {
            let done = begun.is_some_and(|begun| stage < begun);
            if done || !(owns || stage == SshStage::Hosts) {
                continue;
            }
            workspace.advance_ssh(stage)?;
            // The connections that other verbs left were made with the previous stage's keys.
            self.run.context.close_kept().await?;
            let stage_name = stage.as_str();
            self.run.events.emit(Event::Stage { stage: stage_name });
            let came = match stage {
                SshStage::Add => self.add().await,
                SshStage::Use => self.try_new_key().await,
                SshStage::Remove => self.remove().await,
                SshStage::Hosts => self.host_keys().await,
            };
            came.map_err(|error| {
                error.left(format!(
                    "the change has reached its stage `{stage_name}`, in which pgherd can log in to the hosts; the same command continues from there"
                ))
            })?;
        }
        self.run.context.close_kept().await?;
        workspace.end_ssh()
    }

    fn hosts(&self) -> impl Iterator<Item = &HostName> {
        self.machines.iter().map(|machine| &machine.host)
    }

    /// Makes every host accept the new key, and tests the key before anything relies on it.
    async fn add(&self) -> Result<()> {
        let workspace = &self.run.context.workspace;
        let (now, next) = (workspace.identity()?, workspace.next_identity()?);
        let plan = ssh_keys::add_access(
            self.hosts(),
            self.access(&now.public_key),
            self.access(&next.public_key),
        );
        self.execute(plan).await?;
        self.login(Some(&next.private_path), None).await
    }

    /// The new key has replaced the old one. The provider must know it too, because it creates hosts with it.
    async fn try_new_key(&self) -> Result<()> {
        let identity = self.run.context.workspace.identity()?;
        self.login(None, None).await?;
        self.run.context.state_is_ready().await?;
        self.run
            .context
            .provider
            .replace_access_key(&identity.public_key)
            .await
    }

    async fn remove(&self) -> Result<()> {
        let workspace = &self.run.context.workspace;
        let Some(old) = workspace.old_identity()? else {
            return Ok(());
        };
        let access = self.access(&old.public_key);
        let print = logged(access.blob)?;
        self.execute(ssh_keys::remove_access(self.hosts(), access, &print))
            .await?;
        self.refused(&old.private_path).await?;
        workspace.forget_old_identity()
    }

    async fn host_keys(&self) -> Result<()> {
        let workspace = &self.run.context.workspace;
        let new = self.make_host_keys().await?;
        let pinned = workspace.pinned()?;
        for machine in self.machines {
            // Both keys are known, because a run may be interrupted just before or after the host begins to use
            // the new ones.
            let mut both = pinned.get(&machine.host).cloned().unwrap_or_default();
            both.extend(new[&machine.host].iter().cloned());
            both.dedup();
            workspace.note_host_keys(machine, &both)?;
        }
        self.execute(ssh_keys::show_host_keys(self.hosts())).await?;
        self.login(None, Some(&new)).await?;
        for machine in self.machines {
            workspace.note_host_keys(machine, &new[&machine.host])?;
        }
        Ok(())
    }

    /// Makes every host generate new keys; returns the public keys.
    async fn make_host_keys(&self) -> Result<BTreeMap<HostName, Vec<String>>> {
        let connected = self.connect().await?;
        let script = ssh_keys::next_host_keys();
        let made = join_all(self.hosts().map(|host| {
            let (remote, script) = (&connected.remote, &script);
            async move {
                let silent = |_, _: &str| {};
                let output = remote.run(host, script, MAKING, &silent).await?;
                let keys: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
                if output.success() && !keys.is_empty() {
                    return Ok((host.clone(), keys));
                }
                Err(
                    Error::new(Code::RotationIncomplete, "the host made no new SSH keys")
                        .on(host)
                        .excerpt("stderr", output.stderr),
                )
            }
        }))
        .await;
        // Also in a run that keeps its connections: each stage needs a connection that was made with its own
        // keys, and none with the old key may remain.
        connected.remote.close().await;
        all(made)
    }

    fn access<'a>(&'a self, public_key: &'a str) -> AccessKey<'a> {
        AccessKey {
            user: &self.run.context.inventory.ssh.user,
            blob: public_key
                .split_ascii_whitespace()
                .nth(1)
                .unwrap_or_default(),
        }
    }

    async fn execute(&self, plan: Plan) -> Result<()> {
        let connected = self.connect().await?;
        let done = async {
            let observed = connected.look().await?.whole()?;
            connected.announce(&plan);
            let cancel = self.run.cancel;
            connected.carry_out(plan, &observed.cluster, cancel).await
        }
        .await;
        connected.remote.close().await;
        done
    }

    async fn connect(&self) -> Result<Connected<'_>> {
        let Run {
            context, events, ..
        } = self.run;
        context.connect(self.machines, events).await
    }

    /// Logs in on every host with `identity` only, and accepts only these host keys.
    async fn login(
        &self,
        identity: Option<&Path>,
        host_keys: Option<&BTreeMap<HostName, Vec<String>>>,
    ) -> Result<()> {
        let remote = self.trial(identity, host_keys)?;
        let tried = join_all(self.hosts().map(|host| remote.connect(host))).await;
        remote.close().await;
        all(tried).map(|_: Vec<()>| ())
    }

    /// An error unless every host refuses the key.
    async fn refused(&self, identity: &Path) -> Result<()> {
        let remote = self.trial(Some(identity), None)?;
        let tried = join_all(self.hosts().map(|host| async {
            match remote.connect(host).await {
                Ok(()) => Err(Error::new(Code::RotationIncomplete, "the host still accepts the old SSH key")
                    .on(host)
                    .cause("its line was removed from the files that sshd names; something else accepts the key")
                    .hint("look for it: sudo sshd -T | grep -i -e authorizedkeys -e trustedusercakeys")),
                Err(error) if is_refusal(&error) => Ok(()),
                Err(error) => Err(error),
            }
        }))
        .await;
        remote.close().await;
        all(tried).map(|_: Vec<()>| ())
    }

    fn trial(
        &self,
        identity: Option<&Path>,
        host_keys: Option<&BTreeMap<HostName, Vec<String>>>,
    ) -> Result<Arc<dyn Remote>> {
        let context = self.run.context;
        let config = context
            .workspace
            .trial_ssh_config(self.machines, identity, host_keys)?;
        let mut way = context.way(&config)?;
        way.keep = None;
        Ok(context.connections.apart(way))
    }
}

/// Whether the host answered and refused the key.
fn is_refusal(error: &Error) -> bool {
    error.code() == Code::SshPermissionDenied
}

/// The key as it appears in sshd's log.
fn logged(blob: &str) -> Result<String> {
    let unreadable = || Error::new(Code::RotationIncomplete, "the old SSH key is not in base64");
    fingerprint(blob).ok_or_else(unreadable)
}

/// All results, or the failures of all hosts.
fn all<T, C: FromIterator<T>>(results: Vec<Result<T>>) -> Result<C> {
    let mut failures = Vec::new();
    let good: C = results
        .into_iter()
        .filter_map(|result| result.map_err(|error| failures.push(error)).ok())
        .collect();
    match failures.len() {
        0 => Ok(good),
        1 => Err(failures.remove(0)),
        many => Err(Error::several(
            format!("{} failed", count(many, "host")),
            failures,
        )),
    }
}
