//! What config files say, read in the same way as the programs read them.
//!
//! Users can change templates, and administrators edit files on hosts. So pgherd takes nothing from the layout
//! of a text: other indentation, quotes or order mean the same. pgherd keeps no second record either, because
//! the record could differ from the file after an interrupted run: docs/decisions/0011.
//!
//! No error repeats a text from here, because these files hold passwords.

mod environment;
mod haproxy;
mod keepalived;
mod mark;
mod passwords;
mod patroni;
mod requirements;

pub use environment::Environment;
pub use haproxy::{Proxy, proxies};
pub(crate) use keepalived::keepalived_addresses;
pub use mark::Mark;
pub(crate) use passwords::{of_option, of_pooler, of_stats, of_vrrp};
pub use patroni::{Access, PatroniConfig};
pub(crate) use requirements::pinned;
