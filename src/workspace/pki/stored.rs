//! The files of the authority: a certificate and a key for each name.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rcgen::{KeyPair, PublicKeyData};

use super::{CA, Expiry, OPERATOR, rotation, x509::Parsed};
use crate::{
    cluster::Certificate,
    error::{Code, Error, Result},
    inventory::HostName,
    secret::Secret,
    workspace::files,
};

/// What to do if nothing can be restored.
pub(super) const START_OVER: &str = "without a backup, remove the folder pki: the next `up` makes a new authority and gives every host a new certificate";

/// Whether the authority's certificate is there, and its key is not.
pub(in crate::workspace) fn key_is_lost(dir: &Path) -> bool {
    let (cert, key) = paths(dir, CA);
    cert.exists() && !key.exists()
}

/// The stored certificate, as it is.
pub(super) fn issued(dir: &Path, stem: &str) -> Result<Certificate> {
    let (cert, key) = paths(dir, stem);
    match (read_cert(&cert)?, read_key(&key)?) {
        (Some((cert, _)), Some(key)) => Ok(Certificate {
            cert,
            key: Secret::new(key.serialize_pem()),
        }),
        _ => Err(Error::new(
            Code::CertificateUnusable,
            "a certificate must be issued, and the key of the authority is lost",
        )
        .cause(format!("{} is not there", paths(dir, CA).1.display()))
        .hint("take this host out of the inventory, make a new authority, and add the host again: pgherd rotate certs")
        .hint("or restore pki/ca.key from a backup")),
    }
}

/// Stores what hosts have: the certificates that are trusted, each host's certificate, and the one that pgherd
/// itself uses. The key of the authority is on no host.
///
/// # Errors
/// Something is no certificate, or does not belong to its key.
pub(in crate::workspace) fn put_back(
    dir: &Path,
    trusted: &str,
    hosts: &[(HostName, Certificate)],
    operator: &Certificate,
) -> Result<()> {
    files::private_dir(dir)?;
    files::write(&paths(dir, CA).0, files::PUBLIC, trusted.as_bytes())?;
    let named = |(host, certificate)| (stem(HostName::as_str(host)), certificate);
    let own = (OPERATOR.to_owned(), operator);
    let hosts = hosts.iter().map(|(host, certificate)| (host, certificate));
    for (stem, Certificate { cert, key }) in hosts.map(named).chain([own]) {
        let (cert_path, key_path) = paths(dir, &stem);
        files::write(&cert_path, files::PUBLIC, cert.as_bytes())?;
        files::write(&key_path, files::PRIVATE, key.expose().as_bytes())?;
        let parsed = read_cert(&cert_path)?.map(|(_, parsed)| parsed.public_key);
        let key = read_key(&key_path)?.map(|key| key.subject_public_key_info());
        if parsed != key {
            return Err(Error::new(
                Code::CertificateUnusable,
                format!("the certificate of {stem} does not belong to its key"),
            ));
        }
    }
    Ok(())
}

/// When the stored certificates expire: the authority's, the operator's and those of `hosts`.
pub(in crate::workspace) fn expiries<'a>(
    dir: &Path,
    hosts: impl Iterator<Item = &'a HostName>,
) -> Result<Vec<Expiry>> {
    let mut expiries = Vec::new();
    let own = [CA, OPERATOR].map(|name| (name.to_owned(), name.to_owned()));
    let of_hosts = hosts.map(|host| (host.to_string(), stem(host.as_str())));
    for (name, stem) in own.into_iter().chain(of_hosts) {
        if let Some((_, cert)) = read_cert(&paths(dir, &stem).0)? {
            expiries.push(Expiry {
                name,
                expires: cert.not_after,
            });
        }
    }
    Ok(expiries)
}

/// Removes pgherd's files in `dir`, and `dir` itself if nothing else is in it.
///
/// Removed are the certificates of the authority, the operator and `hosts`, and, for hosts that left the
/// inventory, those that the authority issued.
pub(in crate::workspace) fn remove<'a>(
    dir: &Path,
    hosts: impl Iterator<Item = &'a HostName>,
) -> Result<()> {
    let ca = files::read(&paths(dir, CA).0)?.and_then(|pem| Parsed::from_pem(&pem).ok());
    let issued = |stem: &str| {
        let pem = files::read(&paths(dir, stem).0).ok().flatten();
        let cert = pem.and_then(|pem| Parsed::from_pem(&pem).ok());
        ca.as_ref()
            .zip(cert)
            .is_some_and(|(ca, cert)| cert.is_signed_by(ca))
    };
    let mut stems: BTreeSet<_> = hosts.map(|host| stem(host.as_str())).collect();
    stems.extend([CA, OPERATOR].map(str::to_owned));
    for name in files::names(dir)? {
        if name.starts_with(files::UNFINISHED) {
            files::remove(&dir.join(name))?;
        } else if let Some(stem) = name.strip_suffix(".crt").filter(|stem| issued(stem)) {
            stems.insert(stem.to_owned());
        }
    }
    for stem in stems {
        let (cert, key) = paths(dir, &stem);
        files::remove(&cert)?;
        files::remove(&key)?;
    }
    rotation::clear(dir)?;
    files::remove_empty(dir)
}

/// A host can be called `ca` or `operator` too; no host's name has a dot.
pub(super) fn stem(host: &str) -> String {
    match host {
        CA | OPERATOR => format!("{host}.host"),
        _ => host.to_owned(),
    }
}

pub(super) fn paths(dir: &Path, stem: &str) -> (PathBuf, PathBuf) {
    (
        dir.join(format!("{stem}.crt")),
        dir.join(format!("{stem}.key")),
    )
}

/// The path of the authority's certificate, for clients that need a file.
pub(in crate::workspace) fn ca_path(dir: &Path) -> PathBuf {
    paths(dir, CA).0
}

pub(super) fn read_key(path: &Path) -> Result<Option<KeyPair>> {
    let Some(pem) = files::read(path)? else {
        return Ok(None);
    };
    KeyPair::from_pem(&pem)
        .map(Some)
        .map_err(|e| unreadable(path, "a private key", e.to_string()))
}

pub(super) fn read_cert(path: &Path) -> Result<Option<(String, Parsed)>> {
    let Some(pem) = files::read(path)? else {
        return Ok(None);
    };
    Parsed::from_pem(&pem)
        .map(|parsed| Some((pem, parsed)))
        .map_err(|e| unreadable(path, "a certificate", e))
}

pub(super) fn unreadable(path: &Path, what: &str, why: String) -> Error {
    let is_authority = path.file_stem().is_some_and(|stem| stem == CA);
    let path = files::origin(path);
    let error = Error::new(
        Code::CertificateUnusable,
        format!("{} is no longer {what}", path.display()),
    )
    .cause(why);
    if is_authority {
        error
            .hint("restore ca.crt and ca.key, which belong together, from a backup")
            .hint(START_OVER)
    } else {
        error.hint("remove it: the next `up` makes a new one")
    }
}
