//! Whole runs without a terminal: hosts, provider and operator are fakes, and everything between them is real.

mod ahead;
mod answers;
mod apply;
mod bucket;
mod dead;
mod hosts;
mod leavers;
mod neighbours;
pub(crate) mod people;
mod recover;
mod rotate;
mod shape;
mod shared;
mod sql;
mod taken_over;
mod tls;
mod vip;
mod watch;
