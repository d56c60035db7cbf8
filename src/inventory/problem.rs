//! One mistake in an inventory, with its place.

use super::placed::Span;

/// A mistake, with everything that the user needs to correct it.
#[derive(Debug)]
pub(super) struct Problem {
    /// What is wrong; the headline.
    pub(super) what: String,
    pub(super) at: Span,
    /// A few words under the marked place.
    pub(super) label: Option<String>,
    /// Other places that explain the mistake.
    pub(super) also: Vec<(Span, String)>,
    pub(super) hints: Vec<String>,
}

impl Problem {
    pub(super) fn new(at: Span, what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            at,
            label: None,
            also: Vec::new(),
            hints: Vec::new(),
        }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn also(mut self, at: Span, label: impl Into<String>) -> Self {
        self.also.push((at, label.into()));
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Asks under the marked place whether `nearest` was meant, if there is such a candidate.
    pub(super) fn did_you_mean(self, nearest: Option<&str>) -> Self {
        match nearest {
            Some(nearest) => self.label(format!("did you mean `{nearest}`?")),
            None => self,
        }
    }
}

/// A value for use in a sentence: in backticks, on one line and of limited length.
pub(super) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = value
        .chars()
        .take(LONGEST)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if value.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `a`, `b` or `c`.
pub(super) fn alternatives<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_stay_on_one_line() {
        assert_eq!(quoted("a\nb\u{1b}[0m"), "`a\\nb\\u{1b}[0m`");
        assert_eq!(quoted(&"x".repeat(99)).chars().count(), 60 + 3);
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(["a"]), "`a`");
        assert_eq!(alternatives(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
