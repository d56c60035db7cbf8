//! When backups are made, where they are kept, and how many.

use std::fmt;

use super::limits;

/// When backups are made, and how many are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// A calendar expression of systemd's.
    pub full: String,
    /// The same.
    pub differential: String,
    /// The same; `None` if there are no incremental backups.
    pub incremental: Option<String>,
    /// How many full backups are kept.
    pub keep_full: u32,
    /// How many days old the last proof of a restore may become; 0 if no proof is asked for.
    pub prove_within: u32,
    /// The bucket that holds them; otherwise the host's disk does.
    pub s3: Option<S3>,
}

/// A bucket for backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    pub bucket: String,
    pub region: String,
    /// Its host name.
    pub endpoint: String,
    pub port: u16,
    /// The folder in the bucket, with a slash first.
    pub path: String,
    /// Whether the bucket is part of the path.
    pub path_style: bool,
}

impl fmt::Display for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}{} at {}", self.bucket, self.path, self.endpoint)
    }
}

/// The default, if the inventory does not set it.
impl Default for Backup {
    fn default() -> Self {
        Self {
            full: limits::FULL.to_owned(),
            differential: limits::DIFFERENTIAL.to_owned(),
            incremental: None,
            keep_full: limits::KEEP_FULL.default,
            prove_within: limits::PROVE_WITHIN.default,
            s3: None,
        }
    }
}
