//! Distinguishes one run's hosts from another's.

/// A word in the name of everything that the engine has for this run. `scripts/test` sets it, and removes by it
/// what interrupted tests leave.
pub(crate) fn id() -> String {
    std::env::var("PGHERD_LAB_RUN").unwrap_or_else(|_| std::process::id().to_string())
}
