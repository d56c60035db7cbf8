//! Foreign text made fit for a terminal.
//!
//! What hosts print may hold colours, cursor movements and half-overwritten progress lines. None of
//! it may reach the user's terminal as it is: it would tear up the bars, or worse.

use std::borrow::Cow;

use anstream::adapter::strip_str;

/// One line without escapes and control characters: what would be seen of it in the end.
pub(super) fn one_line(text: &str) -> String {
    let stripped = strip_str(text).to_string();
    // A progress line overwrites itself with `\r`; only its last state counts.
    let last = stripped
        .rsplit(['\r', '\n'])
        .find(|part| !part.trim().is_empty())
        .unwrap_or_default();
    last.trim_end()
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect()
}

/// The first line that says something.
pub(super) fn first_line(text: &str) -> String {
    text.lines()
        .map(one_line)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

/// Several lines, each as [`one_line`] but with its indentation kept, without blank lines at the end.
pub(super) fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(one_line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// With a capital letter, and a full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first
        .into_iter()
        .flatten()
        .chain(chars)
        .chain(['.'])
        .collect()
}

/// Breaks a line between words; what follows stands below the text of its last column.
///
/// A word that is longer than a line stays whole: it may be a path that somebody wants to copy.
pub(super) fn wrap(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let indent = line.len() - line.trim_start().len();
    let column = line.trim_end().rfind("  ").map_or(0, |at| at + 2);
    let column = width(&line[..column]);
    let hang = if column > indent && column <= columns * 2 / 3 {
        column
    } else {
        indent + 2
    };
    let mut wrapped = String::new();
    let mut used = 0;
    for word in line.split_inclusive(' ') {
        let room = width(word.trim_end());
        if used + room > columns && used > hang {
            wrapped.truncate(wrapped.trim_end().len());
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(hang));
            used = hang;
        }
        wrapped.push_str(word);
        used += width(word);
    }
    wrapped
}

/// Cuts at `columns`, with a mark where something is missing; leaves colours intact.
pub(super) fn truncate(text: &str, columns: usize, unicode: bool) -> Cow<'_, str> {
    let tail = match (unicode, columns) {
        (_, 0..4) => "",
        (true, _) => "…",
        (false, _) => "...",
    };
    console::truncate_str(text, columns, tail)
}

/// Pads to `columns` as a terminal counts them.
pub(super) fn pad(text: &str, columns: usize) -> Cow<'_, str> {
    console::pad_str(text, columns, console::Alignment::Left, None)
}

pub(super) fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_below_their_last_column() {
        assert_eq!(wrap("short", 10), "short");
        assert_eq!(
            wrap("  name    what it does to you", 20),
            "  name    what it\n          does to\n          you"
        );
        assert_eq!(wrap("one two three four", 10), "one two\n  three\n  four");
        assert_eq!(
            wrap("see /a/very/long/path ok", 10),
            "see\n  /a/very/long/path\n  ok"
        );
        // Colours take no room.
        assert_eq!(
            wrap("\u{1b}[1mone\u{1b}[0m two", 7),
            "\u{1b}[1mone\u{1b}[0m two"
        );
    }

    #[test]
    fn escapes_and_overwritten_progress_are_gone() {
        assert_eq!(one_line("\u{1b}[32mok\u{1b}[0m\u{7}"), "ok");
        assert_eq!(one_line("10%\r50%\r100%\r"), "100%");
        assert_eq!(one_line("a\tb  "), "a b");
        assert_eq!(one_line("\u{1b}[2J\u{1b}[1;1H"), "");
        assert_eq!(one_line("\u{1b}]0;title\u{7}text"), "text");
    }

    #[test]
    fn indentation_survives_and_trailing_blank_lines_do_not() {
        assert_eq!(lines("a\n  b\n\n"), ["a", "  b"]);
        assert_eq!(first_line("\n \n  x\ny"), "  x");
    }

    #[test]
    fn cutting_counts_columns_and_keeps_colours() {
        assert_eq!(truncate("abcdef", 4, true), "abc…");
        assert_eq!(truncate("abcdef", 5, false), "ab...");
        assert_eq!(truncate("abcdef", 2, true), "ab");
        assert_eq!(truncate("国国国", 5, true), "国国…");
        assert_eq!(
            truncate("\u{1b}[2mabcdef\u{1b}[0m", 4, true),
            "\u{1b}[2mabc…\u{1b}[0m"
        );
    }
}
