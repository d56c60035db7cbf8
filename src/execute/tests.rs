//! Walks a plan on fake hosts: only `Remote` is replaced.

mod cluster;
mod hosts;
mod operate;
mod restart;
mod walk;
