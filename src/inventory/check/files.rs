//! Checks the files that an inventory names: that they exist, are readable, and have the right content.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::super::{
    placed::span_of,
    problem::{Problem, quoted},
    schema::Word,
};
use crate::given;

/// A file of certificates for the hosts to trust.
pub(super) fn ca_bundle(inventory: &Path, word: &Word) -> Result<PathBuf, Problem> {
    let (path, text, _) = read(inventory, word)?;
    if text.contains("-----BEGIN CERTIFICATE-----") {
        Ok(path)
    } else {
        Err(Problem::new(
            span_of(word),
            format!("{} holds no certificate", quoted(&word.value)),
        )
        .label("PEM is wanted: `-----BEGIN CERTIFICATE-----`"))
    }
}

/// A file of passwords. The code that reads it checks its content without showing it.
pub(super) fn secrets(inventory: &Path, word: &Word) -> Result<PathBuf, Problem> {
    let (path, _, mode) = read(inventory, word)?;
    if mode & 0o077 != 0 {
        return Err(Problem::new(
            span_of(word),
            format!("{} can be read by other users", quoted(&word.value)),
        )
        .label(format!("its mode is {:04o}", mode & 0o7777))
        .hint(format!("`chmod 600 {}`", word.value)));
    }
    Ok(path)
}

/// A file with the address that alerts are sent to. The address itself is in no message.
pub(super) fn webhook(inventory: &Path, word: &Word) -> Result<PathBuf, Problem> {
    let path = secrets(inventory, word)?;
    let (_, text, _) = read(inventory, word)?;
    let url = text.trim();
    let plain = !url.contains(|it: char| it.is_whitespace() || it.is_control());
    if plain && (url.starts_with("https://") || url.starts_with("http://")) {
        return Ok(path);
    }
    Err(Problem::new(
        span_of(word),
        format!("{} does not hold one URL", quoted(&word.value)),
    )
    .label("one line is wanted: `https://…`"))
}

/// Settings for `ssh`. `ssh` itself leaves out an included file that is missing.
pub(super) fn ssh_config(inventory: &Path, word: &Word) -> Result<PathBuf, Problem> {
    let (path, _, mode) = read(inventory, word)?;
    if mode & 0o022 != 0 {
        return Err(Problem::new(
            span_of(word),
            format!("{} can be written by other users", quoted(&word.value)),
        )
        .label(format!("its mode is {:04o}; ssh refuses it", mode & 0o7777))
        .hint(format!("`chmod go-w {}`", word.value)));
    }
    Ok(path)
}

/// A private key for SSH, or its public half if an agent has the private one.
pub(super) fn identity(
    inventory: &Path,
    word: &Word,
    with_agent: bool,
) -> Result<PathBuf, Problem> {
    let (path, text, mode) = read(inventory, word)?;
    let problem =
        |what: &str| Problem::new(span_of(word), format!("{} {what}", quoted(&word.value)));
    if !text.contains("PRIVATE KEY-----") {
        let public =
            text.starts_with("ssh-") || text.starts_with("ecdsa-") || text.starts_with("sk-");
        if public && with_agent {
            return Ok(path);
        }
        return Err(if public {
            problem("is a public key")
                .label("name the private key, usually without `.pub`")
                .hint("if an agent has the private key, name the agent too: `agent: SSH_AUTH_SOCK`")
        } else {
            problem("is not a private key").label("it must be the output of `ssh-keygen`")
        });
    }
    // ssh itself refuses such a key, but only when the hosts exist, and with the message "permission denied".
    if mode & 0o077 != 0 {
        return Err(problem("can be read by other users")
            .label(format!(
                "its mode is {:04o}; ssh refuses such a key",
                mode & 0o7777
            ))
            .hint(format!("`chmod 600 {}`", word.value)));
    }
    Ok(path)
}

/// The file's absolute path (ssh and others resolve it from another folder), its text and its mode.
fn read(inventory: &Path, word: &Word) -> Result<(PathBuf, String, u32), Problem> {
    let problem = |what: String| Problem::new(span_of(word), what);
    let path = resolve(inventory, &word.value).map_err(&problem)?;
    let shown = quoted(&path.display().to_string());
    let attempt = || -> io::Result<(PathBuf, String, u32)> {
        let (bytes, metadata) = given::read(&path)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok((
            std::path::absolute(&path)?,
            text,
            metadata.permissions().mode(),
        ))
    };
    attempt().map_err(|cause| {
        if cause.kind() == io::ErrorKind::NotFound {
            problem(format!("there is no file {shown}"))
                .hint("a relative path starts from the inventory's folder, `~` from your home")
        } else {
            problem(format!("the file {shown} cannot be read")).label(cause.to_string())
        }
    })
}

/// A file or a folder that need not be there yet, or not always.
pub(super) fn place(inventory: &Path, word: &Word) -> Result<PathBuf, Problem> {
    let problem = |what: String| Problem::new(span_of(word), what);
    let path = resolve(inventory, &word.value).map_err(problem)?;
    std::path::absolute(&path).map_err(|cause| problem(cause.to_string()))
}

/// The absolute path of a path in the inventory.
fn resolve(inventory: &Path, written: &str) -> Result<PathBuf, String> {
    if written.is_empty() || written.contains('\0') {
        return Err(format!("{} is not a file's name", quoted(written)));
    }
    if let Some(rest) = written.strip_prefix('~') {
        let home = std::env::home_dir()
            .ok_or_else(|| "`~` stands for your home, but HOME is not set".to_owned())?;
        return match rest.strip_prefix('/') {
            Some(rest) => Ok(home.join(rest)),
            None if rest.is_empty() => Ok(home),
            None => Err(format!(
                "only your own home is found by `~`, not {}",
                quoted(written)
            )),
        };
    }
    Ok(inventory.parent().unwrap_or(Path::new("")).join(written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_from_the_inventory_or_the_home() {
        let resolve = |written| resolve(Path::new("some/folder/pgherd.yaml"), written);
        assert_eq!(resolve("ca.pem"), Ok("some/folder/ca.pem".into()));
        assert_eq!(resolve("/etc/ca.pem"), Ok("/etc/ca.pem".into()));
        let home = std::env::home_dir().expect("a home");
        assert_eq!(resolve("~/.ssh/key"), Ok(home.join(".ssh/key")));
        assert!(resolve("~root/key").is_err());
        assert!(resolve("").is_err());
    }
}
