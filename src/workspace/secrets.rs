//! `secrets.yaml`: made once, then the user's.
//!
//! Beside `inventory` this is the only user of the YAML crate: what it reads is not an inventory,
//! and none of its values may ever reach a message, which rules out that module's excerpts of the
//! offending line.

use std::{fmt, path::Path};

use rand::{TryRngCore, rngs::OsRng};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_yaml::Spanned;

use super::{Note, files};
use crate::{
    cluster::Secrets,
    error::{Error, Result},
    secret::Secret,
};

const CLUSTER_ID: &str = "cluster_id";
const SUPERUSER: &str = "superuser";
const REPLICATION: &str = "replication";
const REWIND: &str = "rewind";
const REST_API: &str = "rest_api";
const STATS: &str = "stats";

/// In the order in which they are written.
const KEYS: [&str; 6] = [CLUSTER_ID, SUPERUSER, REPLICATION, REWIND, REST_API, STATS];

const HEADER: &str = "\
# The passwords of this cluster, made by pgherd. Any text may stand here; after a change, run
# `pgherd up`. Keep this file: without it nobody can manage the cluster any more.
";

const PASSWORD_CHARS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const PASSWORD_LENGTH: usize = 32;

/// Reads the secrets at `path`, or makes them there.
///
/// What is there is never replaced: a password that the cluster has and the file lacks is lost.
pub(super) fn load_or_make(path: &Path, note: impl Fn(Note)) -> Result<Secrets> {
    let text = match files::read(path)? {
        Some(text) => text,
        None => {
            let made = to_yaml(&KEYS.iter().map(make).collect::<Result<Vec<_>>>()?);
            if files::create(path, files::PRIVATE, made.as_bytes())? {
                made
            } else {
                // Another process has been faster.
                files::read(path)?.unwrap_or(made)
            }
        }
    };
    let mut values = parse(path, &text)?;
    let added = KEYS
        .iter()
        .filter(|key| !values.iter().any(|(have, _)| have == *key))
        .map(make)
        .collect::<Result<Vec<_>>>()?;
    if !added.is_empty() {
        let names: Vec<_> = added.iter().map(|(key, _)| *key).collect();
        let extended = extend(path, &text, &values, &added)?;
        files::write(path, files::PRIVATE, extended.as_bytes())?;
        names
            .into_iter()
            .for_each(|key| note(Note::SecretAdded { key }));
        values.extend(added);
    }
    assemble(path, &values)
}

type Values = Vec<(&'static str, Secret)>;

fn make(key: &&'static str) -> Result<(&'static str, Secret)> {
    let value = match *key {
        CLUSTER_ID => random_bytes::<16>()?
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        _ => password()?,
    };
    Ok((key, Secret::new(value)))
}

fn password() -> Result<String> {
    let mut password = String::with_capacity(PASSWORD_LENGTH);
    while password.len() < PASSWORD_LENGTH {
        // Bytes beyond the last whole multiple of 62 would favour the first characters.
        let fair = random_bytes::<64>()?.into_iter().filter(|b| *b < 62 * 4);
        let room = PASSWORD_LENGTH - password.len();
        password.extend(
            fair.take(room)
                .map(|byte| char::from(PASSWORD_CHARS[usize::from(byte) % 62])),
        );
    }
    Ok(password)
}

/// From the operating system's own generator.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|e| {
        Error::failed("the operating system has no random numbers to give").because(e)
    })?;
    Ok(bytes)
}

fn to_lines(values: &[(&'static str, Secret)]) -> String {
    values
        .iter()
        .map(|(key, value)| format!("{key}: {}\n", quoted(value.expose())))
        .collect()
}

/// A JSON string, which is a YAML string of the same value once what YAML does not count as
/// printable is escaped too.
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

fn to_yaml(values: &[(&'static str, Secret)]) -> String {
    format!("{HEADER}{}", to_lines(values))
}

/// Adds values to the text, with the user's comments if the text's form allows.
fn extend(path: &Path, text: &str, values: &Values, added: &Values) -> Result<String> {
    let mut wanted = values.clone();
    wanted.extend(added.iter().cloned());
    let appended = format!(
        "{}\n{}",
        text.trim_end_matches(['\n', '\r']),
        to_lines(added)
    );
    [appended, to_yaml(&wanted)]
        .into_iter()
        .find(|candidate| parse(path, candidate).is_ok_and(|read| read == wanted))
        .ok_or_else(|| {
            let missing: Vec<_> = added.iter().map(|(key, _)| *key).collect();
            Error::input(format!(
                "{}: missing: {}",
                files::origin(path).display(),
                missing.join(", ")
            ))
            .hint("add them by hand, each with a text of your choice")
        })
}

/// The file as it stands: keys and values with their places, in order.
struct Entries(Vec<(Spanned<String>, Spanned<Option<String>>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

fn parse(path: &Path, text: &str) -> Result<Values> {
    let origin = files::origin(path);
    let at = |location: serde_yaml::Location, what: String| {
        Error::input(format!(
            "{}:{}:{}: {what}",
            origin.display(),
            location.line(),
            location.column()
        ))
    };
    let restore = "restore the file from a backup, or, if the cluster was never brought up, remove it: the next `up` makes a new one";
    let Entries(entries) = serde_yaml::from_str(text).map_err(|e| {
        // The parser's own words may quote a password; its place and kind do not.
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
        .hint(restore)
    })?;
    if entries.is_empty() {
        return Err(Error::input(format!("{}: nothing in it", origin.display())).hint(restore));
    }
    let mut values = Values::new();
    for (key, value) in entries {
        let Some(known) = KEYS.iter().copied().find(|known| *known == key.value) else {
            return Err(unknown(&key, at));
        };
        let refused = |what: &str| Err(at(value.defined, format!("`{known}` {what}")));
        match &value.value {
            None => return refused("has no value"),
            Some(text) if text.is_empty() => return refused("is empty"),
            Some(text) if text.contains('\0') => {
                return refused("has a NUL character, which no configuration file can hold");
            }
            Some(text) if known == CLUSTER_ID && !is_identifier(text) => {
                return refused("takes up to 64 letters, digits and hyphens");
            }
            Some(text) => values.push((known, Secret::new(text.clone()))),
        }
    }
    Ok(values)
}

/// The identifier names things on hosts and in etcd, where not every text would do.
fn is_identifier(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A key far from all known ones is not shown: it may be a password that slipped a column.
fn unknown(key: &Spanned<String>, at: impl Fn(serde_yaml::Location, String) -> Error) -> Error {
    let nearest = KEYS
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, &key.value), *known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match nearest {
        Some((_, known)) => at(key.defined, format!("unknown key `{}`", key.value))
            .hint(format!("did you mean `{known}`?")),
        None => at(key.defined, "unknown key".to_owned())
            .hint(format!("the keys are {}", KEYS.join(", "))),
    }
}

fn assemble(path: &Path, values: &Values) -> Result<Secrets> {
    let get = |key: &str| {
        values
            .iter()
            .find(|(have, _)| *have == key)
            .map(|(_, value)| value.clone())
            .ok_or_else(|| {
                Error::input(format!(
                    "{}: `{key}` is missing",
                    files::origin(path).display()
                ))
            })
    };
    Ok(Secrets {
        cluster_id: get(CLUSTER_ID)?.expose().to_owned(),
        superuser: get(SUPERUSER)?,
        replication: get(REPLICATION)?,
        rewind: get(REWIND)?,
        rest_api: get(REST_API)?,
        stats: get(STATS)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    struct Place {
        _dir: tempfile::TempDir,
        path: PathBuf,
        notes: RefCell<Vec<Note>>,
    }

    impl Place {
        fn new(text: &str) -> Self {
            let place = Self::empty();
            fs::write(&place.path, text).unwrap();
            place
        }

        fn empty() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self {
                path: dir.path().join("secrets.yaml"),
                _dir: dir,
                notes: RefCell::default(),
            }
        }

        fn load(&self) -> Result<Secrets> {
            load_or_make(&self.path, |note| self.notes.borrow_mut().push(note))
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.path).unwrap()
        }
    }

    #[test]
    fn secrets_are_made_once() {
        let place = Place::empty();
        let made = place.load().unwrap();
        assert_eq!(made.cluster_id.len(), 32);
        assert!(made.cluster_id.bytes().all(|b| b.is_ascii_hexdigit()));
        let mut seen = std::collections::BTreeSet::new();
        for secret in made.values() {
            assert_eq!(secret.expose().len(), 32);
            assert!(secret.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
            assert!(seen.insert(secret.expose().to_owned()));
        }
        let mode = fs::metadata(&place.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = place.text();
        assert_eq!(place.load().unwrap(), made);
        assert_eq!(place.text(), text);
        assert!(place.notes.borrow().is_empty());
    }

    #[test]
    fn a_missing_key_is_added_and_the_rest_stays_as_it_was() {
        let before = "# mine\nsuperuser: 'it''s: # me'  # why\nrest_api: 0123\ncluster_id: abc";
        let place = Place::new(before);
        let secrets = place.load().unwrap();
        assert_eq!(secrets.superuser.expose(), "it's: # me");
        assert_eq!(secrets.rest_api.expose(), "0123");
        assert!(place.text().starts_with(before), "{}", place.text());
        assert_eq!(
            *place.notes.borrow(),
            [REPLICATION, REWIND, STATS].map(|key| Note::SecretAdded { key })
        );
        assert_eq!(place.load().unwrap(), secrets);
        assert_eq!(place.notes.borrow().len(), 3);
    }

    #[test]
    fn a_json_file_can_be_completed_too() {
        let place = Place::new("{\"superuser\": \"a\\u007fb\\\"\", cluster_id: x}\n");
        let secrets = place.load().unwrap();
        assert_eq!(secrets.superuser.expose(), "a\u{7f}b\"");
        assert_eq!(place.load().unwrap(), secrets);
    }

    #[test]
    fn what_is_broken_is_an_error_with_its_place_and_stays_untouched() {
        for (text, part) in [
            ("", "nothing in it"),
            ("# only a comment\n", "nothing in it"),
            ("{}\n", "nothing in it"),
            ("superuser: hunter2hunter2\n  rewind: x\n", ":2:"),
            ("superuser:hunter2hunter2\n", ":1:1"),
            ("- hunter2hunter2\n", ":1:1"),
            ("superuser: \"hunter2hunter2\n", "secrets.yaml:"),
            ("superuser: [hunter2hunter2]\n", ":1:12"),
            ("superuser: {a: hunter2hunter2}\n", ":1:12"),
            (
                "superuser:\nrewind: hunter2hunter2\n",
                "`superuser` has no value",
            ),
            ("superuser: ''\n", ":1:12: `superuser` is empty"),
            (
                "stats: ok\nsuperuser: \"hunter2\\0hunter2\"\n",
                ":2:12: `superuser` has a NUL",
            ),
            (
                "stats: ok\nsuperusr: hunter2hunter2\n",
                ":2:1: unknown key `superusr`",
            ),
            ("hunter2hunter2: superuser\n", ":1:1: unknown key"),
            (
                "stats: a\nstats: hunter2hunter2\n",
                ":2:1: this key is there twice",
            ),
            ("cluster_id: a b\n", "`cluster_id` takes"),
            ("stats: a\n---\nstats: hunter2hunter2\n", "more than one"),
        ] {
            let place = Place::new(text);
            let error = place.load().expect_err(text);
            assert_eq!(error.kind(), Kind::Input, "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
            let everything = format!("{error:?}");
            assert!(!everything.contains("hunter2"), "{text}: {everything}");
            assert_eq!(place.text(), text);
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        let place = Place::new("rest-api: x\n");
        assert_eq!(
            place.load().unwrap_err().hints(),
            ["did you mean `rest_api`?"]
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_an_error() {
        let place = Place::empty();
        fs::write(&place.path, [0xff, 0xfe]).unwrap();
        assert!(place.load().is_err());
        assert_eq!(fs::read(&place.path).unwrap(), [0xff, 0xfe]);
    }

    #[test]
    fn debug_output_has_no_password() {
        let place = Place::empty();
        let secrets = place.load().unwrap();
        let shown = format!("{secrets:?}");
        for secret in secrets.values() {
            assert!(!shown.contains(secret.expose()));
        }
    }

    /// Every character now and then, and often those that mean something to YAML.
    fn password() -> impl Strategy<Value = String> {
        let telling = ":#'\"\\{}[]!&*|>%@`,?- \t\r\n~\u{7f}\u{85}\u{2028}\u{feff}";
        let telling = proptest::sample::select(telling.chars().collect::<Vec<_>>());
        let any = any::<char>().prop_filter("NUL is refused", |c| *c != '\0');
        let chars = proptest::collection::vec(prop_oneof![any, telling], 1..40);
        chars.prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_password_survives(value in password()) {
            let written = to_yaml(&[(SUPERUSER, Secret::new(value.clone()))]);
            let read = parse(Path::new("secrets.yaml"), &written).unwrap();
            prop_assert_eq!(read[0].1.expose(), value);
        }
    }
}
