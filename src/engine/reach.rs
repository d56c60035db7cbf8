//! Connects a person to a host: a shell, its journal, or psql.

use std::path::PathBuf;

use super::context::Context;
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    remote,
    shell::quote,
};

/// The exit code of `ssh` if it could not connect. A remote command may also end with this code.
const SSH_FAILED: u8 = 255;

/// A host for the `ssh` command.
pub(crate) struct Reach {
    pub host: HostName,
    /// The `ssh_config` with the host in it.
    pub config: PathBuf,
}

impl Reach {
    /// Finds the hosts again and writes `ssh_config`, because addresses may have changed.
    pub(crate) async fn of(context: &Context, name: &str) -> Result<Self> {
        let host = known(context, name)?;
        let hosts = context.host_status().await?;
        if !hosts.running.iter().any(|machine| machine.host == host) {
            return Err(not_running(context, &host));
        }
        context.workspace.pin_host_keys(&hosts.running)?;
        let config = context.workspace.write_ssh_config(&hosts.running)?;
        Ok(Self { host, config })
    }

    /// If `ssh` ended with `code` because another host answered, returns the error that names that host.
    pub(crate) async fn mistaken(&self, code: u8) -> Option<Error> {
        if code != SSH_FAILED {
            return None;
        }
        remote::host_key_mismatch(&self.config, &self.host).await
    }
}

/// The host with that name; the error lists the existing ones.
fn known(context: &Context, name: &str) -> Result<HostName> {
    let hosts = &context.inventory.hosts;
    if let Some(host) = hosts.keys().find(|host| host.as_str() == name) {
        return Ok(host.clone());
    }
    let hosts: Vec<&str> = hosts.keys().map(HostName::as_str).collect();
    Err(
        Error::new(Code::HostUnknown, format!("no host is called {name}"))
            .hint(format!("the inventory's hosts: {}", hosts.join(", "))),
    )
}

pub(super) fn not_running(context: &Context, host: &HostName) -> Error {
    Error::new(Code::HostNotRunning, "the host does not run")
        .on(host)
        .hint(format!("make or start it: {}", context.command("up")))
}

/// A command line for the host's shell that keeps `words` unchanged. A single word is a command line itself, as
/// with ssh.
pub(crate) fn line(words: &[String]) -> Option<String> {
    match words {
        [] => None,
        [line] => Some(line.clone()),
        words => {
            let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
            Some(words.join(" "))
        }
    }
}

/// The exit code of [`journal`]'s command if the host has no such unit, and nothing from one in its journal.
pub(crate) const NO_UNIT: u8 = 44;

/// The error for a unit that a host does not have.
pub(crate) fn no_unit(context: &Context, host: &HostName, unit: &str) -> Error {
    let roles = &context.inventory.hosts[host].roles;
    let units: Vec<&str> = roles.iter().map(|role| role.unit()).collect();
    Error::new(
        Code::UnitUnknown,
        format!("the host has no unit called {unit}"),
    )
    .on(host)
    .hint(format!("the cluster's units there: {}", units.join(", ")))
    .hint(format!(
        "all units there: {}",
        context.command(&format!("ssh {host} -- systemctl list-units --all"))
    ))
}

/// The command that shows the journal of a host's units; without a unit, those of all its roles.
pub(crate) fn journal(
    context: &Context,
    host: &HostName,
    unit: Option<&str>,
    follow: bool,
    lines: u32,
) -> String {
    let units: Vec<&str> = match unit {
        Some("postgresql") => vec![Role::Postgres.unit()],
        // A service can also be named by its role.
        Some(name) => {
            let mut roles = Role::ALL.into_iter();
            let role = roles.find(|it| it.as_str() == name);
            vec![role.map_or(name, |role| role.unit())]
        }
        None => context.inventory.hosts[host]
            .roles
            .iter()
            .map(|role| role.unit())
            .collect(),
    };
    let mut journal = format!("journalctl --no-pager -n {lines}");
    let mut known = String::new();
    if unit.is_some() {
        // A unit may be gone and have left something in the journal, or have said nothing yet.
        known = units.iter().map(|unit| quote(unit)).map(|unit| {
            format!("systemctl cat {unit} >/dev/null 2>&1 || [ -n \"$($s journalctl -qn1 -u {unit} 2>/dev/null)\" ] || exit {NO_UNIT}; ")
        }).collect();
    }
    for unit in units {
        journal.push_str(&format!(" -u {}", quote(unit)));
    }
    if follow {
        journal.push_str(" -f");
    }
    // In a known shell: the login's own shell may be another one.
    let as_root = format!("s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; {known}exec $s {journal}");
    format!("/bin/sh -c {}", quote(&as_root))
}
