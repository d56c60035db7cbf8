//! The inventory's file: reads it, and shows a place in it.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _},
    path::Path,
    sync::OnceLock,
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{placed::Span, problem::Problem};
use crate::{
    error::{Code, Error, Result},
    given,
};

/// What standard input held. It can be read only once, and a verb may need it again.
static STDIN: OnceLock<Vec<u8>> = OnceLock::new();

/// Whether this is the path that stands for standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// An inventory's path for people.
pub(super) fn shown(path: &Path) -> Cow<'_, str> {
    match is_stdin(path) {
        true => "<stdin>".into(),
        false => path.to_string_lossy(),
    }
}

/// The bytes of standard input.
fn from_stdin() -> Result<Vec<u8>> {
    if let Some(bytes) = STDIN.get() {
        return Ok(bytes.clone());
    }
    if io::stdin().is_terminal() {
        return Err(Error::new(
            Code::InventoryNotFound,
            "<stdin>: there is no inventory on standard input, which is a terminal",
        )
        .hint("lead one there: terraform output -raw inventory | pgherd -i - VERB"));
    }
    let bytes = given::take(io::stdin().lock()).map_err(|cause| {
        Error::new(Code::FileUnusable, "<stdin>: the inventory cannot be read").because(cause)
    })?;
    if bytes.trim_ascii().is_empty() {
        return Err(Error::new(
            Code::InventoryNotFound,
            "<stdin>: there is no inventory on standard input, which is empty",
        )
        .hint("see what the command before it prints, and whether it has failed"));
    }
    Ok(STDIN.get_or_init(|| bytes).clone())
}

/// Reads an inventory, from its file or from standard input.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = match is_stdin(path) {
        true => from_stdin()?,
        false => from_file(path)?,
    };
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        // The text before the first invalid byte is as long as in the file.
        Source::new(path, &text).error(vec![
            Problem::new(valid..valid, "the inventory is not UTF-8 text")
                .label("the first byte that is not")
                .hint("save the file as UTF-8"),
        ])
    })
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of an operating system are many"
)]
fn from_file(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let (bytes, _) = given::read(path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Error::new(
            Code::InventoryNotFound,
            format!("{shown}: there is no such inventory"),
        )
        .hint(format!(
            "`pgherd init -o {shown}` writes one that works as it is"
        ))
        .hint("`-i FILE` or PGHERD_INVENTORY names another"),
        io::ErrorKind::IsADirectory => Error::new(
            Code::FileUnusable,
            format!("{shown}: this is a folder, not an inventory"),
        )
        .hint(format!(
            "name a file in it: `-i {}`",
            path.join("pgherd.yaml").display()
        )),
        _ => Error::new(
            Code::FileUnusable,
            format!("{shown}: the inventory cannot be read"),
        )
        .because(cause),
    })?;
    Ok(bytes)
}

/// An inventory's text with the name of its file.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text }
    }

    /// The bytes of a character, given its line and column, counted from 1.
    pub(super) fn span_of_position(&self, line: u64, column: u64) -> Span {
        let mut start = 0;
        for (number, text) in (1..).zip(self.text.split_inclusive('\n')) {
            if number == line {
                let skipped = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
                let within: usize = text.chars().take(skipped).map(char::len_utf8).sum();
                start += within;
                return start..start + 1;
            }
            start += text.len();
        }
        self.text.len()..self.text.len()
    }

    /// A top-level key in block style. Marking the key is better than marking its value, which may have many
    /// lines.
    pub(super) fn top_level_key(&self, key: &str) -> Option<Span> {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            if line
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(':'))
            {
                return Some(start..start + key.len());
            }
            start += line.len();
        }
        None
    }

    /// The text of a place.
    pub(super) fn slice(&self, at: &Span) -> &'a str {
        let at = self.within_a_line(at);
        &self.text[at]
    }

    /// One error for all problems, sorted by their place in the file.
    pub(super) fn error(&self, mut problems: Vec<Problem>) -> Error {
        problems.sort_by_key(|problem| problem.at.start);
        let mut errors: Vec<Error> = problems.iter().map(|problem| self.one(problem)).collect();
        match errors.len() {
            1 => errors.remove(0),
            count => Error::several(format!("{}: {count} mistakes", shown(self.path)), errors),
        }
    }

    fn one(&self, problem: &Problem) -> Error {
        let at = self.within_a_line(&problem.at);
        let (line, column) = self.position(at.start);
        let place = format!("{}:{line}:{column}", shown(self.path));
        let error = Error::new(Code::InventoryInvalid, format!("{place}: {}", problem.what))
            .excerpt(place, self.frame(at, problem));
        problem.hints.iter().fold(error, Error::hint)
    }

    fn frame(&self, at: Span, problem: &Problem) -> String {
        let mut snippet = Snippet::source(self.text).annotation(
            AnnotationKind::Primary
                .span(at)
                .label(problem.label.as_deref()),
        );
        for (also, label) in &problem.also {
            snippet = snippet.annotation(
                AnnotationKind::Context
                    .span(self.within_a_line(also))
                    .label(label.as_str()),
            );
        }
        Renderer::plain().render(&[Group::with_level(Level::ERROR).element(snippet)])
    }

    /// Line and column, counted from 1; the column counts characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |last| last.chars().count())
            + 1;
        (line, column)
    }

    /// The part of a span in its first line, rounded to characters and limited to the text.
    fn within_a_line(&self, span: &Span) -> Span {
        let boundary = |offset: &usize| self.text.is_char_boundary(*offset);
        let length = self.text.len();
        let start = (0..=span.start.min(length)).rev().find(boundary);
        let start = start.unwrap_or(0);
        let end = (span.end.clamp(start, length)..=length).find(boundary);
        let end = end.unwrap_or(length);
        let first = self.text[start..end].lines().next().unwrap_or_default();
        start..start + first.trim_end().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "cluster: ä\nhosts: {}\n";

    fn source() -> Source<'static> {
        Source::new(Path::new("x.yaml"), TEXT)
    }

    #[test]
    fn positions_count_characters() {
        let source = source();
        assert_eq!(source.span_of_position(1, 10).start, 9);
        assert_eq!(source.slice(&source.span_of_position(1, 10)), "ä");
        assert_eq!(source.top_level_key("hosts"), Some(12..17));
        assert_eq!(source.top_level_key("host"), None);
        assert_eq!(source.position(TEXT.find("{}").unwrap_or_default()), (2, 8));
    }

    #[test]
    fn a_place_outside_the_text_is_moved_inside() {
        let source = source();
        assert_eq!(source.slice(&(500..700)), "");
        assert_eq!(source.slice(&(10..10_000)), "ä");
        assert_eq!(source.span_of_position(99, 99).start, TEXT.len());
        let error = source.error(vec![Problem::new(900..901, "far away")]);
        assert_eq!(error.what(), "x.yaml:3:1: far away");
    }

    #[test]
    fn several_problems_come_in_the_order_of_the_file() {
        let error = source().error(vec![
            Problem::new(12..17, "second"),
            Problem::new(0..7, "first"),
        ]);
        assert_eq!(error.what(), "x.yaml: 2 mistakes");
        assert_eq!(error.kind(), crate::error::Kind::Input);
        let all: Vec<&str> = error.failures().iter().map(Error::what).collect();
        assert_eq!(all, ["x.yaml:1:1: first", "x.yaml:2:1: second"]);
    }
}
