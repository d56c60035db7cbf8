//! The operator: what the engine tells and asks the person who started the run, and where its events go.
//! In tests there is no terminal behind it.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    context::Context, drill::play::Request, operate, preview::Preview, retire::Farewell,
    rotate::Intent, settle::Verb,
};
use crate::{
    cluster::Cluster,
    drill::OtherClient,
    error::{Code, Error, Result},
    event::Stamped,
    inventory::HostName,
    plan::operate::Seen,
    prepared::{Prepared, Recipe},
    provider::Preflight,
    secret::Secret,
    switchover::Handover,
};

/// What somebody must agree to before it is done. It is data: how it is put is the operator's.
pub(crate) enum Question<'a> {
    /// A plan, and what is made and started before it.
    Apply {
        verb: Verb,
        context: &'a Context,
        preview: &'a Preview,
    },
    /// Another authority takes the place of one that is not valid, as this says.
    Authority(&'a str),
    /// A change of certificates, passwords or SSH keys.
    Rotate {
        context: &'a Context,
        intent: &'a Intent,
    },
    /// An operation on a running cluster; `host` is the member that it is about.
    Operate {
        operation: &'a operate::Operation,
        host: Option<&'a HostName>,
        seen: &'a Seen<'a>,
    },
    HandOver {
        context: &'a Context,
        handover: &'a Handover,
    },
    /// A host leaves the cluster, with its data.
    Retire {
        cluster: &'a str,
        farewell: &'a Farewell<'a>,
    },
    Remove {
        context: &'a Context,
        /// What goes, a line a thing.
        what: &'a str,
        keep_secrets: bool,
    },
    /// A host is made, and becomes an image that holds what is told here.
    Prepare {
        recipes: &'a [Recipe],
        outlook: &'a Preflight,
    },
    /// An image goes.
    Discard { image: &'a Prepared },
    /// A drill; `other_clients` are the clients that are not its own.
    Break {
        cluster: &'a Cluster,
        request: &'a Request,
        other_clients: &'a [OtherClient],
    },
    /// What a drill that was killed has left is to be put right before anything else.
    Repair,
}

/// What the operator says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    No,
    Yes,
    /// Yes, and nobody was asked: it was agreed to beforehand.
    Beforehand,
}

impl Question<'_> {
    /// What is said where nobody agrees.
    fn left(&self) -> &'static str {
        match self {
            Question::Remove { .. } | Question::Retire { .. } | Question::Discard { .. } => {
                "nothing was removed"
            }
            Question::Break { .. } => "nothing was broken",
            _ => "nothing was changed",
        }
    }
}

/// A run that begins, for the code that shows and records it.
pub(crate) struct Begun {
    /// It is not the verb's own, but goes before it or breaks nothing: nobody waits for its outcome.
    pub beside: bool,
    /// `runs/<time>`.
    pub folder: PathBuf,
    /// These are shown from the start, in this order; others as they turn up.
    pub hosts: Vec<HostName>,
    pub events: UnboundedReceiver<Stamped>,
}

/// The operator of a run: a person or a program.
#[async_trait]
pub(crate) trait Operator: Send + Sync {
    /// Masks `secrets` in all that is shown and kept from now on.
    fn conceal(&self, secrets: &[&Secret]);

    /// Tells a line that no event tells.
    fn say(&self, line: &str);

    /// Tells the same as prose, which a narrow display may break anywhere.
    fn explain(&self, prose: &str) {
        self.say(prose);
    }

    /// Whether it is to be done; an error where nobody can be asked.
    async fn agree(&self, question: Question<'_>) -> Result<Answer>;

    /// Takes the events of a run.
    fn begin(&self, run: Begun) -> Result<()>;

    /// Returns once all of the run's events have been shown and kept.
    async fn end(&self, error: Option<&Error>);
}

/// An error unless somebody agrees; says whether it was just now, after a while in which things may have
/// changed, or beforehand.
pub(super) async fn consent(operator: &dyn Operator, question: Question<'_>) -> Result<Answer> {
    let left = question.left();
    match operator.agree(question).await? {
        Answer::No => Err(Error::new(Code::NotConfirmed, "not confirmed").left(left)),
        agreed => Ok(agreed),
    }
}
