//! When the certificates that services use expire.

use super::{context::Context, observe::Observed};
use crate::{
    error::Result,
    http::Lapsed,
    verify::certificates,
    workspace::{Expiry, expires},
};

/// The certificates of a cluster by when they end.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// The authority's own.
    pub authority: Option<Expiry>,
    /// What is on each host now, the first to end first.
    pub hosts: Vec<Expiry>,
    /// What is not valid now, a sentence each.
    pub not_valid: Vec<String>,
}

impl Certificates {
    /// Reads them from the hosts' files as they were found; nothing is there while TLS is off.
    pub(super) fn of(context: &Context, observed: &Observed, shown: &Lapsed) -> Result<Self> {
        if !context.inventory.tls.enabled {
            return Ok(Self::default());
        }
        let mut hosts = Vec::new();
        for (host, facts) in &observed.found.facts {
            let shown = facts
                .files
                .iter()
                .filter(|(path, _)| path.ends_with("/server.crt") || path.ends_with("/server.pem"));
            // A service's own folder may be behind the others after a run that was cut off.
            let ends = shown.filter_map(|(_, file)| expires(&file.content).ok());
            hosts.extend(ends.min().map(|expires| Expiry {
                name: host.to_string(),
                expires,
            }));
        }
        hosts.sort_by_key(|expiry| expiry.expires);
        let authority = context.workspace.expiries()?;
        let not_valid =
            certificates::findings(&observed.found.facts, shown, jiff::Timestamp::now());
        Ok(Self {
            not_valid,
            authority: authority.into_iter().find(|expiry| expiry.name == "ca"),
            hosts,
        })
    }
}
