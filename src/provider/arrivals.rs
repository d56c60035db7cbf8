//! Hosts that are being launched, one by one as they come.

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::machine::Machine;

/// How far a host has come.
#[derive(Debug, Clone)]
pub enum Arrival {
    /// It runs and has its addresses; SSH may not answer yet.
    Running(Machine),
    /// SSH answers.
    Answers(Machine),
}

/// Where a provider tells of hosts as they come; silent where nobody listens.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Option<UnboundedSender<Arrival>>);

impl Arrivals {
    /// The receiver ends once all clones of the sender are dropped.
    pub fn channel() -> (Self, UnboundedReceiver<Arrival>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    pub fn tell(&self, arrival: Arrival) {
        if let Some(sender) = &self.0 {
            // Who listened may have seen enough.
            let _ = sender.send(arrival);
        }
    }
}
