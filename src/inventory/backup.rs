//! When backups are made, where they are kept, and how many.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits;
use crate::contract::ARCHIVING;

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
    /// The bucket that holds them.
    pub s3: Option<S3>,
    /// The host's disk holds them; without a bucket, always.
    pub disk: bool,
}

/// Where backups are kept. Each place has a repository of its own, with all backups and all WAL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The disk of the host with the role `backup`.
    #[default]
    Disk,
    /// The bucket.
    Bucket,
}

impl Place {
    const ALL: [Self; 2] = [Self::Disk, Self::Bucket];

    /// The place of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Bucket => "bucket",
        }
    }

    /// As in "in the bucket".
    pub(crate) fn inside(self) -> &'static str {
        match self {
            Self::Disk => "on the disk",
            Self::Bucket => "in the bucket",
        }
    }

    /// pgBackRest's number of its repository, where there are two.
    pub(crate) fn key(self) -> u8 {
        match self {
            Self::Disk => 1,
            Self::Bucket => 2,
        }
    }
}

impl Backup {
    /// The places of the backups, in the order of pgBackRest's repositories.
    pub fn places(&self) -> &'static [Place] {
        match (&self.s3, self.disk) {
            (Some(_), true) => &Place::ALL,
            (Some(_), false) => &[Place::Bucket],
            (None, _) => &[Place::Disk],
        }
    }

    /// The names of the places, as scripts take them.
    pub(crate) fn place_names(&self) -> String {
        let names: Vec<&str> = self.places().iter().map(|it| it.as_str()).collect();
        names.join(" ")
    }

    /// There is more than one place, so that it matters which is meant.
    pub fn is_in_both(&self) -> bool {
        self.places().len() > 1
    }

    /// A folder that is made on the host with the role `backup` once WAL was seen to get to these places.
    ///
    /// Whoever makes it removes those of other places: where there are backups once more, they begin again.
    pub(crate) fn archiving(&self) -> String {
        let Some(it) = &self.s3 else {
            return ARCHIVING.to_owned();
        };
        let sign = if self.disk { '+' } else { '-' };
        let path = it.path.replace('/', "-");
        format!("{ARCHIVING}{sign}{}-{}{path}", it.endpoint, it.bucket)
    }
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
    /// Whether `up` makes the bucket if it is not there.
    pub create: bool,
    /// The instance profile of EC2 that opens it, in place of an access key.
    pub profile: Option<String>,
}

impl S3 {
    /// Whether the store is AWS's own, and not another one that speaks S3.
    pub fn is_of_aws(&self) -> bool {
        [".amazonaws.com", ".amazonaws.com.cn"]
            .iter()
            .any(|it| self.endpoint.ends_with(it))
    }
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
            disk: true,
        }
    }
}
