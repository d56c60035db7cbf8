//! When the certificates that services use expire.

use super::{context::Context, observe::Observed};
use crate::{
    error::Result,
    http::Lapsed,
    verify::certificates,
    workspace::{Expiry, expires},
};

/// The certificates of a cluster, sorted by when they expire.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// The authority's own certificate.
    pub authority: Option<Expiry>,
    /// The certificates on the hosts; the first to expire comes first.
    pub hosts: Vec<Expiry>,
    /// One sentence for each certificate that is not valid now.
    pub not_valid: Vec<String>,
}

impl Certificates {
    /// Reads the certificates from the hosts' files as observed. Returns nothing while TLS is off.
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
            // After an interrupted run, a service's own folder may have an older certificate than the others.
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
