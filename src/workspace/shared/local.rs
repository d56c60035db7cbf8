//! This machine's copy of the shared state: the files of the workspace that belong to it, and what they were when the
//! copy was made.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{Document, Written};
use crate::{
    error::Result,
    secret::Secret,
    workspace::{
        BROKEN, GITIGNORE, IDENTITY, KNOWN_HOSTS, MEMBERS, PKI, ROTATION, SECRETS, TLS, files,
        making_bucket::MAKING_BUCKET,
        pki,
        rebooting::REBOOTING,
        replacing::REPLACING,
        restoring::RESTORING,
        ssh_rotation::{HOST_KEYS, NEXT, OLD, SSH_STAGE},
        upgrading::UPGRADING,
    },
};

/// The note of the generation that this machine has.
pub(in crate::workspace) const NOTE: &str = "shared.json";

/// Files that were changed here and not stored, when another machine had written a newer generation.
pub(in crate::workspace) const SUPERSEDED: &str = "superseded";

/// The files that are shared, beside those of `pki/`. All others are of this machine alone: the lock, the runs, and
/// `ssh_config`, which has paths.
const FILES: [&str; 19] = [
    SECRETS,
    ROTATION,
    TLS,
    MEMBERS,
    IDENTITY,
    "id_ed25519.pub",
    NEXT,
    "id_ed25519.next.pub",
    OLD,
    "id_ed25519.old.pub",
    SSH_STAGE,
    HOST_KEYS,
    KNOWN_HOSTS,
    BROKEN,
    MAKING_BUCKET,
    REBOOTING,
    REPLACING,
    RESTORING,
    UPGRADING,
];

/// What the files were when they were last the same as the shared state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    /// The place, so that a note of another one does not count.
    pub place: String,
    pub generation: u64,
    pub id: String,
    pub at: jiff::Timestamp,
    pub by: String,
    pub recipients: Vec<String>,
    /// The digest of each file.
    pub files: BTreeMap<String, String>,
}

impl Base {
    pub(super) fn of(place: &str, document: &Document) -> Self {
        let Written { id, at, by, .. } = document.written.clone();
        Self {
            place: place.to_owned(),
            generation: document.generation,
            id,
            at,
            by,
            recipients: document.recipients.clone(),
            files: digests(&document.files),
        }
    }
}

pub(super) type Files = BTreeMap<String, Secret>;

fn digests(files: &Files) -> BTreeMap<String, String> {
    let digest = |text: &Secret| format!("{:x}", Sha256::digest(text.expose()));
    let all = files.iter();
    all.map(|(name, text)| (name.clone(), digest(text)))
        .collect()
}

/// The names in which two sets of files differ.
pub(super) fn differing(
    one: &BTreeMap<String, String>,
    other: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| one.get(*name) != other.get(*name));
    names.into_iter().cloned().collect()
}

/// The copy of one cluster, in its workspace's folder.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub dir: PathBuf,
}

impl Local {
    pub(super) fn base(&self, place: &str) -> Result<Option<Base>> {
        let hint = "it says which generation of the shared state this machine has; move it away, and run: pgherd state";
        let base: Option<Base> = files::read_note(&self.dir.join(NOTE), hint)?;
        Ok(base.filter(|base| base.place == place))
    }

    pub(super) fn note(&self, base: &Base) -> Result<()> {
        files::write_note(&self.dir.join(NOTE), base)
    }

    /// Whether there is a workspace.
    pub(super) fn is_there(&self) -> bool {
        self.dir.join(SECRETS).exists()
    }

    /// The shared files, by their paths in the workspace.
    pub(super) fn files(&self) -> Result<Files> {
        let mut found = Files::new();
        let own = FILES.map(str::to_owned).into_iter();
        let pki = folders().into_iter().map(|folder| {
            let names = files::names(&self.dir.join(&folder))?;
            let names = names.into_iter().map(|name| format!("{folder}/{name}"));
            Ok(names.filter(|name| is_shared(name)).collect())
        });
        let pki: Vec<Vec<String>> = pki.collect::<Result<_>>()?;
        for name in own.chain(pki.into_iter().flatten()) {
            let path = self.dir.join(&name);
            if path.is_dir() {
                continue;
            }
            if let Some(text) = files::read(&path)? {
                found.insert(name, Secret::new(text));
            }
        }
        Ok(found)
    }

    /// When each shared file was written: a cheap sign that something may have changed.
    pub(super) fn stamp(&self) -> Vec<(String, Option<std::time::SystemTime>, u64)> {
        use std::os::unix::fs::MetadataExt as _;
        let mut names: Vec<String> = FILES.map(str::to_owned).into();
        for folder in folders() {
            let found = files::names(&self.dir.join(&folder)).unwrap_or_default();
            names.extend(found.into_iter().map(|name| format!("{folder}/{name}")));
        }
        let look = |name: String| {
            let metadata = fs::metadata(self.dir.join(&name)).ok();
            let written = metadata.as_ref().and_then(|it| it.modified().ok());
            (name, written, metadata.map_or(0, |it| it.ino()))
        };
        names.into_iter().map(look).collect()
    }

    pub(super) fn digests(&self) -> Result<BTreeMap<String, String>> {
        Ok(digests(&self.files()?))
    }

    /// The files that were changed here since `base`. Host keys that were pinned meanwhile do not count: they are
    /// pinned again.
    pub(super) fn unsent(&self, base: &Base) -> Result<Vec<String>> {
        let mut names = differing(&self.digests()?, &base.files);
        names.retain(|name| name != KNOWN_HOSTS);
        Ok(names)
    }

    /// Replaces the files by those of the document. Files in `kept` are put aside first.
    pub(super) fn take(&self, place: &str, document: &Document, kept: &[String]) -> Result<()> {
        let all = self.dir.parent().unwrap_or(Path::new("/"));
        files::private_dir(all)?;
        files::create(&all.join(GITIGNORE), files::PUBLIC, b"*\n")?;
        files::private_dir(&self.dir)?;
        self.put_aside(kept)?;
        for name in self.files()?.keys() {
            if !document.files.contains_key(name) {
                files::remove(&self.dir.join(name))?;
            }
        }
        for (name, text) in document.files.iter().filter(|(name, _)| is_shared(name)) {
            let path = self.dir.join(name);
            if let Some(folder) = path.parent() {
                // pki/next is in pki.
                files::private_dir(folder.parent().unwrap_or(folder))?;
                files::private_dir(folder)?;
            }
            let open = [".crt", ".pub"].iter().any(|it| name.ends_with(it));
            let mode = if open { files::PUBLIC } else { files::PRIVATE };
            if files::read(&path)?.as_deref() != Some(text.expose()) {
                files::write(&path, mode, text.expose().as_bytes())?;
            }
        }
        for folder in folders().iter().rev() {
            files::remove_empty(&self.dir.join(folder))?;
        }
        // Last: whatever cut this off, the next run does it again.
        self.note(&Base::of(place, document))
    }

    fn put_aside(&self, names: &[String]) -> Result<()> {
        let folder = self.dir.join(SUPERSEDED);
        for name in names {
            if let Some(text) = files::read(&self.dir.join(name))? {
                files::private_dir(&folder)?;
                let beside = folder.join(name.replace('/', "."));
                files::write(&beside, files::PRIVATE, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// The folders of certificates, the outer one first.
fn folders() -> [String; 2] {
    let next = pki::rotation::next_dir(Path::new(PKI));
    [PKI.to_owned(), next.to_string_lossy().into_owned()]
}

/// Whether a path is one of a shared file: a document may come from elsewhere.
fn is_shared(name: &str) -> bool {
    let plain = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
    };
    let below = |folder: &String| {
        let rest = name.strip_prefix(folder.as_str());
        rest.and_then(|it| it.strip_prefix('/')).is_some_and(plain)
    };
    FILES.contains(&name) || folders().iter().any(below)
}

/// Removes what [`Local`] notes in a workspace.
pub(in crate::workspace) fn remove(dir: &Path) -> Result<()> {
    let aside = dir.join(SUPERSEDED);
    for name in files::names(&aside)? {
        files::remove(&aside.join(name))?;
    }
    files::remove_empty(&aside)?;
    files::remove(&dir.join(NOTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_workspaces_own_files_are_written() {
        for name in [
            "secrets.yaml",
            "pki/ca.key",
            "pki/next/ca.crt",
            "pki/node1.crt",
        ] {
            assert!(is_shared(name), "{name}");
        }
        for name in [
            "lock",
            "ssh_config",
            "runs/x",
            "../secrets.yaml",
            "pki/../x",
            "/etc/passwd",
            "pki/",
            "pki/.x",
            "pki/a/b",
            "pki/next/a/b",
            NOTE,
        ] {
            assert!(!is_shared(name), "{name}");
        }
    }
}
