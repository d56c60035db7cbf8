//! The operator: the user as the engine sees them. The engine reports to the operator and asks it questions. In
//! tests, it has no terminal.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    context::Context,
    drill::play::Request,
    operate,
    preview::Preview,
    reboot,
    restore::{Outlook, clone},
    retire::Farewell,
    rotate::Intent,
    settle::Verb,
    update, upgrade,
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
    workspace::{StateOutlook, Upgrading},
};

/// Something that the user must agree to before it is done. It is data; the operator words the question.
pub(crate) enum Question<'a> {
    /// A plan, with the hosts that are created and started before it.
    Apply {
        verb: Verb,
        context: &'a Context,
        preview: &'a Preview,
    },
    /// A new authority replaces one that is not valid; the text says why.
    Authority(&'a str),
    /// A change of certificates, passwords or SSH keys.
    Rotate {
        context: &'a Context,
        intent: &'a Intent,
    },
    /// An operation on a running cluster; `host` is the member that it concerns.
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
    /// The cluster is restored in place.
    Restore {
        cluster: &'a str,
        outlook: &'a Outlook,
    },
    /// Another cluster is made from this one's repository.
    Clone { outlook: &'a clone::Outlook },
    /// PostgreSQL is upgraded to another major version.
    Upgrade {
        cluster: &'a str,
        outlook: &'a upgrade::Outlook,
    },
    /// The old version leads again, without what was written since.
    UpgradeBack {
        cluster: &'a str,
        loss: &'a upgrade::Loss,
    },
    /// The old version's data is removed.
    UpgradeAccept {
        cluster: &'a str,
        upgrading: &'a Upgrading,
    },
    /// Hosts boot again, one at a time.
    Reboot {
        cluster: &'a str,
        outlook: &'a reboot::Outlook,
    },
    /// Newer versions come to the hosts.
    Update {
        cluster: &'a str,
        outlook: &'a update::Outlook,
    },
    Remove {
        context: &'a Context,
        /// The things that are removed, one on each line.
        what: &'a str,
        keep_secrets: bool,
    },
    /// A host is created and becomes an image with these contents.
    Prepare {
        recipes: &'a [Recipe],
        preflight: &'a Preflight,
    },
    /// This machine's workspace replaces the shared state.
    PushState { outlook: &'a StateOutlook },
    /// The shared state replaces this machine's workspace.
    PullState { outlook: &'a StateOutlook },
    /// An image is removed.
    Discard { image: &'a Prepared },
    /// A drill; `other_clients` are the clients that are not its own.
    Break {
        cluster: &'a Cluster,
        request: &'a Request,
        other_clients: &'a [OtherClient],
    },
    /// What a killed drill left broken is repaired before anything else.
    Repair,
}

/// The operator's answer to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    No,
    Yes,
    /// Yes, without a question: the user agreed beforehand.
    Beforehand,
}

impl Question<'_> {
    /// What the error says if the user does not agree.
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
    /// The run is not the verb's own, but comes before it or breaks nothing. Its outcome is not the verb's
    /// outcome.
    pub beside: bool,
    /// `runs/<time>`.
    pub folder: PathBuf,
    /// Shown from the start, in this order. Other hosts are shown when they appear.
    pub hosts: Vec<HostName>,
    pub events: UnboundedReceiver<Stamped>,
}

/// The operator of a run: a person or a program.
#[async_trait]
pub(crate) trait Operator: Send + Sync {
    /// Masks `secrets` in everything that is shown and recorded from now on.
    fn conceal(&self, secrets: &[&Secret]);

    /// Shows a line that no event contains.
    fn say(&self, line: &str);

    /// Shows a line of prose, which a narrow display may break anywhere.
    fn explain(&self, prose: &str) {
        self.say(prose);
    }

    /// Asks whether to do it; an error if nobody can answer.
    async fn agree(&self, question: Question<'_>) -> Result<Answer>;

    /// Takes the events of a run.
    fn begin(&self, run: Begun) -> Result<()>;

    /// Returns when all events of the run have been shown and recorded.
    async fn end(&self, error: Option<&Error>);
}

/// An error unless the operator agrees. The answer says whether somebody was asked just now, in which case
/// things may have changed meanwhile, or agreed beforehand.
pub(super) async fn consent(operator: &dyn Operator, question: Question<'_>) -> Result<Answer> {
    let left = question.left();
    match operator.agree(question).await? {
        Answer::No => Err(Error::new(Code::NotConfirmed, "not confirmed").left(left)),
        agreed => Ok(agreed),
    }
}
