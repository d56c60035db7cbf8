//! Checks that messages do not say `1 hosts`.

use super::*;

/// What is counted in messages.
const NOUNS: [&str; 13] = [
    "commits",
    "connections",
    "databases",
    "entries",
    "failures",
    "files",
    "hosts",
    "members",
    "replicas",
    "sessions",
    "slots",
    "spans",
    "steps",
];

/// A noun in the plural that follows something other than a number, or a number that is never 1.
const RIGHT: [(&str, &str); 3] = [
    ("pgherd: {} hosts of", "the hosts of a role"),
    ("all {many} replicas", "another line is for one"),
    ("{members} members and", "the only one cannot leave"),
];

/// A number before a noun must come from `quantity::count`.
#[test]
fn a_count_agrees_with_its_noun() {
    assert_eq!(
        disagreeing("a(\"{} hosts\"); b(\"{failed} failures so\")").len(),
        2
    );
    assert!(disagreeing("a(\"{} hostsmen, the {} of all hosts\")").is_empty());
    let mut wrong = Vec::new();
    let mut unused: BTreeSet<&str> = RIGHT.iter().map(|(text, _)| *text).collect();
    for (file, text) in sources() {
        for place in disagreeing(&text) {
            match RIGHT.iter().find(|(right, _)| place.contains(right)) {
                Some((right, _)) => {
                    unused.remove(right);
                }
                None => wrong.push(format!("src/{}: {place}", file.join("/"))),
            }
        }
    }
    assert!(wrong.is_empty(), "use `quantity::count`: {wrong:#?}");
    assert!(unused.is_empty(), "no longer needed in RIGHT: {unused:?}");
}

/// The places at which a noun in the plural follows a placeholder, with the text around them.
fn disagreeing(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("} ") {
        let after = &text[at + 2..];
        let noun = after.split(|c: char| !c.is_ascii_lowercase()).next();
        if noun.is_none_or(|noun| !NOUNS.contains(&noun)) {
            continue;
        }
        let begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = after.find('\n').unwrap_or(after.len());
        found.push(format!("{}{}", &text[begin..at + 2], &after[..end]));
    }
    found
}
