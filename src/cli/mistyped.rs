//! A command line that cannot be read: what is said of it, to people and with `--json` to programs.

use std::ffi::OsString;

use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Cli;
use crate::{
    error::{Code, Error},
    report::{Terminal, error_json},
};

/// The command line of this process. An unknown verb is answered with similar ones, but never with one that takes
/// something away.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|mut error| {
        without_harm(&mut error);
        // What help and the version say is not an error, and goes to stdout by itself.
        if error.use_stderr() && asks_for_json(std::env::args_os().skip(1)) {
            let document = error_json(&told(&error));
            Terminal::detect(true, 0).print(&document.to_string());
        }
        error.exit()
    })
}

/// Verbs that nobody should type because they were suggested.
const HARMFUL: [&str; 6] = [
    "down", "failover", "reinit", "replace", "restore", "upgrade",
];

fn without_harm(error: &mut clap::Error) {
    let Some(value) = error.remove(ContextKind::SuggestedSubcommand) else {
        return;
    };
    let suggested = match value {
        ContextValue::Strings(verbs) => verbs,
        ContextValue::String(verb) => vec![verb],
        _ => Vec::new(),
    };
    let harmless: Vec<String> = suggested
        .into_iter()
        .filter(|verb| !HARMFUL.contains(&verb.as_str()))
        .collect();
    if harmless.is_empty() {
        // It would leave a blank line.
        error.remove(ContextKind::Suggested);
    } else {
        let harmless = ContextValue::Strings(harmless);
        error.insert(ContextKind::SuggestedSubcommand, harmless);
    }
}

/// Whether the words have `--json`. What comes after `--` is for another program.
fn asks_for_json(words: impl Iterator<Item = OsString>) -> bool {
    let mut own = words.take_while(|word| word != "--");
    own.any(|word| word == "--json")
}

/// The parts of clap's text: what is wrong, tips, and how it is used.
fn told(error: &clap::Error) -> Error {
    let fails = |what: &str| Error::new(Code::InvalidArguments, what);
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return fails("a verb is missing");
    }
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(str::trim_end);
    let what = parts.next().unwrap_or_default();
    let mut told = fails(what.strip_prefix("error: ").unwrap_or(what));
    for part in parts {
        if let Some(usage) = part.strip_prefix("Usage: ") {
            told = told.excerpt("usage", usage);
        }
        let lines = part.lines().map(str::trim_start);
        for tip in lines.filter_map(|line| line.strip_prefix("tip: ")) {
            told = told.hint(tip);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(words: &[&str]) -> Error {
        let words = ["pgherd"].iter().chain(words);
        told(&Cli::try_parse_from(words).unwrap_err())
    }

    #[test]
    fn json_is_asked_for_before_the_words_of_another_program() {
        let asks = |words: &[&str]| asks_for_json(words.iter().map(OsString::from));
        assert!(asks(&["--json", "plan"]) && asks(&["plan", "--json"]));
        assert!(!asks(&["plan"]) && !asks(&["psql", "--", "--json"]));
    }

    #[test]
    fn a_mistake_is_told_in_parts() {
        let error = mistake(&["plan", "--chek"]);
        assert_eq!(error.what(), "unexpected argument '--chek' found");
        assert_eq!(error.hints(), ["a similar argument exists: '--check'"]);
        assert_eq!(error.excerpts()[0].text, "pgherd plan --check");
        let error = mistake(&["ssh"]);
        assert!(error.what().contains("<HOST>"), "{}", error.what());
        assert_eq!(mistake(&[]).what(), "a verb is missing");
    }
}
