//! A text on stdout that is painted over again and again.

use std::io::{self, Write};

use super::{
    mask::Masks,
    terminal::{Side, Terminal},
    text,
};

/// The lower end of a terminal; elsewhere nothing is painted.
#[derive(Debug)]
pub struct Canvas {
    masks: Masks,
    side: Side,
    paints: bool,
    /// Rows that the last text took.
    rows: usize,
    gone: bool,
}

impl Canvas {
    pub fn new(terminal: &Terminal) -> Self {
        Self {
            masks: terminal.masks.clone(),
            side: terminal.stdout,
            paints: terminal.stdout.terminal && terminal.lively,
            rows: 0,
            gone: false,
        }
    }

    /// Whether this is a terminal on which something can be painted over.
    pub fn paints(&self) -> bool {
        self.paints
    }

    /// Whether there is nobody left to paint for.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Paints `text` over what was painted last.
    pub fn paint(&mut self, text: &str) {
        let mut out = io::stdout().lock();
        let painted = frame(&self.masks.hide(text), self.side.columns, &mut self.rows);
        self.gone = out
            .write_all(painted.as_bytes())
            .and_then(|()| out.flush())
            .is_err();
    }
}

/// The text with what takes it to its place: in one piece, so that no half picture is seen.
fn frame(text: &str, columns: Option<usize>, rows: &mut usize) -> String {
    // Up to where the last one began, and off with all below.
    let mut frame = match *rows {
        0 => String::new(),
        rows => format!("\u{1b}[{rows}F\u{1b}[J"),
    };
    *rows = 0;
    for line in text.lines() {
        let line = text::truncate(line, columns.unwrap_or(usize::MAX), true);
        frame.push_str(&line);
        frame.push('\n');
        *rows += 1;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_goes_over_the_last_one() {
        let mut rows = 0;
        assert_eq!(frame("a\nb\n", Some(80), &mut rows), "a\nb\n");
        assert_eq!(frame("c\n", Some(80), &mut rows), "\u{1b}[2F\u{1b}[Jc\n");
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_line_never_takes_two_rows() {
        let mut rows = 0;
        let painted = frame("0123456789\n", Some(6), &mut rows);
        assert_eq!(painted, "01234…\n");
    }
}
