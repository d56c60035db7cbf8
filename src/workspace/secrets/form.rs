//! The format of `secrets.yaml`: one key and text on a line, and the applications' passwords under `users`.
//!
//! Beside `inventory`, this is the only user of the YAML crate. This file is no inventory, and none of its
//! values may appear in a message. So `inventory`'s errors, which quote the wrong line, cannot be used.

use std::{fmt, path::Path};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::{BACKUP, CLUSTER_ID, KEYS, POOLER, S3_KEY, S3_SECRET, VRRP, VRRP_LENGTH, files};
use crate::{
    error::{Code, Error, Result},
    secret::Secret,
};

/// The section with the applications' passwords.
const USERS: &str = "users";

const HEADER: &str = "\
# The passwords of this cluster, made by pgherd. Any text may stand here; after a change, run
# `pgherd up`. Keep this file: without it nobody can manage the cluster any more.
";

const RESTORE: &str = "restore the file from a backup, or, if the cluster was never brought up, remove it: the next `up` makes a new one";

/// The meaning of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// One of [`KEYS`].
    Own(&'static str),
    /// One of the inventory's `postgresql.users`.
    User(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Own(name) => f.write_str(name),
            Key::User(name) => write!(f, "{USERS}.{name}"),
        }
    }
}

pub(super) type Values = Vec<(Key, Secret)>;

/// Whether a text can be the value of `key`; if not, why.
pub(super) fn check(key: &Key, text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.contains('\0') {
        return Err("has a NUL character, which no configuration file can hold");
    }
    if *key == Key::Own(CLUSTER_ID) && !is_identifier(text) {
        return Err("takes up to 64 letters, digits and hyphens");
    }
    let word = || text.len() <= VRRP_LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if *key == Key::Own(VRRP) && !word() {
        return Err("takes up to 8 letters and digits");
    }
    // pgBackRest's configuration has no quotes, and PgBouncer's list of users only some.
    if [Key::Own(BACKUP), Key::Own(POOLER)].contains(key)
        && !text.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        return Err("takes letters and digits");
    }
    if [Key::Own(S3_KEY), Key::Own(S3_SECRET)].contains(key)
        && !text.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err("takes no blanks");
    }
    Ok(())
}

/// The id is part of names on hosts and in etcd, which not every text could be.
fn is_identifier(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn to_lines(values: &Values) -> String {
    let own = values.iter().filter_map(|(key, value)| match key {
        Key::Own(name) => Some(format!("{name}: {}\n", quoted(value.expose()))),
        Key::User(_) => None,
    });
    let mut lines: String = own.collect();
    let users = user_lines(values, "  ");
    if !users.is_empty() {
        lines.push_str(&format!("{USERS}:\n{users}"));
    }
    lines
}

fn user_lines(values: &Values, indent: &str) -> String {
    let users = values.iter().filter_map(|(key, value)| match key {
        Key::User(name) => Some(format!(
            "{indent}{}: {}\n",
            quoted(name),
            quoted(value.expose())
        )),
        Key::Own(_) => None,
    });
    users.collect()
}

/// A JSON string. It is also a YAML string with the same value if characters that YAML does not count as
/// printable are escaped too.
fn quoted(value: &str) -> String {
    let json = serde_json::Value::from(value).to_string();
    json.chars()
        .map(|c| match c {
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                format!("\\u{:04x}", u32::from(c))
            }
            _ => c.to_string(),
        })
        .collect()
}

pub(super) fn to_yaml(values: &Values) -> String {
    format!("{HEADER}{}", to_lines(values))
}

/// Adds values to the text. Keeps the user's comments if the text's format allows it.
pub(super) fn extend(path: &Path, text: &str, values: &Values, added: &Values) -> Result<String> {
    let mut wanted = values.clone();
    wanted.extend(added.iter().cloned());
    let text = format!("{}\n", text.trim_end_matches(['\n', '\r']));
    [
        below_users(&text, added),
        format!("{text}{}", to_lines(added)),
        to_yaml(&wanted),
    ]
    .into_iter()
    .find(|candidate| parse(path, candidate).is_ok_and(|read| same(&read, &wanted)))
    .ok_or_else(|| {
        let missing: Vec<_> = added.iter().map(|(key, _)| key.to_string()).collect();
        Error::new(
            Code::SecretsInvalid,
            format!(
                "{}: missing: {}",
                files::origin(path).display(),
                missing.join(", ")
            ),
        )
        .hint("add them by hand, each with a text of your choice")
    })
}

/// The text with new users right below its own `users:`, and everything else at its end.
fn below_users(text: &str, added: &Values) -> String {
    let mut out = String::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        out.push_str(line);
        if line.split('#').next().unwrap_or_default().trim_end() == "users:" {
            let next = lines.peek().copied().unwrap_or_default();
            let indent = &next[..next.len() - next.trim_start().len()];
            out.push_str(&user_lines(
                added,
                if indent.is_empty() { "  " } else { indent },
            ));
        }
    }
    let others = added.iter().filter(|(key, _)| matches!(key, Key::Own(_)));
    out + &to_lines(&others.cloned().collect())
}

/// Replaces values. Keeps the user's comments if the text's format allows it.
///
/// Values that are missing in the text are added.
pub(super) fn replace(path: &Path, text: &str, values: &Values, new: &Values) -> Result<String> {
    let mut wanted = values.clone();
    let mut added = Values::new();
    let mut edited = text.to_owned();
    for (key, value) in new {
        match wanted.iter_mut().find(|(have, _)| have == key) {
            Some((_, have)) => {
                edited = edited.replace(&quoted(have.expose()), &quoted(value.expose()));
                *have = value.clone();
            }
            None => added.push((key.clone(), value.clone())),
        }
    }
    let kept = parse(path, &edited).is_ok_and(|read| same(&read, &wanted));
    let text = if kept { edited } else { to_yaml(&wanted) };
    if added.is_empty() {
        Ok(text)
    } else {
        extend(path, &text, &wanted, &added)
    }
}

/// Whether both have the same content in any order.
fn same(one: &Values, other: &Values) -> bool {
    one.len() == other.len() && one.iter().all(|value| other.contains(value))
}

/// Keys and values with their places, in order.
#[derive(Default)]
struct Pairs(Vec<(Spanned<String>, Spanned<Option<String>>)>);

/// The file as it is.
#[derive(Default)]
struct Entries {
    own: Pairs,
    users: Pairs,
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;

        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    if key.value == USERS {
                        entries.users = map.next_value::<Option<Pairs>>()?.unwrap_or_default();
                    } else {
                        entries.own.0.push((key, map.next_value()?));
                    }
                }
                Ok(entries)
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Values> {
    let origin = files::origin(path);
    let at = |location: Location, what: String| {
        Error::new(
            Code::SecretsInvalid,
            format!(
                "{}:{}:{}: {what}",
                origin.display(),
                location.line(),
                location.column()
            ),
        )
    };
    let entries: Entries = serde_yaml::from_str(text).map_err(|e| {
        // The parser's message may contain a password; its place and kind do not.
        use serde_yaml::Error as Yaml;
        let what = match e.without_snippet() {
            Yaml::DuplicateMappingKey { .. } => "this key is there twice",
            Yaml::Eof { .. } => "nothing in it",
            Yaml::MultipleDocuments { .. } => "more than one YAML document",
            _ => "not `key: text`, a line each (quote a text that is more than letters and digits)",
        };
        at(
            e.location().unwrap_or(serde_yaml::Location::UNKNOWN),
            what.to_owned(),
        )
        .hint(RESTORE)
    })?;
    if entries.own.0.is_empty() && entries.users.0.is_empty() {
        return Err(Error::new(
            Code::SecretsInvalid,
            format!("{}: nothing in it", origin.display()),
        )
        .hint(RESTORE));
    }
    let mut values = Values::new();
    for (key, value) in entries.own.0 {
        let Some(known) = KEYS.iter().copied().find(|known| *known == key.value) else {
            return Err(unknown(&key, at));
        };
        values.push(judged(Key::Own(known), &value, at)?);
    }
    for (key, value) in entries.users.0 {
        values.push(judged(Key::User(key.value), &value, at)?);
    }
    Ok(values)
}

fn judged(
    key: Key,
    value: &Spanned<Option<String>>,
    at: impl Fn(Location, String) -> Error,
) -> Result<(Key, Secret)> {
    let refused = |what: &str| at(value.defined, format!("`{key}` {what}"));
    let Some(text) = &value.value else {
        return Err(refused("has no value"));
    };
    check(&key, text).map_err(refused)?;
    Ok((key, Secret::new(text.clone())))
}

/// A key that resembles no known one is not shown: it may be a password in the wrong column.
fn unknown(key: &Spanned<String>, at: impl Fn(Location, String) -> Error) -> Error {
    let known = || KEYS.iter().copied().chain([USERS]);
    let nearest = known()
        .map(|known| (strsim::damerau_levenshtein(known, &key.value), known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, known)) => at(key.defined, format!("unknown key `{}`", key.value))
            .hint(format!("did you mean `{known}`?")),
        None => at(key.defined, "unknown key".to_owned()).hint(format!(
            "the keys are {}",
            known().collect::<Vec<_>>().join(", ")
        )),
    }
}
