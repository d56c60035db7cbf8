//! Values with their place in the file.

use std::{borrow::Cow, hash, ops::Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_yaml::{Location, Spanned};

/// A range of bytes of the inventory's text.
pub(super) type Span = Range<usize>;

/// A value and its place in the file.
///
/// Serde does not tell a value its place. The YAML crate does, through its own type `Spanned`: the crate
/// imported as `serde_yaml` is serde-saphyr (docs/decisions/0001-yaml-crate.md).
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    at: Span,
}

impl<T> Placed<T> {
    /// A value that is in no file.
    #[cfg(test)]
    pub(super) fn nowhere(value: T) -> Self {
        Self { value, at: 0..0 }
    }
}

/// The place of a value. An alias counts where it is used, because that is where its user wrote it.
pub(super) fn span_of<T>(value: &Placed<T>) -> Span {
    value.at.clone()
}

/// The bytes of a location. The scanner's own errors have no bytes, only line and column.
pub(super) fn span_at(location: &Location) -> Option<Span> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    Some(start..start.saturating_add(length))
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::deserialize(deserializer)?;
        Ok(Self {
            at: span_at(&spanned.referenced).unwrap_or(0..0),
            value: spanned.value,
        })
    }
}

/// Serialised as its place: `schema::written` asks a section which of its keys are there, and where.
impl<T> Serialize for Placed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.at.serialize(serializer)
    }
}

/// Equal values are equal wherever they stand.
impl<T: PartialEq> PartialEq for Placed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Placed<T> {}

impl<T: hash::Hash> hash::Hash for Placed<T> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

/// The place is no part of an inventory's meaning.
impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
