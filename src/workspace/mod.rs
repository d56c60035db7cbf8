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
//! | `rebooting.json` | a reboot of several hosts that is not complete |
//! | `restoring.json` | a restore of the cluster that is not complete |
//! | `upgrading.json` | an upgrade of PostgreSQL that is not accepted |
//! | `making_bucket` | a bucket that may not have all of its settings yet |
//! | `shared.json`, `superseded/` | which generation of the shared state this is, and what it has replaced |
//! | `launches/` | hosts that have been asked for and not been seen yet |
//! | `runs/` | what each run had to tell |
//!
//! The folder is closed to other users, and every file in it is replaced as a whole or not at all.

use std::{
    fmt, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

use crate::{
    cluster::Secrets,
    error::{Code, Error, Result},
    holder::Holder,
    inventory::Inventory,
    secret::Secret,
    services::When,
};

mod broken;
mod files;
mod identity;
mod kept;
mod known_hosts;
#[cfg(feature = "aws")]
mod launches;
mod lock;
mod making_bucket;
mod members;
mod pki;
mod rebooting;
mod recovering;
mod removal;
mod replacing;
mod restoring;
mod rotation;
mod runs;
mod secrets;
mod shared;
mod ssh;
mod ssh_config;
mod ssh_rotation;
mod tls;
mod trust;
mod upgrading;

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
    recovering::{HostCertificates, Recovered, Staging},
    rotation::SecretsStage,
    runs::KEPT_RUNS,
    ssh_rotation::SshStage,
};

pub(crate) use self::{
    identity::fingerprint,
    rebooting::Rebooting,
    restoring::{Origin, RestoreStage, Restoring, Sql},
    shared::{Outlook as StateOutlook, Shared},
    upgrading::{UpgradeStage, Upgrading},
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

/// The longest path of a UNIX socket that every system accepts, including the final NUL.
const SOCKET_PATH: usize = 104;
/// What `openssh` and `ssh` append to the folder: `/.ssh-connection…/master.…`, with a reserve.
const SOCKET_NAME: usize = 52;

/// Something that was corrected and that the user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Other users could read it; now they cannot.
    Tightened { path: PathBuf, was: u32 },
    /// `secrets.yaml` had no value for this key; now it has one.
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
    /// The folder of a preview; removed when it is dropped.
    scratch: Option<TempDir>,
}

impl Workspace {
    /// Opens the workspace, and creates it if it is missing.
    pub fn open(inventory: &Inventory) -> Result<Self> {
        let workspace = Self::at(Self::path_of(inventory)?, inventory, None);
        trust::check(&workspace.dir)?;
        if let Some(all) = workspace.dir.parent() {
            workspace.make_private(all)?;
            // Secrets must not get into a repository by `git add .`.
            files::create(&all.join(GITIGNORE), files::PUBLIC, b"*\n")?;
        }
        workspace.make_private(&workspace.dir)?;
        workspace.close_to_others()?;
        Ok(workspace)
    }

    /// Opens an existing workspace, and creates nothing.
    ///
    /// After `down`, only the records of runs are left, which do not count: without secrets there is no
    /// cluster, and a verb that only looks must not make new ones.
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

    /// Opens a copy for verbs that must leave no trace, such as `plan`.
    ///
    /// It reads the real workspace's files. New and changed files are in a private folder that is removed with
    /// it: for a cluster that does not exist yet, it makes secrets and certificates that nothing will ever use.
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

    /// Whether it is a copy for this run only.
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

    /// Absolute, so that paths written into files are valid from any folder.
    fn path_of(inventory: &Inventory) -> Result<PathBuf> {
        absolute(&inventory.workspace_dir())
    }

    /// The workspace's folder, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was corrected since the last call.
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

    /// Closes files that a copy, an archive or an editor left open to other users.
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

    /// Locks the workspace for a run of `verb`, or returns an error that names the holder.
    ///
    /// Only runs from this folder see this lock. The lease on the hosts, taken later, protects the cluster
    /// itself.
    pub fn lock_folder(&self, verb: &str) -> Result<RunLock> {
        lock::acquire(&self.dir.join(LOCK), &self.inventory.cluster, verb)
    }

    /// The run that has this folder, if it is a living run of this machine.
    pub fn at_work(&self) -> Option<Holder> {
        lock::tenant(&self.dir.join(LOCK))
    }

    /// Records what is about to be broken on purpose; [`BrokenNote::clear`] removes the note.
    pub fn note_broken(&self, broken: &Broken) -> Result<BrokenNote> {
        broken::note(&self.dir.join(BROKEN), broken)
    }

    /// What a killed drill left broken.
    pub fn left_broken(&self) -> Result<Option<(Broken, BrokenNote)>> {
        broken::left(&self.dir.join(BROKEN))
    }

    /// The passwords, which are made at first use.
    ///
    /// # Errors
    /// The file exists but is not valid; nothing in it is ever replaced.
    pub fn secrets(&self) -> Result<Secrets> {
        let path = self.dir.join(SECRETS);
        let mut secrets =
            secrets::load_or_make(&path, &self.wanted_secrets(), |note| self.note(note))?;
        secrets.interim = rotation::interim(&self.dir.join(ROTATION))?;
        secrets.webhook = self.webhook()?;
        Ok(secrets)
    }

    /// The address that alerts are sent to.
    fn webhook(&self) -> Result<Option<Secret>> {
        let settings = self.inventory.monitoring.as_ref();
        let Some(path) = settings.and_then(|it| it.webhook_file.as_ref()) else {
            return Ok(None);
        };
        let text = crate::given::read_text(path).map_err(|error| {
            let what = format!("cannot read {}", path.display());
            Error::new(Code::LocalSystemFailed, what).because(error)
        })?;
        Ok(Some(Secret::new(text.trim())))
    }

    /// The id that distinguishes the cluster from others of the same name; `None` if it was not made here.
    pub fn cluster_id(&self) -> Result<Option<String>> {
        secrets::cluster_id(&self.dir.join(SECRETS))
    }

    fn wanted_secrets(&self) -> secrets::Wanted<'_> {
        let postgresql = &self.inventory.postgresql;
        secrets::Wanted {
            vip: self.inventory.haproxy.vip.is_some(),
            backup: self.inventory.wants(When::Backups),
            bucket: self.inventory.wants(When::Bucket) && self.inventory.bucket_profile().is_none(),
            pooler: self.inventory.wants(When::Pooling),
            users: postgresql.users.keys().map(String::as_str).collect(),
            file: self.inventory.secrets.file.as_deref(),
            variable: &|name| std::env::var_os(name),
        }
    }

    /// The certificate authority, which is made at first use.
    pub fn pki(&self) -> Result<Pki> {
        Pki::open(&self.dir.join(PKI), &self.inventory.cluster)
    }

    /// Whether the authority's key is lost, and no change replaces the authority yet.
    pub fn authority_key_is_lost(&self) -> Result<bool> {
        Ok(pki::key_is_lost(&self.dir.join(PKI)) && self.authority_stage()?.is_none())
    }

    /// When the existing certificates expire; makes none.
    pub fn expiries(&self) -> Result<Vec<Expiry>> {
        pki::expiries(&self.dir.join(PKI), self.inventory.hosts.keys())
    }

    /// The path of the authority's certificate, for clients that need a file (`sslrootcert`).
    pub fn ca_path(&self) -> PathBuf {
        pki::ca_path(&self.dir.join(PKI))
    }

    /// Creates the folder of a new run, and removes all but the newest [`KEPT_RUNS`].
    pub fn new_run(&self, now: jiff::Timestamp) -> Result<PathBuf> {
        runs::begin(&self.dir.join(RUNS), now)
    }

    /// The folders of the kept runs, the latest last; creates nothing.
    ///
    /// They exist even when the cluster is gone: `down` leaves them.
    pub fn kept_runs(inventory: &Inventory) -> Result<Vec<PathBuf>> {
        let dir = Self::path_of(inventory)?;
        trust::check(&dir)?;
        runs::kept(&dir.join(RUNS))
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| files::failed("cannot find", path, e))
}

/// Makes a file of the real workspace visible in a preview, if it exists.
///
/// A write in the preview replaces the link by a file, and does not change the original.
fn link(from: &Path, to: &Path, name: &str) -> Result<()> {
    let (file, shown) = (from.join(name), to.join(name));
    if !file.is_file() {
        return Ok(());
    }
    symlink(&file, &shown).map_err(|e| files::failed("cannot make the link", &shown, e))
}

/// A new folder with mode 0700 and a path short enough for sockets in it.
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
        // After the end of a session, the variable may still be set while its folder is gone.
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

/// Makes a folder in a run's folder, for its owner only.
pub fn private_folder(path: &Path) -> Result<()> {
    files::private_dir(path).map(|_| ())
}

/// Writes a file of a run, completely or not at all, for its owner only.
pub fn private_file(path: &Path, contents: &[u8]) -> Result<()> {
    files::write(path, files::PRIVATE, contents)
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
