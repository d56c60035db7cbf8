//! The allowed values of a parameter, as PostgreSQL reads them.

use std::ops::RangeInclusive;

use super::alternatives;
use crate::quantity;

/// A parameter in some major versions.
pub(super) struct Known {
    pub(super) versions: RangeInclusive<u16>,
    pub(super) shape: Shape,
}

pub(super) enum Shape {
    Bool,
    /// A boolean, or one of these words.
    BoolOr(Vec<&'static str>),
    OneOf(Vec<&'static str>),
    Number(Number),
    Text,
}

pub(super) struct Number {
    least: f64,
    most: f64,
    /// The unit of a number without a unit, such as `8kB` or `ms`.
    unit: Option<Unit>,
    /// The unit as PostgreSQL writes it.
    unit_name: &'static str,
}

/// The quantity of a unit, and its size in bytes or microseconds.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Memory(f64),
    Time(f64),
}

impl Known {
    /// Reads `name first-last type range-or-values unit`; `None` for a comment.
    pub(super) fn parse(line: &'static str) -> Option<(&'static str, Self)> {
        let mut words = line.splitn(4, ' ');
        let name = words.next()?;
        let (first, last) = words.next()?.split_once('-')?;
        let versions = first.parse().ok()?..=last.parse().ok()?;
        let kind = words.next()?;
        let rest = words.next().unwrap_or_default();
        let values = || rest.split('|').collect();
        let shape = match kind {
            "bool" => Shape::Bool,
            "bool-or" => Shape::BoolOr(values()),
            "enum" => Shape::OneOf(values()),
            "integer" | "real" => Shape::Number(Number::parse(rest)?),
            "string" => Shape::Text,
            _ => return None,
        };
        Some((name, Self { versions, shape }))
    }
}

impl Shape {
    /// Why a value is not allowed; `None` if it is.
    pub(super) fn refuse(&self, text: &str) -> Option<String> {
        let is = |word: &&str| text.eq_ignore_ascii_case(word);
        match self {
            Shape::Text => None,
            Shape::Bool => (!is_bool(text)).then(|| "`on` or `off`".to_owned()),
            Shape::BoolOr(words) => (!is_bool(text) && !words.iter().any(&is))
                .then(|| alternatives(["on", "off"].into_iter().chain(words.iter().copied()))),
            Shape::OneOf(words) => {
                (!words.iter().any(is)).then(|| alternatives(words.iter().copied()))
            }
            Shape::Number(number) => number.refuse(text),
        }
    }

    /// The value in the parameter's own unit.
    pub(super) fn number(&self, text: &str) -> Option<f64> {
        match self {
            Shape::Number(number) => number.value(text),
            Shape::Bool | Shape::BoolOr(_) | Shape::OneOf(_) | Shape::Text => None,
        }
    }

    /// A number, followed by the parameter's unit.
    pub(super) fn with_unit(&self, value: f64) -> String {
        match self {
            Shape::Number(number) => format!("{value}{}", number.unit_name),
            Shape::Bool | Shape::BoolOr(_) | Shape::OneOf(_) | Shape::Text => value.to_string(),
        }
    }
}

/// The spellings that both PostgreSQL and Patroni accept.
fn is_bool(text: &str) -> bool {
    ["on", "off", "true", "false", "yes", "no", "1", "0"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word))
}

impl Number {
    fn parse(text: &'static str) -> Option<Self> {
        let (range, unit_name) = text.split_once(' ').unwrap_or((text, ""));
        let (least, most) = range.split_once("..")?;
        let unit = match unit_name {
            "" => None,
            name => Some(counted_unit(name)?),
        };
        Some(Self {
            least: least.parse().ok()?,
            most: most.parse().ok()?,
            unit,
            unit_name,
        })
    }

    fn value(&self, text: &str) -> Option<f64> {
        value_in(text, self.unit)
    }

    fn refuse(&self, text: &str) -> Option<String> {
        let Some(value) = self.value(text) else {
            return Some(match self.unit {
                None => "a number".to_owned(),
                Some(Unit::Memory(_)) => {
                    format!(
                        "a number of {}, or one with B, kB, MB, GB or TB",
                        self.unit_name
                    )
                }
                Some(Unit::Time(_)) => {
                    format!(
                        "a number of {}, or one with us, ms, s, min, h or d",
                        self.unit_name
                    )
                }
            });
        };
        (!(self.least..=self.most).contains(&value))
            .then(|| format!("{}{1} to {2}{1}", self.least, self.unit_name, self.most))
    }
}

impl Unit {
    fn times(self, count: f64) -> Self {
        match self {
            Unit::Memory(bytes) => Unit::Memory(bytes * count),
            Unit::Time(microseconds) => Unit::Time(microseconds * count),
        }
    }

    fn in_terms_of(self, base: Self) -> Option<f64> {
        match (self, base) {
            (Unit::Memory(this), Unit::Memory(base)) | (Unit::Time(this), Unit::Time(base)) => {
                Some(this / base)
            }
            _ => None,
        }
    }
}

/// A number with an optional unit, converted to the unit of that name (`8kB`, `ms`, or none).
pub(crate) fn in_terms_of(text: &str, unit_name: &str) -> Option<f64> {
    let base = match unit_name {
        "" => None,
        name => Some(counted_unit(name)?),
    };
    value_in(text, base)
}

fn value_in(text: &str, base: Option<Unit>) -> Option<f64> {
    let (number, suffix) = split(text)?;
    match (base, suffix) {
        (_, "") => Some(number),
        (Some(base), suffix) => unit(suffix)?
            .in_terms_of(base)
            .map(|factor| number * factor),
        (None, _) => None,
    }
}

/// A unit after a factor, such as `8kB`.
fn counted_unit(name: &str) -> Option<Unit> {
    let digits = name.find(|c: char| !c.is_ascii_digit())?;
    let count = if digits == 0 {
        1.0
    } else {
        name[..digits].parse().ok()?
    };
    Some(unit(&name[digits..])?.times(count))
}

/// PostgreSQL's units; upper and lower case differ.
fn unit(name: &str) -> Option<Unit> {
    const KB: f64 = 1024.0;
    Some(match name {
        "B" => Unit::Memory(1.0),
        "kB" => Unit::Memory(KB),
        "MB" => Unit::Memory(KB * KB),
        "GB" => Unit::Memory(KB * KB * KB),
        "TB" => Unit::Memory(KB * KB * KB * KB),
        "us" => Unit::Time(1.0),
        "ms" => Unit::Time(1e3),
        "s" => Unit::Time(1e6),
        "min" => Unit::Time(60e6),
        "h" => Unit::Time(3600e6),
        "d" => Unit::Time(86_400e6),
        _ => return None,
    })
}

/// An amount of memory in KiB, as PostgreSQL reads it. `base` is the unit of a number without one, in KiB.
pub(crate) fn memory_in_kib(text: &str, base: u64) -> Option<u64> {
    let bytes = match split(text)? {
        (number, "") => number * base as f64 * 1024.0,
        (number, suffix) => match unit(suffix)? {
            Unit::Memory(bytes) => number * bytes,
            Unit::Time(_) => return None,
        },
    };
    (bytes >= 0.0).then_some(quantity::whole(bytes / 1024.0))
}

/// A number and the unit after it.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_matches([' ', '\t']);
    let unsigned = text.trim_start_matches(['+', '-']);
    if let Some(hex) = unsigned
        .strip_prefix("0x")
        .or_else(|| unsigned.strip_prefix("0X"))
    {
        let digits = hex
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(hex.len());
        let value = i64::from_str_radix(&hex[..digits], 16).ok()?;
        let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
        return Some((sign * value as f64, hex[digits..].trim_start()));
    }
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-');
    let mut end = text.find(|c: char| !plain(c)).unwrap_or(text.len());
    // An exponent, and not a unit that begins with `E`.
    if let Some(exponent) = text[end..].strip_prefix(['e', 'E']) {
        let digits = exponent.find(|c: char| !plain(c)).unwrap_or(exponent.len());
        if digits > 0 {
            end += 1 + digits;
        }
    }
    let number: f64 = text[..end].parse().ok()?;
    number
        .is_finite()
        .then(|| (number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(line: &'static str) -> Shape {
        Known::parse(line).expect("a line of the list").1.shape
    }

    #[test]
    fn units_are_converted_to_the_parameters_own() {
        let work_mem = shape("work_mem 14-18 integer 64..2147483647 kB");
        assert_eq!(work_mem.number("64MB"), Some(65_536.0));
        assert_eq!(work_mem.number("0x400 MB"), Some(1_048_576.0));
        assert_eq!(work_mem.number(" 1.5GB "), Some(1_572_864.0));
        assert_eq!(work_mem.number("64"), Some(64.0));
        for wrong in [
            "64mb", "64 megs", "", "MB", "5s", "--5", "1 2", "nan", "inf",
        ] {
            assert!(work_mem.refuse(wrong).is_some(), "{wrong}");
        }
        let buffers = shape("shared_buffers 14-18 integer 16..1073741823 8kB");
        assert_eq!(buffers.number("1GB"), Some(131_072.0));
        let timeout = shape("statement_timeout 14-18 integer 0..2147483647 ms");
        assert_eq!(timeout.number("2min"), Some(120_000.0));
        assert!(timeout.refuse("1GB").is_some());
    }

    #[test]
    fn memory_is_read_as_postgresql_reads_it() {
        for (text, kib) in [
            ("128MB", Some(131_072)),
            ("16384", Some(131_072)),
            ("1.5 GB", Some(1_572_864)),
            ("2s", None),
        ] {
            assert_eq!(memory_in_kib(text, 8), kib, "{text}");
        }
    }

    #[test]
    fn bounds_hold() {
        let connections = shape("max_connections 14-18 integer 1..262143");
        assert!(connections.refuse("1").is_none());
        assert!(connections.refuse("0").is_some());
        assert!(connections.refuse("262144").is_some());
        assert!(connections.refuse("100MB").is_some());
        let cost = shape("seq_page_cost 14-18 real 0..1.79769e+308");
        assert!(cost.refuse("1e-3").is_none());
        assert!(cost.refuse("-1").is_some());
    }

    #[test]
    fn words_are_told_without_regard_to_case() {
        let archive = shape("archive_mode 14-18 bool-or always");
        assert!(archive.refuse("Always").is_none());
        assert!(archive.refuse("YES").is_none());
        assert_eq!(
            archive.refuse("never").as_deref(),
            Some("`on`, `off` or `always`")
        );
        let isolation = shape("x 14-18 enum read committed|serializable");
        assert!(isolation.refuse("Read Committed").is_none());
    }
}
