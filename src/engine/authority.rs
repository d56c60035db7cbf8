//! Replaces a certificate authority that has expired or is not valid yet.
//!
//! Nobody takes a certificate of such an authority, so there is no way from one to the other on which all
//! get on with each other (`workspace/pki/rotation.rs`): the other one issues at once, beside the old one,
//! and once the cluster holds again the old one goes.
//!
//! This machine's clock may be what is wrong. So nothing is made before every host has been looked at, and
//! their clocks agree with this one's.

use super::{
    lapse,
    operator::{Answer, Question, consent},
    run::Run,
    settle::{Consent, Verb, settle},
};
use crate::{
    error::{Error, Result},
    event::Event,
    machine::Machine,
    workspace::AuthorityStage,
};

/// Puts another authority in the place of one that is not valid; says whether it did.
pub(super) async fn replace(run: &Run<'_>, machines: &[Machine]) -> Result<bool> {
    let context = run.context;
    let Some(note) = lapse::note(context)? else {
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
        settle(Verb::Up, connected, consent, run.cancel).await
    });
    settled.await?;
    workspace.end_authority()
}
