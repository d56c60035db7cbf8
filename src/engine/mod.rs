//! A run, from the inventory to a verified cluster: observe, plan, execute, verify.
//! A change in several stages goes through them one at a time.
//!
//! The engine has no terminal: the user is an [`operator::Operator`].

pub(crate) mod adopt;
mod ahead;
pub(crate) mod apply;
pub(crate) mod at_work;
mod authority;
pub(crate) mod backup;
mod bucket;

pub(crate) mod certificates;
mod collations;
pub(crate) mod compare;
mod connected;
mod connections;
pub(crate) mod context;
pub(crate) mod diagnose;
pub(crate) mod drill;
pub(crate) mod endpoint;
mod etcd_moves;
mod fencing;
mod guarded;
mod headway;
pub(crate) mod history;
pub(crate) mod hosts;
pub(crate) mod image;
mod impatient;
mod lapse;
mod launch;
mod leaving;
mod observe;
pub(crate) mod operate;
pub(crate) mod operator;
mod ownership;
pub(crate) mod preview;
pub(crate) mod prove;
pub(crate) mod psql;
pub(crate) mod reach;
pub(crate) mod reboot;
pub(crate) mod recover;
pub(crate) mod remove;
pub(crate) mod replace;
pub(crate) mod restore;
pub(crate) mod retire;
pub(crate) mod rotate;
mod run;
mod settle;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod switchover;
pub(crate) mod take_out;
mod taken;
pub(crate) mod targets;
#[cfg(test)]
pub(crate) mod tests;
mod tls_migration;
pub(crate) mod unfinished;
pub(crate) mod update;
pub(crate) mod upgrade;
mod upkeep;
pub(crate) mod watch;
