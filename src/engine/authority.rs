//! Replaces a certificate authority that has expired or is not valid yet.
//!
//! No member accepts a certificate of such an authority. So there is no sequence of stages in which all members
//! can work together (`workspace/pki/rotation.rs`). Instead, the new authority issues certificates at once,
//! beside the old one, and the old one is removed when the cluster is healthy again.
//!
//! This machine's clock may be the cause. So nothing is changed before every host has been observed and the
//! clocks agree.

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

/// Replaces an authority that is not valid; returns whether it did.
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
    // Anything that would stop the run must stop it before the workspace changes, for example a wrong clock.
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

/// Ends the change that [`replace`] began, in this run or in an interrupted one.
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
    // Connects anew, because pgherd's own trust and certificate change too.
    let settled = run.context.on(machines, &run.events, async |connected| {
        settle(Verb::Up, connected, consent, run.cancel).await
    });
    settled.await?;
    workspace.end_authority()
}
