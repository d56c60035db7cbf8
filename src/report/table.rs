//! Tables as `patronictl list` prints them.

use comfy_table::{
    Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, TableStyle,
};

use super::terminal::{BAD, DIM, GOOD, PLAIN, Side, Terminal, WARN};

const ASCII: TableStyle = frame(
    [LineStyle::new('+', '-', '+', '+'); 3],
    ContentLineStyle::new('|', '|', '|'),
);
const BOX: TableStyle = frame(
    [
        LineStyle::new('┌', '─', '┬', '┐'),
        LineStyle::new('├', '─', '┼', '┤'),
        LineStyle::new('└', '─', '┴', '┘'),
    ],
    ContentLineStyle::new('│', '│', '│'),
);

const fn frame([top, middle, bottom]: [LineStyle; 3], content: ContentLineStyle) -> TableStyle {
    TableStyle::new()
        .top_border(top)
        .header_lines(content)
        .header_separator(middle)
        .content_lines(content)
        .bottom_border(bottom)
}

/// The emphasis of a row, if there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Dim,
}

/// A table: box lines on a terminal, plain ASCII elsewhere, columns of numbers aligned to the right.
///
/// Cells are single lines. Only a terminal that is too narrow breaks them; in a pipe, each row is one line,
/// however long.
#[derive(Debug, Clone, Default)]
pub struct Table {
    title: Option<String>,
    headers: Vec<String>,
    rows: Vec<(Tone, Vec<String>)>,
}

impl Table {
    pub fn new<T: Into<String>>(headers: impl IntoIterator<Item = T>) -> Self {
        Self {
            title: None,
            headers: headers.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Sets a title into the upper border.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.toned_row(Tone::Plain, cells)
    }

    pub fn toned_row<T: Into<String>>(
        &mut self,
        tone: Tone,
        cells: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        self.rows
            .push((tone, cells.into_iter().map(Into::into).collect()));
        self
    }

    /// Prints the table to stdout.
    pub fn print(&self, terminal: &Terminal) {
        terminal.print(&self.render(&terminal.stdout_now()));
    }

    /// The table as lines for a stream, the last with its newline.
    pub fn render(&self, side: &Side) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(if side.unicode { BOX } else { ASCII })
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.headers.iter().map(|header| one_line(header)));
        for (_, cells) in &self.rows {
            table.add_row(cells.iter().map(|cell| Cell::new(one_line(cell))));
        }
        for i in 0..self.headers.len() {
            if self.is_numeric(i)
                && let Some(column) = table.column_mut(i)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut lines: Vec<String> = table.lines().collect();
        let width = lines.first().map_or(0, |line| super::text::width(line));
        if let Some(columns) = side.columns
            && side.terminal
            && width > columns
        {
            if self.needs() > columns {
                return self.records(columns, side);
            }
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(u16::try_from(columns).unwrap_or(u16::MAX));
            lines = table.lines().collect();
        }
        self.entitle(&mut lines, side);
        self.tone(&mut lines, side);
        let mut text = String::new();
        for line in lines {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The columns below which words would be broken; a few wide cells may be broken.
    fn needs(&self) -> usize {
        const FEW: usize = 4;
        if self.headers.len() <= FEW {
            return 0;
        }
        let longest = |column: usize| {
            let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(column));
            // A number stays with its unit.
            let numeric = self.is_numeric(column);
            let words = cells.flat_map(|cell| match numeric {
                true => vec![cell.as_str()],
                false => cell.split_whitespace().collect(),
            });
            let words = words.chain(self.headers[column].split_whitespace());
            words.map(super::text::width).max().unwrap_or(0)
        };
        (0..self.headers.len())
            .map(|i| longest(i) + 3)
            .sum::<usize>()
            + 1
    }

    /// One line for each cell, for a terminal that is too narrow for any table.
    fn records(&self, columns: usize, side: &Side) -> String {
        let width = self.headers.iter().map(|it| super::text::width(it)).max();
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(&super::text::truncate(line, columns, side.unicode));
            text.push('\n');
        };
        if let Some(title) = &self.title {
            line(&one_line(title));
        }
        for (i, (tone, cells)) in self.rows.iter().enumerate() {
            if i > 0 {
                line("");
            }
            for (header, cell) in self.headers.iter().zip(cells) {
                let header = super::text::pad(header, width.unwrap_or(0));
                let cell = side.paint().on(style(*tone), one_line(cell));
                line(format!("  {header}  {cell}").trim_end());
            }
        }
        text
    }

    /// Whether a column has only numbers and gaps, and at least one number.
    fn is_numeric(&self, column: usize) -> bool {
        let mut cells = self
            .rows
            .iter()
            .filter_map(|(_, cells)| cells.get(column))
            .map(|cell| cell.trim())
            .filter(|cell| !matches!(*cell, "" | "-" | "unknown"))
            .peekable();
        cells.peek().is_some() && cells.all(is_number)
    }

    fn entitle(&self, lines: &mut Vec<String>, side: &Side) {
        let (Some(title), Some(border)) = (&self.title, lines.first()) else {
            return;
        };
        let title = format!(" {} ", one_line(title));
        let title_width = super::text::width(&title);
        let border: Vec<char> = border.chars().collect();
        // Corner, one line on either side, corner.
        if title_width + 4 > border.len() {
            lines.insert(0, title.trim().to_owned());
            return;
        }
        let fill = if side.unicode { '─' } else { '-' };
        let start: String = border[..1].iter().collect();
        let end: String = border[1 + title_width..].iter().collect();
        // patronictl's own: `+ Cluster: name ----+------+`; box lines need one before the title.
        lines[0] = if side.unicode {
            let end: String = border[2 + title_width..].iter().collect();
            format!("{start}{fill}{title}{end}")
        } else {
            format!("{start}{title}{end}")
        };
    }

    /// Colours whole rows, unless cells were broken into several lines.
    fn tone(&self, lines: &mut [String], side: &Side) {
        let paint = side.paint();
        let above = usize::from(self.title.is_some());
        let body = self.rows.len() + 1;
        if !side.colour || lines.len() < body || lines.len() > self.rows.len() + 4 + above {
            return;
        }
        let first = lines.len() - body;
        for ((tone, _), line) in self.rows.iter().zip(&mut lines[first..]) {
            if *tone != Tone::Plain {
                *line = paint_cells(line, |cell| paint.on(style(*tone), cell));
            }
        }
    }
}

fn style(tone: Tone) -> anstyle::Style {
    match tone {
        Tone::Plain => PLAIN,
        Tone::Good => GOOD,
        Tone::Warn => WARN,
        Tone::Bad => BAD,
        Tone::Dim => DIM,
    }
}

/// Colours what is between the outer lines of a row, so that the frame stays as it is.
fn paint_cells(line: &str, paint: impl Fn(&str) -> String) -> String {
    let mut marks = line.char_indices();
    match (marks.next(), marks.next_back()) {
        (Some((_, left)), Some((end, right))) => {
            let inner = &line[left.len_utf8()..end];
            format!("{left}{}{right}", paint(inner))
        }
        _ => line.to_owned(),
    }
}

fn is_number(cell: &str) -> bool {
    let digits = cell.split_once(' ').map_or(cell, |(number, _)| number);
    digits.parse::<f64>().is_ok() && cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

fn one_line(text: &str) -> String {
    super::text::lines(text).join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Table {
        let mut table =
            Table::new(["Member", "Host", "Role", "State", "TL", "Lag"]).title("Cluster: postgres");
        table
            .row(["node1", "192.168.0.11", "Leader", "running", "1", ""])
            .row(["node2", "192.168.0.12", "Replica", "streaming", "1", "0 B"])
            .toned_row(
                Tone::Bad,
                [
                    "node3",
                    "192.168.0.13",
                    "Replica",
                    "stopped",
                    "10",
                    "16.0 MiB",
                ],
            );
        table
    }

    #[test]
    fn piped_it_looks_like_patronictls() {
        insta::assert_snapshot!(members().render(&Side::default()), @"
        + Cluster: postgres ----+---------+-----------+----+----------+
        | Member | Host         | Role    | State     | TL |      Lag |
        +--------+--------------+---------+-----------+----+----------+
        | node1  | 192.168.0.11 | Leader  | running   |  1 |          |
        | node2  | 192.168.0.12 | Replica | streaming |  1 |      0 B |
        | node3  | 192.168.0.13 | Replica | stopped   | 10 | 16.0 MiB |
        +--------+--------------+---------+-----------+----+----------+
        ");
    }

    #[test]
    fn on_a_terminal_it_has_box_lines() {
        let side = Side {
            terminal: true,
            unicode: true,
            columns: Some(80),
            ..Side::default()
        };
        insta::assert_snapshot!(members().render(&side), @"
        ┌─ Cluster: postgres ───┬─────────┬───────────┬────┬──────────┐
        │ Member │ Host         │ Role    │ State     │ TL │      Lag │
        ├────────┼──────────────┼─────────┼───────────┼────┼──────────┤
        │ node1  │ 192.168.0.11 │ Leader  │ running   │  1 │          │
        │ node2  │ 192.168.0.12 │ Replica │ streaming │  1 │      0 B │
        │ node3  │ 192.168.0.13 │ Replica │ stopped   │ 10 │ 16.0 MiB │
        └────────┴──────────────┴─────────┴───────────┴────┴──────────┘
        ");
    }

    #[test]
    fn a_narrow_terminal_breaks_cells_but_a_pipe_never_does() {
        let mut table = Table::new(["a", "b"]);
        table.row(["x".repeat(30), "two words here".to_owned()]);
        let narrow = Side {
            terminal: true,
            columns: Some(30),
            colour: true,
            ..Side::default()
        };
        let text = table.render(&narrow);
        assert!(
            text.lines().all(|line| line.chars().count() <= 30),
            "{text}"
        );
        let piped = Side {
            columns: Some(30),
            ..Side::default()
        };
        assert_eq!(table.render(&piped).lines().count(), 5);
    }

    #[test]
    fn where_words_would_be_broken_each_cell_has_a_line() {
        let narrow = |columns| Side {
            terminal: true,
            columns: Some(columns),
            ..Side::default()
        };
        // Headings may take two lines; words are not cut.
        let mut table = Table::new(["member", "role", "state", "TL", "lag (bytes)"]).title("pg");
        table.row(["node1", "leader", "running", "1", ""]);
        insta::assert_snapshot!(table.render(&narrow(47)), @"
        + pg ----+--------+---------+----+---------+
        | member | role   | state   | TL | lag     |
        |        |        |         |    | (bytes) |
        +--------+--------+---------+----+---------+
        | node1  | leader | running |  1 |         |
        +--------+--------+---------+----+---------+
        ");
        table.row(["node2", "replica", "creating replica", "1", "17 MiB"]);
        insta::assert_snapshot!(table.render(&narrow(20)), @"
        pg
          member       node1
          role         le...
          state        ru...
          TL           1
          lag (bytes)

          member       node2
          role         re...
          state        cr...
          TL           1
          lag (bytes)  17...
        ");
    }

    #[test]
    fn tones_colour_a_row_inside_its_frame() {
        let side = Side {
            colour: true,
            ..Side::default()
        };
        let text = members().render(&side);
        let coloured: Vec<&str> = text
            .lines()
            .filter(|line| line.contains('\u{1b}'))
            .collect();
        assert_eq!(
            coloured,
            [
                "|\u{1b}[1m\u{1b}[31m node3  | 192.168.0.13 | Replica | stopped   | 10 | 16.0 MiB \u{1b}[0m|"
            ]
        );
    }

    #[test]
    fn cells_of_several_lines_and_escapes_become_one_line() {
        let mut table = Table::new(["a"]);
        table.row(["one\n\u{1b}[31mtwo\u{1b}[0m"]);
        insta::assert_snapshot!(table.render(&Side::default()), @"
        +---------+
        | a       |
        +---------+
        | one two |
        +---------+
        ");
    }

    #[test]
    fn a_title_wider_than_its_table_stands_above() {
        let table = Table::new(["a"]).title("a long title");
        insta::assert_snapshot!(table.render(&Side::default()), @"
        a long title
        +---+
        | a |
        +---+
        +---+
        ");
    }
}
