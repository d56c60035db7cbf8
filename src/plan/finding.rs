//! What differs between who is a member and who is declared.

/// Something that differs between who is a member and who is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do instead.
    pub instead: String,
}
