//! Parses the text into `schema`, and reports syntax errors in plain words.

use serde_yaml::{Error, MessageFormatter, UserMessageFormatter};

use super::{
    keys,
    placed::{Span, span_at},
    problem::{Problem, alternatives, quoted},
    schema::Document,
    source::Source,
};

/// Reads the document, up to the first syntax error.
pub(super) fn document(source: &Source<'_>) -> Result<Document, Problem> {
    if is_blank(source.text) {
        return Err(Problem::new(0..0, "the inventory is empty")
            .hint("`pgherd init -o FILE` writes one that works as it is"));
    }
    let options = serde_yaml::options! {
        // `Source` shows the place of every kind of mistake in the same way.
        with_snippet: false,
        // As in YAML 1.2, `yes` and `on` stay words, so that `cluster: on` is a name.
        strict_booleans: true,
        reject_unsupported_tags: true,
    };
    serde_yaml::from_str_with_options(source.text, options)
        .map_err(|error| problem(source, error.without_snippet()))
}

/// Whether the text has only comments and document marks.
fn is_blank(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the YAML crate words the rest itself"
)]
fn problem(source: &Source<'_>, error: &Error) -> Problem {
    let at = error.location().map_or(0..0, |location| {
        span_at(&location)
            .unwrap_or_else(|| source.span_of_position(location.line(), location.column()))
    });
    let found = found(source.slice(&(at.start..source.text.len())));
    match error {
        Error::AliasError { error, .. } => Problem {
            at,
            ..problem(source, error)
        },
        Error::SerdeUnknownField {
            field, expected, ..
        } => unknown_key(at, field, expected),
        Error::InvalidScalar { .. } => {
            Problem::new(at, format!("expected a whole number, found {found}"))
        }
        Error::InvalidBooleanStrict { .. } => {
            Problem::new(at, format!("expected `true` or `false`, found {found}"))
        }
        Error::NullIntoString { .. } => Problem::new(at, "a value is missing here")
            .hint("write one, or take the key out to get its default"),
        Error::Unexpected {
            expected: "mapping start",
            ..
        } => Problem::new(
            at,
            format!("expected keys with values (`key: value`), found {found}"),
        ),
        Error::Unexpected {
            expected: "sequence start",
            ..
        } => Problem::new(at, format!("expected a list, found {found}"))
            .hint("a list is written `[one, two]`"),
        Error::Unexpected {
            expected: "string scalar",
            ..
        } => Problem::new(at, format!("expected one value, found {found}"))
            .hint("where several words belong in one value, quote them: `'one, two'`"),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            Problem::new(at, format!("the key {} is here twice", quoted(key)))
                .label("the second one")
        }
        Error::MultipleDocuments { .. } => {
            Problem::new(at, "the inventory must be one YAML document")
                .label("a second one begins here")
        }
        other => syntax(at, &UserMessageFormatter.format_message(other)),
    }
}

fn unknown_key(at: Span, key: &str, expected: &[&'static str]) -> Problem {
    let problem = Problem::new(at, format!("unknown key {}", quoted(key)));
    let nearest = keys::nearest(key, expected.iter().copied());
    let elsewhere: Vec<&str> = keys::sections_with(key).collect();
    let problem = match nearest {
        Some(_) => problem.did_you_mean(nearest),
        None if !elsewhere.is_empty() => problem.label(format!(
            "belongs under {}",
            alternatives(elsewhere.iter().copied())
        )),
        None => problem,
    };
    problem.hint(format!(
        "valid here: {}",
        alternatives(expected.iter().copied())
    ))
}

/// A mistake in YAML itself, in the parser's words.
fn syntax(at: Span, message: &str) -> Problem {
    let problem = Problem::new(at, format!("not valid YAML: {}", message.trim()));
    if message.contains("tab") {
        problem.hint("indent with spaces")
    } else if message.contains("unexpected character") {
        problem.hint("a value that begins with a special character is written in quotes")
    } else {
        problem
    }
}

/// The kind of value that stands there.
fn found(text: &str) -> String {
    match text.chars().next() {
        None => "nothing".to_owned(),
        Some('[' | '-') if text.starts_with("- ") || text.starts_with('[') => "a list".to_owned(),
        Some('{') => "keys with values".to_owned(),
        Some(quote @ ('"' | '\'')) => {
            let inner = &text[1..];
            quoted(inner.split(quote).next().unwrap_or(inner))
        }
        Some(_) => {
            let word = text.split([',', '}', ']', '#']).next().unwrap_or(text);
            quoted(word.trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn what(text: &str) -> String {
        document(&Source::new(Path::new("x"), text))
            .expect_err("this should not parse")
            .what
    }

    #[test]
    fn empty_sections_and_hosts_are_no_mistake_of_form() {
        let text = "ssh:\npostgresql:\n  parameters:\nhosts:\n  a:\n";
        assert!(document(&Source::new(Path::new("x"), text)).is_ok());
    }

    #[test]
    fn mistakes_of_form_say_what_was_found() {
        assert_eq!(what("cluster: [a]"), "expected one value, found a list");
        assert_eq!(
            what("hosts: {a: {roles: etcd}}"),
            "expected a list, found `etcd`"
        );
        assert_eq!(
            what("tls: {enabled: yes}"),
            "expected `true` or `false`, found `yes`"
        );
        assert_eq!(
            what("ssh: {port: 'abc'}"),
            "expected a whole number, found `abc`"
        );
        assert_eq!(
            what("hosts: a"),
            "expected keys with values (`key: value`), found `a`"
        );
        assert_eq!(what("# nothing\n---\n"), "the inventory is empty");
    }
}
