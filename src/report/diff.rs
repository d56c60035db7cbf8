//! The diff between a file on a host and the new one.

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use super::{
    quantity::count,
    terminal::{BOLD, DIM, Paint, Terminal, fg},
};

const CONTEXT: usize = 3;
/// A new file is shown up to this line, or completely with `-v`.
const NEW_FILE_LINES: usize = 12;

const GONE: Style = fg(AnsiColor::Red);
const COME: Style = fg(AnsiColor::Green);
const HUNK: Style = fg(AnsiColor::Cyan);

/// A unified diff for stdout, empty if nothing differs; `old` is `None` for a file that does not exist yet.
pub fn diff(terminal: &Terminal, old: Option<&str>, new: &str, path: &str) -> String {
    let paint = terminal.stdout.paint();
    let masked = terminal.masks.hide(new);
    let Some(old) = old else {
        return created(&masked, path, terminal.verbose > 0, paint);
    };
    let text = changed(&terminal.masks.hide(old), &masked, path, paint);
    if text.is_empty() && old != new {
        let note = paint.on(DIM, "  (only secrets differ)");
        return format!("{}{note}\n", heading(path, path, paint));
    }
    text
}

fn created(new: &str, path: &str, whole: bool, paint: Paint) -> String {
    let lines: Vec<&str> = new.lines().collect();
    let mut text = heading("/dev/null", path, paint);
    // A remainder of two lines is not worth a message.
    let shown = if whole || lines.len() <= NEW_FILE_LINES + 2 {
        lines.len()
    } else {
        NEW_FILE_LINES
    };
    text += &format!(
        "{}\n",
        paint.on(HUNK, format_args!("@@ -0,0 +1,{} @@", lines.len()))
    );
    for line in &lines[..shown] {
        text += &paint.on(COME, format_args!("+{}", printable(line)));
        text.push('\n');
    }
    if shown < lines.len() {
        let more = format!(
            "  ({}; -v shows them)",
            count(lines.len() - shown, "more line")
        );
        text += &paint.on(DIM, more);
        text.push('\n');
    }
    text
}

fn changed(old: &str, new: &str, path: &str, paint: Paint) -> String {
    if old == new {
        return String::new();
    }
    let diff = TextDiff::from_lines(old, new);
    let mut text = heading(path, path, paint);
    for hunk in diff.unified_diff().context_radius(CONTEXT).iter_hunks() {
        text += &paint.on(HUNK, hunk.header());
        text.push('\n');
        for op in hunk.ops() {
            for change in diff.iter_inline_changes(op) {
                let (sign, style) = match change.tag() {
                    ChangeTag::Equal => (" ", Style::new()),
                    ChangeTag::Delete => ("-", GONE),
                    ChangeTag::Insert => ("+", COME),
                };
                text += &paint.on(style, sign);
                for (emphasized, part) in change.iter_strings_lossy() {
                    let style = if emphasized {
                        style.bold().underline()
                    } else {
                        style
                    };
                    let part = part.trim_end_matches('\n');
                    if !part.is_empty() {
                        text += &paint.on(style, printable(part));
                    }
                }
                text.push('\n');
                if change.missing_newline() {
                    text += "\\ No newline at end of file\n";
                }
            }
        }
    }
    text
}

fn heading(old: &str, new: &str, paint: Paint) -> String {
    format!(
        "{}\n{}\n",
        paint.on(BOLD, format_args!("--- {old}")),
        paint.on(BOLD, format_args!("+++ {new}"))
    )
}

/// A file may contain anything, and a terminal would obey it; tabs are harmless.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    const OLD: &str = "a\nb\nc\nd\nlisten: 10.0.0.1:5432\ne\nf\ng\nh\n";

    #[test]
    fn a_change_is_shown_with_three_lines_around() {
        let new = OLD.replace("10.0.0.1", "10.0.0.9");
        let text = diff(&Terminal::default(), Some(OLD), &new, "/etc/patroni.yml");
        insta::assert_snapshot!(text, @"
        --- /etc/patroni.yml
        +++ /etc/patroni.yml
        @@ -2,7 +2,7 @@
         b
         c
         d
        -listen: 10.0.0.1:5432
        +listen: 10.0.0.9:5432
         e
         f
         g
        ");
    }

    #[test]
    fn equal_files_have_no_diff() {
        assert_eq!(diff(&Terminal::default(), Some(OLD), OLD, "/x"), "");
    }

    #[test]
    fn a_lost_final_newline_shows() {
        let text = diff(&Terminal::default(), Some("a\nb\n"), "a\nb", "/x");
        insta::assert_snapshot!(text, @r"
        --- /x
        +++ /x
        @@ -1,2 +1,2 @@
         a
        -b
        +b
        \ No newline at end of file
        ");
    }

    #[test]
    fn a_new_file_is_shortened_unless_all_is_asked_for() {
        let new: String = (1..=40).map(|i| format!("line {i}\n")).collect();
        let mut terminal = Terminal::default();
        let text = diff(&terminal, None, &new, "/etc/new");
        insta::assert_snapshot!(text, @"
        --- /dev/null
        +++ /etc/new
        @@ -0,0 +1,40 @@
        +line 1
        +line 2
        +line 3
        +line 4
        +line 5
        +line 6
        +line 7
        +line 8
        +line 9
        +line 10
        +line 11
        +line 12
          (28 more lines; -v shows them)
        ");
        terminal.verbose = 1;
        assert_eq!(diff(&terminal, None, &new, "/etc/new").lines().count(), 43);
        assert_eq!(
            diff(&Terminal::default(), None, "a\n", "/etc/new"),
            "--- /dev/null\n+++ /etc/new\n@@ -0,0 +1,1 @@\n+a\n"
        );
    }

    #[test]
    fn colours_mark_the_words_that_differ() {
        let mut terminal = Terminal::default();
        terminal.stdout.colour = true;
        let text = diff(&terminal, Some("ttl: 30\n"), "ttl: 60\n", "/x");
        insta::assert_snapshot!(format!("{text:?}"), @r#""\u{1b}[1m--- /x\u{1b}[0m\n\u{1b}[1m+++ /x\u{1b}[0m\n\u{1b}[36m@@ -1 +1 @@\u{1b}[0m\n\u{1b}[31m-\u{1b}[0m\u{1b}[31mttl: \u{1b}[0m\u{1b}[1m\u{1b}[4m\u{1b}[31m30\u{1b}[0m\n\u{1b}[32m+\u{1b}[0m\u{1b}[32mttl: \u{1b}[0m\u{1b}[1m\u{1b}[4m\u{1b}[32m60\u{1b}[0m\n""#);
    }

    #[test]
    fn secrets_and_control_characters_stay_out() {
        let terminal = Terminal::default();
        terminal.conceal(&[Secret::new("hunter2")]);
        let text = diff(&terminal, Some("p: hunter2\n"), "p: \u{1b}[31mx\n", "/x");
        assert!(
            !text.contains("hunter2") && !text.contains('\u{1b}'),
            "{text}"
        );
        terminal.conceal(&[Secret::new("hunter3")]);
        let text = diff(&terminal, Some("p: hunter2\n"), "p: hunter3\n", "/x");
        insta::assert_snapshot!(text, @"
        --- /x
        +++ /x
          (only secrets differ)
        ");
    }
}
