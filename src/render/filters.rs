//! Writes a value in each format, so that it is read back exactly.
//!
//! A filter returns text from which the format's own parser gets the value back, or refuses the value.
//! Templates cannot print text without a filter: see [`super::templates`].

use std::collections::HashMap;

use serde_json::{Map, Value};
use tera::{Error, Filter, Result, Tera};

type Arguments = HashMap<String, Value>;

/// A filter whose output is complete text of the target format.
struct Escape(fn(&str) -> Result<String>);

impl Filter for Escape {
    fn filter(&self, value: &Value, _: &Arguments) -> Result<Value> {
        self.0(&text(value)?).map(Value::String)
    }
    fn is_safe(&self) -> bool {
        true
    }
}

/// A filter that passes a value through unchanged if the format can hold it; the value must still be escaped.
struct Check(fn(&str) -> Result<()>);

impl Filter for Check {
    fn filter(&self, value: &Value, _: &Arguments) -> Result<Value> {
        let text = text(value)?;
        self.0(&text)?;
        Ok(Value::String(text))
    }
}

/// Passes a mapping of PostgreSQL's parameters through unchanged, if `postgresql.conf` can hold it.
struct PostgresqlConf;

impl Filter for PostgresqlConf {
    fn filter(&self, value: &Value, _: &Arguments) -> Result<Value> {
        postgresql_conf(value)?;
        Ok(value.clone())
    }
}

struct Yaml;

impl Filter for Yaml {
    fn filter(&self, value: &Value, arguments: &Arguments) -> Result<Value> {
        let indent = match arguments.get("indent") {
            None => 0,
            Some(indent) => indent
                .as_u64()
                .and_then(|indent| usize::try_from(indent).ok())
                .ok_or_else(|| Error::msg("`indent` takes a number of blanks"))?,
        };
        yaml(value, indent).map(Value::String)
    }
    fn is_safe(&self) -> bool {
        true
    }
}

/// Every filter by name, for the templates and for their documentation.
pub(super) fn register(tera: &mut Tera) {
    tera.register_filter("yaml", Yaml);
    tera.register_filter("systemd", Escape(systemd));
    tera.register_filter("environment_file", Escape(environment_file));
    tera.register_filter("haproxy", Escape(haproxy));
    tera.register_filter("pg_hba", Escape(pg_hba));
    tera.register_filter("apt_conf", Escape(apt_conf));
    tera.register_filter("hostname", Escape(hostname));
    tera.register_filter("address", Escape(address));
    tera.register_filter("line", Escape(line));
    tera.register_filter("pem", Escape(pem));
    tera.register_filter("postgresql_conf", PostgresqlConf);
    tera.register_filter("pgpass", Check(pgpass));
    tera.register_filter("basic_auth", Check(basic_auth));
}

/// A `value` inside the quotes of each format that may hold a secret, for masking.
pub(crate) fn inner_forms(value: &str) -> Vec<String> {
    let quoted = [
        Some(yaml_scalar(value)),
        environment_file(value).ok(),
        systemd(value).ok(),
        pg_hba(value).ok(),
        haproxy(value).ok(),
        serde_json::to_string(value).ok(),
    ];
    let quoted = quoted.into_iter().flatten();
    quoted
        .map(|text| match text.strip_prefix(['"', '\'']) {
            Some(rest) => rest[..rest.len() - 1].to_owned(),
            None => text,
        })
        .collect()
}

/// The text of a string, number or boolean.
fn text(value: &Value) -> Result<String> {
    match value {
        Value::String(text) if text.contains('\0') => Err(Error::msg(
            "the value holds a NUL character, or a value inside it was printed without a filter",
        )),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null => Err(Error::msg("there is no value here")),
        Value::Array(_) | Value::Object(_) => {
            Err(Error::msg("a list or a mapping cannot be printed here"))
        }
    }
}

/// The first control character, including tabs, with its usual name.
fn control(text: &str) -> Option<String> {
    text.chars()
        .find(|c| c.is_control())
        .map(|c| format!("the control character U+{:04X}", u32::from(c)))
}

fn no_controls(text: &str, format: &str) -> Result<()> {
    control(text).map_or(Ok(()), |found| {
        Err(Error::msg(format!("{format} cannot hold {found}")))
    })
}

/// YAML: a double-quoted scalar, or a block of them for a list or a mapping.
///
/// Double quotes are the only style without guessing: Patroni reads YAML 1.1, in which a plain `on`, `1e3`,
/// `010` or `12:30` is no string. ASCII only, because its reader depends on the locale.
fn yaml(value: &Value, indent: usize) -> Result<String> {
    match value {
        Value::String(_) => text(value).map(|text| yaml_scalar(&text)),
        Value::Object(map) if map.is_empty() => Ok("{}".into()),
        Value::Array(list) if list.is_empty() => Ok("[]".into()),
        Value::Object(map) => yaml_mapping(map, indent),
        Value::Array(list) => {
            let items: Result<Vec<String>> = list
                .iter()
                .map(|item| yaml(item, indent + 2).map(|item| format!("- {item}")))
                .collect();
            Ok(items?.join(&format!("\n{:indent$}", "")))
        }
        _ => text(value),
    }
}

fn yaml_mapping(map: &Map<String, Value>, indent: usize) -> Result<String> {
    let mut lines = Vec::new();
    for (key, value) in map {
        let key = yaml_key(&text(&Value::String(key.clone()))?);
        let nested = match value {
            Value::Object(map) => !map.is_empty(),
            Value::Array(list) => !list.is_empty(),
            _ => false,
        };
        let inner = indent + 2;
        let value = yaml(value, inner)?;
        lines.push(if nested {
            format!("{key}:\n{:inner$}{value}", "")
        } else {
            format!("{key}: {value}")
        });
    }
    Ok(lines.join(&format!("\n{:indent$}", "")))
}

/// A key, without quotes if every YAML reader takes it for a string.
fn yaml_key(key: &str) -> String {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let bare = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'))
        && !words.contains(&key);
    if bare { key.into() } else { yaml_scalar(key) }
}

fn yaml_scalar(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str(r#"\""#),
            '\\' => out.push_str(r"\\"),
            '\n' => out.push_str(r"\n"),
            '\r' => out.push_str(r"\r"),
            '\t' => out.push_str(r"\t"),
            ' '..='~' => out.push(c),
            _ => out.push_str(&match u32::from(c) {
                code @ ..=0xff => format!("\\x{code:02X}"),
                code @ ..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            }),
        }
    }
    out.push('"');
    out
}

/// systemd's unit files: one quoted word, in which `%` is no specifier.
///
/// Not for commands, where `$` is special too. Source: systemd.syntax(7), systemd.unit(5).
fn systemd(text: &str) -> Result<String> {
    no_controls(text, "a systemd unit")?;
    let escaped = text
        .replace('\\', r"\\")
        .replace('"', r#"\""#)
        .replace('%', "%%");
    Ok(format!("\"{escaped}\""))
}

/// A file for systemd's `EnvironmentFile=`, which shells can read too.
///
/// Source: systemd.exec(5): in double quotes, a backslash goes before `"`, `\`, a backquote and `$`.
fn environment_file(text: &str) -> Result<String> {
    no_controls(text, "an environment file")?;
    let mut out = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '`' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

/// HAProxy: one word, or a part of one; in single quotes nothing is special.
///
/// Source: HAProxy's configuration manual, section 2.2.
fn haproxy(text: &str) -> Result<String> {
    no_controls(text, "HAProxy's configuration")?;
    let bare = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&b));
    if bare {
        return Ok(text.into());
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// `pg_hba.conf`: the name of a database or role.
///
/// Source: PostgreSQL's `hba.c`. In quotes, keywords and signs have no meaning, except for a slash at the
/// beginning, which makes the name a regular expression since version 16.
fn pg_hba(text: &str) -> Result<String> {
    no_controls(text, "pg_hba.conf")?;
    if text.is_empty() || text.starts_with('/') {
        return Err(Error::msg(
            "pg_hba.conf cannot hold an empty name, or one with a slash in front",
        ));
    }
    let keywords = ["all", "replication", "sameuser", "samerole", "samegroup"];
    let bare = text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !keywords.contains(&text);
    if bare {
        return Ok(text.into());
    }
    Ok(format!("\"{}\"", text.replace('"', "\"\"")))
}

/// apt's configuration, whose quotes have no escapes.
fn apt_conf(text: &str) -> Result<String> {
    no_controls(text, "apt's configuration")?;
    if text.contains('"') {
        return Err(Error::msg("apt's configuration cannot hold a double quote"));
    }
    Ok(format!("\"{text}\""))
}

/// A host's name, where nothing can be escaped: one DNS label.
fn hostname(text: &str) -> Result<String> {
    let label = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if label {
        Ok(text.into())
    } else {
        Err(Error::msg("this is not a host's name: one DNS label"))
    }
}

/// An IPv4 address, or `plan`'s placeholder for one that is not known yet.
fn address(text: &str) -> Result<String> {
    let pending = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix("'s address>"))
        .is_some_and(|host| hostname(host).is_ok());
    if pending || text.parse::<std::net::Ipv4Addr>().is_ok() {
        Ok(text.into())
    } else {
        Err(Error::msg("this is not an IPv4 address"))
    }
}

/// Unchanged text on one line: for comments, and for words without characters to escape.
fn line(text: &str) -> Result<String> {
    no_controls(text, "one line")?;
    Ok(text.into())
}

/// PEM, unchanged except for blanks around it.
fn pem(text: &str) -> Result<String> {
    let text = text.trim();
    if text.starts_with("-----BEGIN ") || text.contains("\n-----BEGIN ") {
        Ok(text.into())
    } else {
        Err(Error::msg("this is not PEM: it has no -----BEGIN line"))
    }
}

/// Patroni writes `name = 'value'`, one line each, and escapes only quotes and backslashes.
///
/// PostgreSQL's `guc-file.l` accepts no newline in quotes; the other control characters are useless there.
fn postgresql_conf(value: &Value) -> Result<()> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(name, value)| {
            let parts = name.split('.').all(|part| {
                part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            });
            if !parts {
                return Err(Error::msg(format!("`{name}` is not a parameter's name")));
            }
            postgresql_conf(value)
                .map_err(|error| Error::msg(format!("the parameter {name}: {error}")))
        }),
        Value::Array(list) => list.iter().try_for_each(postgresql_conf),
        Value::String(text) => no_controls(&text.replace('\t', " "), "postgresql.conf"),
        _ => Ok(()),
    }
}

/// A password that Patroni can pass on to PostgreSQL's tools: a line of their password file has one password.
fn pgpass(text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::msg("the password is empty"));
    }
    no_controls(text, "PostgreSQL's password file")
}

/// A password for Patroni's own HTTP requests, which are sent in Latin-1 and checked in UTF-8.
fn basic_auth(text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::msg("the password is empty"));
    }
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        Ok(())
    } else {
        Err(Error::msg(
            "Patroni's REST interface can only carry a password of printable ASCII characters",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The first field of a line of `pg_hba.conf`, like `next_token()` in PostgreSQL's `hba.c`, and whether it
    /// was quoted.
    fn hba_token(line: &str) -> (String, bool) {
        let (mut token, mut quoted) = (String::new(), false);
        let (mut inside, mut was_quote) = (false, false);
        for c in line.chars() {
            if !inside && (c.is_ascii_whitespace() || matches!(c, ',' | '#')) {
                break;
            }
            if c != '"' || was_quote {
                token.push(c);
            }
            was_quote = inside && c == '"' && !was_quote;
            if c == '"' {
                inside = !inside;
                quoted |= token.is_empty();
            }
        }
        (token, quoted)
    }

    proptest! {
        #[test]
        fn pg_hba_names_are_read_back(name in any::<String>()) {
            match pg_hba(&name) {
                Ok(written) => {
                    let (token, quoted) = hba_token(&format!("{written} 192.0.2.1/32"));
                    prop_assert_eq!(&token, &name);
                    let special = ["all", "replication", "samerole"].contains(&token.as_str());
                    prop_assert!(quoted || !(special || token.starts_with(['+', '@'])));
                }
                Err(_) => prop_assert!(
                    name.is_empty() || name.starts_with('/') || name.chars().any(char::is_control)
                ),
            }
        }

        #[test]
        fn yaml_blocks_are_read_back(
            names in prop::collection::vec("[a-z]{1,3}|[^\0]{0,6}", 3),
            values in prop::collection::vec("[^\0]{0,12}", 3),
            number in any::<i64>(),
        ) {
            let value = json!({
                "plain": {names[0].clone(): values[0], names[1].clone(): [values[1], {"on": number}, []]},
                "list": [{}, true, values[2], [[number]]],
                names[2].clone(): {},
            });
            for indent in [0, 4] {
                let text = format!("{:indent$}{}\n", "", yaml(&value, indent).unwrap());
                prop_assert_eq!(&serde_yaml::from_str::<Value>(&text).unwrap(), &value, "{}", text);
            }
        }
    }

    #[test]
    fn words_that_are_special_are_quoted() {
        assert_eq!(pg_hba("replicator").unwrap(), "replicator");
        assert_eq!(pg_hba("all").unwrap(), "\"all\"");
        assert_eq!(pg_hba("My\"Role").unwrap(), "\"My\"\"Role\"");
        assert_eq!(haproxy("a-b_c.9").unwrap(), "a-b_c.9");
        assert_eq!(haproxy("it's").unwrap(), r"'it'\''s'");
        assert_eq!(yaml_key("wal_level"), "wal_level");
        assert_eq!(yaml_key("on"), "\"on\"");
        assert_eq!(apt_conf("/etc/x.crt").unwrap(), "\"/etc/x.crt\"");
    }

    #[test]
    fn what_cannot_be_escaped_is_refused() {
        assert!(apt_conf("a\"b").is_err());
        assert!(hostname("node_1").is_err() && hostname("-a").is_err() && hostname("").is_err());
        assert!(address("192.0.2.256").is_err() && address("<x y's address>").is_err());
        assert!(address("<node1's address>").is_ok());
        assert!(pem("no certificate").is_err());
        assert!(line("two\nlines").is_err());
        assert!(pgpass("").is_err() && basic_auth("é").is_err());
        assert!(postgresql_conf(&json!({"a b": "1"})).is_err());
        assert!(postgresql_conf(&json!({"pg_stat_statements.track": "all\t"})).is_ok());
    }

    #[test]
    fn nothing_is_printed_for_nothing() {
        assert!(yaml(&Value::Null, 0).is_err());
        assert!(text(&Value::Null).is_err());
        assert!(text(&json!(["a"])).is_err());
    }
}
