//! What is said of a restore that has begun and is not complete.

use crate::{
    engine::context::Context,
    error::{Code, Error},
    workspace::{RestoreStage, Restoring},
};

/// Its state in words, and what completes it.
fn state(stage: RestoreStage) -> (&'static str, &'static str) {
    match stage {
        RestoreStage::Prepares | RestoreStage::Restores | RestoreStage::Leads => {
            ("is under way", "restore")
        }
        RestoreStage::GoesBack => ("is being taken back", "restore --back"),
    }
}

/// A line for the user.
pub(in crate::engine) fn note(context: &Context, restoring: &Restoring) -> String {
    let (state, verb) = state(restoring.stage);
    let verb = context.command(verb);
    format!(
        "note: a restore to {} {state}; complete it: {verb}",
        restoring.to
    )
}

/// The error of work that cannot be done beside it.
pub(in crate::engine) fn refused(context: &Context, restoring: &Restoring) -> Error {
    let (state, verb) = state(restoring.stage);
    let what = format!("a restore to {} {state}", restoring.to);
    let error = Error::new(Code::NotPossibleNow, what)
        .left("nothing was changed")
        .hint(format!("complete it: {}", context.command(verb)));
    match restoring.stage {
        RestoreStage::Prepares | RestoreStage::Restores => {
            error.hint(format!("or go back: {}", context.command("restore --back")))
        }
        RestoreStage::Leads | RestoreStage::GoesBack => error,
    }
}
