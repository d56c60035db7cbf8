//! Messages about an authority or certificates that have expired or are not valid yet.

use super::{connected::Connected, context::Context, observe::Observed};
use crate::{
    error::{Code, Error, Result},
    verify::certificates,
};

/// What is done about an authority that is not valid, as text; `None` if the authority is valid, or there is
/// none.
pub(super) fn note(context: &Context) -> Result<Option<String>> {
    if !context.inventory.tls.enabled {
        return Ok(None);
    }
    let lapse = context.workspace.authority_lapse(jiff::Timestamp::now())?;
    Ok(lapse.map(|lapse| {
        format!(
            "the cluster's certificate authority {lapse}: it is replaced by a new one, and every host gets a new key and certificate; clients that verify need the new pki/ca.crt"
        )
    }))
}

/// The error of a verb that needs valid certificates.
pub(super) fn lapsed(context: &Context) -> Result<Option<Error>> {
    let lapse = context.workspace.authority_lapse(jiff::Timestamp::now())?;
    let lapse = lapse.filter(|_| context.inventory.tls.enabled);
    Ok(lapse.map(|lapse| {
        Error::new(
            Code::CertificatesNotValid,
            format!("the cluster's certificate authority {lapse}"),
        )
        .left("nothing was changed")
        .hint(format!("replace it: {}", context.command("up")))
    }))
}

impl Connected<'_> {
    /// Refuses to work on a cluster whose certificates are not valid, for verbs that do not replace them.
    pub(super) fn certificates_valid(&self, observed: &Observed) -> Result<()> {
        if !observed.cluster.tls.is_used() {
            return Ok(());
        }
        let now = jiff::Timestamp::now();
        let found = certificates::findings(&observed.found.facts, &self.http.lapsed(), now);
        if found.is_empty() {
            return Ok(());
        }
        let error = Error::new(
            Code::CertificatesNotValid,
            "certificates of the cluster are not valid",
        );
        let error = found.into_iter().fold(error, Error::cause);
        Err(error
            .left("nothing was changed")
            .hint(format!("make new ones: {}", self.context.command("up"))))
    }
}
