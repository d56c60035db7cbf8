//! Planning as data: facts in, steps out.

mod accounts;
mod addresses;
mod convergence;
mod drift;
mod first_run;
mod operate;
mod model;
mod order;
mod pause;
mod properties;
mod remains;
mod removal;
mod surprises;
mod tls;
mod unseen;
pub(crate) mod world;
