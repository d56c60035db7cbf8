//! Which values are allowed: bounds of numbers, shapes of texts.
//!
//! Each of them is also a transform of the JSON Schema, so that an editor judges a value as `check` does.

use std::fmt;

use regex::Regex;
use schemars::{Schema, transform::Transform};
use serde_json::{Map, Value, json};

/// The name of a key's type in docs/inventory.md, if JSON Schema has no word for it.
pub(super) const TYPE: &str = "x-type";

/// A whole number between two others, which are included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<T> {
    pub(super) least: T,
    /// `None` if there is no upper bound.
    pub(super) most: Option<T>,
    /// The kind of value, in a word.
    pub(super) noun: &'static str,
}

impl<T: Copy + PartialOrd + TryFrom<i64>> Bounds<T> {
    /// The number, if it is within the bounds.
    pub(super) fn take(self, number: i64) -> Option<T> {
        let number = T::try_from(number).ok()?;
        let fits = number >= self.least && self.most.is_none_or(|most| number <= most);
        fits.then_some(number)
    }
}

impl<T: fmt::Display> fmt::Display for Bounds<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.most {
            Some(most) => write!(f, "{} to {most}", self.least),
            None => write!(f, "{} or more", self.least),
        }
    }
}

impl<T: Copy + fmt::Display + Into<Value>> Transform for Bounds<T> {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("minimum".into(), self.least.into());
        if let Some(most) = self.most {
            schema.insert("maximum".into(), most.into());
        }
        schema.insert(TYPE.into(), format!("{}, {self}", self.noun).into());
    }
}

/// A whole number within bounds that has a default.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit<T> {
    pub(super) bounds: Bounds<T>,
    pub(super) default: T,
}

impl<T: Copy + fmt::Display + Into<Value>> Transform for Limit<T> {
    fn transform(&mut self, schema: &mut Schema) {
        self.bounds.transform(schema);
        schema.insert("default".into(), self.default.into());
    }
}

pub(super) const fn bounds<T>(noun: &'static str, least: T, most: Option<T>) -> Bounds<T>
where
    T: Copy,
{
    Bounds { least, most, noun }
}

/// The form of a text, as a regular expression that both Rust and editors understand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The kind of value, in a word.
    noun: &'static str,
    /// What the value should be, for the error message.
    pub(super) wanted: &'static str,
    pattern: &'static str,
    /// Texts of this form that have another meaning.
    taken: &'static [&'static str],
    /// Texts that are reserved for others, as a regular expression; empty if there are none.
    reserved: &'static str,
}

pub(super) const fn shape(
    noun: &'static str,
    wanted: &'static str,
    pattern: &'static str,
) -> Shape {
    Shape {
        noun,
        wanted,
        pattern,
        taken: &[],
        reserved: "",
    }
}

impl Shape {
    pub(super) const fn but_not(self, taken: &'static [&'static str]) -> Self {
        Self { taken, ..self }
    }

    pub(super) const fn but_not_like(self, reserved: &'static str) -> Self {
        Self { reserved, ..self }
    }

    /// Whether a text has this form. The text may still be taken or reserved.
    pub(super) fn fits(self, text: &str) -> bool {
        matches(self.pattern, text)
    }

    pub(super) fn is_taken(self, text: &str) -> bool {
        self.taken.contains(&text)
    }

    pub(super) fn is_reserved(self, text: &str) -> bool {
        !self.reserved.is_empty() && matches(self.reserved, text)
    }

    /// As a JSON Schema for a text.
    pub(super) fn of_text(self) -> Map<String, Value> {
        let mut of_text = Map::new();
        of_text.insert("pattern".into(), self.pattern.into());
        // No part of JSON Schema; editors show it instead of the pattern.
        let told = format!("This is not {}.", self.wanted);
        of_text.insert("patternErrorMessage".into(), told.into());
        let mut not = Vec::new();
        if !self.taken.is_empty() {
            not.push(json!({"enum": self.taken}));
        }
        if !self.reserved.is_empty() {
            not.push(json!({"pattern": self.reserved}));
        }
        if !not.is_empty() {
            of_text.insert("not".into(), json!({"anyOf": not}));
        }
        of_text
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// The form of a text, or of each text in a list.
impl Transform for Shape {
    fn transform(&mut self, schema: &mut Schema) {
        let of_text = self.of_text();
        let noun = match schema.get_mut("items").and_then(Value::as_object_mut) {
            Some(items) => {
                items.extend(of_text);
                format!("list of {}s", self.noun)
            }
            None => {
                schema.ensure_object().extend(of_text);
                self.noun.to_owned()
            }
        };
        schema.insert(TYPE.into(), noun.into());
    }
}

/// The form of the names of a map's entries.
pub(super) struct Names(pub(super) Shape);

impl Transform for Names {
    fn transform(&mut self, schema: &mut Schema) {
        schema.insert("propertyNames".into(), self.0.of_text().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEW: Bounds<u16> = bounds("number", 2, Some(4));
    const MANY: Bounds<u32> = bounds("number", 1, None);

    #[test]
    fn a_number_is_within_its_bounds() {
        let taken: Vec<i64> = (-1..=5).filter(|it| FEW.take(*it).is_some()).collect();
        assert_eq!(taken, [2, 3, 4]);
        assert_eq!(MANY.take(i64::from(u32::MAX)), Some(u32::MAX));
        assert_eq!(MANY.take(i64::from(u32::MAX) + 1), None);
        assert_eq!(
            (FEW.to_string(), MANY.to_string()),
            ("2 to 4".into(), "1 or more".into())
        );
    }

    #[test]
    fn a_list_has_the_shape_in_its_entries() {
        let mut vowel = shape("vowel", "a vowel", "^[aeiou]$").but_not(&["u"]);
        let mut list = schemars::json_schema!({"type": "array", "items": {"type": "string"}});
        vowel.transform(&mut list);
        assert_eq!(list.pointer("/items/pattern"), Some(&json!("^[aeiou]$")));
        assert_eq!(list.pointer("/items/not/anyOf/0/enum"), Some(&json!(["u"])));
        assert_eq!(list.get(TYPE), Some(&json!("list of vowels")));
        assert!(vowel.fits("a") && !vowel.fits("b"));
    }
}
