//! `pgherd ssh` and `pgherd logs`, and what they share with `pgherd psql`: verbs that get a person there.

use std::{path::Path, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
    time::timeout,
};

use super::Global;
use crate::{
    engine::context::{self, Base},
    error::{Error, Result},
    inventory::{HostName, Inventory, Role},
    remote::{self, quote},
};

/// What `ssh` itself ends with when it did not get there; a command there may end with it too.
const SSH_FAILED: u8 = 255;
/// How long a program may take to put the terminal in order when it is told to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// `pgherd ssh`; returns the remote command's exit code.
pub(super) async fn ssh(global: &Global, host: &str, command: &[String]) -> Result<u8> {
    let base = Base::there(global).await?;
    let host = known(&base.inventory, host)?;
    let config = reach(&base, &host).await?;
    let mut ssh = client(&config);
    ssh.arg(host.as_str());
    match command {
        [] => {}
        // One word is a line for the host's shell, as with ssh itself.
        [line] => {
            ssh.arg("--").arg(line);
        }
        words => {
            let line: Vec<String> = words.iter().map(|word| quote(word)).collect();
            ssh.arg("--").arg(line.join(" "));
        }
    }
    there(ssh, &config, &host).await
}

/// `pgherd logs`; runs until the reader has seen enough.
pub(super) async fn logs(
    global: &Global,
    host: &str,
    unit: Option<&str>,
    follow: bool,
    lines: u32,
) -> Result<u8> {
    let base = Base::there(global).await?;
    let host = known(&base.inventory, host)?;
    let config = reach(&base, &host).await?;
    let units: Vec<&str> = match unit {
        Some("postgres" | "postgresql") => vec!["patroni"],
        Some(unit) => vec![unit],
        None => base.inventory.hosts[&host]
            .roles
            .iter()
            .map(|role| match role {
                Role::Postgres => "patroni",
                Role::Etcd => "etcd",
                Role::Haproxy => "haproxy",
            })
            .collect(),
    };
    let mut journal = format!("journalctl --no-pager -n {lines}");
    for unit in units {
        journal.push_str(&format!(" -u {}", quote(unit)));
    }
    if follow {
        journal.push_str(" -f");
    }
    // In a shell that is known: the login's own may be another.
    let as_root =
        format!("if [ \"$(id -u)\" = 0 ]; then exec {journal}; else exec sudo -n {journal}; fi");
    let as_root = format!("/bin/sh -c {}", quote(&as_root));
    let mut ssh = client(&config);
    if follow {
        // With a terminal on the other side, journalctl ends when we do.
        ssh.arg("-tt");
    }
    ssh.arg(host.as_str()).arg("--").arg(as_root);
    there(ssh, &config, &host).await
}

/// The host of that name, or an error with the nearest one.
fn known(inventory: &Inventory, name: &str) -> Result<HostName> {
    if let Some((host, _)) = inventory
        .hosts
        .iter()
        .find(|(host, _)| host.as_str() == name)
    {
        return Ok(host.clone());
    }
    let hosts: Vec<&str> = inventory.hosts.keys().map(HostName::as_str).collect();
    Err(Error::input(format!("no host is called {name}"))
        .hint(format!("the inventory's hosts: {}", hosts.join(", "))))
}

pub(super) fn not_running(base: &Base, host: &HostName) -> Error {
    Error::failed("the host does not run")
        .on(host)
        .hint(format!(
            "make or start it: {}",
            context::typed(&base.inventory.path, "up")
        ))
}

/// Finds the hosts afresh and writes `ssh_config`, since addresses may have changed.
async fn reach(base: &Base, host: &HostName) -> Result<std::path::PathBuf> {
    let outlook = base.outlook().await?;
    if !outlook.running.iter().any(|machine| machine.host == *host) {
        return Err(not_running(base, host));
    }
    base.workspace.pin_host_keys(&outlook.running)?;
    base.workspace.write_ssh_config(&outlook.running)
}

fn client(config: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config);
    ssh
}

/// Waits for `ssh`; where it was another host that answered, the error says who, as everywhere.
async fn there(ssh: Command, config: &Path, host: &HostName) -> Result<u8> {
    let mut endings = Endings::listen()?;
    let code = wait(ssh, "ssh", "openssh-client", &mut endings).await?;
    if code == SSH_FAILED
        && let Some(named) = remote::stranger(config, host).await
    {
        return Err(named);
    }
    Ok(code)
}

/// Waits for a program that has the terminal; Ctrl-C is for it, not for us. What ends us ends it.
pub(super) async fn wait(
    mut program: Command,
    name: &str,
    package: &str,
    endings: &mut Endings,
) -> Result<u8> {
    let mut child = program.kill_on_drop(true).spawn().map_err(|error| {
        Error::failed(format!("cannot run {name}"))
            .because(error)
            .hint(format!("install it: package {package}"))
    })?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = tokio::signal::ctrl_c() => {}
            signal = endings.next() => {
                end(&mut child).await;
                return Ok(signal);
            }
        }
    };
    status
        .map(code)
        .map_err(|error| Error::failed(format!("{name} was lost")).because(error))
}

/// Ends a program in good order: one that has changed the terminal puts it right.
async fn end(child: &mut Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself in this moment.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(FAREWELL, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Signals by which others end us: a terminal that closes, a system that stops.
pub(super) struct Endings {
    hangup: unix::Signal,
    terminate: unix::Signal,
}

impl Endings {
    /// From now on these signals no longer end the process by themselves.
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| {
            unix::signal(kind)
                .map_err(|error| Error::failed("cannot listen for signals").because(error))
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one; returns the exit code that tells of it, as shells count.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.hangup.recv() => 128 + 1,
            _ = self.terminate.recv() => 128 + 15,
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
