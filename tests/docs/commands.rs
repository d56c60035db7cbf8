//! Every command in the documentation is one that there is.

use clap::{
    CommandFactory as _,
    error::{ContextKind, ErrorKind},
};
use pgherd::cli::Cli;
use regex::Regex;

use super::*;

/// Lines of code are commands as somebody types them: verb, options, arguments and their values.
#[test]
fn every_command_that_a_page_shows_is_understood() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in all_pages() {
        for line in typed(&read(&page)) {
            for words in commands(&line) {
                count += 1;
                if let Some(why) = mistake(&words, true) {
                    wrong.push(format!("{}: {line}\n  {why}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} commands were found");
}

/// In a sentence, a command may be cut short: its verb and its options must be right.
#[test]
fn every_command_that_a_sentence_names_is_there() {
    let span = Regex::new("`(pgherd [^`]+)`").unwrap();
    let mut wrong = Vec::new();
    for page in all_pages() {
        let text = read(&page);
        let prose: Vec<&str> = lines(&text)
            .into_iter()
            .filter_map(|(code, line)| (!code).then_some(line))
            .collect();
        let prose = prose.join("\n");
        for found in span.captures_iter(&prose) {
            let line = found[1].split_whitespace().collect::<Vec<_>>().join(" ");
            for words in commands(&line) {
                if let Some(why) = mistake(&words, false) {
                    wrong.push(format!("{}: {line}\n  {why}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines of code of a page; one that ends with a backslash goes on in the next.
fn typed(text: &str) -> Vec<String> {
    let mut typed: Vec<String> = Vec::new();
    let mut goes_on = false;
    for (code, line) in lines(text) {
        if !code {
            goes_on = false;
            continue;
        }
        let (line, more) = match line.trim_end().strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        match typed.last_mut().filter(|_| goes_on) {
            Some(last) => last.push_str(line.trim_start()),
            None => typed.push(line.trim_start().to_owned()),
        }
        goes_on = more;
    }
    typed
}

/// The arguments of each `pgherd` that a line of shell begins.
fn commands(line: &str) -> Vec<Vec<String>> {
    let begin =
        Regex::new(r"(?:^|\$ |\$\(|\| |&& |; |! )(?:sudo )?(?:target/debug/)?pgherd (\S.*)")
            .unwrap();
    let mut commands = Vec::new();
    let mut rest = line;
    while let Some(found) = begin.captures(rest) {
        let arguments = found.get(1).unwrap();
        commands.push(words(arguments.as_str()));
        rest = arguments.as_str();
    }
    commands
}

/// The words of a command, up to what ends it for a shell.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | '<' | '&' | ';' | ')') => break,
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What is wrong with these arguments. In a sentence, only an unknown verb or an unknown option is.
fn mistake(words: &[String], whole: bool) -> Option<String> {
    let given = std::iter::once("pgherd").chain(words.iter().map(String::as_str));
    let error = Cli::command().try_get_matches_from(given).err()?;
    let wrong = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => false,
        ErrorKind::InvalidSubcommand => true,
        ErrorKind::UnknownArgument => {
            let named = error.get(ContextKind::InvalidArg);
            whole || named.is_some_and(|it| it.to_string().starts_with('-'))
        }
        // A word in capitals stands for a value of the reader's.
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let stands_for = |word: &String| word.chars().all(|c| c.is_ascii_uppercase());
            whole && !words.iter().any(stands_for)
        }
        _ => whole,
    };
    wrong.then(|| {
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

/// The tests above can fail.
#[test]
fn a_command_that_there_is_not_is_found() {
    let told = |line: &str, whole| {
        let commands = commands(line);
        assert_eq!(commands.len(), 1, "{line}");
        mistake(&commands[0], whole)
    };
    for right in [
        "pgherd status --json | jq '.members'",
        "$ pgherd -i 'prod site.yaml' up --yes >log",
        "psql \"$(pgherd connect --user shop)\"",
        "pgherd drill all --runs N    # as often as you like",
        "pgherd ssh node1 -- sudo patronictl list",
    ] {
        assert_eq!(told(right, true), None, "{right}");
    }
    for wrong in [
        "pgherd statsu",
        "pgherd up --force",
        "pgherd drill crash",
        "pgherd ssh node1 hostname",
    ] {
        assert!(told(wrong, true).is_some(), "{wrong}");
    }
    assert!(told("pgherd restart --now", false).is_some());
    assert_eq!(told("pgherd restore --table", false), None);
    assert_eq!(
        typed("a\n\n    pgherd up \\\n      --yes\n"),
        ["pgherd up --yes"]
    );
}
