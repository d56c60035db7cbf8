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
