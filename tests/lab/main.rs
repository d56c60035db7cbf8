//! The whole product on real hosts: systemd, sshd and apt in containers, and all software on them installed as
//! a user's would be.
//!
//! Not part of a plain `cargo test`, because it needs a container engine and minutes: `cargo test --test lab --
//! --test-threads=1`.

#![allow(clippy::unwrap_used)]

mod addresses;
mod adopted;
mod backups;
mod bastion;
mod bring_up;
mod bucket;
mod by_hand;
mod clone;
mod cut_off;
mod doors;
mod drills;
mod etcd_members;
mod existing;
mod foreign;
mod hosts;
mod images;
mod interrupted;
mod lapsed;
mod lease;
mod lost;
mod membership;
mod monitoring;
mod overrides;
mod pooler;
mod quorum;
mod recovered;
mod recovery;
mod restore;
mod roles;
mod rolling;
mod security;
mod shape;
mod shared;
mod ssh_keys;
mod support;
mod truth;
mod tuning;
mod two_at_once;
mod upgrade;
mod watch;
