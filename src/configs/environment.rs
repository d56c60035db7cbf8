//! Files that systemd reads with `EnvironmentFile=`.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// The variables that systemd sets for a unit.
#[derive(Clone, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Reads a file as `parse_env_file_internal()` in systemd's `env-file.c` does: of two lines for one name,
    /// the last one counts, and a line without an assignment is skipped.
    pub fn parse(text: &str) -> Self {
        let mut variables = BTreeMap::new();
        let mut rest = text.chars().peekable();
        while skip_to_a_name(&mut rest) {
            if let Some(name) = name(&mut rest) {
                variables.insert(name, value(&mut rest));
            }
        }
        Self(variables)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The same without the variables that etcd reads only when it has no data yet.
    pub fn of_a_member(mut self) -> Self {
        self.0.retain(|name, _| !name.starts_with("ETCD_INITIAL_"));
        self
    }

    /// Whether etcd with these variables listens with TLS; `None` if the variables do not say where it listens.
    pub fn listens_with_tls(&self) -> Option<bool> {
        let urls = self.get("ETCD_LISTEN_CLIENT_URLS")?;
        let mut urls = urls.split(',').map(str::trim);
        Some(urls.any(|url| url.to_ascii_lowercase().starts_with("https://")))
    }
}

type Rest<'a> = Peekable<Chars<'a>>;

/// Skips blanks and comments; returns whether anything is left.
fn skip_to_a_name(rest: &mut Rest<'_>) -> bool {
    while let Some(c) = rest.peek().copied() {
        match c {
            '#' | ';' => skip_the_line(rest),
            c if c.is_ascii_whitespace() => {
                rest.next();
            }
            _ => return true,
        }
    }
    false
}

/// A backslash at the end of a comment continues the comment on the next line.
fn skip_the_line(rest: &mut Rest<'_>) {
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                rest.next();
            }
            '\n' | '\r' => return,
            _ => {}
        }
    }
}

/// The name up to the `=`; `None` if the line ends before it.
fn name(rest: &mut Rest<'_>) -> Option<String> {
    let mut name = String::new();
    for c in rest.by_ref() {
        match c {
            '=' => return Some(name.trim_end().to_owned()),
            '\n' | '\r' => return None,
            c => name.push(c),
        }
    }
    None
}

/// The value up to the end of its line. It consists of parts in single or double quotes, and parts without
/// quotes.
fn value(rest: &mut Rest<'_>) -> String {
    let mut value = String::new();
    // Blanks at the end of a part without quotes are dropped.
    let mut end = 0;
    let mut plain = false;
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\r' => break,
            '\'' if !plain => {
                value.extend(rest.by_ref().take_while(|c| *c != '\''));
                end = value.len();
            }
            '"' if !plain => {
                double_quoted(rest, &mut value);
                end = value.len();
            }
            '\\' => {
                plain = true;
                match rest.next() {
                    None | Some('\n' | '\r') => {}
                    Some(escaped) => {
                        value.push(escaped);
                        end = value.len();
                    }
                }
            }
            c if c.is_ascii_whitespace() => {
                if plain {
                    value.push(c);
                }
            }
            c => {
                plain = true;
                value.push(c);
                end = value.len();
            }
        }
    }
    value.truncate(end);
    value
}

fn double_quoted(rest: &mut Rest<'_>, value: &mut String) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => match rest.next() {
                Some(escaped @ ('"' | '\\' | '`' | '$')) => value.push(escaped),
                Some('\n') | None => {}
                Some(other) => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_however_it_is_written() {
        let text = "# A=comment \\\nA=still a comment\n; B=too\n\n  A = 'one' \n\tB=\"t\\\"w\\x\\\no\"\nC=th ree  \n\
                    D='a'\"b\" c\nnothing\nE=\nF=x\\\ny\\ \nB2=$x\nG=\"open";
        let environment = Environment::parse(text);
        let read: Vec<(&str, &str)> = environment
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                ("A", "one"),
                ("B", "t\"w\\xo"),
                ("B2", "$x"),
                ("C", "th ree"),
                ("D", "abc"),
                ("E", ""),
                ("F", "xy "),
                ("G", "open"),
            ]
        );
    }

    #[test]
    fn how_a_member_began_is_nothing_to_it_later() {
        let of = |text| Environment::parse(text).of_a_member();
        let one = of("ETCD_NAME=\"a\"\nETCD_INITIAL_CLUSTER=\"a=http://a\"\n");
        assert!(one == of("# other words\n   ETCD_NAME='a'\n"));
        assert!(one != of("ETCD_NAME='b'\n"));
    }

    #[test]
    fn an_etcd_says_whether_it_listens_with_tls() {
        let says = |text: &str| Environment::parse(text).listens_with_tls();
        for urls in [
            "\"https://0.0.0.0:2379\"",
            "'http://127.0.0.1:1, HTTPS://x:2379'",
        ] {
            let text = format!("  ETCD_LISTEN_CLIENT_URLS={urls}\n");
            assert_eq!(says(&text), Some(true));
        }
        assert_eq!(
            says("ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379"),
            Some(false)
        );
        assert_eq!(says("ETCD_NAME=\"https://\"\n"), None);
    }
}
