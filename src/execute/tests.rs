//! Walking a plan on hosts that are not there: `Remote` alone is played.

mod cluster;
mod hosts;
mod operate;
mod restart;
mod walk;
