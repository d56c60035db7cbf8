//! A host's SSH key, made on this machine, so that it is known before the first boot.

use std::{fs, process::Stdio, time::Duration};

use tokio::process::Command;

use super::{archive, engine::Engine};
use crate::error::{Code, Error, Result};

/// The kinds of keys that sshd has by default.
const KINDS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

/// An Ed25519 key pair in OpenSSH's formats.
pub(super) struct HostKey {
    /// Goes into the host and nowhere else.
    pub(super) private: String,
    /// `ssh-ed25519 AAAA…`, without a comment.
    pub(super) public: String,
}

impl HostKey {
    pub(super) async fn generate() -> Result<Self> {
        let failed = || {
            Error::new(
                Code::LocalSystemFailed,
                "ssh-keygen did not make a host key",
            )
        };
        // Only its owner may enter a temporary folder, and the folder is removed when this function ends.
        let folder = tempfile::tempdir().map_err(|error| failed().because(error))?;
        let path = folder.path().join("key");
        let keygen = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(Duration::from_secs(30), keygen).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => {
                return Err(failed()
                    .because(error)
                    .hint("install OpenSSH's client: sudo apt-get install openssh-client"));
            }
            Err(_) => return Err(failed().cause("it did not end within 30 s")),
        };
        if !output.status.success() {
            return Err(failed().excerpt("ssh-keygen", String::from_utf8_lossy(&output.stderr)));
        }
        let read = |path: &std::path::Path| {
            fs::read_to_string(path).map_err(|error| failed().because(error))
        };
        Ok(Self {
            private: read(&path)?,
            public: read(&path.with_extension("pub"))?.trim().to_owned(),
        })
    }
}

/// The public keys of a host as the engine finds them in it, `type base64` each.
pub(super) async fn present(engine: &Engine, id: &str) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for kind in KINDS {
        let path = format!("/etc/ssh/ssh_host_{kind}_key.pub");
        let text = archive::read(engine, id, &path).await?.unwrap_or_default();
        let mut words = text.split_ascii_whitespace();
        if let (Some(kind), Some(blob)) = (words.next(), words.next()) {
            keys.push(format!("{kind} {blob}"));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_two_are_the_same() {
        let (one, other) = (
            HostKey::generate().await.unwrap(),
            HostKey::generate().await.unwrap(),
        );
        assert!(one.public.starts_with("ssh-ed25519 AAAA"));
        assert_eq!(one.public.split(' ').count(), 2);
        assert!(
            one.private
                .starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
        );
        assert_ne!(one.public, other.public);
    }
}
