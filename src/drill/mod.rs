//! Breaking a cluster on purpose, and what its clients feel meanwhile.

pub mod record;
mod scenario;

pub use scenario::Scenario;
