//! Passwords in config files, as the programs read them: for a workspace that is made again from the hosts.

use crate::secret::Secret;

/// The password of a user of HAProxy's stats page (`stats auth USER:PASSWORD`).
pub(crate) fn of_stats(text: &str, user: &str) -> Option<Secret> {
    text.lines().find_map(|line| {
        let words = words(line);
        let [stats, auth, login, ..] = &words[..] else {
            return None;
        };
        let (name, password) = login.split_once(':')?;
        (stats == "stats" && auth == "auth" && name == user).then(|| Secret::new(password))
    })
}

/// The password that keepalived shares with the other front doors (`auth_pass`).
pub(crate) fn of_vrrp(text: &str) -> Option<Secret> {
    text.lines().find_map(|line| {
        // A brace is a word, with blanks around it or without; `!` begins a comment like `#`.
        let line = line.split('!').next()?.replace(['{', '}'], " ");
        let mut words = words(&line).into_iter();
        words.find(|word| word == "auth_pass")?;
        words.next().map(Secret::new)
    })
}

/// The password of a user in PgBouncer's list: names and passwords in double quotes, which are doubled inside.
pub(crate) fn of_pooler(text: &str, user: &str) -> Option<Secret> {
    text.lines().find_map(|line| {
        let (name, rest) = quoted(line)?;
        let (password, _) = quoted(rest)?;
        (name == user && !password.is_empty()).then(|| Secret::new(password))
    })
}

/// The value of an option of pgBackRest, whose lines are `name=value`.
pub(crate) fn of_option(text: &str, name: &str) -> Option<Secret> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        (key.trim() == name && !value.is_empty()).then(|| Secret::new(value))
    })
}

/// A text in double quotes, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(inner) => {
                value.push('"');
                rest = inner;
            }
            None => return Some((value, after)),
        }
    }
}

/// The words of a line of HAProxy's configuration (its manual, section 2.2): a backslash escapes the next character,
/// nothing is special in single quotes, and a `#` begins a comment. Variables are left as they are.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            ('#', None) => break,
            (blank, None) if blank.is_whitespace() => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secret: Option<Secret>) -> Option<String> {
        secret.map(|it| it.expose().to_owned())
    }

    #[test]
    fn haproxys_quotes_are_read_as_haproxy_reads_them() {
        for (line, password) in [
            ("    stats auth pgherd:s3cret # ours", "s3cret"),
            ("stats auth 'pgherd:it'\\''s a # \"b\"'", "it's a # \"b\""),
            ("\tstats  auth  pgherd:a\\ b\\#c", "a b#c"),
            ("stats auth \"pgherd:x \\\"y\\\"\"", "x \"y\""),
            ("stats auth pgherd:a:b", "a:b"),
        ] {
            let config = format!("listen stats\n  stats enable\n{line}\n");
            assert_eq!(
                text(of_stats(&config, "pgherd")).as_deref(),
                Some(password),
                "{line}"
            );
        }
        for none in [
            "# stats auth pgherd:x",
            "stats auth other:x",
            "stats uri /",
            "",
        ] {
            assert_eq!(text(of_stats(none, "pgherd")), None, "{none}");
        }
    }

    #[test]
    fn other_formats_are_read_too() {
        for config in [
            "authentication {\n  auth_type PASS\n  auth_pass abcd1234\n}\n",
            "authentication { auth_type PASS auth_pass abcd1234 }\n",
            "! auth_pass no\n auth_pass   'abcd1234' # it\n",
        ] {
            assert_eq!(
                text(of_vrrp(config)).as_deref(),
                Some("abcd1234"),
                "{config}"
            );
        }
        let list = "\"other\" \"x\"\n  \"pgherd_pooler\"   \"a\"\"b\"\n";
        assert_eq!(
            text(of_pooler(list, "pgherd_pooler")).as_deref(),
            Some("a\"b")
        );
        assert_eq!(text(of_pooler(list, "nobody")), None);
        let config = "[global]\n# repo1-cipher-pass=no\nrepo1-cipher-pass = k=y \nrepo1-s3-key=\n";
        assert_eq!(
            text(of_option(config, "repo1-cipher-pass")).as_deref(),
            Some("k=y")
        );
        assert_eq!(text(of_option(config, "repo1-s3-key")), None);
    }
}
