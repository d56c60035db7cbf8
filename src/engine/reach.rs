//! Connects a person to a host: a shell, its journal, or psql.

use std::path::PathBuf;

use super::context::Context;
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    remote,
    shell::quote,
};

/// What `ssh` itself ends with when it did not get there; a command there may end with it too.
const SSH_FAILED: u8 = 255;

/// A host as `ssh` is told of it.
pub(crate) struct Reach {
    pub host: HostName,
    /// The `ssh_config` that names it.
    pub config: PathBuf,
}

impl Reach {
    /// Finds the hosts afresh and writes `ssh_config`, since addresses may have changed.
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

    /// Where `ssh` ended with `code` because it was another host that answered: the error that says who,
    /// as everywhere.
    pub(crate) async fn mistaken(&self, code: u8) -> Option<Error> {
        if code != SSH_FAILED {
            return None;
        }
        remote::host_key_mismatch(&self.config, &self.host).await
    }
}

/// The host of that name, or an error with those that there are.
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

/// A line for a host's shell in which `words` stand as they are; a single one is a line by itself, as
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

/// The command that shows the journal of a host's units, of all of its roles if none is named.
pub(crate) fn journal(
    context: &Context,
    host: &HostName,
    unit: Option<&str>,
    follow: bool,
    lines: u32,
) -> String {
    let units: Vec<&str> = match unit {
        Some("postgresql") => vec![Role::Postgres.unit()],
        // A service may be called by its role as well.
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
    for unit in units {
        journal.push_str(&format!(" -u {}", quote(unit)));
    }
    if follow {
        journal.push_str(" -f");
    }
    // In a shell that is known: the login's own may be another.
    let as_root =
        format!("if [ \"$(id -u)\" = 0 ]; then exec {journal}; else exec sudo -n {journal}; fi");
    format!("/bin/sh -c {}", quote(&as_root))
}
