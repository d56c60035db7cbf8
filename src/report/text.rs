//! Makes text from elsewhere safe for a terminal.
//!
//! The output of hosts may contain colours, cursor movements and progress lines that overwrite themselves. None
//! of it may reach the user's terminal unchanged: it would destroy the bars, or worse.

use std::borrow::Cow;

use anstream::adapter::strip_str;

/// Characters that show something else than the text: they change its direction, join or hide characters, break
/// lines, or command a terminal.
///
/// Colours are allowed, because they are pgherd's own at this point; so are line ends and tabs.
fn deceives(c: char) -> bool {
    match c {
        '\n' | '\r' | '\t' | '\u{1b}' => false,
        c if c.is_control() => true,
        // Unicode's category Cf, and the two separators of lines and paragraphs.
        '\u{ad}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

/// The text with every deceptive character replaced by its name: `<U+202E>`.
pub(super) fn honest(text: &str) -> Cow<'_, str> {
    if !text.contains(deceives) {
        return Cow::Borrowed(text);
    }
    let mut honest = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if deceives(c) {
            honest.push_str(&format!("<U+{:04X}>", u32::from(c)));
        } else {
            honest.push(c);
        }
    }
    Cow::Owned(honest)
}

/// One line without escapes and control characters: what would be visible of it at the end.
pub(super) fn one_line(text: &str) -> String {
    let stripped = strip_str(text).to_string();
    // A progress line overwrites itself with `\r`; only its last state counts.
    let last = stripped
        .rsplit(['\r', '\n'])
        .find(|part| !part.trim().is_empty())
        .unwrap_or_default();
    let line: String = last
        .trim_end()
        .chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect();
    honest(&line).into_owned()
}

/// The first line with text.
pub(super) fn first_line(text: &str) -> String {
    text.lines()
        .map(one_line)
        .find(|line| !line.is_empty())
        .unwrap_or_default()
}

/// Several lines, each like [`one_line`] but with its indentation, without blank lines at the end.
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

/// Breaks a line between words; the rest is aligned with the text of its last column.
///
/// A word that is longer than a line stays whole: it may be a path for copying.
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

/// Cuts at `columns`, with a mark if something is missing; keeps colours intact.
pub(super) fn truncate(text: &str, columns: usize, unicode: bool) -> Cow<'_, str> {
    let tail = match (unicode, columns) {
        (_, 0..4) => "",
        (true, _) => "…",
        (false, _) => "...",
    };
    console::truncate_str(text, columns, tail)
}

/// Pads to `columns`, counted as a terminal counts them.
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
    fn what_would_turn_or_hide_text_is_named() {
        assert_eq!(one_line("user \u{202e}gpj.exe"), "user <U+202E>gpj.exe");
        assert_eq!(
            honest("a\u{200b}b\u{2066}c\u{feff}"),
            "a<U+200B>b<U+2066>c<U+FEFF>"
        );
        // A terminal command as one byte of eight bits, in UTF-8; and one in seven bits.
        assert_eq!(honest("\u{9b}2J\u{7}"), "<U+009B>2J<U+0007>");
        let plain = "ünïcödé 国 \u{1b}[1m\ttext\r\n";
        assert!(matches!(honest(plain), Cow::Borrowed(text) if text == plain));
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
