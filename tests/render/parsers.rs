//! Parsers of formats without a crate, written after each program's own source.

use std::collections::BTreeMap;

/// HAProxy's configuration, as words by line.
///
/// After `parse_line()` in `src/tools.c`. An environment variable would be expanded: nothing rendered may use
/// one.
pub(crate) fn haproxy(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .map(haproxy_line)
        .filter(|words| !words.is_empty())
        .collect()
}

fn haproxy_line(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut double, mut single) = (false, false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let quoted = double || single;
        match c {
            '"' if !single => {
                double = !double;
                word.get_or_insert_default();
            }
            '\'' if !double => {
                single = !single;
                word.get_or_insert_default();
            }
            '\\' if !single => {
                let next = chars.next().expect("nothing ends in a backslash");
                let c = match next {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'x' => panic!("no such escape is ever written"),
                    ' ' | '\\' | '#' | '\'' | '"' | '$' => next,
                    _ => panic!("an unknown escape: {next}"),
                };
                word.get_or_insert_default().push(c);
            }
            '#' if !quoted => break,
            '$' if double => panic!("a variable would be expanded"),
            c if c.is_ascii_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!double && !single, "a quote is left open: {line}");
    words.extend(word);
    words
}

/// The file of an `EnvironmentFile=`, after `parse_env_file_internal()` in systemd's `env-file.c`.
pub(crate) fn environment_file(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (name, value) = line.split_once('=').expect("an assignment");
        assert!(
            name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'),
            "a blank or worse in a name: {line}"
        );
        let inner = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .expect("quotes");
        let mut out = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next().expect("an escaped character") {
                    next @ ('"' | '\\' | '`' | '$') => out.push(next),
                    next => out.extend(['\\', next]),
                },
                '"' => panic!("a quote closes too early: {line}"),
                // A shell would expand these.
                '$' | '`' => panic!("not for a shell: {line}"),
                c => out.push(c),
            }
        }
        variables.insert(name.to_owned(), out);
    }
    variables
}

/// A setting that takes paths, after `config_parse_unit_mounts_for()`: words by `extract_first_word()` with
/// `EXTRACT_UNQUOTE`, then specifiers.
pub(crate) fn systemd(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => word
                .get_or_insert_default()
                .push(chars.next().expect("an escaped character")),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (' ' | '\t' | '\n' | '\r', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote is left open: {value}");
    words.extend(word);
    words.iter().map(|word| specifiers(word)).collect()
}

fn specifiers(word: &str) -> String {
    let mut out = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            assert_eq!(
                chars.next(),
                Some('%'),
                "a specifier would be expanded: {word}"
            );
        }
        out.push(c);
    }
    out
}
