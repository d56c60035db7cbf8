//! Values that are one of a few words.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Connect, CpuCredits, PatroniSource, PgSource, ProviderKind, Role};

/// A type whose values each have a word in the inventory.
pub(super) trait Choice: Copy + 'static {
    /// What one of them is called, such as "a source of Patroni".
    const NOUN: &'static str;
    const EACH: &'static [Self];

    fn word(self) -> &'static str;

    /// The words of all.
    fn words() -> impl Iterator<Item = &'static str> + Clone {
        Self::EACH.iter().map(|choice| choice.word())
    }

    /// The choice that has this word.
    fn of(word: &str) -> Option<Self> {
        let mut each = Self::EACH.iter().copied();
        each.find(|choice| choice.word() == word)
    }
}

/// Gives the values of an enum their words. One that is forgotten does not compile.
macro_rules! choice {
    ($type:ident is $noun:literal: $($value:ident = $word:literal),+ $(,)?) => {
        impl $type {
            /// All, in the order in which they are told.
            pub const ALL: &'static [Self] = &[$($type::$value),+];

            /// The word that the inventory has for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($type::$value => $word,)+
                }
            }
        }

        choice! { $type is $noun, $type::ALL }
    };
    ($type:ident is $noun:literal, $all:expr) => {
        impl Choice for $type {
            const NOUN: &'static str = $noun;
            const EACH: &'static [Self] = $all;

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

choice! { ProviderKind is "a kind of provider": Docker = "docker", Aws = "aws", Existing = "existing" }
choice! { CpuCredits is "a kind of CPU credits": Standard = "standard", Unlimited = "unlimited" }
choice! { Connect is "a way to connect": Public = "public", Private = "private" }
choice! { PgSource is "a source of PostgreSQL": Distro = "distro", Pgdg = "pgdg" }
choice! { PatroniSource is "a source of Patroni": Pypi = "pypi", Distro = "distro" }
choice! { Role is "a role", Role::GIVEN }

/// A choice in the JSON Schema.
pub(super) struct OneOf<T>(PhantomData<T>);

impl<T: Choice> JsonSchema for OneOf<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::NOUN.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = T::words().collect();
        json_schema!({"type": "string", "enum": words})
    }
}
