//! The passwords: generated once into `secrets.yaml`, or set by the user.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use rand::{TryRngCore, rngs::OsRng};

use self::form::{Key, Values};
use super::{Note, files};
use crate::{
    cluster::Secrets,
    error::{Code, Error, Result},
    secret::Secret,
};

mod form;
#[cfg(test)]
mod tests;

const CLUSTER_ID: &str = "cluster_id";
const SUPERUSER: &str = "superuser";
const REPLICATION: &str = "replication";
const REWIND: &str = "rewind";
const REST_API: &str = "rest_api";
const STATS: &str = "stats";
const VRRP: &str = "vrrp";
/// The key of the backups. Whatever it once encrypted, nothing else can read: it never changes.
const BACKUP: &str = "backup";
const POOLER: &str = "pooler";
/// The access key of the bucket with the backups, which the user gives, and its secret.
const S3_KEY: &str = "s3_key";
const S3_SECRET: &str = "s3_secret";

/// In the order in which they are written.
const KEYS: [&str; 11] = [
    CLUSTER_ID,
    SUPERUSER,
    REPLICATION,
    REWIND,
    REST_API,
    STATS,
    VRRP,
    BACKUP,
    S3_KEY,
    S3_SECRET,
    POOLER,
];

/// The prefix of environment variables with passwords.
const VARIABLES: &str = "PGHERD_SECRET_";

const PASSWORD_CHARS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const PASSWORD_LENGTH: usize = 32;
/// The length of a password of VRRP 2, which allows no more.
const VRRP_LENGTH: usize = 8;

/// Which passwords are needed, and where the user may have set them.
pub(super) struct Wanted<'a> {
    /// The names of `postgresql.users`.
    pub users: Vec<&'a str>,
    /// Whether there is a `haproxy.vip`.
    pub vip: bool,
    /// Whether a host has the role `backup`.
    pub backup: bool,
    /// Whether a bucket holds the backups, and an access key opens it.
    pub bucket: bool,
    /// Whether there is a pooler.
    pub pooler: bool,
    /// `secrets.file`.
    pub file: Option<&'a Path>,
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Wanted<'_> {
    fn keys(&self) -> impl Iterator<Item = Key> {
        let own = KEYS.iter().copied().filter(|key| match *key {
            VRRP => self.vip,
            BACKUP => self.backup,
            S3_KEY | S3_SECRET => self.bucket,
            POOLER => self.pooler,
            _ => true,
        });
        let own = own.map(Key::Own);
        own.chain(self.users.iter().map(|name| Key::User((*name).to_owned())))
    }

    /// The user's value: the variable wins over the file.
    fn given(&self) -> Result<Values> {
        let mut given = match self.file {
            None => Values::new(),
            Some(path) => {
                let text = files::read(path)?.ok_or_else(|| {
                    Error::new(
                        Code::SecretsInvalid,
                        format!("{}: there is no such file", path.display()),
                    )
                    .hint("it is named by `secrets.file` in the inventory")
                })?;
                let values = form::parse(path, &text)?;
                if values.iter().any(|(key, _)| *key == Key::Own(CLUSTER_ID)) {
                    return Err(Error::new(
                        Code::SecretsInvalid,
                        format!(
                            "{}: `{CLUSTER_ID}` is no password, and not the user's to give",
                            path.display()
                        ),
                    )
                    .hint("take the line out"));
                }
                values
            }
        };
        let mut seen: Vec<(String, Key)> = Vec::new();
        for key in self.keys().filter(|key| *key != Key::Own(CLUSTER_ID)) {
            let name = variable(&key);
            let Some(value) = (self.variable)(&name) else {
                continue;
            };
            let refused = |what: &str| {
                Error::new(
                    Code::InvalidArguments,
                    format!("the variable {name} {what}"),
                )
                .hint(format!("it is the password of {key}"))
            };
            if let Some((_, other)) = seen.iter().find(|(taken, _)| *taken == name) {
                return Err(refused(&format!("could be for {other} or for {key}"))
                    .hint("set these with `secrets.file` instead"));
            }
            let value = value.into_string().map_err(|_| refused("is not UTF-8"))?;
            form::check(&key, &value).map_err(refused)?;
            given.retain(|(have, _)| *have != key);
            given.push((key.clone(), Secret::new(value)));
            seen.push((name, key));
        }
        Ok(given)
    }
}

/// The variable for a password: `PGHERD_SECRET_REST_API`, `PGHERD_SECRET_USER_APP`.
fn variable(key: &Key) -> String {
    let (prefix, name) = match key {
        Key::Own(name) => (VARIABLES.to_owned(), *name),
        Key::User(name) => (format!("{VARIABLES}USER_"), name.as_str()),
    };
    let name = name.chars().map(|c| match c.to_ascii_uppercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '_',
    });
    prefix + &name.collect::<String>()
}

/// The cluster's id from an existing file of secrets; nothing is made.
pub(super) fn cluster_id(path: &Path) -> Result<Option<String>> {
    let Some(text) = files::read(path)? else {
        return Ok(None);
    };
    let values = form::parse(path, &text)?;
    let id = values
        .into_iter()
        .find(|(key, _)| *key == Key::Own(CLUSTER_ID));
    Ok(id.map(|(_, id)| id.expose().to_owned()))
}

/// Reads the secrets at `path`, or creates them there. Values that the user sets elsewhere win.
///
/// Existing values are never replaced: if the cluster has a password and the file does not, it is lost.
pub(super) fn load_or_make(
    path: &Path,
    wanted: &Wanted<'_>,
    note: impl Fn(Note),
) -> Result<Secrets> {
    let given = wanted.given()?;
    let missing = |have: &Values| {
        let has = |key: &Key| have.iter().chain(&given).any(|(have, _)| have == key);
        let keys = wanted.keys().filter(|key| !has(key) && is_ours(key));
        keys.map(make).collect::<Result<Values>>()
    };
    let text = match files::read(path)? {
        Some(text) => text,
        None => {
            let made = form::to_yaml(&missing(&Values::new())?);
            if files::create(path, files::PRIVATE, made.as_bytes())? {
                made
            } else {
                // Another process was faster.
                files::read(path)?.unwrap_or(made)
            }
        }
    };
    let mut values = form::parse(path, &text)?;
    let added = missing(&values)?;
    if !added.is_empty() {
        let extended = form::extend(path, &text, &values, &added)?;
        files::write(path, files::PRIVATE, extended.as_bytes())?;
        for (key, _) in &added {
            note(Note::SecretAdded {
                key: key.to_string(),
            });
        }
        values.extend(added);
    }
    for (key, value) in given {
        values.retain(|(have, _)| *have != key);
        values.push((key, value));
    }
    for key in [S3_KEY, S3_SECRET].into_iter().filter(|_| wanted.bucket) {
        if !values.iter().any(|(have, _)| *have == Key::Own(key)) {
            return Err(Error::new(
                Code::SecretsInvalid,
                format!(
                    "`{key}` is missing: the access to the bucket with the backups is yours to give"
                ),
            )
            .hint(format!(
                "put it into {}, or set {}",
                wanted
                    .file
                    .unwrap_or(files::origin(path).as_ref())
                    .display(),
                variable(&Key::Own(key))
            )));
        }
    }
    assemble(path, &values)
}

/// Whether pgherd can make a value for it.
fn is_ours(key: &Key) -> bool {
    ![Key::Own(S3_KEY), Key::Own(S3_SECRET)].contains(key)
}

/// The names of the passwords that are needed, and whether the user sets each of them elsewhere.
pub(super) fn names(wanted: &Wanted<'_>) -> Result<Vec<(String, bool)>> {
    let given = wanted.given()?;
    let keys = wanted.keys().filter(|key| *key != Key::Own(CLUSTER_ID));
    let named = |key: Key| {
        let is_given = given.iter().any(|(given, _)| *given == key);
        (key.to_string(), is_given)
    };
    Ok(keys.map(named).collect())
}

/// Writes a new file at `path` with what is known of an existing cluster, by [`names`]. Values that the user sets
/// elsewhere are not written.
///
/// # Errors
/// A value cannot be the named password.
pub(super) fn put_back(
    path: &Path,
    wanted: &Wanted<'_>,
    id: &str,
    known: &BTreeMap<String, Secret>,
) -> Result<()> {
    let given = wanted.given()?;
    let mut values = Values::new();
    for key in wanted.keys() {
        let id = (key == Key::Own(CLUSTER_ID)).then(|| Secret::new(id));
        let is_given = given.iter().any(|(given, _)| *given == key);
        let Some(value) = id.or_else(|| known.get(&key.to_string()).cloned()) else {
            continue;
        };
        form::check(&key, value.expose()).map_err(|what| {
            Error::new(
                Code::SecretsInvalid,
                format!("`{key}`, as the hosts have it, {what}"),
            )
        })?;
        if !is_given {
            values.push((key, value));
        }
    }
    let text = form::to_yaml(&values);
    files::write(path, files::PRIVATE, text.as_bytes())
}

/// Replaces the passwords at `path` by new ones, except those that the user sets.
pub(super) fn renew(path: &Path, wanted: &Wanted<'_>, users: bool) -> Result<()> {
    let text = files::read(path)?.ok_or_else(|| {
        Error::new(
            Code::WorkspaceMissing,
            format!("{} is gone", path.display()),
        )
        .hint("restore it from a backup")
    })?;
    let values = form::parse(path, &text)?;
    let (keys, _) = split(wanted, users)?;
    let new = keys.into_iter().map(make).collect::<Result<Values>>()?;
    let replaced = form::replace(path, &text, &values, &new)?;
    files::write(path, files::PRIVATE, replaced.as_bytes())
}

/// The passwords that [`renew`] would change, and those that the user sets.
pub(super) fn renewable(wanted: &Wanted<'_>, users: bool) -> Result<(Vec<String>, Vec<String>)> {
    let (ours, given) = split(wanted, users)?;
    let names = |keys: Vec<Key>| keys.iter().map(Key::to_string).collect();
    Ok((names(ours), names(given)))
}

fn split(wanted: &Wanted<'_>, users: bool) -> Result<(Vec<Key>, Vec<Key>)> {
    let given = wanted.given()?;
    let keys = wanted.keys().filter(|key| match key {
        Key::Own(name) => ![CLUSTER_ID, BACKUP].contains(name) && is_ours(key),
        Key::User(_) => users,
    });
    Ok(keys.partition(|key| !given.iter().any(|(given, _)| given == key)))
}

/// The id of a new cluster.
pub(super) fn new_id() -> Result<String> {
    make(Key::Own(CLUSTER_ID)).map(|(_, id)| id.expose().to_owned())
}

/// A password for an interim role.
pub(super) fn temporary() -> Result<Secret> {
    password(PASSWORD_LENGTH).map(Secret::new)
}

fn make(key: Key) -> Result<(Key, Secret)> {
    let value = match key {
        Key::Own(CLUSTER_ID) => random_bytes::<16>()?
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        Key::Own(VRRP) => password(VRRP_LENGTH)?,
        _ => password(PASSWORD_LENGTH)?,
    };
    Ok((key, Secret::new(value)))
}

fn password(length: usize) -> Result<String> {
    let mut password = String::with_capacity(length);
    while password.len() < length {
        // Bytes above the last whole multiple of 62 would make the first characters more likely.
        let fair = random_bytes::<64>()?.into_iter().filter(|b| *b < 62 * 4);
        let room = length - password.len();
        password.extend(
            fair.take(room)
                .map(|byte| char::from(PASSWORD_CHARS[usize::from(byte) % 62])),
        );
    }
    Ok(password)
}

/// From the operating system's random generator.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|e| {
        Error::new(
            Code::LocalSystemFailed,
            "the operating system has no source of random numbers",
        )
        .because(e)
    })?;
    Ok(bytes)
}

fn assemble(path: &Path, values: &Values) -> Result<Secrets> {
    let get = |key: &'static str| {
        values
            .iter()
            .find(|(have, _)| *have == Key::Own(key))
            .map(|(_, value)| value.clone())
            .ok_or_else(|| {
                Error::new(
                    Code::SecretsInvalid,
                    format!("{}: `{key}` is missing", files::origin(path).display()),
                )
            })
    };
    let users = values.iter().filter_map(|(key, value)| match key {
        Key::User(name) => Some((name.clone(), value.clone())),
        Key::Own(_) => None,
    });
    Ok(Secrets {
        cluster_id: get(CLUSTER_ID)?.expose().to_owned(),
        superuser: get(SUPERUSER)?,
        replication: get(REPLICATION)?,
        rewind: get(REWIND)?,
        rest_api: get(REST_API)?,
        stats: get(STATS)?,
        vrrp: get(VRRP).ok(),
        backup: get(BACKUP).ok(),
        pooler: get(POOLER).ok(),
        webhook: None,
        s3: get(S3_KEY).ok().zip(get(S3_SECRET).ok()),
        users: users.collect(),
        interim: None,
    })
}
