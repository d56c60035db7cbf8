//! Text on stdout that is redrawn again and again.

use std::io::{self, Write};

use super::{
    mask::Masks,
    terminal::{Side, Terminal},
    text,
};

/// The lower end of a terminal. On other outputs nothing is painted.
#[derive(Debug)]
pub struct Canvas {
    masks: Masks,
    side: Side,
    paints: bool,
    frame: Frame,
    gone: bool,
}

impl Canvas {
    pub fn new(terminal: &Terminal) -> Self {
        Self {
            masks: terminal.masks.clone(),
            side: terminal.stdout,
            paints: terminal.stdout.terminal && terminal.lively,
            frame: Frame::default(),
            gone: false,
        }
    }

    /// Whether this is a terminal that can be painted over.
    pub fn paints(&self) -> bool {
        self.paints
    }

    /// Whether the reader has gone.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Paints the `picture` for the terminal's present width over the last one.
    pub fn paint(&mut self, picture: impl FnOnce(&Side) -> String) {
        let size = console::Term::stdout().size_checked();
        let size = size.map(|(rows, columns)| (usize::from(rows), usize::from(columns)));
        if let Some((_, columns)) = size {
            self.side.columns = Some(columns);
        }
        let text = self.masks.hide(&picture(&self.side)).into_owned();
        let painted = self.frame.next(&text, size);
        let mut out = io::stdout().lock();
        self.gone = out
            .write_all(painted.as_bytes())
            .and_then(|()| out.flush())
            .is_err();
    }
}

/// The place of the last picture.
#[derive(Debug, Default)]
struct Frame {
    /// The number of its rows.
    taken: usize,
    /// The terminal's rows and columns at that time.
    size: Option<(usize, usize)>,
}

impl Frame {
    /// The text with the cursor movements to its place: in one write, so that no half picture is visible.
    fn next(&mut self, text: &str, size: Option<(usize, usize)>) -> String {
        let mut frame = match self.taken {
            0 => String::new(),
            // The terminal has wrapped its lines again, so their place is unknown.
            _ if self.size != size => "\u{1b}[H\u{1b}[2J".to_owned(),
            // Move to the beginning of the last one, and clear everything below.
            taken => format!("\u{1b}[{taken}F\u{1b}[J"),
        };
        let (rows, columns) = size.unwrap_or((usize::MAX, usize::MAX));
        // One row is left for the cursor: a picture that scrolls could not be painted over.
        let room = rows.saturating_sub(1).max(1);
        let lines: Vec<&str> = text.lines().collect();
        let shown = if lines.len() > room {
            room - 1
        } else {
            lines.len()
        };
        let more = (shown < lines.len()).then_some("…");
        for line in lines[..shown].iter().copied().chain(more) {
            frame.push_str(&text::truncate(line, columns, true));
            frame.push('\n');
        }
        self.taken = shown + usize::from(more.is_some());
        self.size = size;
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Option<(usize, usize)> = Some((24, 80));

    #[test]
    fn a_picture_goes_over_the_last_one() {
        let mut frame = Frame::default();
        assert_eq!(frame.next("a\nb\n", SIZE), "a\nb\n");
        assert_eq!(frame.next("c\n", SIZE), "\u{1b}[2F\u{1b}[Jc\n");
        assert_eq!(frame.next("d\n", SIZE), "\u{1b}[1F\u{1b}[Jd\n");
    }

    #[test]
    fn on_a_terminal_of_another_size_all_is_painted_anew() {
        let mut frame = Frame::default();
        frame.next("a\nb\n", SIZE);
        let now = Some((10, 40));
        assert_eq!(frame.next("a\nb\n", now), "\u{1b}[H\u{1b}[2Ja\nb\n");
        assert_eq!(frame.next("a\n", now), "\u{1b}[2F\u{1b}[Ja\n");
    }

    #[test]
    fn a_picture_is_never_larger_than_the_terminal() {
        let mut frame = Frame::default();
        let painted = frame.next("0123456789\n2\n3\n4\n", Some((4, 6)));
        assert_eq!(painted, "01234…\n2\n…\n");
        assert!(frame.next("", Some((4, 6))).starts_with("\u{1b}[3F"));
    }
}
