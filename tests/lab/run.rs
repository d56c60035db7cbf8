//! What tells one run's hosts from another's.

/// A word in the name of everything that the engine has for this run: `scripts/test` gives one, and
/// removes by it what tests leave that were cut off.
pub(crate) fn id() -> String {
    std::env::var("PGHERD_LAB_RUN").unwrap_or_else(|_| std::process::id().to_string())
}
