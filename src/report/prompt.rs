//! Questions, for people only.

use std::io::{self, BufRead};

use tokio::sync::oneshot;

use super::{
    terminal::{BOLD, Terminal},
    text,
};
use crate::error::{Code, Error, Result};

/// What counts as consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected<'a> {
    /// `y` or `yes`; Enter alone means no.
    Yes,
    /// This very word, for what cannot be undone.
    Word(&'a str),
}

/// Asks on stderr. Everything but consent means no, also Ctrl-C and the end of input.
///
/// Fails with [`crate::error::Kind::Input`] if nobody can be asked. While it waits, Ctrl-C does not end the
/// process, and Tokio keeps it so afterwards: code that continues must listen for it.
pub async fn confirm(terminal: &Terminal, question: &str, expected: Expected<'_>) -> Result<bool> {
    if !terminal.stdin_terminal {
        return Err(Error::new(
            Code::ConfirmationNeeded,
            "this needs a confirmation, and standard input is not a terminal",
        )
        .hint("add --yes to go ahead without a question"));
    }
    let paint = terminal.stderr.paint();
    let prompt = match expected {
        Expected::Yes => format!("{} [y/N] ", paint.on(BOLD, question)),
        Expected::Word(word) => format!(
            "{}\nType {} to confirm: ",
            paint.on(BOLD, question),
            paint.on(BOLD, word)
        ),
    };
    terminal.ask(&prompt);
    let (sender, answer) = oneshot::channel();
    // Not Tokio's pool: a read without an answer would keep the runtime from ending.
    std::thread::spawn(move || {
        let _ = sender.send(read_line(io::stdin().lock()));
    });
    tokio::select! {
        line = answer => Ok(consents(line.ok().flatten().as_deref(), expected, terminal)),
        _ = tokio::signal::ctrl_c() => {
            terminal.say("\n");
            Ok(false)
        }
    }
}

fn consents(line: Option<&str>, expected: Expected<'_>, terminal: &Terminal) -> bool {
    match line {
        Some(line) => agrees(line, expected),
        None => {
            // The prompt's line is still open.
            terminal.say("\n");
            false
        }
    }
}

fn read_line(mut input: impl BufRead) -> Option<String> {
    let mut line = String::new();
    match input.read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line),
    }
}

fn agrees(line: &str, expected: Expected<'_>) -> bool {
    let answer = text::one_line(line);
    let answer = answer.trim();
    match expected {
        Expected::Yes => matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"),
        Expected::Word(word) => answer == word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn without_a_terminal_it_points_to_the_flag() {
        let error = confirm(&Terminal::default(), "Sure?", Expected::Yes)
            .await
            .expect_err("there is nobody to ask");
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.hints()[0].contains("--yes"));
    }

    #[test]
    fn only_consent_is_consent() {
        for (line, agreed) in [
            ("y\n", true),
            ("YES\n", true),
            (" yes \r\n", true),
            ("\n", false),
            ("n\n", false),
            ("yesterday\n", false),
        ] {
            assert_eq!(agrees(line, Expected::Yes), agreed, "{line:?}");
        }
        assert!(agrees("postgres\n", Expected::Word("postgres")));
        assert!(!agrees("Postgres\n", Expected::Word("postgres")));
        assert!(!agrees("y\n", Expected::Word("postgres")));
    }

    #[test]
    fn the_end_of_input_is_no_answer() {
        assert_eq!(read_line(io::empty()), None);
        assert_eq!(read_line(&b"y"[..]), Some("y".into()));
    }
}
