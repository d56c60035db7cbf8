//! What a run knows of its bucket.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::error::Error;

/// What a run knows of its bucket, once it has asked.
#[derive(Default)]
pub(crate) struct News {
    asked: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
pub(crate) struct Known {
    /// Why no backups should begin in it.
    pub trouble: Option<Error>,
    /// What `up` does about it.
    pub change: Option<String>,
}

impl News {
    /// Whether it was called before.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
