//! The errors of a shared state that this machine cannot use as it is.

use super::{
    Shared,
    document::{Document, Written},
    local::Base,
    moment,
};
use crate::{
    error::{Code, Error},
    seal::Identity,
};

/// What to do if one of two states has to be chosen.
fn choose(error: Error) -> Error {
    error.hint("see both: pgherd state").hint(
        "if the shared one is right: pgherd state pull; if this machine's is: pgherd state push",
    )
}

fn who(written: &Written) -> String {
    format!("{}, {}", written.by, moment(written.at))
}

impl Shared {
    pub(super) fn has_nothing(&self) -> Error {
        Error::new(
            Code::StateMissing,
            format!("there is no shared state at {}", self.place.shown()),
        )
        .left("nothing was changed")
    }

    /// This machine has had a generation, and there is none.
    pub(super) fn is_gone(&self, base: &Base) -> Error {
        self.has_nothing()
            .cause(format!(
                "this machine has seen generation {} there, by {}, {}",
                base.generation,
                base.by,
                moment(base.at)
            ))
            .hint("is it another folder, or is something not mounted? state.directory in the inventory names it")
            .hint("if it is lost: put this machine's workspace there: pgherd state init")
    }

    pub(super) fn is_not_shared_yet(&self) -> Error {
        self.has_nothing()
            .cause("the workspace of this machine was never put there")
            .hint("put it there: pgherd state init")
    }

    pub(super) fn is_older(&self, document: &Document, base: &Base) -> Error {
        choose(
            Error::new(
                Code::StateConflict,
                format!(
                    "the shared state is older than what this machine has: generation {}, not {}",
                    document.generation, base.generation
                ),
            )
            .cause(format!(
                "at {}, by {}",
                self.place.shown(),
                who(&document.written)
            ))
            .hint(
                "if it is a git working copy: bring it up to date, and run the same command again",
            ),
        )
    }

    pub(super) fn has_parted(&self, document: &Document, base: &Base) -> Error {
        choose(
            Error::new(
                Code::StateConflict,
                "two machines wrote the shared state without each other's changes",
            )
            .cause(format!(
                "at {}: generation {}, by {}",
                self.place.shown(),
                document.generation,
                who(&document.written)
            ))
            .cause(format!(
                "this machine has generation {}, by {}, {}",
                base.generation,
                base.by,
                moment(base.at)
            )),
        )
    }

    pub(super) fn is_of_another(&self, document: &Document, ours: Option<&str>) -> Error {
        let error = match &document.cluster_id {
            Some(id) => Error::new(
                Code::StateConflict,
                format!(
                    "the shared state is of another cluster with the name {}",
                    self.cluster
                ),
            )
            .cause(format!(
                "its id is {id}, and this machine's workspace has {}",
                ours.unwrap_or("none")
            )),
            None => Error::new(
                Code::StateConflict,
                format!(
                    "the shared state says that the cluster {} was removed",
                    self.cluster
                ),
            )
            .cause(format!("by {}", who(&document.written))),
        };
        choose(error)
    }

    pub(super) fn differs(&self, document: &Document, names: &[String]) -> Error {
        choose(
            Error::new(
                Code::StateConflict,
                "this machine's workspace was never put into the shared state, and differs from it",
            )
            .cause(format!("in {}", names.join(", ")))
            .cause(format!(
                "at {}: generation {}, by {}",
                self.place.shown(),
                document.generation,
                who(&document.written)
            )),
        )
    }

    pub(super) fn was_overtaken(&self, wanted: u64) -> Error {
        Error::new(
            Code::StateConflict,
            "another run has written the shared state meanwhile",
        )
        .cause(format!(
            "generation {wanted}, which this run would write, is at {} already",
            self.place.shown()
        ))
        .hint("run the same command again: it goes on from what is there now")
    }

    pub(super) fn excludes_writer(identity: &Identity) -> Error {
        Error::new(
            Code::StateKeyUnusable,
            "your key is not among state.recipients, so you could not read what you write",
        )
        .cause(format!("your key is in {}", identity.path.display()))
        .left("nothing was written to the shared state")
        .hint(format!(
            "add its public half under state.recipients: {}",
            identity.public()
        ))
    }
}
