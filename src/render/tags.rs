//! The tags of a template with their lines, which the template engine's errors lack.
//!
//! The engine has no line numbers after parsing, and takes an unknown name in a condition for `false`. So the
//! tags are parsed here once more, to find their names and places.

use std::collections::HashMap;

use serde_json::Value;

/// Stands before a line's number in a marked template. No format accepts this character, so no value contains
/// it.
pub(super) const MARK: char = '\u{1}';

/// What is wrong with a template, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub line: usize,
    pub what: String,
    /// The known name that is nearest to the unknown one.
    pub nearest: Option<String>,
}

/// A `{{ … }}` or `{% … %}`.
struct Tag<'a> {
    /// The position of its opening brace.
    at: usize,
    line: usize,
    prints: bool,
    inner: &'a str,
}

/// The tags of `source`, without comments and the content of `raw`.
fn tags(source: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut rest = 0;
    let mut raw = false;
    while let Some(found) = source[rest..].find('{') {
        let at = rest + found;
        let close = match source.as_bytes().get(at + 1) {
            Some(b'#') if !raw => {
                rest = source[at..].find("#}").map_or(source.len(), |end| at + end);
                continue;
            }
            Some(b'{') if !raw => "}}",
            Some(b'%') => "%}",
            _ => {
                rest = at + 1;
                continue;
            }
        };
        let end = at + 2 + length(&source[at + 2..], close);
        let inner = source[at + 2..end].trim_matches('-').trim();
        rest = end;
        if raw && inner != "endraw" {
            rest = at + 1;
            continue;
        }
        raw = inner == "raw";
        tags.push(Tag {
            at,
            line: 1 + source[..at].matches('\n').count(),
            prints: close == "}}",
            inner,
        });
    }
    tags
}

/// The distance to `close`, ignoring strings.
fn length(text: &str, close: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if text[at..].starts_with(close) => return at,
            Some(_) | None => {}
        }
    }
    text.len()
}

/// `source` with every line's number before the tags that can fail on it.
///
/// The output up to an error then ends with the error's line.
pub(super) fn marked(source: &str) -> String {
    let mut out = String::new();
    let mut copied = 0;
    for tag in tags(source) {
        let keyword = tag.inner.split_whitespace().next().unwrap_or_default();
        if tag.prints || matches!(keyword, "if" | "for" | "set" | "filter") {
            out.push_str(&source[copied..tag.at]);
            out.push_str(&format!("{MARK}{}{MARK}", tag.line));
            copied = tag.at;
        }
    }
    out.push_str(&source[copied..]);
    out
}

/// The last line number in the output of a marked template.
pub(super) fn last_mark(rendered: &str) -> Option<usize> {
    rendered.rsplit(MARK).find_map(|part| part.parse().ok())
}

/// Looks for names that `context` does not have, and for text that is printed without a filter.
pub(super) fn check(source: &str, context: &Value) -> Result<(), Finding> {
    let mut scope = Scope {
        context,
        locals: HashMap::from([("loop".to_owned(), None)]),
    };
    for tag in tags(source) {
        scope.tag(&tag).map_err(|(what, nearest)| Finding {
            line: tag.line,
            what,
            nearest,
        })?;
    }
    Ok(())
}

type Wrong = (String, Option<String>);

/// The names that a template may use: the context's, and its own with a sample of their value.
struct Scope<'a> {
    context: &'a Value,
    locals: HashMap<String, Option<Value>>,
}

impl Scope<'_> {
    fn tag(&mut self, tag: &Tag<'_>) -> Result<(), Wrong> {
        let tokens = tokens(tag.inner);
        if tag.prints {
            let joined = tokens.contains(&Token::Sign('~'));
            if joined && !tokens.contains(&Token::Sign('|')) {
                return Err(("text is printed without a filter".into(), None));
            }
            return self.names(&tokens);
        }
        let Some((Token::Name(keyword), tokens)) = tokens.split_first() else {
            return Ok(());
        };
        match *keyword {
            "if" | "elif" => self.names(tokens),
            // The first one is the filter's own name.
            "filter" => self.names(tokens.get(1..).unwrap_or_default()),
            "set" | "set_global" => {
                if let Some(Token::Name(name)) = tokens.first() {
                    self.names(tokens.get(2..).unwrap_or_default())?;
                    self.locals.insert((*name).into(), None);
                }
                Ok(())
            }
            "for" => {
                let at = tokens.iter().position(|token| *token == Token::Name("in"));
                let (names, container) = tokens.split_at(at.unwrap_or(tokens.len()));
                let container = container.get(1..).unwrap_or_default();
                self.names(container)?;
                let sample = match container {
                    [Token::Name(path)] => self.sample(path),
                    _ => None,
                };
                let names = names.iter().filter_map(|token| match token {
                    Token::Name(name) => Some((*name).to_owned()),
                    _ => None,
                });
                let names: Vec<String> = names.collect();
                let one = names.len() == 1;
                self.locals.extend(
                    names
                        .into_iter()
                        .map(|name| (name, sample.clone().filter(|_| one))),
                );
                Ok(())
            }
            "macro" => {
                self.locals
                    .extend(tokens.iter().filter_map(|token| match token {
                        Token::Name(name) => Some(((*name).to_owned(), None)),
                        _ => None,
                    }));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks every name in an expression that stands for a value.
    fn names(&self, tokens: &[Token<'_>]) -> Result<(), Wrong> {
        const WORDS: [&str; 8] = ["and", "or", "not", "in", "is", "true", "false", "self"];
        for (at, token) in tokens.iter().enumerate() {
            let Token::Name(name) = token else { continue };
            let before = at.checked_sub(1).map(|at| &tokens[at]);
            let after = tokens.get(at + 1);
            let a_test = matches!(before, Some(Token::Name("is")))
                || (matches!(before, Some(Token::Name("not")))
                    && at >= 2
                    && tokens[at - 2] == Token::Name("is"));
            let an_argument =
                after == Some(&Token::Sign('=')) && tokens.get(at + 2) != Some(&Token::Sign('='));
            let called = matches!(after, Some(Token::Sign('(' | ':')));
            let behind = matches!(before, Some(Token::Sign('|' | '.' | ':')));
            if !(WORDS.contains(&name.to_lowercase().as_str())
                || a_test
                || an_argument
                || called
                || behind)
            {
                self.known(name)?;
            }
        }
        Ok(())
    }

    fn known(&self, path: &str) -> Result<(), Wrong> {
        let (root, fields) = path.split_once('.').unwrap_or((path, ""));
        let mut value = match self.locals.get(root) {
            Some(None) => return Ok(()),
            Some(Some(sample)) => sample,
            None => match self.context.get(root) {
                Some(value) => value,
                None => {
                    let known = keys(self.context).chain(self.locals.keys().map(String::as_str));
                    return Err(unknown(path, "", root, known));
                }
            },
        };
        let mut so_far = root.to_owned();
        for field in fields.split('.').filter(|field| !field.is_empty()) {
            if !value.is_object() {
                // It may be `null` now and something else another time; lists have numeric indices.
                return Ok(());
            }
            match value.get(field) {
                Some(inner) => value = inner,
                None => return Err(unknown(path, &so_far, field, keys(value))),
            }
            so_far = format!("{so_far}.{field}");
        }
        Ok(())
    }

    /// The value of a loop over `path` in its first turn.
    fn sample(&self, path: &str) -> Option<Value> {
        let mut parts = path.split('.');
        let root = parts.next()?;
        let start = match self.locals.get(root) {
            Some(local) => local.as_ref()?,
            None => self.context.get(root)?,
        };
        parts
            .try_fold(start, |value, part| value.get(part))?
            .get(0)
            .cloned()
    }
}

fn keys(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys().map(String::as_str))
}

fn unknown<'a>(path: &str, above: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Wrong {
    let nearest = nearest(name, known).map(|nearest| match above {
        "" => nearest.to_owned(),
        above => format!("{above}.{nearest}"),
    });
    (format!("unknown variable `{path}`"), nearest)
}

/// The name in `known` that the author of `name` probably meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A dotted name.
    Name(&'a str),
    /// A string or a number.
    Literal,
    Sign(char),
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let (token, length) = match c {
            '"' | '\'' | '`' => {
                let end = rest[1..].find(c).map_or(rest.len(), |end| end + 2);
                (Token::Literal, end)
            }
            _ if c.is_ascii_alphabetic() || c == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
                let end = end.unwrap_or(rest.len());
                (Token::Name(&rest[..end]), end)
            }
            _ if c.is_ascii_digit() => {
                let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'));
                (Token::Literal, end.unwrap_or(rest.len()))
            }
            _ => (Token::Sign(c), c.len_utf8()),
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(source: &str) -> Option<(usize, String, Option<String>)> {
        let context = json!({
            "tls": {"enabled": true}, "node": {"certificate": null},
            "members": [{"name": "node1", "address": "192.0.2.1"}],
            "secrets": {"rest_api": "x"},
        });
        let finding = check(source, &context).err()?;
        Some((finding.line, finding.what, finding.nearest))
    }

    #[test]
    fn known_names_pass() {
        for source in [
            "{% if tls.enabled and not node.certificate %}x{% endif %}",
            "{% for member in members %}{{ member.name | upper | yaml(indent=4) }}{% endfor %}",
            "{% if members is defined and 'a.b.c' in members[0].name %}{% endif %}",
            "{% set role = 'rest_api' %}{{ secrets[role] | yaml }}{{ loop.index }}",
            "{# {{ nothing }} #}{% raw %}{{ nothing }}{% endraw %}",
            "{% if node.certificate and node.certificate.cert == '{{ no }}' %}{% endif %}",
            "acl { path /metrics } { src 1 }",
            "{{ 'a' ~ tls.enabled | yaml }}",
            "{% filter yaml %}{{ tls.enabled }}{% endfilter %}",
        ] {
            assert_eq!(found(source), None, "{source}");
        }
    }

    #[test]
    fn an_unknown_name_is_found_wherever_it_is() {
        for (source, line, name, nearest) in [
            ("\n{% if tsl.enabled %}{% endif %}", 2, "tsl.enabled", "tls"),
            (
                "{% if tls.enabeld %}{% endif %}",
                1,
                "tls.enabeld",
                "tls.enabled",
            ),
            ("{% for m in member %}{% endfor %}", 1, "member", "members"),
            (
                "{% for m in members %}\n\n{{ m.adress }}{% endfor %}",
                3,
                "m.adress",
                "m.address",
            ),
            (
                "{{ secrets.rest_ap | yaml }}",
                1,
                "secrets.rest_ap",
                "secrets.rest_api",
            ),
            ("{% set a = nod %}{{ a }}", 1, "nod", "node"),
        ] {
            let expected = (
                line,
                format!("unknown variable `{name}`"),
                Some(nearest.to_owned()),
            );
            assert_eq!(found(source), Some(expected), "{source}");
        }
    }

    #[test]
    fn joined_text_needs_a_filter() {
        let (line, what, _) = found("\n{{ 'a' ~ tls.enabled }}").unwrap();
        assert_eq!(
            (line, what.as_str()),
            (2, "text is printed without a filter")
        );
    }

    #[test]
    fn marks_stand_before_what_can_fail() {
        let marked = marked("a\n{{ b }}{# {{ c }} #}\n{% if d %}{% else %}{% endif %}");
        assert_eq!(
            marked,
            "a\n\u{1}2\u{1}{{ b }}{# {{ c }} #}\n\u{1}3\u{1}{% if d %}{% else %}{% endif %}"
        );
        assert_eq!(last_mark("a\u{1}2\u{1}7 times\u{1}13\u{1}rest"), Some(13));
    }
}
