//! Private folders and atomic files: all access of the workspace to the disk.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use tempfile::NamedTempFile;

use crate::error::{Code, Error, Result};

/// The mode of files that only their owner may read.
pub(super) const PRIVATE: u32 = 0o600;
/// The mode of files without secrets.
pub(super) const PUBLIC: u32 = 0o644;
const PRIVATE_DIR: u32 = 0o700;

/// The prefix of unfinished files; `down` recognises them by it.
pub(super) const UNFINISHED: &str = ".unfinished-";

/// Creates `path` if it is missing, with mode 0700; its parent must exist.
///
/// Returns the old mode of an existing folder that was too open; its mode is 0700 now.
pub(super) fn private_dir(path: &Path) -> Result<Option<u32>> {
    match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        Ok(()) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            tighten(path, PRIVATE_DIR)
        }
        Err(e) => Err(failed("cannot make the folder", path, e)),
    }
}

/// The one of `words` that a file consists of; `None` if there is no file. `about` says what the file is for.
pub(super) fn read_word<T: Copy>(
    path: &Path,
    words: &[T],
    as_str: fn(T) -> &'static str,
    about: &str,
) -> Result<Option<T>> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    let mut known = words.iter().copied();
    let found = known.find(|word| as_str(*word) == text.trim());
    found.map(Some).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|word| as_str(*word)).collect();
        Error::new(
            Code::WorkspaceDamaged,
            format!("{} is damaged", origin(path).display()),
        )
        .cause(format!("it has {about}"))
        .hint(format!(
            "restore it from a backup: its text is {}",
            words.join(" or ")
        ))
    })
}

/// What [`write_note`] wrote; `None` if there is no file. `hint` says what the note is for, and how to go on without it.
pub(super) fn read_note<T: DeserializeOwned>(path: &Path, hint: &str) -> Result<Option<T>> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Error::new(
            Code::WorkspaceDamaged,
            format!("{} cannot be read", origin(path).display()),
        )
        .because(error)
        .hint(hint)
    })
}

/// Replaces a private file by `note`, as JSON.
pub(super) fn write_note<T: Serialize>(path: &Path, note: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(note).map_err(|error| {
        Error::new(
            Code::LocalFileFailed,
            format!("cannot write {}", path.display()),
        )
        .because(error)
    })?;
    text.push(b'\n');
    write(path, PRIVATE, &text)
}

/// Removes others' permissions from `path`; returns the old mode if there were any.
///
/// A missing file cannot be too open.
pub(super) fn tighten(path: &Path, mode: u32) -> Result<Option<u32>> {
    let was = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o7777,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("cannot look at", path, e)),
    };
    if was & 0o077 == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(|e| failed("cannot close to others", path, e))?;
    Ok(Some(was))
}

/// Replaces the content of `path` at once: readers see the whole old file or the whole new one.
pub(super) fn write(path: &Path, mode: u32, contents: &[u8]) -> Result<()> {
    let written = finished(path, mode, contents)
        .and_then(|file| file.persist(path).map_err(|e| e.error))
        .and_then(|_| sync_parent(path));
    written.map_err(|e| failed("cannot write", path, e))
}

/// Like [`write()`], but leaves an existing file as it is and returns `false`.
pub(super) fn create(path: &Path, mode: u32, contents: &[u8]) -> Result<bool> {
    let file = finished(path, mode, contents).map_err(|e| failed("cannot write", path, e))?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            sync_parent(path).map_err(|e| failed("cannot write", path, e))?;
            Ok(true)
        }
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed("cannot write", path, e.error)),
    }
}

/// A complete temporary file beside `path`, which has its final mode from the beginning.
fn finished(path: &Path, mode: u32, contents: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(Permissions::from_mode(mode & PRIVATE))
        .tempfile_in(folder_of(path))?;
    file.as_file_mut().write_all(contents)?;
    // The umask changes the mode at creation, but not here.
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Without this, a power cut may undo the rename of a file whose content is safe.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The text of a file; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| {
            Error::new(
                Code::WorkspaceDamaged,
                format!("{} is not UTF-8 text", origin(path).display()),
            )
            .hint("restore it from a backup")
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("cannot read", path, e)),
    }
}

/// Copies `from` to `to`, completely or not at all.
pub(super) fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let contents = fs::read(from).map_err(|e| failed("cannot read", from, e))?;
    write(to, mode, &contents)
}

/// Replaces `to` by `from` at once.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .and_then(|()| sync_parent(to))
        .map_err(|e| failed("cannot replace", to, e))
}

/// Removes a file or a symbolic link, if it exists.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("cannot remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder if it is empty.
pub(super) fn remove_empty(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(e)
            if !matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(failed("cannot remove", path, e))
        }
        _ => Ok(()),
    }
}

/// The names in a folder, sorted; empty if there is no such folder.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("cannot read", path, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed("cannot read", path, e))?;
        // pgherd makes no names that are not UTF-8.
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The file that the user knows: in a preview, the one behind the link.
pub(super) fn origin(path: &Path) -> PathBuf {
    fs::read_link(path).unwrap_or_else(|_| path.to_owned())
}

pub(super) fn failed(what: &str, path: &Path, e: io::Error) -> Error {
    let denied = e.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::new(Code::LocalFileFailed, format!("{what} {}", path.display())).because(e);
    if denied {
        error.hint("if an earlier run used sudo, give the .pgherd folder back to yourself with chown -R, or use sudo again")
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, PRIVATE, b"one").unwrap();
        write(&path, PUBLIC, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(mode(&path), 0o644);
        assert_eq!(names(dir.path()).unwrap(), ["f"]);
    }

    #[test]
    fn creating_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(create(&path, PRIVATE, b"one").unwrap());
        assert!(!create(&path, PRIVATE, b"two").unwrap());
        assert_eq!(read(&path).unwrap().as_deref(), Some("one"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(dir.path()).unwrap(), ["f"]);
    }

    #[test]
    fn only_empty_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("d");
        assert_eq!(private_dir(&inner).unwrap(), None);
        assert_eq!(mode(&inner), 0o700);
        write(&inner.join("f"), PRIVATE, b"").unwrap();
        remove_empty(&inner).unwrap();
        assert!(inner.exists());
        remove(&inner.join("f")).unwrap();
        remove_empty(&inner).unwrap();
        remove_empty(&inner).unwrap();
        assert!(!inner.exists());
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        write(&path, PRIVATE, b"").unwrap();
        let error = private_dir(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
