//! Draws the board on the screen, below the lines that were printed before.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::{
    board::{Board, Canvas},
    terminal::Side,
    text,
};
use crate::event::Stamped;

/// Draws the board.
///
/// It is a single bar of several lines, not a bar for each host: a picture is then one write to the terminal,
/// which cannot show half of it.
#[derive(Debug)]
pub(super) struct Live {
    board: Board,
    screen: Arc<dyn TermLike>,
    /// `None` while something else uses the terminal.
    bar: Option<ProgressBar>,
    side: Side,
    frame: usize,
    /// The widths of the last drawn lines, and the terminal's at that time.
    drawn: (Vec<usize>, u16),
    /// The run's clock in the last event, and when that event came.
    clock: (f64, Instant),
}

impl Live {
    pub(super) fn new(board: Board, screen: Arc<dyn TermLike>, side: Side) -> Self {
        let mut live = Self {
            board,
            screen,
            bar: None,
            side,
            frame: 0,
            drawn: (Vec::new(), 0),
            clock: (0.0, Instant::now()),
        };
        live.show();
        live
    }

    pub(super) fn event(&mut self, stamped: &Stamped) {
        self.clock = (stamped.t, Instant::now());
        self.board.event(stamped);
    }

    /// Prints a line that stays, above the board.
    pub(super) fn line(&mut self, line: &str) {
        self.settle();
        let line = text::wrap(line, usize::from(self.screen.width()));
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                let _ = self.screen.write_line(&line);
                let _ = self.screen.flush();
            }
        }
    }

    pub(super) fn draw(&mut self) {
        self.settle();
        self.frame += 1;
        let Some(bar) = &self.bar else { return };
        let canvas = Canvas {
            columns: usize::from(self.screen.width()),
            rows: usize::from(self.screen.height()),
            unicode: self.side.unicode,
            paint: self.side.paint(),
            frame: self.frame,
        };
        let (t, at) = self.clock;
        let lines = self.board.lines(t + at.elapsed().as_secs_f64(), &canvas);
        bar.set_message(lines.join("\n"));
        let widths = lines.iter().map(|line| text::width(line)).collect();
        self.drawn = (widths, self.screen.width());
    }

    /// Starts again on a terminal whose width has changed. The terminal has wrapped the picture's lines again,
    /// which indicatif does not know, so they are cleared here.
    fn settle(&mut self) {
        let (widths, columns) = &self.drawn;
        if self.screen.width() == *columns || widths.is_empty() {
            return;
        }
        let Some(bar) = self.bar.take() else { return };
        bar.set_draw_target(ProgressDrawTarget::hidden());
        let above = rows_above(widths, usize::from(self.screen.width()));
        if above > 0 {
            let _ = self.screen.move_cursor_up(above);
        }
        let _ = self.screen.write_str("\r\u{1b}[J");
        self.drawn = (Vec::new(), 0);
        self.show();
    }

    /// Clears the board, and leaves the cursor where it began.
    pub(super) fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    pub(super) fn show(&mut self) {
        if self.bar.is_some() {
            return;
        }
        let screen = Box::new(Screen {
            term: Arc::clone(&self.screen),
            pen: Mutex::default(),
        });
        // Only `draw` sets the pace. indicatif's own limit is off, because it would drop the last picture
        // before a pause.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(screen));
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        self.bar = Some(bar);
        // A line can be printed above a picture only if there is one.
        self.draw();
    }
}

/// The rows from the first line to the last, where the cursor is, if all are wrapped at `columns`.
fn rows_above(widths: &[usize], columns: usize) -> usize {
    let above = widths.split_last().map_or(widths, |(_, above)| above);
    let rows = above
        .iter()
        .map(|width| width.div_ceil(columns.max(1)).max(1));
    rows.sum()
}

impl Drop for Live {
    fn drop(&mut self) {
        self.hide();
    }
}

/// A terminal on which lines are not filled, and whose cursor waits at the start of the last line.
///
/// indicatif fills each line with blanks up to the last column. After that, the terminal's echo of Ctrl-C would
/// begin a new line, which indicatif does not know, and the picture would move down the screen. And a terminal
/// that gets another width would take all lines for one long line.
#[derive(Debug)]
struct Screen {
    term: Arc<dyn TermLike>,
    pen: Mutex<Pen>,
}

/// The place of the next text.
#[derive(Debug, Default)]
struct Pen {
    column: usize,
    /// The line is filled, so that the next text belongs to the next line.
    filled: bool,
}

impl Pen {
    /// What to write instead of `text`.
    fn write(&mut self, text: &str, columns: usize) -> String {
        if text == "\r" {
            *self = Pen::default();
            return text.to_owned();
        }
        let mut out = String::new();
        if self.filled {
            *self = Pen::default();
            out.push_str("\r\n");
        }
        let width = text::width(text);
        self.column += width;
        let blank = width > 0 && text.bytes().all(|byte| byte == b' ');
        if blank && self.column == columns {
            self.filled = true;
            out.push_str("\u{1b}[K");
        } else {
            out.push_str(text);
        }
        out
    }
}

impl Screen {
    fn write(&self, text: &str) -> io::Result<()> {
        let columns = usize::from(self.term.width());
        let mut pen = self.pen.lock().unwrap_or_else(PoisonError::into_inner);
        self.term.write_str(&pen.write(text, columns))
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.term.width()
    }
    fn height(&self) -> u16 {
        self.term.height()
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_up(n)
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_down(n)
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_right(n)
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_left(n)
    }
    fn write_line(&self, s: &str) -> io::Result<()> {
        self.term.write_line(s)
    }
    fn write_str(&self, s: &str) -> io::Result<()> {
        self.write(s)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.term.clear_line()
    }
    fn flush(&self) -> io::Result<()> {
        self.write("\r")?;
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_line_is_ended_before_the_next() {
        let mut pen = Pen::default();
        let written: String = ["\r", "one", "  ", "", "     ", "12345", "", "six"]
            .map(|text| pen.write(text, 5))
            .concat();
        // A line that is full by itself needs nothing.
        assert_eq!(written, "\rone\u{1b}[K\r\n\u{1b}[K\r\n12345six");
        assert_eq!(pen.write("\r", 5), "\r");
        assert_eq!(
            pen.write("\u{1b}[1mone\u{1b}[0m", 5),
            "\u{1b}[1mone\u{1b}[0m"
        );
        assert_eq!(pen.write("  ", 5), "\u{1b}[K");
    }

    #[test]
    fn lines_that_a_narrower_terminal_breaks_take_more_rows() {
        assert_eq!(rows_above(&[20, 0, 41, 80], 80), 3);
        assert_eq!(rows_above(&[20, 0, 41, 80], 40), 4);
        assert_eq!(rows_above(&[80], 40), 0);
        assert_eq!(rows_above(&[], 40), 0);
    }
}
