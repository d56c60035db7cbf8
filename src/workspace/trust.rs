//! Whether the workspace is trusted: like `ssh` with its keys, pgherd reads no files that others could have
//! written.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{LAUNCHES, PKI, RUNS, files, pki};
use crate::error::{Code, Error, Result};

/// Refuses the workspace in `dir` if it, its parent `.pgherd`, or a file in it belongs to another user, is a
/// link to somewhere else, or is no regular file. A missing file cannot be wrong.
pub(super) fn check(dir: &Path) -> Result<()> {
    let us = Us::now();
    if let Some(all) = dir.parent() {
        us.own(all)?;
    }
    us.own(dir)?;
    let pki = dir.join(PKI);
    let folders = [
        dir.to_owned(),
        pki::rotation::next_dir(&pki),
        pki,
        dir.join(LAUNCHES),
    ];
    // The records of runs are many, and are only shown; only their folder is checked.
    us.own(&dir.join(RUNS))?;
    for folder in folders {
        us.own(&folder)?;
        for name in files::names(&folder)? {
            us.own(&folder.join(name))?;
        }
    }
    Ok(())
}

/// The users whose files are trusted.
struct Us {
    user: u32,
    /// The user who called `sudo`: the folder is theirs, and they may become root anyway.
    caller: Option<u32>,
}

impl Us {
    fn now() -> Self {
        let user = rustix::process::geteuid().as_raw();
        let caller = std::env::var("SUDO_UID").ok();
        Self {
            user,
            caller: caller.filter(|_| user == 0).and_then(|it| it.parse().ok()),
        }
    }

    fn own(&self, path: &Path) -> Result<()> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(files::failed("cannot look at", path, e)),
        };
        if metadata.is_symlink() {
            let to = fs::read_link(path).unwrap_or_else(|_| PathBuf::from("?"));
            return Err(Error::new(
                Code::WorkspaceUntrusted,
                format!("{} is a link", path.display()),
            )
            .cause(format!("it leads to {}", to.display()))
            .left("nothing was read or written")
            .hint("a workspace has no links: replace it by the folder or the file itself"));
        }
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(Error::new(
                Code::WorkspaceUntrusted,
                format!("{} is neither a file nor a folder", path.display()),
            )
            .cause("reading it might never end")
            .left("nothing was read or written")
            .hint("move it away, or restore the file from a backup"));
        }
        let owner = metadata.uid();
        if owner == self.user || owner == 0 || Some(owner) == self.caller {
            return Ok(());
        }
        Err(Error::new(
            Code::WorkspaceUntrusted,
            format!("{} belongs to somebody else", path.display()),
        )
        .cause(format!(
            "its owner is the user {owner}, and you are the user {}",
            self.user
        ))
        .left("nothing was read or written")
        .hint(format!(
            "if you trust what is in it, make it yours: chown -R {} {}",
            self.user,
            crate::remote::quote(&path.display().to_string())
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn workspace() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(".pgherd").join("pg");
        fs::create_dir_all(dir.join(PKI)).unwrap();
        fs::write(dir.join("secrets.yaml"), "superuser: x\n").unwrap();
        fs::write(dir.join(PKI).join("ca.key"), "x").unwrap();
        (parent, dir)
    }

    #[test]
    fn what_is_ours_is_taken() {
        let (_parent, dir) = workspace();
        check(&dir).unwrap();
        check(&dir.join("nowhere")).unwrap();
    }

    #[test]
    fn a_link_anywhere_is_refused_and_named() {
        for at in ["secrets.yaml", "pki/ca.key", "pki", "runs", "."] {
            let (parent, dir) = workspace();
            let path = match at {
                "." => dir.clone(),
                at => dir.join(at),
            };
            let elsewhere = parent.path().join("elsewhere");
            match fs::symlink_metadata(&path) {
                Ok(it) if it.is_dir() => fs::remove_dir_all(&path).unwrap(),
                Ok(_) => fs::remove_file(&path).unwrap(),
                Err(_) => {}
            }
            symlink(&elsewhere, &path).unwrap();
            let error = check(&dir).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains("elsewhere"), "{error}");
        }
    }

    #[test]
    fn a_pipe_is_refused_before_anybody_waits_for_it() {
        let (_parent, dir) = workspace();
        let path = dir.join("known_hosts");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let error = check(&dir).unwrap_err().to_string();
        assert!(error.contains("known_hosts"), "{error}");
        assert!(error.contains("neither a file nor a folder"), "{error}");
    }

    #[test]
    fn what_is_somebody_elses_is_refused_but_for_the_one_who_called_sudo() {
        let us = |user, caller| Us { user, caller };
        let (_parent, dir) = workspace();
        let owner = fs::metadata(&dir).unwrap().uid();
        us(owner, None).own(&dir).unwrap();
        if owner == 0 {
            // Only root can give a file to another user.
            chown(dir.join("secrets.yaml"), Some(4242), None).unwrap();
            let error = check(&dir).unwrap_err().to_string();
            assert!(error.contains("the user 4242"), "{error}");
            let path = dir.join("secrets.yaml");
            us(0, Some(4242)).own(&path).unwrap();
            us(4242, None).own(&path).unwrap();
            assert!(us(1000, None).own(&path).is_err());
        } else {
            assert!(us(owner + 1, None).own(&dir).is_err());
        }
    }
}
