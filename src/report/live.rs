//! The board on the screen: drawn below what has been printed, and always in one piece.

use std::{io, sync::Arc, time::Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::{
    board::{Board, Canvas},
    terminal::Side,
    text,
};
use crate::event::Stamped;

/// Draws the board.
///
/// It is a single bar of several lines, not a bar per host: a picture is then one write to the
/// terminal, which cannot show half of it.
#[derive(Debug)]
pub(super) struct Live {
    board: Board,
    screen: Arc<dyn TermLike>,
    /// None while something else has the terminal.
    bar: Option<ProgressBar>,
    side: Side,
    frame: usize,
    /// The widths of the lines that were drawn last, and of the terminal then.
    drawn: (Vec<usize>, u16),
    /// The run's clock, as the last event told it, and when that was.
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

    /// Begins anew on a terminal whose width has changed: it has broken the picture's lines anew,
    /// which indicatif knows nothing of, so that what it drew is wiped away by hand.
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

    /// Clears the board away, and leaves the cursor where it began.
    pub(super) fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    pub(super) fn show(&mut self) {
        if self.bar.is_some() {
            return;
        }
        let screen = Box::new(Screen(Arc::clone(&self.screen)));
        // `draw` alone sets the pace, so indicatif's own limit is left out: it would swallow the
        // last picture before a pause.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like(screen));
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        self.bar = Some(bar);
        // A line can be printed above a picture only when there is one.
        self.draw();
    }
}

/// Rows from the first line to the last, where the cursor is, once all are broken at `columns`.
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

/// A terminal whose cursor waits at the start of the last line.
///
/// indicatif leaves it behind the last column. There the terminal's echo of Ctrl-C would begin a new
/// line, which indicatif knows nothing of, and the picture would climb down the screen.
#[derive(Debug)]
struct Screen(Arc<dyn TermLike>);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.width()
    }
    fn height(&self) -> u16 {
        self.0.height()
    }
    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }
    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }
    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }
    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }
    fn write_line(&self, s: &str) -> io::Result<()> {
        self.0.write_line(s)
    }
    fn write_str(&self, s: &str) -> io::Result<()> {
        self.0.write_str(s)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }
    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_a_narrower_terminal_breaks_take_more_rows() {
        assert_eq!(rows_above(&[20, 0, 41, 80], 80), 3);
        assert_eq!(rows_above(&[20, 0, 41, 80], 40), 4);
        assert_eq!(rows_above(&[80], 40), 0);
        assert_eq!(rows_above(&[], 40), 0);
    }
}
