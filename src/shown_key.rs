//! Asks a host for its SSH host key, by the way on which SSH reaches it.
//!
//! `ssh-keyscan` knows no bastions. `ssh` itself notes the key of a host before it logs in, and here it logs in with
//! nothing. What it notes is not trusted by anybody: its reader compares it, or shows it to a person.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// The name under which the key is noted.
const NAME: &str = "shown";

/// A question for a host's key.
pub(crate) struct Question {
    noted: PathBuf,
    _folder: TempDir,
}

impl Question {
    /// To the host with that name in the `ssh_config`. `kind` is the key's kind as `ssh-keyscan` calls it; without
    /// it, the host shows the one that `ssh` likes best.
    ///
    /// The command runs until the host has shown its key; its exit code says nothing. `None` if this machine has no
    /// room for a file.
    pub(crate) fn to(config: &Path, host: &str, kind: Option<&str>) -> Option<(Self, Command)> {
        // A folder's own name has no blanks; that of the one around it may have.
        let folder = tempfile::Builder::new()
            .prefix("pgherd-key-")
            .tempdir()
            .ok()?;
        let noted = folder.path().join("known_hosts");
        let mut command = Command::new("ssh");
        command.arg("-F").arg(config);
        let mut option = |text: &str| {
            command.arg("-o").arg(text);
        };
        option("BatchMode=yes");
        option("LogLevel=QUIET");
        option("PreferredAuthentications=none");
        option("StrictHostKeyChecking=no");
        option("HashKnownHosts=no");
        option("ControlPath=none");
        option(&format!("HostKeyAlias={NAME}"));
        option(&format!("UserKnownHostsFile=\"{}\"", noted.display()));
        match kind {
            Some("ed25519") => option("HostKeyAlgorithms=ssh-ed25519"),
            Some("ecdsa") => option(
                "HostKeyAlgorithms=ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521",
            ),
            Some("rsa") => option("HostKeyAlgorithms=rsa-sha2-512,rsa-sha2-256"),
            _ => {}
        }
        command.arg(host).arg("true").stdin(Stdio::null());
        let question = Self {
            noted,
            _folder: folder,
        };
        Some((question, command))
    }

    /// The keys that the host has shown: `name type base64` on each line, as `ssh-keyscan` prints them.
    pub(crate) fn answer(&self) -> String {
        std::fs::read_to_string(&self.noted).unwrap_or_default()
    }
}
