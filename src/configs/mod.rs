//! What config files say, read in the same way as the programs read them.
//!
//! Templates are the user's to change, and admins edit files on hosts. So nothing is learnt from how a text
//! looks: another indentation, other quotes or another order say the same. There is no second record of it
//! either, which could differ from the file after a run that was cut off: docs/decisions/0011.
//!
//! Nothing here repeats a text in an error: these files hold passwords.

mod environment;
mod mark;
mod patroni;
mod requirements;

pub use environment::Environment;
pub use mark::Mark;
pub use patroni::{Access, PatroniConfig};
pub(crate) use requirements::pinned;
