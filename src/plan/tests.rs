//! Planning as data: facts in, steps out.

mod accounts;
mod addresses;
mod bootstrap_recovery;
mod convergence;
mod drift;
mod etcd_joins;
mod first_run;
mod foreign;
mod identity;
mod image;
mod layouts;
mod membership;
mod metadata_guard;
pub(crate) mod model;
mod newest;
mod operate;
mod order;
mod pause;
mod preconditions;
mod properties;
mod removal;
mod requirements;
mod retire;
mod secrecy;
mod tls;
mod unseen;
pub(crate) mod world;
