//! etcd, in which the members of the database agree on who leads.

mod client;

pub use client::{Alarm, Etcd, Health, Member, PatroniKeys, View, prefix};
