//! Breaking a cluster on purpose, and what its clients feel meanwhile.
//!
//! [`Load`] is the measuring part and stands on its own: clients at work, a ledger of what they were
//! told, and a [`Recording`] that [`measure`] turns into numbers. It can run beside anything that is
//! done to a cluster.

mod clients;
mod fault;
mod guests;
mod hold;
mod ledger;
mod load;
mod measure;
mod narrator;
pub mod record;
mod stage;
mod tape;
mod trouble;
mod verdict;
mod watched;

pub use clients::{Clients, Target};
pub use fault::{Fault, Tools};
pub use guests::{Guest, guests};
pub use hold::LONGEST as LONGEST_HOLD;
pub use ledger::{Balance, Ledger, Row, Tables};
pub use load::{Crew, Load};
pub use measure::{bands, longest_wait, marks, measure, samples};
pub use narrator::narrate;
pub use stage::Stage;
pub use tape::{Attempt, Kind, Probe, Recording, Tape, View};
pub use trouble::Trouble;
pub use verdict::judge;
pub use watched::watched;

use crate::provider::Provider;
pub use crate::scenario::Scenario;

/// Whether `provider` can make the fault; all but two are made over SSH.
pub fn can_be_played(scenario: Scenario, provider: &dyn Provider) -> bool {
    match scenario {
        Scenario::CrashHost => provider.can_crash(),
        Scenario::IsolateLeader => provider.can_isolate(),
        _ => true,
    }
}
