//! Passwords that are generated, kept, completed and set by the user.

use std::{cell::RefCell, collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf};

use proptest::prelude::*;

use super::{
    form::{parse, replace, to_yaml},
    *,
};
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
        self.load_for(&[], None, &[])
    }

    fn load_for(
        &self,
        users: &[&str],
        file: Option<&Path>,
        variables: &[(&str, &str)],
    ) -> Result<Secrets> {
        let wanted = Wanted {
            vip: false,
            backup: false,
            bucket: false,
            pooler: false,
            users: users.to_vec(),
            file,
            variable: &|name| {
                let found = variables.iter().find(|(have, _)| *have == name);
                found.map(|(_, value)| (*value).into())
            },
        };
        load_or_make(&self.path, &wanted, |note| {
            self.notes.borrow_mut().push(note);
        })
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
        [REPLICATION, REWIND, STATS].map(|key| Note::SecretAdded { key: key.into() })
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
        ("stats: a\nusers: hunter2hunter2\n", ":2:8"),
        ("users:\n  app:\n", "`users.app` has no value"),
        ("users:\n  app: {a: hunter2hunter2}\n", ":2:8"),
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

/// Every character now and then, and often those with a meaning in YAML.
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
    fn any_password_survives(value in password(), name in password()) {
        let written = to_yaml(&vec![
            (Key::Own(SUPERUSER), Secret::new(value.clone())),
            (Key::User(name.clone()), Secret::new(value.clone())),
        ]);
        let read = parse(Path::new("secrets.yaml"), &written).unwrap();
        prop_assert_eq!(read[0].1.expose(), &value);
        prop_assert_eq!(read[1].1.expose(), &value);
        prop_assert_eq!(&read[1].0, &Key::User(name));
    }
}

#[test]
fn a_user_who_comes_later_gets_a_password_beside_the_others() {
    let place = Place::empty();
    let first = place.load_for(&["app"], None, &[]).unwrap();
    assert_eq!(first.users.len(), 1);
    assert!(place.notes.borrow().is_empty());
    let text = place
        .text()
        .replace("users:\n", "users:  # of applications\n");
    fs::write(&place.path, &text).unwrap();

    let second = place.load_for(&["app", "re: port"], None, &[]).unwrap();
    assert_eq!(second.users["app"], first.users["app"]);
    assert_eq!(second.users["re: port"].expose().len(), 32);
    assert!(
        place.text().contains("# of applications"),
        "{}",
        place.text()
    );
    assert_eq!(
        place.notes.borrow()[0].to_string(),
        "secrets.yaml had no `users.re: port`; one was made and added"
    );
    // A user that leaves the inventory keeps the password in case it comes back.
    assert_eq!(place.load().unwrap().users, second.users);
}

#[test]
fn what_the_user_gives_counts_and_is_not_made() {
    let place = Place::empty();
    let file = place.path.with_file_name("mine.yaml");
    fs::write(
        &file,
        "superuser: from-the-file\nstats: from-the-file\nusers: {app: from-the-file}\n",
    )
    .unwrap();
    let variables = [
        ("PGHERD_SECRET_STATS", "from-a-variable"),
        ("PGHERD_SECRET_USER_RE_PORT", "from-a-variable"),
    ];
    let secrets = place.load_for(&["app", "re: port"], Some(&file), &variables);
    // Every character that a variable's name cannot have becomes `_`.
    assert_eq!(secrets.unwrap().users["re: port"].expose().len(), 32);
    let variables = [
        ("PGHERD_SECRET_STATS", "from-a-variable"),
        ("PGHERD_SECRET_USER_RE__PORT", "from-a-variable"),
    ];
    let secrets = place
        .load_for(&["app", "re: port"], Some(&file), &variables)
        .unwrap();
    assert_eq!(secrets.superuser.expose(), "from-the-file");
    assert_eq!(secrets.stats.expose(), "from-a-variable");
    assert_eq!(
        secrets.users,
        BTreeMap::from([
            ("app".to_owned(), Secret::new("from-the-file")),
            ("re: port".to_owned(), Secret::new("from-a-variable")),
        ])
    );
    let kept = place.text();
    assert!(
        !kept.contains("superuser") && !kept.contains("app"),
        "{kept}"
    );
    assert!(
        kept.contains("replication") && !kept.contains("from-"),
        "{kept}"
    );
}

#[test]
fn what_is_given_wrongly_is_told_without_the_value() {
    let place = Place::empty();
    let file = place.path.with_file_name("mine.yaml");
    fs::write(&file, "cluster_id: hunter2hunter2\n").unwrap();
    let missing = place.path.with_file_name("none.yaml");
    for (file, variables, part) in [
        (
            Some(file.as_path()),
            &[][..],
            "mine.yaml: `cluster_id` is no password",
        ),
        (Some(missing.as_path()), &[], "there is no such file"),
        (
            None,
            &[("PGHERD_SECRET_STATS", "")],
            "the variable PGHERD_SECRET_STATS is empty",
        ),
        (
            None,
            &[("PGHERD_SECRET_USER_A_B", "hunter2hunter2")],
            "could be for users.a-b or for users.a_b",
        ),
    ] {
        let error = place
            .load_for(&["a-b", "a_b"], file, variables)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().contains(part), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(!place.path.exists());
    }
}

#[test]
fn new_values_take_the_place_of_old_ones_and_comments_stay() {
    let path = Path::new("secrets.yaml");
    let text = "# mine\nsuperuser: \"old\"  # why\nusers:\n  app: \"older\"\n";
    let values = parse(path, text).unwrap();
    let new = vec![
        (Key::Own(SUPERUSER), Secret::new("n: \"ew")),
        (Key::User("app".into()), Secret::new("newer")),
        (Key::User("other".into()), Secret::new("third")),
    ];
    let replaced = replace(path, text, &values, &new).unwrap();
    assert_eq!(
        replaced,
        "# mine\nsuperuser: \"n: \\\"ew\"  # why\nusers:\n  \"other\": \"third\"\n  app: \"newer\"\n"
    );
    // If the format does not allow it, the values are written and the comments are lost.
    let text = "superuser: old # mine\n";
    let values = parse(path, text).unwrap();
    let replaced = replace(path, text, &values, &new[..1].to_vec()).unwrap();
    assert_eq!(parse(path, &replaced).unwrap(), new[..1]);
}
