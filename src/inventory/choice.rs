//! Settings whose value is one of a few words.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    Connect, CpuCredits, LoadBalancer, PatroniSource, PgSource, PoolMode, ProviderKind, Role,
    Scheme, Tuning,
};

/// A type with a word in the inventory for each value.
pub(super) trait Choice: Copy + 'static {
    /// What the values are, such as "a source of Patroni".
    const NOUN: &'static str;
    const EACH: &'static [Self];

    fn word(self) -> &'static str;

    /// All words.
    fn words() -> impl Iterator<Item = &'static str> + Clone {
        Self::EACH.iter().map(|choice| choice.word())
    }

    /// The value of this word.
    fn of(word: &str) -> Option<Self> {
        let mut each = Self::EACH.iter().copied();
        each.find(|choice| choice.word() == word)
    }
}

/// Defines the words of an enum's values. A forgotten value does not compile.
macro_rules! choice {
    ($type:ident is $noun:literal: $($value:ident = $word:literal),+ $(,)?) => {
        impl $type {
            /// All values, in the order of messages.
            pub const ALL: &'static [Self] = &[$($type::$value),+];

            /// The value's word in the inventory.
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
choice! { LoadBalancer is "a kind of load balancer": Network = "network" }
choice! { Scheme is "a scheme of a load balancer": Internal = "internal", InternetFacing = "internet-facing" }
choice! { PgSource is "a source of PostgreSQL": Distro = "distro", Pgdg = "pgdg" }
choice! { Tuning is "a way to tune": Auto = "auto", Defaults = "defaults" }
choice! { PatroniSource is "a source of Patroni": Pypi = "pypi", Distro = "distro" }
choice! { PoolMode is "a pool mode": Transaction = "transaction", Session = "session" }
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
