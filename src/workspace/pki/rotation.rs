//! Replaces the certificate authority while the cluster runs.
//!
//! | stage | hosts and clients trust | certificates are of |
//! |---|---|---|
//! | `trust` | both | the old authority |
//! | `issue` | both | the new one |
//! | `adopt` | the new one | the new one |
//!
//! Hosts that trust both authorities accept the certificates of both, so no connection is refused at any
//! moment, however far each host is with the stage. The new authority is prepared in `pki/next/`; the file
//! `stage` there has the present stage. A change can be interrupted anywhere: each change of the stage is one
//! file that is replaced, after everything that the stage needs exists.

use std::path::{Path, PathBuf};

use super::{CA, Parsed, Pki, files, paths, read_cert};
use crate::error::Result;

const NEXT: &str = "next";
const STAGE: &str = "stage";

/// The stage of a change of the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityStage {
    Trust,
    Issue,
    Adopt,
}

impl AuthorityStage {
    const ALL: [Self; 3] = [Self::Trust, Self::Issue, Self::Adopt];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Issue => "issue",
            Self::Adopt => "adopt",
        }
    }
}

/// The folder of the new authority.
pub(in crate::workspace) fn next_dir(dir: &Path) -> PathBuf {
    dir.join(NEXT)
}

/// The folder of the authority that issues now.
pub(super) fn issuing_dir(dir: &Path) -> Result<PathBuf> {
    Ok(match stage(dir)? {
        None | Some(AuthorityStage::Trust) => dir.to_owned(),
        Some(AuthorityStage::Issue | AuthorityStage::Adopt) => next_dir(dir),
    })
}

/// The stage of a change; `None` if there is none.
pub(in crate::workspace) fn stage(dir: &Path) -> Result<Option<AuthorityStage>> {
    let path = next_dir(dir).join(STAGE);
    let about = "the stage of the change of the authority";
    files::read_word(&path, &AuthorityStage::ALL, AuthorityStage::as_str, about)
}

/// Creates the new authority; from now on, both are trusted.
pub(in crate::workspace) fn begin(dir: &Path, cluster: &str, now: jiff::Timestamp) -> Result<()> {
    let next = next_dir(dir);
    let current = Pki::open_at(dir, &name(cluster), now)?;
    // After a completed change, only its own authority is there, which is the current one.
    let leftover = files::read(&paths(&next, CA).0)?
        .and_then(|pem| Parsed::from_pem(&pem).ok())
        .is_some_and(|next| next.public_key == current.ca.public_key);
    if leftover {
        clear(dir)?;
    }
    grow(dir, &current, cluster, now)?;
    advance(dir, AuthorityStage::Trust)
}

/// Replaces an authority that is not valid at `now`. Both are trusted, and the new one issues at once, because
/// no member accepts certificates of the old one.
///
/// If the new authority of a change is the one that is not valid, and the one before is valid, the change is
/// undone.
pub(in crate::workspace) fn replace(dir: &Path, cluster: &str, now: jiff::Timestamp) -> Result<()> {
    let (ca, next) = (paths(dir, CA).0, next_dir(dir));
    let current = Pki::open_at(dir, &name(cluster), now)?;
    let only = format!("{}\n", trusted(&current));
    let grown = read_cert(&paths(&next, CA).0)?;
    if grown.is_none_or(|(_, grown)| grown.validity().lapse(now).is_some()) {
        // Trust first: the stage, which would lead here again, is removed last.
        files::write(&ca, files::PUBLIC, only.as_bytes())?;
        clear(dir)?;
    }
    if current.lapse(now).is_none() {
        return Ok(());
    }
    grow(dir, &current, cluster, now)?;
    advance(dir, AuthorityStage::Issue)
}

/// Whether a change is under way that replaces an authority which is not valid at `now`.
pub(in crate::workspace) fn replaces_lapsed(dir: &Path, now: jiff::Timestamp) -> Result<bool> {
    let replaced = match stage(dir)? {
        Some(AuthorityStage::Issue | AuthorityStage::Adopt) => read_cert(&paths(dir, CA).0)?,
        Some(AuthorityStage::Trust) | None => None,
    };
    Ok(replaced.is_some_and(|(_, cert)| cert.validity().lapse(now).is_some()))
}

/// Creates the new authority beside `current`, or uses one that is there already; from now on, both are
/// trusted.
fn grow(dir: &Path, current: &Pki, cluster: &str, now: jiff::Timestamp) -> Result<()> {
    // Clients look up an issuer by its name, so two must not have the same name.
    let since = now.strftime("%Y-%m-%d %H:%M:%S");
    let name = format!("{} since {since}", name(cluster));
    let made = Pki::open_at(&next_dir(dir), &name, now)?;
    let trusted = trusted(current);
    let both = match trusted.contains(made.ca_pem.trim_end()) {
        // An interrupted run has come as far.
        true => format!("{trusted}\n"),
        false => format!("{trusted}\n{}", made.ca_pem),
    };
    files::write(&paths(dir, CA).0, files::PUBLIC, both.as_bytes())
}

/// Records that the cluster has reached `stage`.
pub(in crate::workspace) fn advance(dir: &Path, stage: AuthorityStage) -> Result<()> {
    let text = format!("{}\n", stage.as_str());
    files::write(&next_dir(dir).join(STAGE), files::PUBLIC, text.as_bytes())
}

/// Replaces the old authority by the new one, with everything that it has issued.
///
/// The copy is complete before the stage ends, and it is the same as what the stage used.
pub(in crate::workspace) fn adopt(dir: &Path) -> Result<()> {
    let next = next_dir(dir);
    for name in files::names(&next)? {
        let mode = match name.rsplit_once('.') {
            Some((_, "key")) => files::PRIVATE,
            Some((_, "crt")) => files::PUBLIC,
            _ => continue,
        };
        if let Some(text) = files::read(&next.join(&name))? {
            files::write(&dir.join(&name), mode, text.as_bytes())?;
        }
    }
    clear(dir)
}

/// Removes what is left of a change, its stage first.
pub(super) fn clear(dir: &Path) -> Result<()> {
    let next = next_dir(dir);
    files::remove(&next.join(STAGE))?;
    for name in files::names(&next)? {
        let ours = [".crt", ".key"].iter().any(|end| name.ends_with(end));
        if ours || name.starts_with(files::UNFINISHED) {
            files::remove(&next.join(name))?;
        }
    }
    files::remove_empty(&next)
}

pub(super) fn name(cluster: &str) -> String {
    format!("pgherd {cluster}")
}

/// The certificates that hosts must trust until they have other ones.
///
/// If the key of the authority is lost, so may be the knowledge of an earlier change, and hosts can have certificates of
/// each authority that they trust.
fn trusted(current: &Pki) -> &str {
    match current.issuer {
        Some(_) => first(&current.ca_pem),
        None => current.ca_pem.trim_end(),
    }
}

/// The first certificate of a PEM text.
fn first(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}
