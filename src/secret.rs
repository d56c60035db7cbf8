//! Values that must stay secret: they cannot be printed or serialised.

use std::{
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

/// What people and programs see in place of a secret.
pub const MASK: &str = "***";

/// A string that prints as `***` and is overwritten in memory when it is dropped.
///
/// It has no `Display`, so that no message or command line can contain it by accident. Code that needs the
/// value calls [`Secret::expose`], which is easy to search for. It has no `Serialize` either: code that stores
/// a secret does so explicitly.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into().into())
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expose().hash(state);
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// The text of a file that may hold secrets. Its `Debug` shows only its length.
///
/// It can be read like any text, but has no `Display` and no `Serialize`. What is shown of a file must go
/// through [`crate::mask::file`].
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content(String);

impl Deref for Content {
    type Target = String;

    fn deref(&self) -> &String {
        &self.0
    }
}

impl DerefMut for Content {
    fn deref_mut(&mut self) -> &mut String {
        &mut self.0
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl PartialEq<str> for Content {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Content {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

/// Does not compile for types that can be serialised or displayed.
macro_rules! never_shown {
    ($($secret:ty),+ $(,)?) => {$(
        const _: fn() = || {
            struct Serialised;
            struct Displayed;
            trait Ambiguous<A> {
                fn one() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + ::serde::Serialize> Ambiguous<Serialised> for T {}
            impl<T: ?Sized + ::std::fmt::Display> Ambiguous<Displayed> for T {}
            // For a type with one of these traits, two implementations fit, so the call is ambiguous.
            let _ = <$secret as Ambiguous<_>>::one;
        };
    )+};
}

never_shown!(Secret, Content);
pub(crate) use never_shown;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_holds_the_value() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASK);
        assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
        let content = Content::from("password: hunter2");
        assert_eq!(format!("{content:?}"), "Content(17 bytes)");
    }

    #[test]
    fn secrets_are_compared_by_value() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret, Secret::new("hunter2"));
        assert_ne!(secret, Secret::new("hunter3"));
    }
}
