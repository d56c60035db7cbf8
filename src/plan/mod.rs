//! A plan, as data: its steps and their order.
//!
//! Planning is pure: the cluster as it should be and the hosts as they were found go in, steps come
//! out. What `plan` prints is the very value that `up` executes.

// If somebody adds a kind of provider or of source, the compiler asks for the missing arms.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use serde_json::Value;

use crate::{
    cluster::KnownHost,
    facts::Facts,
    inventory::{HostName, Role},
    remote::Script,
    secret::never_shown,
    services::etcd::{self, PatroniKeys},
};

mod base;
mod belongings;
mod bootstrap_recovery;
mod components;
mod config;
mod down;
mod etcd_joins;
mod etcd_leaves;
mod etcd_members;
mod etcd_takes_in;
mod files;
mod finding;
mod folders;
mod foreign;
mod haproxy_hold;
mod identity;
mod image;
mod local_sql;
mod members;
pub mod membership;
mod metadata_guard;
mod newest;
pub mod operate;
mod packages;
mod parameters;
mod passwords;
mod pause;
mod pending;
mod preconditions;
mod public_schema;
mod reconnect;
mod requirements;
pub mod retire;
mod roles;
mod rolling_restart;
mod sessions;
pub mod ssh_keys;
pub mod store;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod trial;
mod up;
mod waits;

pub use base::ahead;
pub(crate) use belongings::is_ours;
pub use config::config_patch;
pub use down::{down, stays, weigh_packages};
pub(crate) use identity::check as whose;
pub use image::{clean_for_image, image, prepare_facts};
pub(crate) use local_sql::{local_query, local_sql};
pub use pause::{PAUSED, how_to_resume, not_while_paused, paused};
pub(crate) use requirements::{clocks_agree, findings as lacking, off as clock_off};
pub(crate) use roles::not_right as roles_not_right;
pub use up::{differences, up};

/// The index of a step in its plan.
pub type StepId = usize;

/// Something that a person would want to know has changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Package(String),
    /// Masked, both sides; `None` where the file was not there, or where nothing of it may be shown.
    File {
        path: String,
        old: Option<String>,
        new: Option<String>,
        /// The owner or mode alone was wrong, or is wrong too.
        note: Option<String>,
    },
    /// The owner or the mode of a folder; `what` says in words what becomes of it.
    Folder {
        path: String,
        what: String,
    },
    /// `systemctl VERB unit`.
    Unit {
        unit: &'static str,
        verb: &'static str,
    },
    /// A setting that lives in the DCS.
    Setting {
        key: String,
        from: Option<Value>,
        to: Option<Value>,
    },
    /// Anything else, in a few words.
    Other(String),
}

/// What a step waits to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The service on the step's host is ready, by its own health (`services::health`).
    Ready(Role),
    /// One member is primary and takes writes.
    Leader,
    /// The leader streams to the step's host.
    Streaming,
}

never_shown!(Action, Step, Plan, Found);

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Run(Script),
    /// Runs on whichever host leads when the step's turn comes.
    RunOnLeader(Script),
    Await(Condition),
    /// Starts PostgreSQL as far as it goes without serving, with the parameters that are to come.
    TryParameters(Script),
    /// Merges into Patroni's cluster-wide configuration.
    PatchConfig(Value),
    /// Restarts PostgreSQL where a parameter waits for it, replicas first, one at a time.
    RestartPending,
    /// Removes the lock of a bootstrap that died, unless somebody has touched it since.
    ReleaseBootstrap {
        revision: String,
    },
    /// Gives the leadership to another member, if the step's host has it.
    HandOver,
    /// Has every Patroni run its loop now rather than within `loop_wait`.
    Wake,
    /// The same, and waits until each has read its config.
    TakeOver,
    /// Has the members leave the leader as it is, whatever happens to it, or look after it again.
    SetPause(bool),
    /// Has the member on the step's host remove its data and copy the leader's anew; ends once that has begun.
    Reinitialize,
    /// Restarts PostgreSQL on the step's host, unless it has started after `since`; unless `leads`, only while it is a
    /// replica.
    RestartPostgres {
        leads: bool,
        since: Option<String>,
    },
    /// Makes the step's host the leader, whatever becomes of the one that there was.
    FailOver,
    /// Deletes what the DCS has of the member on the step's host.
    ForgetMember,
    /// Has etcd take in a learner, which its peers find at that URL.
    AddEtcdMember {
        peer_url: String,
    },
    /// Gives the member on the step's host its vote once it has caught up, and sees that all members agree.
    PromoteEtcdMember,
    /// Takes a member out of etcd's list, for good.
    RemoveEtcdMember {
        id: String,
    },
    /// Gives the leadership to a member that is not of these, if one of these has it.
    LeadElsewhere {
        leaving: Vec<HostName>,
    },
    /// Has Patroni drop the replication slot of the member on the step's host.
    DropSlot {
        /// Where the slot may be, and can be looked for.
        on: Vec<HostName>,
        /// What `member_slots_ttl` is to be afterwards.
        ttl: Value,
    },
    /// Tells etcd's cluster under which URL the peers of the member on the step's host find it.
    UpdateEtcdMember {
        peer_url: String,
    },
}

/// One thing to do on one host, in one round trip.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub host: HostName,
    /// An identifier, the same in plans, events, logs and errors.
    pub name: &'static str,
    /// Why it is not already done.
    pub why: String,
    /// Steps that must have ended well before; always earlier ones, so there is no cycle.
    pub after: Vec<StepId>,
    pub changes: Vec<Change>,
    pub action: Action,
    pub limit: Duration,
    /// Units whose journals explain a failure.
    pub units: Vec<&'static str>,
}

impl Step {
    /// Whether it changes anything, or only waits or tries.
    pub fn changes_something(&self) -> bool {
        !matches!(self.action, Action::Await(_) | Action::TryParameters(_))
    }
}

/// Something that is as it should be already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchanged {
    pub host: HostName,
    pub name: &'static str,
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub unchanged: Vec<Unchanged>,
    /// Somebody has paused Patroni.
    pub paused: bool,
    /// It ends where etcd answers, or where somebody leads: only then can be told what else is needed.
    pub partial: bool,
    /// How who is a member changes, in words, a line each; shown before everything else.
    pub membership: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many steps change something.
    pub fn changes(&self) -> usize {
        self.steps
            .iter()
            .filter(|step| step.changes_something())
            .count()
    }

    fn push(&mut self, mut step: Step) -> StepId {
        step.after.sort_unstable();
        step.after.dedup();
        debug_assert!(step.after.iter().all(|before| *before < self.steps.len()));
        self.steps.push(step);
        self.steps.len() - 1
    }

    fn skip(&mut self, host: &HostName, name: &'static str, reason: impl Into<String>) {
        self.unchanged.push(Unchanged {
            host: host.clone(),
            name,
            reason: reason.into(),
        });
    }
}

/// What the hosts and the DCS were found to be.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub facts: BTreeMap<HostName, Facts>,
    /// Patroni's keys; `None` while no etcd answers.
    pub dcs: Option<PatroniKeys>,
    /// etcd's members as they know each other; empty while none answers.
    pub etcd: Vec<etcd::Member>,
    /// A member says that Patroni is paused; asked while no etcd answers.
    pub paused: bool,
    /// What each declared etcd that answers says of its store, with a quorum or without.
    pub stores: BTreeMap<HostName, etcd::View>,
    /// The hosts that the last runs left in the workspace's list.
    pub known: Vec<KnownHost>,
    /// Hosts that are new at their address, and still answer at the one that they had before.
    pub elsewhere: BTreeMap<HostName, Elsewhere>,
    /// Hosts that are to leave: that they are no longer declared is nothing to refuse.
    pub leaving: retire::Departures,
}

/// Where a host of the cluster still answers that the inventory has at another address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    pub address: Ipv4Addr,
    pub ports: Vec<u16>,
}
