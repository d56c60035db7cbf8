//! What was read and begun on new hosts before all of them answered.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::connections::is_at_work;
use crate::{
    error::{Error, Kind, Result},
    execute::{self, Walk},
    facts::Facts,
    inventory::HostName,
    plan::Plan,
    quantity::count,
};

/// What was begun on hosts, until the plan for all hosts takes it over.
#[derive(Default)]
pub(super) struct Headway(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    /// The facts of the hosts before anything was done there, or why they could not be read.
    read: BTreeMap<HostName, Result<Facts>>,
    walk: Option<Walk>,
}

impl Headway {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the facts; possible once, because afterwards the hosts have changed.
    pub(super) fn take_read(&self) -> BTreeMap<HostName, Result<Facts>> {
        std::mem::take(&mut self.parts().read)
    }

    /// The running steps, for a caller that adds more steps and waits for their end.
    pub(super) fn take_walk(&self) -> Option<Walk> {
        self.parts().walk.take()
    }

    pub(super) fn note(&self, host: HostName, read: Result<Facts>) {
        self.parts().read.insert(host, read);
    }

    pub(super) fn add(&self, plan: Plan, context: &execute::Context) {
        let mut parts = self.parts();
        let cancel = || Walk::begin(context.cancel.clone());
        parts.walk.get_or_insert_with(cancel).add(plan, context);
    }

    /// Waits for everything that no plan has taken over, and returns all failures.
    pub(super) async fn end<T>(&self, result: Result<T>) -> Result<T> {
        let walk = self.take_walk();
        let is_left = walk.is_some();
        let ended = match walk {
            Some(walk) => walk.end().await,
            None => Ok(()),
        };
        let error = match (result, ended) {
            (Err(error), Err(other)) if other.kind() != Kind::Interrupted => {
                let all: Vec<Error> = [error, other].into_iter().flat_map(Error::apart).collect();
                return Err(Error::several(count(all.len(), "failure"), all));
            }
            (Ok(_), Err(error)) | (Err(error), _) => error,
            (Ok(value), Ok(())) => return Ok(value),
        };
        Err(match is_left {
            // These errors are reported where hosts are observed, not where they are changed.
            true if is_at_work(&error) => error.left(
                "on new hosts, files and packages may have been put already; the next run continues from there",
            ),
            true => error.hint("what was begun on new hosts is kept: the next run continues from there"),
            false => error,
        })
    }
}
