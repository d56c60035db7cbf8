//! A difference between the present members and the declared ones.

/// A difference between the present members and the declared ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    /// Why the difference matters.
    pub why: &'static str,
    /// What to do about it, a line for each way.
    pub instead: String,
}
