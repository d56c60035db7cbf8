//! The shared state of a cluster: what verbs do about it before and after their own work, and `pgherd state`.

use super::{
    context::{Context, Source},
    operator::{Question, consent},
};
use crate::{
    error::{self, Code, Error, Result},
    holder::Holder,
    inventory::Inventory,
    workspace::{RunLock, Shared, StateOutlook, Workspace},
};

/// Brings this machine's copy up to date, before anything reads the workspace.
///
/// If that is not possible, verbs that only look work with the copy, and are told so; those that change something are
/// refused later ([`Context::begin_state`]).
///
/// # Errors
/// There is no copy on this machine.
pub(crate) async fn arrive(source: &Source<'_>) -> Result<()> {
    let Some(shared) = Shared::of(&source.inventory)? else {
        return Ok(());
    };
    let said = match shared.refresh().await {
        Ok(notes) => notes,
        Err(error) if shared.has_copy() => vec![in_short(&error)],
        Err(error) => return Err(error),
    };
    for line in said {
        let line = match source.inventory.options() {
            Some(options) => error::with_options(&line, &options),
            None => line,
        };
        source.operator.say(&format!("note: {line}"));
    }
    Ok(())
}

/// An error in a line, for verbs that go on without it.
fn in_short(error: &Error) -> String {
    let cause = error.causes().first();
    let cause = cause.map_or_else(String::new, |it| format!(" ({it})"));
    format!(
        "{}{cause}; this is what this machine has. See: pgherd state",
        error.what()
    )
}

impl Context {
    /// Takes the shared state for a run that changes something: from here on, the run decides by what it has.
    pub(super) async fn begin_state(&self, lock: &RunLock) -> Result<()> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        for note in shared.begin(lock.holder()).await? {
            self.operator.say(&format!("note: {note}"));
        }
        Ok(())
    }

    /// Returns when the shared state has all that hosts may get next.
    pub(super) async fn state_is_ready(&self) -> Result<()> {
        match &self.shared {
            Some(shared) => shared.ready().await,
            None => Ok(()),
        }
    }

    /// Writes what the run has changed last; for the end of a run, whatever came of it.
    pub(super) async fn store_state(&self) -> Result<()> {
        let left = "the shared state lacks the last change of this run, which this machine has";
        let hint = "run the same command again: it completes both";
        self.to_state(async |shared| shared.store().await, left, hint)
            .await
    }

    /// Notes that the cluster is gone, before the workspace goes.
    pub(super) async fn end_state(&self) -> Result<()> {
        let left = "the cluster's hosts are removed, and its shared state is not";
        let hint = "run `pgherd down` again: it removes the rest";
        self.to_state(async |shared| shared.end().await, left, hint)
            .await
    }

    /// Does something to the shared state if there is one; the rest is for an error.
    async fn to_state(
        &self,
        work: impl AsyncFnOnce(&Shared) -> Result<()>,
        left: &str,
        hint: &str,
    ) -> Result<()> {
        match &self.shared {
            None => Ok(()),
            Some(shared) => {
                let done = work(shared).await;
                done.map_err(|error| error.left(left).hint(hint))
            }
        }
    }

    /// Puts a workspace into the shared state that was made from what hosts have.
    pub(super) async fn share_new(&self) {
        let Some(shared) = &self.shared else {
            return;
        };
        let done = shared.init(&self.connections.holder()).await;
        self.operator.say(&match done {
            Ok(generation) => {
                format!("note: it is in the shared state, as generation {generation}")
            }
            Err(error) => self.with_options(&format!(
                "note: it is not in the shared state yet: {}. Put it there: pgherd state init",
                error.what()
            )),
        });
    }
}

/// What is at the place, and on this machine.
pub(crate) async fn look(inventory: &Inventory) -> Result<StateOutlook> {
    of(inventory)?.look().await
}

/// Puts this machine's workspace into a place that has none; returns the generation.
pub(crate) async fn init(inventory: &Inventory) -> Result<u64> {
    let (shared, lock) = (of(inventory)?, lock(inventory)?);
    shared.init(&holder(lock.as_ref())).await
}

/// Makes this machine's workspace the next generation; returns its number. The user is asked if something else is there.
pub(crate) async fn push(source: &Source<'_>) -> Result<u64> {
    let inventory = &source.inventory;
    let (shared, lock) = (of(inventory)?, lock(inventory)?);
    let outlook = shared.look().await?;
    if outlook.trouble.is_some() || outlook.there.as_ref().map(|it| it.number) != outlook.here {
        let question = Question::PushState { outlook: &outlook };
        consent(source.operator.as_ref(), question).await?;
    }
    shared.push(&holder(lock.as_ref())).await
}

/// Replaces this machine's workspace by the shared one; returns the generation, and the files that were put aside.
pub(crate) async fn pull(source: &Source<'_>) -> Result<(u64, Vec<String>)> {
    let inventory = &source.inventory;
    let (shared, _lock) = (of(inventory)?, lock(inventory)?);
    let outlook = shared.look().await?;
    if shared.has_copy() && (outlook.trouble.is_some() || !outlook.unsent.is_empty()) {
        let question = Question::PullState { outlook: &outlook };
        consent(source.operator.as_ref(), question).await?;
    }
    shared.pull().await
}

fn of(inventory: &Inventory) -> Result<Shared> {
    Shared::of(inventory)?.ok_or_else(|| {
        Error::new(
            Code::NotPossibleNow,
            "the inventory has no `state`: the workspace is on this machine alone",
        )
        .hint("how to share it: docs/shared-state.md")
    })
}

/// Keeps runs of this folder away; `None` without a workspace.
fn lock(inventory: &Inventory) -> Result<Option<RunLock>> {
    let workspace = Workspace::existing(inventory)?;
    workspace.map(|it| it.lock_folder("state")).transpose()
}

fn holder(lock: Option<&RunLock>) -> Holder {
    lock.map_or_else(|| Holder::now("state"), |lock| lock.holder().clone())
}
