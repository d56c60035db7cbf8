//! An authority that is valid no longer, or not yet: another one takes its place.
//!
//! Nobody takes a certificate of such an authority, so there is no way from one to the other on which all
//! get on with each other (`workspace/pki/rotation.rs`): the other one issues at once, beside the old one,
//! and once the cluster holds again the old one goes.
//!
//! This machine's clock may be what is wrong. So nothing is made before every host has been looked at, and
//! their clocks agree with this one's.

use tokio_util::sync::CancellationToken;

use super::{
    apply::{self, Asker},
    context::{Base, Sight, Site, typed},
};
use crate::{
    error::{Error, Kind, Result},
    event::{Event, Events},
    provider::Machine,
    report::{self, Expected},
    verify::certificates,
    workspace::AuthorityStage,
};

/// What is done about it, in words; none while the authority is valid, or there is none.
pub(crate) fn note(base: &Base) -> Result<Option<String>> {
    if !base.inventory.tls.enabled {
        return Ok(None);
    }
    let lapse = base.workspace.authority_lapse(jiff::Timestamp::now())?;
    Ok(lapse.map(|lapse| {
        format!(
            "the cluster's certificate authority {lapse}: another one takes its place, and every host gets a new \
             key and certificate; clients that verify need the new pki/ca.crt"
        )
    }))
}

/// Puts another authority in the place of one that is not valid; says whether it did.
pub(crate) async fn replace(
    base: &Base,
    machines: &[Machine],
    asker: &Asker<'_>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<bool> {
    let Some(note) = note(base)? else {
        return Ok(false);
    };
    let site = base.connect(machines, events).await?;
    let looked = tokio::select! {
        sight = site.look() => sight,
        () = cancel.cancelled() => Err(Error::interrupted()),
    };
    site.close().await;
    // Whatever would stop a run stops it before the workspace is changed; also a clock that is off.
    looked?.whole()?.plan()?;
    if !asker.yes {
        let agreed = asker
            .reporter
            .aside(async {
                asker.terminal.explain(&note);
                report::confirm(asker.terminal, "Do this?", Expected::Yes).await
            })
            .await?;
        if !agreed {
            return Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was changed"));
        }
    } else {
        asker.terminal.say(&format!("note: {note}"));
    }
    base.workspace
        .replace_lapsed_authority(jiff::Timestamp::now())?;
    Ok(true)
}

/// Ends the change that [`replace`] has begun, in this run or in one that was cut off.
pub(crate) async fn complete(
    base: &Base,
    machines: &[Machine],
    asker: &Asker<'_>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<()> {
    let workspace = &base.workspace;
    if !workspace.replaces_lapsed_authority(jiff::Timestamp::now())? {
        return Ok(());
    }
    let stage = AuthorityStage::Adopt;
    workspace.advance_authority(stage)?;
    events.emit(Event::Stage {
        stage: stage.as_str(),
    });
    // Anew, since with it changes what pgherd itself trusts and shows.
    let site = base.connect(machines, events).await?;
    let settled = apply::settle(&site, asker, true, cancel).await;
    site.close().await;
    settled?;
    workspace.end_authority()
}

/// The error of a verb that needs certificates which are valid.
pub(crate) fn lapsed(base: &Base) -> Result<Option<Error>> {
    let lapse = base.workspace.authority_lapse(jiff::Timestamp::now())?;
    let lapse = lapse.filter(|_| base.inventory.tls.enabled);
    Ok(lapse.map(|lapse| {
        Error::failed(format!("the cluster's certificate authority {lapse}"))
            .left("nothing was changed")
            .hint(format!(
                "put another one in its place: {}",
                typed(&base.inventory.path, "up")
            ))
    }))
}

impl Site<'_> {
    /// Refuses to work on a cluster whose certificates are not valid, for verbs that do not put them right.
    pub(crate) fn certificates_valid(&self, sight: &Sight) -> Result<()> {
        if !sight.cluster.tls.is_used() {
            return Ok(());
        }
        let now = jiff::Timestamp::now();
        let found = certificates::findings(&sight.found.facts, &self.http.lapsed(), now);
        if found.is_empty() {
            return Ok(());
        }
        let error = Error::failed("certificates of the cluster are not valid");
        let error = found.into_iter().fold(error, Error::cause);
        Err(error.left("nothing was changed").hint(format!(
            "make them anew: {}",
            typed(&self.base.inventory.path, "up")
        )))
    }
}
