//! Finds the places in a config file where a secret belongs, whatever its value.

use crate::secret::MASK;

/// What the next lines belong to.
enum Inside {
    Nothing,
    /// A private key, up to its `-----END`.
    Key,
    /// A string that began with this quote, up to the next one.
    Quotes(char),
    /// A value that is indented more than its key.
    Deeper(usize),
}

/// Masks every value in a place for a secret, line by line.
pub(super) fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = Inside::Nothing;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        match inside {
            Inside::Key => {
                if bare.contains("-----END") {
                    inside = Inside::Nothing;
                }
                continue;
            }
            Inside::Quotes(quote) => {
                if bare.contains(quote) {
                    inside = Inside::Nothing;
                }
                continue;
            }
            Inside::Deeper(than) if bare.trim().is_empty() || indent(bare) > than => continue,
            Inside::Deeper(_) | Inside::Nothing => inside = Inside::Nothing,
        }
        out.push_str(&mask_line(bare, &mut inside));
        out.push_str(&line[bare.len()..]);
    }
    out
}

fn mask_line(line: &str, inside: &mut Inside) -> String {
    if let Some(at) = line.find("-----BEGIN ")
        && line[at..].contains("PRIVATE KEY-----")
    {
        if !line.contains("-----END") {
            *inside = Inside::Key;
        }
        return format!("{}{MASK}", &line[..at]);
    }
    if let Some(masked) = haproxy_login(line) {
        return masked;
    }
    let mut out = String::new();
    let mut rest = line;
    while let Some((start, sign)) = next_value(rest) {
        let at_start = rest.len() == line.len() && is_first_word(&rest[..start]);
        out.push_str(&rest[..start]);
        let value = &rest[start..];
        out.push_str(if value.is_empty() && sign == ':' {
            ""
        } else {
            MASK
        });
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => match closing(value, quote) {
                Some(end) => end,
                None => {
                    *inside = Inside::Quotes(quote);
                    value.len()
                }
            },
            _ if sign == ':' || at_start => {
                *inside = Inside::Deeper(indent(line));
                value.len()
            }
            _ => value.find(char::is_whitespace).unwrap_or(value.len()),
        };
        rest = &value[end..];
    }
    out.push_str(rest);
    mask_urls(&out)
}

/// HAProxy's `stats auth USER:PASSWORD`, and the passwords of its `userlist`.
fn haproxy_login(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let start = match words.as_slice() {
        ["stats", "auth", login, ..] => {
            let login = line.find(login)?;
            login + line[login..].find(':')? + 1
        }
        // Passwords in keepalived's config.
        ["auth_pass", password, ..] => line.find(password)?,
        ["user", _, "password" | "insecure-password", ..] => {
            let word = line.find("password")?;
            word + "password".len() + 1
        }
        _ => return None,
    };
    Some(format!("{}{MASK}", line.get(..start)?))
}

/// Where the value of the next secret's key begins, and the sign between key and value.
fn next_value(text: &str) -> Option<(usize, char)> {
    const KEYS: [&str; 4] = ["password", "passwd", "passphrase", "secret"];
    let part_of_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    for (at, sign) in text.match_indices([':', '=']) {
        let before = text[..at].trim_end().trim_end_matches(['"', '\'']);
        let key_start = before.rfind(|c| !part_of_key(c)).map_or(0, |found| {
            found + before[found..].chars().next().map_or(1, char::len_utf8)
        });
        let key = before[key_start..].to_ascii_lowercase();
        if KEYS.iter().any(|secret| key.ends_with(secret)) || key == "auth" {
            let value = &text[at + 1..];
            let blanks = value.len() - value.trim_start().len();
            return Some((at + 1 + blanks, sign.chars().next()?));
        }
    }
    None
}

/// Whether one word stands before the sign, as in `KEY=value`.
fn is_first_word(before: &str) -> bool {
    !before.trim().contains(char::is_whitespace)
}

/// Where a quoted value ends: in bytes, with its quotes.
fn closing(value: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `scheme://user:password@host`.
fn mask_urls(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | ','))
            .unwrap_or(after.len());
        let (host, tail) = after.split_at(end);
        match host
            .rsplit_once('@')
            .and_then(|(login, host)| Some((login.split_once(':')?.0, host)))
        {
            Some((user, host)) => out.push_str(&format!("{user}:{MASK}@{host}")),
            None => out.push_str(host),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}
