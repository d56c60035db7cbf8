//! The part of the `ssh_config` for hosts that are passed on the way to others.

use std::path::Path;

use super::{Source, quoted};
use crate::{
    error::{Code, Error, Result},
    inventory::{Jump, Ssh},
    shell::quote,
};

/// The line that names the agent, if the inventory does.
pub(super) fn agent(ssh: &Ssh) -> Result<String> {
    Ok(match ssh.agent.as_deref() {
        None => String::new(),
        Some("SSH_AUTH_SOCK") => "    IdentityAgent SSH_AUTH_SOCK\n".to_owned(),
        Some(path) => format!("    IdentityAgent {}\n", quoted(Path::new(path))?),
    })
}

/// The line with which a host is reached through a bastion.
///
/// Not `ProxyJump`: the `ssh` that it starts takes neither a path with blanks nor options, so it would ask a
/// person about an unknown key.
pub(super) fn through(source: &Source<'_>, bastion: &Jump) -> Result<String> {
    // Not expressible in this file, so not in a command in it either.
    quoted(source.path)?;
    let file = quote(&source.path.display().to_string()).replace('%', "%%");
    let arguments = bastion.arguments();
    Ok(format!(
        "    ProxyCommand ssh -F {file} -o BatchMode=yes -o LogLevel=ERROR -W %h:%p {arguments}\n"
    ))
}

/// Settings for bastions: how each is reached, and that its key must be known to the user already. The rest is
/// the user's own.
pub(super) fn bastions(source: &Source<'_>) -> Result<String> {
    let ssh = source.ssh;
    let mut text = String::new();
    let mut before = None;
    let home = |file: &str| match source.home {
        Some(home) => quoted(&home.join(".ssh").join(file)),
        None => Ok(format!("~/.ssh/{file}")),
    };
    // Once a key is named, ssh no longer offers the usual ones by itself.
    let mut identities = String::new();
    if let (Some(path), Some(_)) = (source.identity, &ssh.identity_file) {
        identities.push_str(&format!("    IdentityFile {}\n", quoted(path)?));
        for usual in ["id_ed25519", "id_ecdsa", "id_rsa"] {
            identities.push_str(&format!("    IdentityFile {}\n", home(usual)?));
        }
    }
    for bastion in &ssh.proxy_jump {
        let way = match before {
            Some(before) => through(source, before)?,
            None => String::new(),
        };
        let own = match &ssh.config {
            // It comes at the end, for all.
            Some(_) => String::new(),
            None => format!(
                "    Include {}\n    Include /etc/ssh/ssh_config\n",
                match source.home {
                    Some(home) => included(&home.join(".ssh/config"))?,
                    None => "~/.ssh/config".to_owned(),
                }
            ),
        };
        text.push_str(&format!(
            "\nHost {}\n    StrictHostKeyChecking yes\n    ConnectTimeout {}\n{}{way}{own}{identities}",
            bastion.host,
            ssh.connect_timeout,
            agent(ssh)?,
        ));
        before = Some(bastion);
    }
    Ok(text)
}

/// Where the keys of bastions are known, if the user's own settings do not say it. The first value counts for
/// ssh, so this comes last.
pub(super) fn known_bastions(source: &Source<'_>) -> Result<String> {
    let (Some(home), false) = (source.home, source.ssh.proxy_jump.is_empty()) else {
        return Ok(String::new());
    };
    let jumps = source.ssh.proxy_jump.iter();
    let names: Vec<&str> = jumps.map(|jump| jump.host.as_str()).collect();
    let folder = home.join(".ssh");
    let (first, second) = (folder.join("known_hosts"), folder.join("known_hosts2"));
    Ok(format!(
        "\nHost {}\n    UserKnownHostsFile {} {}\n",
        names.join(" "),
        quoted(&first)?,
        quoted(&second)?
    ))
}

/// A path as the pattern of an `Include`, which fits this file only.
pub(super) fn included(path: &Path) -> Result<String> {
    let text = path.display().to_string();
    if text.contains('%') {
        return Err(Error::new(
            Code::FileUnusable,
            format!("{text} has `%` in it, which OpenSSH's versions take differently"),
        )
        .hint("move the file to a folder with a simpler name"));
    }
    let mut pattern = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    quoted(Path::new(&pattern))
}
