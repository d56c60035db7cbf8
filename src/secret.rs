//! Values that must not be seen.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a secret looks like wherever people or programs could see it.
pub const MASK: &str = "***";

/// A string that shows itself as `***`.
///
/// It has no `Display`, so that it cannot slip into a message or a command line; whoever needs the
/// value calls [`Secret::expose`] and can be found by that name.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_never_holds_the_value() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASK);
        assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
    }
}
