//! Lets only one run at a time work on a cluster.
//!
//! The kernel holds the lock (`flock`) as long as the run's process lives, so a dead run never blocks the next
//! one. The text in the file only tells people which run has the lock.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::files;
use crate::{
    error::{Code, Error, Result},
    holder::{AT_WORK, Holder},
};

/// The right to change a cluster; given back when it is dropped.
#[derive(Debug)]
#[must_use = "the lock is held only as long as this value lives"]
pub struct RunLock {
    file: File,
    holder: Holder,
}

impl RunLock {
    /// The holder: this run.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The text is removed only so that nobody takes it for a run's; the lock ends in any case.
        let _ = self.file.set_len(0);
    }
}

/// The holder of the lock at `path`, without changing the lock. A dead run's name may still be in the file.
pub(super) fn tenant(path: &Path) -> Option<Holder> {
    let text = fs::read_to_string(path).ok()?;
    Holder::parse(&text).filter(Holder::lives_here)
}

/// Takes the lock at `path`, or returns an error that names the holder.
pub(super) fn acquire(path: &Path, cluster: &str, verb: &str) -> Result<RunLock> {
    // A second attempt only if `down` removed the file between opening and locking it.
    for _ in 0..100 {
        let mut file = open(path).map_err(|e| files::failed("cannot open", path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(refused(&mut file, cluster)),
            Err(TryLockError::Error(e)) => return Err(files::failed("cannot lock", path, e)),
        }
        if !is_at(&file, path) {
            continue;
        }
        let holder = Holder::now(verb);
        introduce(&mut file, &holder).map_err(|e| files::failed("cannot write", path, e))?;
        return Ok(RunLock { file, holder });
    }
    Err(Error::new(
        Code::LocalFileFailed,
        format!("{} is removed whenever it is locked", path.display()),
    ))
}

/// The standard library opens files close-on-exec, so no child process (an SSH master lives longer than this
/// process) has the lock.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(files::PRIVATE)
        .open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn introduce(file: &mut File, holder: &Holder) -> io::Result<()> {
    let text = format!("{}\n", holder.line());
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn refused(file: &mut File, cluster: &str) -> Error {
    let mut text = String::new();
    let holder = file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| Holder::parse(&text));
    let error = Error::new(Code::WorkspaceLocked, format!("{AT_WORK} `{cluster}`"));
    match holder {
        Some(holder) => error
            .cause(holder.to_string())
            .hint("wait until it has ended, or stop it with Ctrl-C where it runs"),
        // It has the lock but has not written its name yet.
        None => error.hint("it has only just begun; try again"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::BufRead,
        path::PathBuf,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_second_run_is_refused_and_told_who_has_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(tenant(&path).is_none());
        let first = acquire(&path, "pg", "up").unwrap();
        assert_eq!(tenant(&path).as_ref(), Some(first.holder()));
        let error = acquire(&path, "pg", "down").unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        let text = error.to_string();
        for part in ["`pg`", "`up` by ", &std::process::id().to_string(), "@"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
        drop(first);
        let _second = acquire_soon(&path).unwrap();
    }

    /// Other tests start programs too. Until a new process runs its own program, it has all files of this one
    /// for a moment.
    fn acquire_soon(path: &Path) -> Result<RunLock> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let again = acquire(path, "pg", "up");
            if again.is_ok() || std::time::Instant::now() > deadline {
                return again;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    #[test]
    fn a_child_that_outlives_the_run_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = acquire(&path, "pg", "up").unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        drop(lock);
        let again = acquire_soon(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        let _again = again.unwrap();
    }

    #[test]
    fn a_run_that_died_never_blocks_the_next() {
        // The run that dies is this same test again, in a process of its own.
        const HOLD: &str = "PGHERD_TEST_LOCK";
        if let Some(path) = std::env::var_os(HOLD) {
            let _lock = acquire(&PathBuf::from(path), "pg", "drill").unwrap();
            eprintln!("locked");
            std::thread::sleep(std::time::Duration::from_secs(60));
            panic!("nobody killed it");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("workspace::lock::tests::a_run_that_died_never_blocks_the_next")
            .env(HOLD, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = io::BufReader::new(child.stderr.take().unwrap());
        assert!(stderr.lines().any(|line| line.unwrap().contains("locked")));

        let refusal = acquire(&path, "pg", "up").unwrap_err().to_string();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(refusal.contains("`drill` by "), "{refusal}");
        assert!(refusal.contains(&child.id().to_string()), "{refusal}");

        let stale = fs::read_to_string(&path).unwrap();
        assert!(stale.contains("drill"), "SIGKILL leaves the text: {stale}");
        assert!(tenant(&path).is_none(), "and nobody takes it for a run");
        let _lock = acquire(&path, "pg", "up").unwrap();
    }

    #[test]
    fn a_lock_on_a_removed_file_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = acquire(&path, "pg", "down").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&held.file, &path));
        let _new = acquire(&path, "pg", "up").unwrap();
        assert!(acquire(&path, "pg", "up").is_err());
    }
}
