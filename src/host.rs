//! Names of hosts.

use std::fmt;

use serde::Serialize;

/// The name of a host: a DNS label, unique in its inventory.
///
/// Everything identifies hosts by this name, because addresses change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HostName(String);

impl HostName {
    /// Takes a name that is already known to be a DNS label (RFC 1123).
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
