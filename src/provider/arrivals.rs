//! Reports hosts that are being launched, as each of them comes.

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::machine::Machine;

/// How far a host is.
#[derive(Debug, Clone)]
pub enum Arrival {
    /// It runs and has its addresses; SSH may not answer yet.
    Running(Machine),
    /// SSH answers.
    Answers(Machine),
}

/// To this, a provider reports hosts as they come. Nothing happens if nobody listens.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Option<UnboundedSender<Arrival>>);

impl Arrivals {
    /// The receiver ends when all clones of the sender are dropped.
    pub fn channel() -> (Self, UnboundedReceiver<Arrival>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(Some(sender)), receiver)
    }

    pub fn tell(&self, arrival: Arrival) {
        if let Some(sender) = &self.0 {
            // The listener may have stopped.
            let _ = sender.send(arrival);
        }
    }
}
