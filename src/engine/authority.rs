//! An authority that is valid no longer, or not yet: another one takes its place.
//!
//! Nobody takes a certificate of such an authority, so there is no way from one to the other on which all
//! get on with each other (`workspace/pki/rotation.rs`): the other one issues at once, beside the old one,
//! and once the cluster holds again the old one goes.
//!
//! This machine's clock may be what is wrong. So nothing is made before every host has been looked at, and
//! their clocks agree with this one's.

use super::{
    apply::{self, Consent, Verb},
    connected::Connected,
    context::Context,
    observe::Observed,
    operator::{Answer, Question, consent},
    run::Run,
};
use crate::{
    error::{Code, Error, Result},
    event::Event,
    machine::Machine,
    verify::certificates,
    workspace::AuthorityStage,
};

/// What is done about it, in words; none while the authority is valid, or there is none.
pub(super) fn note(context: &Context) -> Result<Option<String>> {
    if !context.inventory.tls.enabled {
        return Ok(None);
    }
    let lapse = context.workspace.authority_lapse(jiff::Timestamp::now())?;
    Ok(lapse.map(|lapse| {
        format!(
            "the cluster's certificate authority {lapse}: another one takes its place, and every host gets a new \
             key and certificate; clients that verify need the new pki/ca.crt"
        )
    }))
}

/// Puts another authority in the place of one that is not valid; says whether it did.
pub(super) async fn replace(run: &Run<'_>, machines: &[Machine]) -> Result<bool> {
    let context = run.context;
    let Some(note) = note(context)? else {
        return Ok(false);
    };
    let looked = context.on(machines, &run.events, async |connected| {
        tokio::select! {
            observed = connected.look() => observed,
            () = run.cancel.cancelled() => Err(Error::interrupted()),
        }
    });
    // Whatever would stop a run stops it before the workspace is changed; also a clock that is off.
    looked.await?.whole()?.plan()?;
    let question = Question::Authority(&note);
    if consent(context.operator.as_ref(), question).await? == Answer::Beforehand {
        context.operator.say(&format!("note: {note}"));
    }
    context
        .workspace
        .replace_lapsed_authority(jiff::Timestamp::now())?;
    Ok(true)
}

/// Ends the change that [`replace`] has begun, in this run or in one that was cut off.
pub(super) async fn complete(run: &Run<'_>, machines: &[Machine], consent: Consent) -> Result<()> {
    let workspace = &run.context.workspace;
    if !workspace.replaces_lapsed_authority(jiff::Timestamp::now())? {
        return Ok(());
    }
    let stage = AuthorityStage::Adopt;
    workspace.advance_authority(stage)?;
    run.events.emit(Event::Stage {
        stage: stage.as_str(),
    });
    // Anew, since with it changes what pgherd itself trusts and shows.
    let settled = run.context.on(machines, &run.events, async |connected| {
        apply::settle(Verb::Up, connected, consent, run.cancel).await
    });
    settled.await?;
    workspace.end_authority()
}

/// The error of a verb that needs certificates which are valid.
pub(super) fn lapsed(context: &Context) -> Result<Option<Error>> {
    let lapse = context.workspace.authority_lapse(jiff::Timestamp::now())?;
    let lapse = lapse.filter(|_| context.inventory.tls.enabled);
    Ok(lapse.map(|lapse| {
        Error::new(
            Code::CertificatesNotValid,
            format!("the cluster's certificate authority {lapse}"),
        )
        .left("nothing was changed")
        .hint(format!(
            "put another one in its place: {}",
            context.command("up")
        ))
    }))
}

impl Connected<'_> {
    /// Refuses to work on a cluster whose certificates are not valid, for verbs that do not put them right.
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
            .hint(format!("make them anew: {}", self.context.command("up"))))
    }
}
