//! Every file that reaches a host, made from the cluster and the templates.
//!
//! Pure: the same cluster gives the same files, in the same order. The only user of `tera`.

use std::collections::BTreeMap;

use crate::inventory::{HostName, Role};

/// What a file may show of itself in a plan or a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    Public,
    /// Lines that hold secrets are masked.
    Masked,
    /// Private keys: nothing is shown.
    Hidden,
}

/// When a file can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before any package is installed.
    Prepare,
    /// Once the packages have made the users that own it.
    Configure,
}

/// How the file relates to what is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file is all ours.
    Whole,
    /// A marked block in a file that has other lines, which stay.
    Block,
}

/// What must happen once a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Nothing,
    Reload,
    Restart,
}

/// A file as it should be on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub content: String,
    pub owner: &'static str,
    pub group: &'static str,
    pub mode: u32,
    pub visibility: Visibility,
    pub stage: Stage,
    pub kind: Kind,
    /// The component that reads it; `None` for files that concern the host as a whole.
    pub role: Option<Role>,
    pub effect: Effect,
}

/// The files of every host, by host, in the order in which they are written.
pub type Files = BTreeMap<HostName, Vec<File>>;
