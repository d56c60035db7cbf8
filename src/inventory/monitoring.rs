//! Who may read metrics, and whom alerts reach.

use std::path::PathBuf;

use ipnet::Ipv4Net;

use super::limits;

/// Metrics of all hosts, and who may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitoring {
    /// Networks from which metrics may be read, beside the hosts with the role `monitoring`.
    pub allow: Vec<Ipv4Net>,
    /// For how many days Prometheus keeps them.
    pub keep_days: u32,
    /// A file with the address that alerts are sent to.
    pub webhook_file: Option<PathBuf>,
    pub email: Option<Email>,
}

/// What a host with the role `monitoring` means without the section.
impl Default for Monitoring {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            keep_days: limits::KEEP_DAYS.default,
            webhook_file: None,
            email: None,
        }
    }
}

/// Mail with alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    pub to: String,
    pub from: String,
    /// A mail server, with its port.
    pub smarthost: String,
}
