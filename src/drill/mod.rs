//! Breaks a cluster on purpose, and measures what its clients see.
//!
//! [`Load`] is the measuring part and can be used alone: clients at work, a ledger of their acknowledged
//! commits, and a [`Recording`] that [`measure`] turns into numbers. It can run beside anything that is done to
//! a cluster.

mod archive_outage;
mod client_error;
mod clients;
mod dropped_table;
mod fault;
mod ledger;
mod load;
mod measure;
mod narrator;
mod other_clients;
pub mod record;
mod recording;
mod replication_hold;
mod runner;
mod times;
mod verdict;
mod watched;

pub use client_error::ClientError;
pub use clients::{Clients, Target};
pub use fault::{Fault, Tools};
pub use ledger::{Balance, Ledger, Row, Standing, Tables};
pub use load::{Crew, Load};
pub use measure::{bands, longest_wait, marks, measure, samples};
pub use narrator::narrate;
pub use other_clients::{OtherClient, other_clients};
pub use recording::{Attempt, Kind, Probe, Recorder, Recording, View};
pub use replication_hold::LONGEST as LONGEST_HOLD;
pub use runner::Runner;
pub use verdict::{client_errors, judge};
pub use watched::watched;

use crate::provider::Provider;
pub use crate::scenario::Scenario;

/// Whether `provider` supports the fault. All faults but two are made over SSH.
pub fn can_be_played(scenario: Scenario, provider: &dyn Provider) -> bool {
    match scenario {
        Scenario::CrashHost => provider.can_crash(),
        Scenario::IsolateLeader => provider.can_isolate(),
        _ => true,
    }
}
