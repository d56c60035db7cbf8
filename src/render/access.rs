//! Who may log in to PostgreSQL, read back from Patroni's config as it was rendered.
//!
//! Templates are the user's to change, so that the rendered file and not the inventory says what is wanted.

use super::top_level;
use crate::error::{Code, Error, Result};

/// The lines of `pg_hba.conf` and `pg_ident.conf`; `None` for a file that the config leaves alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub hba: Option<Vec<String>>,
    pub ident: Option<Vec<String>>,
}

/// Reads them from `patroni.yml`; an error where a list is written in a way that is not read here.
pub fn access(yaml: &str) -> Result<Access> {
    let section = top_level(yaml, "postgresql");
    Ok(Access {
        hba: list(&section, "pg_hba")?,
        ident: list(&section, "pg_ident")?,
    })
}

fn list(section: &[String], key: &str) -> Result<Option<Vec<String>>> {
    let head = format!("  {key}:");
    let Some(at) = section.iter().position(|line| line.starts_with(&head)) else {
        return Ok(None);
    };
    let strange = |line: &str| {
        Error::new(
            Code::AnswerUnusable,
            format!("{key} in Patroni's config is written in a way that cannot be compared"),
        )
        .cause(line.trim())
    };
    if section[at] != head {
        return Err(strange(&section[at]));
    }
    // An entry may be indented as far as its key.
    let below = section[at + 1..].iter();
    let entries = below.take_while(|line| line.starts_with("   ") || line.starts_with("  - "));
    let lines: Result<Vec<String>> = entries
        .map(|line| {
            let entry = line.trim_start().strip_prefix("- ").map(str::trim);
            entry.and_then(scalar).ok_or_else(|| strange(line))
        })
        .collect();
    lines.map(Some)
}

/// One entry on one line: plain, or in quotes of either kind.
fn scalar(text: &str) -> Option<String> {
    match text.chars().next()? {
        '"' => serde_json::from_str(text).ok(),
        '\'' => {
            let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
            Some(inner.replace("''", "'"))
        }
        '|' | '>' | '&' | '*' | '!' | '{' | '[' => None,
        _ => Some(text.split(" #").next()?.trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_however_they_are_quoted() {
        let yaml = "name: x\npostgresql:\n  listen: 0.0.0.0\n  pg_hba:\n    # why\n    - local all all peer # here\n\
                    \n    - \"host all \\\"A b\\\" 192.0.2.1/32 reject\"\n    - 'host all it''s all md5'\n  \
                    pg_ident:\n  - pgherd root postgres\n  parameters:\n    a: b\ntags:\n  pg_hba: no\n";
        let access = access(yaml).unwrap();
        assert_eq!(
            access.hba.unwrap(),
            [
                "local all all peer",
                "host all \"A b\" 192.0.2.1/32 reject",
                "host all it's all md5"
            ]
        );
        assert_eq!(access.ident.unwrap(), ["pgherd root postgres"]);
    }

    #[test]
    fn what_cannot_be_read_is_no_empty_list() {
        assert_eq!(
            access("postgresql:\n  listen: x\n").unwrap(),
            Access::default()
        );
        for list in [
            "pg_hba: [local all all peer]\n",
            "pg_hba:\n    - |\n      local all all peer\n",
            "pg_hba:\n    - local all all\n      peer\n",
            "pg_hba:\n    - \"local all\n",
        ] {
            let yaml = format!("postgresql:\n  {list}");
            assert!(access(&yaml).is_err(), "{yaml}");
        }
    }
}
