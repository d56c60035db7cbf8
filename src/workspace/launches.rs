//! Requested launches whose hosts have not been seen yet: a token and a host key for each host.
//!
//! The record is written before the call that launches a host, and removed when the host is known to exist. If
//! a run dies in between, the next one uses the same token, and the cloud returns what it has created already.
//! If a host is created again later, it gets another token and another key.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{TryRngCore, rngs::OsRng};

use super::{LAUNCHES, absolute, files, identity};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Inventory},
    secret::{Secret, never_shown},
};

never_shown!(Launch);

/// One host that is being launched.
#[derive(Debug, Clone)]
pub struct Launch {
    /// 32 hexadecimal digits; the same until the launch is finished.
    pub token: String,
    /// The host's own private key, in OpenSSH's format.
    pub private_key: Secret,
    /// One line: `ssh-ed25519 AAAA…`, without a comment.
    pub public_key: String,
}

/// The unfinished launches of one cluster.
#[derive(Debug, Clone)]
pub struct Launches {
    dir: PathBuf,
}

impl Launches {
    pub fn of(inventory: &Inventory) -> Result<Self> {
        Ok(Self {
            dir: absolute(&inventory.workspace_dir())?.join(LAUNCHES),
        })
    }

    /// The unfinished launch of `host`, or a new one, which is on disk when this returns.
    pub fn begin(&self, host: &HostName) -> Result<Launch> {
        let path = self.path(host);
        if let Some(launch) = read(&path)? {
            return Ok(launch);
        }
        let workspace = self.dir.parent().unwrap_or(Path::new("/"));
        for dir in workspace.parent().into_iter().chain([workspace, &self.dir]) {
            files::private_dir(dir)?;
        }
        let mut token = [0; 16];
        OsRng.try_fill_bytes(&mut token).map_err(|e| {
            Error::new(
                Code::LocalSystemFailed,
                "this system has no source of random numbers",
            )
            .because(e)
        })?;
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let private_key = new_key()?;
        let text = format!("{token}\n{}", private_key.trim_start());
        files::write(&path, files::PRIVATE, text.as_bytes())?;
        read(&path)?.ok_or_else(|| damaged(&path))
    }

    /// Forgets the launch of `host`: the host exists, or will never exist.
    pub fn finish(&self, host: &HostName) -> Result<()> {
        files::remove(&self.path(host))?;
        files::remove_empty(&self.dir)
    }

    /// The age of each unfinished launch.
    pub fn under_way(&self) -> Result<Vec<Duration>> {
        let mut all = Vec::new();
        for name in files::names(&self.dir)? {
            let path = self.dir.join(name);
            let written = fs::metadata(&path).and_then(|it| it.modified());
            let written = written.map_err(|e| files::failed("cannot read", &path, e))?;
            all.push(written.elapsed().unwrap_or_default());
        }
        Ok(all)
    }

    fn path(&self, host: &HostName) -> PathBuf {
        self.dir.join(host.as_str())
    }
}

fn read(path: &Path) -> Result<Option<Launch>> {
    let Some(text) = files::read(path)? else {
        return Ok(None);
    };
    let (token, private_key) = text.split_once('\n').ok_or_else(|| damaged(path))?;
    let scratch = scratch()?;
    let key = scratch.path().join("key");
    files::write(&key, files::PRIVATE, private_key.as_bytes())?;
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-y", "-P", "", "-f"]).arg(&key);
    let output = identity::run(keygen)?;
    let public_key = std::str::from_utf8(&output.stdout)
        .ok()
        .filter(|_| output.status.success())
        .and_then(identity::key_of)
        .ok_or_else(|| damaged(path))?;
    Ok(Some(Launch {
        token: token.to_owned(),
        private_key: Secret::new(private_key.to_owned()),
        public_key,
    }))
}

fn new_key() -> Result<String> {
    let scratch = scratch()?;
    let key = scratch.path().join("key");
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(&key);
    let output = identity::run(keygen)?;
    let made = files::read(&key)?;
    made.filter(|_| output.status.success()).ok_or_else(|| {
        Error::new(Code::LocalSystemFailed, "ssh-keygen did not make a key")
            .excerpt("ssh-keygen", String::from_utf8_lossy(&output.stderr))
    })
}

/// A private folder that is removed when it is dropped.
fn scratch() -> Result<tempfile::TempDir> {
    super::short_private_dir("pgherd-launch-")
}

fn damaged(path: &Path) -> Error {
    Error::new(
        Code::WorkspaceDamaged,
        format!("{} is damaged", path.display()),
    )
    .hint("if no host is being launched any more, remove it: the next `up` makes a new one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launches(dir: &tempfile::TempDir) -> Launches {
        Launches {
            dir: dir.path().join("all").join("pg").join(LAUNCHES),
        }
    }

    #[test]
    fn a_launch_is_the_same_until_it_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let launches = launches(&dir);
        let host = HostName::new("node1");
        let first = launches.begin(&host).unwrap();
        assert_eq!(first.token.len(), 32);
        assert!(first.public_key.starts_with("ssh-ed25519 AAAA"));
        assert_eq!(first.public_key.split(' ').count(), 2);
        let again = launches.begin(&host).unwrap();
        assert_eq!(again.token, first.token);
        assert_eq!(again.public_key, first.public_key);
        assert_ne!(
            launches.begin(&HostName::new("node2")).unwrap().token,
            first.token
        );
        let under_way = launches.under_way().unwrap();
        assert_eq!(under_way.len(), 2);
        assert!(under_way.iter().all(|age| *age < Duration::from_secs(60)));
        launches.finish(&host).unwrap();
        launches.finish(&host).unwrap();
        assert_eq!(launches.under_way().unwrap().len(), 1);
        launches.finish(&HostName::new("node2")).unwrap();
        assert!(launches.under_way().unwrap().is_empty());
        let next = launches.begin(&host).unwrap();
        assert_ne!(next.token, first.token);
        assert_ne!(next.public_key, first.public_key);
    }

    #[test]
    fn the_key_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let launches = launches(&dir);
        let host = HostName::new("node1");
        let launch = launches.begin(&host).unwrap();
        let mode = std::fs::metadata(launches.path(&host))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{launch:?}").contains("PRIVATE KEY"));
    }
}
