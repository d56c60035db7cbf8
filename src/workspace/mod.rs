//! The workspace, `.pgherd/<cluster>/` beside the inventory: what pgherd keeps between runs.
//!
//! | file | what it is |
//! |---|---|
//! | `secrets.yaml` | the passwords; made once, then the user's |
//! | `pki/` | the cluster's certificate authority and what it issued; `next/` in it while it changes |
//! | `rotation.json` | how far a change of the passwords has come |
//! | `ssh.json`, `id_ed25519.next`, `id_ed25519.old` | how far a change of the SSH keys has come, and the keys |
//! | `host_keys.json` | hosts whose keys were changed since they were made |
//! | `tls` | how far the cluster has come on its way to TLS, or from it |
//! | `id_ed25519` | the key by which hosts know pgherd, unless the user names another |
//! | `known_hosts` | the hosts' keys, pinned by name |
//! | `ssh_config` | so that `ssh -F … node1` works |
//! | `lock` | who is changing the cluster now |
//! | `members.json` | the hosts that belong to the cluster, also those that have left the inventory |
//! | `broken.json` | what a drill has broken and not put right yet |
//! | `launches/` | hosts that have been asked for and not been seen yet |
//! | `runs/` | what each run had to tell |
//!
//! The folder is closed to others, and every file in it is replaced whole or not at all.

use std::{
    fmt, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

use crate::{cluster::Secrets, error::Result, holder::Holder, inventory::Inventory};

mod broken;
mod files;
mod identity;
mod kept;
mod known_hosts;
#[cfg(feature = "aws")]
mod launches;
mod lock;
mod members;
mod pki;
mod removal;
mod replacing;
mod rotation;
mod runs;
mod secrets;
mod ssh;
mod ssh_config;
mod ssh_rotation;
mod tls;
mod trust;

#[cfg(feature = "aws")]
pub use self::launches::{Launch, Launches};
pub use self::{
    broken::{Broken, BrokenHost, Note as BrokenNote},
    identity::Identity,
    lock::RunLock,
    pki::{
        AuthorityStage, Expiry, Lapse, Pki, RENEWAL, Renewal, Request, Usage, Validity,
        certificates_in_words, expires, validities,
    },
    rotation::SecretsStage,
    runs::KEPT_RUNS,
    ssh_rotation::SshStage,
};

const SECRETS: &str = "secrets.yaml";
const PKI: &str = "pki";
const IDENTITY: &str = "id_ed25519";
const KNOWN_HOSTS: &str = "known_hosts";
const SSH_CONFIG: &str = "ssh_config";
const LOCK: &str = "lock";
const BROKEN: &str = "broken.json";
const RUNS: &str = "runs";
const ROTATION: &str = "rotation.json";
const TLS: &str = "tls";
const MEMBERS: &str = "members.json";
const LAUNCHES: &str = "launches";
const GITIGNORE: &str = ".gitignore";

/// The longest path of a UNIX socket that every system takes, its final NUL included.
const SOCKET_PATH: usize = 104;
/// What `openssh` and `ssh` put behind the folder: `/.ssh-connection…/master.…`, with room to spare.
const SOCKET_NAME: usize = 52;

/// Something that was put right on the way, and that the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Others could read it; now they cannot.
    Tightened { path: PathBuf, was: u32 },
    /// `secrets.yaml` had no value for this key; now it has.
    SecretAdded { key: String },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Tightened { path, was } => write!(
                f,
                "{} was open to others (mode {was:03o}); it is closed now",
                path.display()
            ),
            Note::SecretAdded { key } => {
                write!(f, "{SECRETS} had no `{key}`; one was made and added")
            }
        }
    }
}

/// The workspace of one cluster.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    inventory: Inventory,
    notes: Mutex<Vec<Note>>,
    /// What a preview works in; gone when dropped.
    scratch: Option<TempDir>,
}

impl Workspace {
    /// Opens the workspace, and makes it if there is none.
    pub fn open(inventory: &Inventory) -> Result<Self> {
        let workspace = Self::at(Self::path_of(inventory)?, inventory, None);
        trust::check(&workspace.dir)?;
        if let Some(all) = workspace.dir.parent() {
            workspace.make_private(all)?;
            // Secrets must not reach a repository because somebody said `git add .`.
            files::create(&all.join(GITIGNORE), files::PUBLIC, b"*\n")?;
        }
        workspace.make_private(&workspace.dir)?;
        workspace.close_to_others()?;
        Ok(workspace)
    }

    /// Opens the workspace if there is one, and makes nothing.
    ///
    /// What a `down` leaves, the records of earlier runs, does not count: without secrets there is
    /// no cluster, and a verb that only looks must not make new ones.
    pub fn existing(inventory: &Inventory) -> Result<Option<Self>> {
        let workspace = Self::at(Self::path_of(inventory)?, inventory, None);
        trust::check(&workspace.dir)?;
        if !workspace.dir.join(SECRETS).exists() {
            return Ok(None);
        }
        workspace.make_private(&workspace.dir)?;
        workspace.close_to_others()?;
        Ok(Some(workspace))
    }

    /// Opens a look-alike for verbs that must not leave a trace, such as `plan`.
    ///
    /// It reads what the real workspace has. What it makes, or would change, it makes in a private
    /// folder of its own that goes with it: a cluster that is not there yet gets secrets and
    /// certificates that nobody will ever use.
    pub fn preview(inventory: &Inventory) -> Result<Self> {
        let real = Self::path_of(inventory)?;
        trust::check(&real)?;
        let scratch = short_private_dir("pgherd-preview-")?;
        let copy = scratch.path().to_owned();
        for name in [
            SECRETS,
            ROTATION,
            TLS,
            MEMBERS,
            SSH_CONFIG,
            IDENTITY,
            "id_ed25519.pub",
            KNOWN_HOSTS,
            ssh_rotation::HOST_KEYS,
        ] {
            link(&real, &copy, name)?;
        }
        for pki in [PathBuf::from(PKI), pki::rotation::next_dir(Path::new(PKI))] {
            let names = files::names(&real.join(&pki))?;
            if !names.is_empty() {
                files::private_dir(&copy.join(&pki))?;
            }
            for name in names {
                link(&real.join(&pki), &copy.join(&pki), &name)?;
            }
        }
        Ok(Self::at(copy, inventory, Some(scratch)))
    }

    /// Whether it is a copy that goes with this run.
    pub fn is_preview(&self) -> bool {
        self.scratch.is_some()
    }

    fn at(dir: PathBuf, inventory: &Inventory, scratch: Option<TempDir>) -> Self {
        Self {
            dir,
            inventory: inventory.clone(),
            notes: Mutex::default(),
            scratch,
        }
    }

    /// Absolute, so that what is written into files is good from any folder.
    fn path_of(inventory: &Inventory) -> Result<PathBuf> {
        absolute(&inventory.workspace_dir())
    }

    /// The workspace's folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was put right since the last call.
    pub fn take_notes(&self) -> Vec<Note> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *notes)
    }

    fn note(&self, note: Note) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(note);
    }

    fn note_tightened(&self, path: &Path, was: Option<u32>) {
        if let Some(was) = was {
            let path = path.to_owned();
            self.note(Note::Tightened { path, was });
        }
    }

    fn make_private(&self, path: &Path) -> Result<()> {
        let was = files::private_dir(path)?;
        self.note_tightened(path, was);
        Ok(())
    }

    /// Looks after files that a copy, an archive or an editor may have left open to others.
    fn close_to_others(&self) -> Result<()> {
        let pki = self.dir.join(PKI);
        let mut precious: Vec<PathBuf> = [
            SECRETS,
            ROTATION,
            IDENTITY,
            ssh_rotation::NEXT,
            ssh_rotation::OLD,
        ]
        .map(|name| self.dir.join(name))
        .into();
        for folder in [pki::rotation::next_dir(&pki), pki] {
            let names = files::names(&folder)?.into_iter();
            let keys = names.filter(|name| name.ends_with(".key"));
            precious.extend(keys.map(|name| folder.join(name)));
        }
        for path in precious {
            let was = files::tighten(&path, files::PRIVATE)?;
            self.note_tightened(&path, was);
        }
        Ok(())
    }

    /// Takes the workspace for a run of `verb`, or says who has it.
    ///
    /// Only runs from this very folder see it; the cluster itself is taken by the lease that goes with
    /// it, which is on the hosts.
    pub fn lock_folder(&self, verb: &str) -> Result<RunLock> {
        lock::acquire(&self.dir.join(LOCK), &self.inventory.cluster, verb)
    }

    /// The run that has this folder, where it is one of this machine and lives.
    pub fn at_work(&self) -> Option<Holder> {
        lock::tenant(&self.dir.join(LOCK))
    }

    /// Takes down what is about to be broken on purpose; the note goes with [`BrokenNote::clear`].
    pub fn note_broken(&self, broken: &Broken) -> Result<BrokenNote> {
        broken::note(&self.dir.join(BROKEN), broken)
    }

    /// What a drill that died has left broken.
    pub fn left_broken(&self) -> Result<Option<(Broken, BrokenNote)>> {
        broken::left(&self.dir.join(BROKEN))
    }

    /// The passwords, made at first use.
    ///
    /// # Errors
    /// The file is there but is not what it should be; nothing in it is ever replaced.
    pub fn secrets(&self) -> Result<Secrets> {
        let path = self.dir.join(SECRETS);
        let mut secrets =
            secrets::load_or_make(&path, &self.wanted_secrets(), |note| self.note(note))?;
        secrets.interim = rotation::interim(&self.dir.join(ROTATION))?;
        Ok(secrets)
    }

    /// By what the cluster is told from others of its name; nothing where it has not been made here.
    pub fn cluster_id(&self) -> Result<Option<String>> {
        secrets::cluster_id(&self.dir.join(SECRETS))
    }

    fn wanted_secrets(&self) -> secrets::Wanted<'_> {
        let postgresql = &self.inventory.postgresql;
        secrets::Wanted {
            vip: self.inventory.haproxy.vip.is_some(),
            users: postgresql.users.keys().map(String::as_str).collect(),
            file: self.inventory.secrets.file.as_deref(),
            variable: &|name| std::env::var_os(name),
        }
    }

    /// The certificate authority, made at first use.
    pub fn pki(&self) -> Result<Pki> {
        Pki::open(&self.dir.join(PKI), &self.inventory.cluster)
    }

    /// When the certificates that are here end; none is made.
    pub fn expiries(&self) -> Result<Vec<Expiry>> {
        pki::expiries(&self.dir.join(PKI), self.inventory.hosts.keys())
    }

    /// Where the authority's certificate lies, for clients that take a file (`sslrootcert`).
    pub fn ca_path(&self) -> PathBuf {
        pki::ca_path(&self.dir.join(PKI))
    }

    /// Makes the folder of a new run, and removes all but the newest [`KEPT_RUNS`].
    pub fn new_run(&self, now: jiff::Timestamp) -> Result<PathBuf> {
        runs::begin(&self.dir.join(RUNS), now)
    }

    /// The folders of the runs that are kept, the latest last; nothing is made.
    ///
    /// They are there when the cluster is gone, too: `down` leaves them.
    pub fn kept_runs(inventory: &Inventory) -> Result<Vec<PathBuf>> {
        let dir = Self::path_of(inventory)?;
        trust::check(&dir)?;
        runs::kept(&dir.join(RUNS))
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| files::failed("cannot find", path, e))
}

/// Shows a file of the real workspace in a preview, if it is there.
///
/// A write in the preview puts a file in the link's place, and leaves what is behind it alone.
fn link(from: &Path, to: &Path, name: &str) -> Result<()> {
    let (file, shown) = (from.join(name), to.join(name));
    if !file.is_file() {
        return Ok(());
    }
    symlink(&file, &shown).map_err(|e| files::failed("cannot make the link", &shown, e))
}

/// A new folder, 0700, with a path short enough for sockets in it.
fn short_private_dir(prefix: &str) -> Result<TempDir> {
    let preferred = [
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        Some(std::env::temp_dir()),
    ];
    let random = 6;
    for parent in preferred.into_iter().flatten() {
        let length = parent.as_os_str().len() + 1 + prefix.len() + random + SOCKET_NAME;
        if !parent.is_absolute() || length > SOCKET_PATH {
            continue;
        }
        // A session that has ended leaves the variable but not the folder.
        if let Ok(dir) = private_temp(prefix, &parent) {
            return Ok(dir);
        }
    }
    let last = Path::new("/tmp");
    private_temp(prefix, last).map_err(|e| files::failed("cannot make a folder in", last, e))
}

fn private_temp(prefix: &str, parent: &Path) -> std::io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
}

/// Makes a folder in a run's, for its owner alone.
pub fn private_folder(path: &Path) -> Result<()> {
    files::private_dir(path).map(|_| ())
}

/// Writes a file of a run, whole or not at all, for its owner alone.
pub fn private_file(path: &Path, contents: &[u8]) -> Result<()> {
    files::write(path, files::PRIVATE, contents)
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
