//! The two output streams, what they support, and what must not appear on them.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Color, Style};
use serde::Serialize;

use super::{mask::Masks, text};
use crate::secret::Secret;

/// What one stream can show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Side {
    pub terminal: bool,
    /// Colours are wanted and supported (`NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM`).
    pub colour: bool,
    /// Lines and marks beyond ASCII are supported.
    pub unicode: bool,
    /// The width, if there is one.
    pub columns: Option<usize>,
}

impl Side {
    pub(super) fn paint(self) -> Paint {
        Paint(self.colour)
    }
}

/// The program's side to the user, found out once at the start.
///
/// Documents (tables, plans, JSON) go to stdout with [`Terminal::print`], everything else to stderr with
/// [`Terminal::say`]. Secrets that were given to [`Terminal::conceal`] appear on neither.
#[derive(Debug, Clone, Default)]
pub struct Terminal {
    /// `--json`.
    pub json: bool,
    /// How often `-v` was given.
    pub verbose: u8,
    pub stdout: Side,
    pub stderr: Side,
    /// Somebody can be asked.
    pub stdin_terminal: bool,
    pub(super) lively: bool,
    pub(super) masks: Masks,
    /// Stdout has the verb's one document already.
    pub(super) answered: Arc<AtomicBool>,
}

impl Terminal {
    pub fn detect(json: bool, verbose: u8) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let term = std::env::var("TERM").unwrap_or_default();
        let dumb = term.is_empty() || term == "dumb";
        let unicode = !dumb && speaks_unicode(&term, |name| std::env::var(name).ok());
        let out = Side {
            terminal: stdout.is_terminal(),
            colour: AutoStream::choice(&stdout) != ColorChoice::Never,
            unicode: unicode && stdout.is_terminal(),
            columns: columns(&console::Term::stdout()),
        };
        let err = Side {
            terminal: stderr.is_terminal(),
            colour: AutoStream::choice(&stderr) != ColorChoice::Never,
            unicode: unicode && stderr.is_terminal(),
            columns: columns(&console::Term::stderr()),
        };
        Self {
            json,
            verbose,
            stdout: out,
            stderr: err,
            stdin_terminal: io::stdin().is_terminal(),
            lively: err.terminal && !dumb && !json,
            masks: Masks::default(),
            answered: Arc::default(),
        }
    }

    /// The same terminal for a verb that prints one document: its progress is for people only.
    pub fn for_people(&self) -> Self {
        Self {
            json: false,
            ..self.clone()
        }
    }

    /// Masks these secrets in everything that is written from now on: output, errors, logs.
    pub fn conceal<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) {
        self.masks.add(secrets);
    }

    /// What stdout can show now: a window may have another size at the end of a run.
    pub(super) fn stdout_now(&self) -> Side {
        let columns = columns(&console::Term::stdout());
        Side {
            columns: columns
                .filter(|_| self.stdout.terminal)
                .or(self.stdout.columns),
            ..self.stdout
        }
    }

    /// Writes a document to stdout, with a newline at its end.
    pub fn print(&self, text: &str) {
        write_quietly(io::stdout().lock(), &self.masks.hide(text));
    }

    /// The text without secrets, for a file.
    pub fn hide(&self, text: &str) -> String {
        self.masks.hide(text).into_owned()
    }

    /// Whether a person sees what is written to stdout.
    pub fn shows_output(&self) -> bool {
        self.stdout.terminal
    }

    /// Writes a document that holds a secret to a program. On a terminal, the secret is masked.
    pub fn hand_over(&self, text: &str) {
        match self.shows_output() {
            true => self.print(text),
            false => write_quietly(io::stdout().lock(), text),
        }
    }

    /// Writes to people, on stderr, with a newline at the end.
    pub fn say(&self, text: &str) {
        write_quietly(io::stderr().lock(), &self.masks.hide(text));
    }

    /// Writes prose to people, on stderr: a terminal that is too narrow does not break its words.
    pub fn explain(&self, text: &str) {
        match self.stderr.columns.filter(|_| self.stderr.terminal) {
            Some(columns) => {
                let lines = text.lines().map(|line| text::wrap(line, columns));
                self.say(&lines.collect::<Vec<_>>().join("\n"));
            }
            None => self.say(text),
        }
    }

    /// Writes to people, and leaves the line open for their answer.
    pub(super) fn ask(&self, prompt: &str) {
        let mut out = io::stderr().lock();
        let _ = write!(out, "{}", self.masks.hide(prompt)).and_then(|()| out.flush());
    }

    /// Writes one JSON document to stdout: indented for a person, otherwise on one line.
    pub fn print_json(&self, document: &impl Serialize) {
        // This can fail only for maps with keys that are no strings, and there are none.
        let Ok(mut value) = serde_json::to_value(document) else {
            return;
        };
        self.masks.hide_in_json(&mut value);
        self.answered.store(true, Ordering::Relaxed);
        let text = if self.stdout.terminal {
            format!("{value:#}")
        } else {
            value.to_string()
        };
        write_quietly(io::stdout().lock(), &text);
    }
}

/// A reader that has gone (`| head`) is no failure.
fn write_quietly(mut out: impl Write, text: &str) {
    let end = if text.ends_with('\n') || text.is_empty() {
        ""
    } else {
        "\n"
    };
    let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
}

fn columns(term: &console::Term) -> Option<usize> {
    let (_, columns) = term.size_checked()?;
    (columns > 0).then_some(usize::from(columns))
}

/// Whether marks and box lines will probably be visible.
///
/// On a fresh server, it is common that no locale is set, although the terminal supports UTF-8. A locale that
/// names `C` or `POSIX` was chosen. The kernel's own console lacks the glyphs.
fn speaks_unicode(term: &str, variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty());
    term != "linux" && !matches!(locale.as_deref(), Some("C" | "POSIX"))
}

pub(super) const BAD: Style = fg(AnsiColor::Red).bold();
pub(super) const GOOD: Style = fg(AnsiColor::Green);
pub(super) const WARN: Style = fg(AnsiColor::Yellow).bold();
pub(super) const HINT: Style = fg(AnsiColor::Cyan);
pub(super) const BUSY: Style = fg(AnsiColor::Cyan);
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const PLAIN: Style = Style::new();

pub(super) const fn fg(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// Styles text, or leaves it unchanged if colours are off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) const OFF: Paint = Paint(false);

    pub(super) fn on(self, style: Style, text: impl fmt::Display) -> String {
        if self.0 {
            format!("{style}{text}{style:#}")
        } else {
            text.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_must_be_chosen_to_lose_unicode() {
        let with = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            }
        };
        assert!(speaks_unicode("xterm", with(&[])));
        assert!(speaks_unicode("xterm", with(&[("LANG", "en_GB.UTF-8")])));
        assert!(!speaks_unicode("xterm", with(&[("LANG", "C")])));
        assert!(speaks_unicode(
            "xterm",
            with(&[("LC_ALL", "C.UTF-8"), ("LANG", "C")])
        ));
        assert!(!speaks_unicode("linux", with(&[("LANG", "en_GB.UTF-8")])));
    }

    #[test]
    fn paint_leaves_no_trace_when_off() {
        assert_eq!(Paint::OFF.on(BAD, "x"), "x");
        assert_eq!(Paint(true).on(DIM, "x"), "\u{1b}[2mx\u{1b}[0m");
    }

    #[test]
    fn writing_to_a_closed_pipe_is_no_failure() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        write_quietly(Closed, "text");
    }
}
