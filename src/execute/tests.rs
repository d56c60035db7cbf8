//! Walks a plan on fake hosts: only `Remote` is replaced.

mod cluster;
mod etcd;
mod hosts;
mod operate;
mod restart;
mod walk;
