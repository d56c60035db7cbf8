//! What is said of a restore that has begun and is not complete.

use std::path::Path;

use crate::{
    engine::context::Context,
    error::{Code, Error},
    remote::quote,
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

fn what(restoring: &Restoring) -> String {
    match &restoring.from {
        Some(origin) => format!("a clone of {} at {}", origin.cluster, restoring.to),
        None => format!("a restore to {}", restoring.to),
    }
}

/// The command that makes a clone, or goes on with it.
pub(super) fn clones(source: &Path, target: &Path) -> String {
    let path = |it: &Path| quote(&it.display().to_string());
    format!("pgherd -i {} restore --into {}", path(source), path(target))
}

/// The command that completes it.
fn completes(context: &Context, restoring: &Restoring, verb: &str) -> String {
    match (&restoring.from, restoring.stage) {
        (Some(origin), RestoreStage::Prepares | RestoreStage::Restores | RestoreStage::Leads) => {
            clones(&origin.inventory, &context.inventory.path)
        }
        _ => context.command(verb),
    }
}

/// A line for the user.
pub(in crate::engine) fn note(context: &Context, restoring: &Restoring) -> String {
    let (state, verb) = state(restoring.stage);
    let verb = completes(context, restoring, verb);
    format!("note: {} {state}; complete it: {verb}", what(restoring))
}

/// The error of work that cannot be done beside it.
pub(in crate::engine) fn refused(context: &Context, restoring: &Restoring) -> Error {
    let (state, verb) = state(restoring.stage);
    let what = format!("{} {state}", what(restoring));
    let error = Error::new(Code::NotPossibleNow, what)
        .left("nothing was changed")
        .hint(format!(
            "complete it: {}",
            completes(context, restoring, verb)
        ));
    match restoring.stage {
        RestoreStage::Prepares | RestoreStage::Restores => {
            error.hint(format!("or go back: {}", context.command("restore --back")))
        }
        RestoreStage::Leads | RestoreStage::GoesBack => error,
    }
}
