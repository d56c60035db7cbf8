//! A run, from what the inventory says to a proven cluster: what is there is looked at, planned, done
//! and proven, and a change that takes several stages goes through them one at a time.

pub(crate) mod apply;
pub(crate) mod authority;
mod connections;
pub(crate) mod context;
pub(crate) mod drill;
pub(crate) mod hosts;
mod leaving;
pub(crate) mod operate;
mod ownership;
pub(crate) mod preview;
pub(crate) mod remove;
pub(crate) mod rotate;
pub(crate) mod run;
pub(crate) mod switchover;
mod tls_migration;
