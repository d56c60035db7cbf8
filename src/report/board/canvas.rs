//! The canvas of the board: its size, its characters and its colours.

use crate::report::terminal::{DIM, GOOD, Paint};

/// With fewer columns than this, a line is only a mark, a host and a step.
pub(super) const ROOMY: usize = 60;

/// What a picture is drawn for.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Canvas {
    pub(in crate::report) columns: usize,
    pub(in crate::report) rows: usize,
    pub(in crate::report) unicode: bool,
    pub(in crate::report) paint: Paint,
    /// Counts up with each picture; turns the spinner.
    pub(in crate::report) frame: usize,
}

impl Canvas {
    pub(super) fn spinner(&self) -> &'static str {
        const DOTS: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        const ASCII: [&str; 4] = ["|", "/", "-", "\\"];
        if self.unicode {
            DOTS[self.frame % DOTS.len()]
        } else {
            ASCII[self.frame % ASCII.len()]
        }
    }
}

pub(super) fn bar(done: usize, of: usize, width: usize, canvas: &Canvas) -> String {
    let (full, rest) = if canvas.unicode {
        ("━", "─")
    } else {
        ("#", "-")
    };
    let filled = (done * width).checked_div(of).unwrap_or(width).min(width);
    format!(
        "{}{}",
        canvas.paint.on(GOOD, full.repeat(filled)),
        canvas.paint.on(DIM, rest.repeat(width - filled))
    )
}
