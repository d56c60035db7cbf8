//! A folder as the place of the shared state: a file for each generation, below the cluster's name.
//!
//! A generation is written under another name first and then linked to its number. A link never replaces a file, on NFS
//! too, so of two runs that write the same generation one is refused.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

use crate::error::{Code, Error, Result};

/// How long a file system may take: one that is mounted from elsewhere may never answer.
const ANSWER: Duration = Duration::from_secs(20);

/// How many generations are kept.
const KEPT: usize = 20;

const ENDING: &str = ".age";

#[derive(Debug, Clone)]
pub(super) struct Directory {
    /// It must exist: where nothing is mounted, nothing is written.
    all: PathBuf,
    own: PathBuf,
}

impl Directory {
    pub(super) fn new(all: &Path, cluster: &str) -> Self {
        Self {
            all: all.to_owned(),
            own: all.join(cluster),
        }
    }

    pub(super) fn shown(&self) -> String {
        self.own.display().to_string()
    }

    /// The newest generation, with its number.
    pub(super) async fn newest(&self) -> Result<Option<(u64, Vec<u8>)>> {
        let this = self.clone();
        self.within(move || this.read_newest()).await
    }

    /// Writes the generation after `after`, which must be the newest one still. Returns whether it was.
    pub(super) async fn put(&self, after: u64, sealed: Vec<u8>) -> Result<bool> {
        let this = self.clone();
        self.within(move || this.write_next(after, &sealed)).await
    }

    async fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let failed = |why: String| {
            Error::new(
                Code::StateUnreachable,
                format!("the shared state cannot be reached: {}", self.shown()),
            )
            .cause(why)
        };
        match timeout(ANSWER, spawn_blocking(work)).await {
            Ok(Ok(done)) => done.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound if !self.all.exists() => failed(format!(
                    "there is no folder {}: make it, or mount it",
                    self.all.display()
                )),
                _ => failed(error.to_string()),
            }),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    fn read_newest(&self) -> io::Result<Option<(u64, Vec<u8>)>> {
        // Another run may remove the file in between, when there are many newer ones.
        for _ in 0..10 {
            let Some(newest) = self.numbers()?.pop() else {
                return Ok(None);
            };
            match fs::read(self.path(newest)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read.map(|bytes| Some((newest, bytes))),
            }
        }
        Err(io::Error::other(
            "its files are removed while they are read",
        ))
    }

    /// The generations that are there, the newest last.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        // Without this folder nothing is known, whatever is below it.
        fs::read_dir(&self.all)?;
        let entries = match fs::read_dir(&self.own) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            numbers.extend(number.and_then(|it| it.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.own.join(format!("{number:08}{ENDING}"))
    }

    fn write_next(&self, after: u64, sealed: &[u8]) -> io::Result<bool> {
        let mut there = self.numbers()?;
        if there.last().copied().unwrap_or_default() != after {
            return Ok(false);
        }
        match fs::create_dir(&self.own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut unfinished = tempfile::Builder::new()
            .prefix(".unfinished-")
            // What others may do with it is up to the umask: it is encrypted.
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(&self.own)?;
        unfinished.write_all(sealed)?;
        unfinished.as_file().sync_all()?;
        match fs::hard_link(unfinished.path(), self.path(after + 1)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked?,
        }
        File::open(&self.own)?.sync_all()?;
        there.push(after + 1);
        let excess = there.len().saturating_sub(KEPT);
        for old in there.drain(..excess) {
            // It is only tidying up.
            let _ = fs::remove_file(self.path(old));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_generation_is_written_once_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let place = Directory::new(dir.path(), "pg");
        assert_eq!(place.newest().await.unwrap(), None);
        assert!(place.put(0, b"one".to_vec()).await.unwrap());
        assert!(!place.put(0, b"another one".to_vec()).await.unwrap());
        assert_eq!(place.newest().await.unwrap(), Some((1, b"one".to_vec())));
        for n in 1..30 {
            assert!(place.put(n, vec![b'x']).await.unwrap());
        }
        assert!(
            !place.put(3, b"late".to_vec()).await.unwrap(),
            "its place is free again"
        );
        let names = fs::read_dir(dir.path().join("pg")).unwrap();
        assert_eq!(names.count(), KEPT);
        assert_eq!(place.newest().await.unwrap().unwrap().0, 30);
    }

    #[tokio::test]
    async fn of_many_that_write_at_once_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = Directory::new(dir.path(), "pg");
        for round in 0..20 {
            let writes = (0..8).map(|n| place.put(round, vec![n]));
            let written = futures_util::future::join_all(writes).await;
            let ones = written.into_iter().filter(|it| *it.as_ref().unwrap());
            assert_eq!(ones.count(), 1, "round {round}");
        }
    }

    #[tokio::test]
    async fn where_nothing_is_mounted_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("mount");
        let place = Directory::new(&all, "pg");
        for error in [
            place.newest().await.unwrap_err(),
            place.put(0, Vec::new()).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::StateUnreachable);
            assert!(error.causes()[0].contains("mount it"), "{error}");
        }
        assert!(!all.exists());
    }
}
