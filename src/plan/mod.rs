//! A plan, as data: its steps and their order.
//!
//! Planning is pure: its input is the cluster as it should be and the observed hosts, and its output is steps.
//! `up` executes exactly the value that `plan` prints.

// If somebody adds a kind of provider or of source, the compiler asks for the missing arms.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use serde_json::Value;

use crate::{
    cluster::KnownHost,
    facts::Facts,
    inventory::{HostName, Role},
    remote::Script,
    secret::never_shown,
    services::etcd::{self, PatroniKeys},
};

mod backups;
mod base;
mod belongings;
mod bootstrap_recovery;
pub mod collations;
mod components;
mod config;
mod data_volume;
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
mod has_role;
mod held;
mod identity;
mod image;
mod in_turn;
mod local_sql;
pub mod lost;
mod members;
pub mod membership;
mod metadata_guard;
mod monitor;
mod new_store;
mod newest;
pub mod operate;
mod own_role;
mod packages;
mod parameters;
mod passwords;
mod pause;
mod pending;
mod pooler;
mod preconditions;
mod public_schema;
mod read_drain;
pub mod reboot;
mod reconnect;
mod requirements;
pub(crate) mod restore;
pub mod retire;
mod role_leaves;
mod roles;
mod rolling_restart;
mod seen;
mod sessions;
pub mod ssh_keys;
pub mod store;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod trial;
mod up;
pub mod update;
pub(crate) mod upgrade;
mod vip_leaves;
mod waits;

pub use backups::rehearse;
pub(crate) use backups::{Holds, now as backup};
pub use base::ahead;
pub(crate) use belongings::{is_ours, take_over};
pub(crate) use components::RESTART_PATRONI_ALONE;
pub use config::config_patch;
pub use down::{down, stays, weigh_packages};
pub(crate) use identity::check as whose;
pub use image::{clean_for_image, image, prepare_facts};
pub use in_turn::order;
pub(crate) use local_sql::{local_query, local_sql};
pub(crate) use packages::LOCKS;
pub use pause::{PAUSED, how_to_resume, not_while_paused, paused};
pub(crate) use pooler::not_right as roles_not_right;
pub(crate) use requirements::{clocks_agree, findings as lacking, off as clock_off};
pub use role_leaves::TakenOff;
pub use up::{differences, up};

/// The index of a step in its plan.
pub type StepId = usize;

/// A change that a person would want to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Package(String),
    /// Both sides are masked; `None` if the file did not exist, or must not be shown.
    File {
        path: String,
        old: Option<String>,
        new: Option<String>,
        /// Owner or mode was wrong, alone or beside the content.
        note: Option<String>,
    },
    /// The owner or the mode of a folder; `what` describes the change.
    Folder {
        path: String,
        what: String,
    },
    /// `systemctl VERB unit`.
    Unit {
        unit: &'static str,
        verb: &'static str,
    },
    /// A setting in the DCS.
    Setting {
        key: String,
        from: Option<Value>,
        to: Option<Value>,
    },
    /// Anything else, in a few words.
    Other(String),
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The service on the step's host is ready, by its own health (`services::health`).
    Ready(Role),
    /// One member is primary and accepts writes.
    Leader,
    /// The leader streams to the step's host.
    Streaming,
}

never_shown!(Action, Step, Plan, Found);

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Run(Script),
    /// Runs on the host that leads when the step begins.
    RunOnLeader(Script),
    Await(Condition),
    /// Starts PostgreSQL without serving clients, with the future parameters.
    TryParameters(Script),
    /// Merges into Patroni's cluster-wide configuration.
    PatchConfig(Value),
    /// Restarts PostgreSQL on members with a parameter that waits for it: replicas first, one at a time.
    RestartPending,
    /// Removes the lock of a dead bootstrap, unless the lock has changed since.
    ReleaseBootstrap {
        revision: String,
    },
    /// Gives the leadership to another member, if the step's host leads.
    HandOver,
    /// Makes every Patroni run its loop now instead of within `loop_wait`.
    Wake,
    /// The same, and waits until each has read its config.
    TakeOver,
    /// Makes the members leave the leader as it is, whatever happens to it (pause), or watch it again.
    SetPause(bool),
    /// Makes the member on the step's host remove its data and copy the leader's again; ends when the copy has
    /// begun.
    Reinitialize,
    /// Restarts PostgreSQL on the step's host, unless it started after `since`. Without `leads`, only if it is
    /// a replica.
    RestartPostgres {
        leads: bool,
        since: Option<String>,
    },
    /// Has the step's host boot again, unless it has done so since it had this mark
    /// ([`Upkeep::boot`](crate::facts::Upkeep::boot)); ends when it answers again.
    Reboot {
        boot: String,
    },
    /// Makes the step's host the leader, whatever happens to the present leader.
    FailOver,
    /// Deletes what the DCS has of the member on the step's host.
    ForgetMember,
    /// Deletes what the DCS has of the WAL's end, which is further than that of a restored database.
    ForgetPosition,
    /// Has the DCS name another database by its system identifier, forget how far the other one was, and end a pause.
    AdoptSystem {
        system: String,
    },
    /// Adds a learner to etcd, which its peers reach at that URL.
    AddEtcdMember {
        peer_url: String,
    },
    /// Gives the member on the step's host its vote when it has caught up, and checks that all members agree.
    PromoteEtcdMember,
    /// Removes a member from etcd's list, for good.
    RemoveEtcdMember {
        id: String,
    },
    /// Has the member on the step's host never be elected: runs the script, and waits until its Patroni has taken
    /// that over.
    ForbidElection(Script),
    /// Gives the leadership to another member than these, if one of these leads.
    LeadElsewhere {
        leaving: Vec<HostName>,
    },
    /// Makes Patroni drop the replication slot of the member on the step's host.
    DropSlot {
        /// The members on which the slot may exist and that can be asked.
        on: Vec<HostName>,
        /// The value of `member_slots_ttl` afterwards.
        ttl: Value,
    },
    /// Tells etcd's cluster at which URL the peers reach the member on the step's host.
    UpdateEtcdMember {
        peer_url: String,
    },
}

/// One action on one host, in one round trip.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub host: HostName,
    /// An identifier, the same in plans, events, logs and errors.
    pub name: &'static str,
    /// Why it is necessary.
    pub why: String,
    /// Steps that must succeed before. They are always earlier ones, so there is no cycle.
    pub after: Vec<StepId>,
    pub changes: Vec<Change>,
    pub action: Action,
    pub limit: Duration,
    /// The units whose journals explain a failure.
    pub units: Vec<&'static str>,
}

impl Step {
    /// Whether it keeps a core of its host busy for seconds.
    pub fn is_heavy(&self) -> bool {
        packages::HEAVY.contains(&self.name)
    }

    /// Whether it changes anything; otherwise it only waits or tries.
    pub fn changes_something(&self) -> bool {
        !matches!(self.action, Action::Await(_) | Action::TryParameters(_))
    }
}

/// Something that needs no step, because it is as it should be.
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
    /// The cluster is paused.
    pub paused: bool,
    /// The plan ends where data volumes are mounted, where etcd answers, where a member leads, or before databases that
    /// are restored. Only then is it known what else is needed.
    pub partial: bool,
    /// The plan ends where data volumes are mounted.
    pub mounts: bool,
    /// Changes of membership, one line each; shown before everything else.
    pub membership: Vec<String>,
    /// The roles that are taken off hosts which stay.
    pub taken_off: Vec<TakenOff>,
    /// How many steps that keep a core busy may run at once; no limit where each host has its own machine.
    pub at_once: Option<usize>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The number of steps that change something.
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

/// The hosts and the DCS as observed.
#[derive(Debug, Clone, Default)]
pub struct Found {
    pub facts: BTreeMap<HostName, Facts>,
    /// Patroni's keys; `None` while no etcd answers.
    pub dcs: Option<PatroniKeys>,
    /// etcd's members in their own list; empty while none answers.
    pub etcd: Vec<etcd::Member>,
    /// A member says that Patroni is paused; asked only while no etcd answers.
    pub paused: bool,
    /// What each declared etcd that answers says of its store, with or without a quorum.
    pub stores: BTreeMap<HostName, etcd::View>,
    /// The hosts in the workspace's list, from the last runs.
    pub known: Vec<KnownHost>,
    /// Hosts that are new at their address, and whose old address still answers.
    pub elsewhere: BTreeMap<HostName, Elsewhere>,
    /// Hosts that do not run, and that the run starts before it does anything else.
    pub starting: BTreeSet<HostName>,
    /// Hosts that will leave. It is no error that they are not declared any more.
    pub leaving: retire::Departures,
    /// The cluster is removed with its backups.
    pub without_backups: bool,
    /// What the repository keeps; asked only where no host has the database.
    pub repository: Option<lost::Keeps>,
    /// A restore of such a cluster has begun: its hosts are made ready, and no database is started.
    pub restores: bool,
}

/// An address at which a host of the cluster still answers, although the inventory has another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    pub address: Ipv4Addr,
    pub ports: Vec<u16>,
}
