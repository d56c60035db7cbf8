//! Everything that people and programs see of a run. Besides `main`, only this module writes to a terminal.
//!
//! Events come in. The same stream feeds bars, plain lines, JSON lines and the run's log. Errors, tables,
//! diffs, questions and the final summary are worded here too.

mod board;
mod canvas;
mod diff;
mod drills;
mod failure;
mod labels;
mod live;
mod mask;
mod page;
mod plain;
mod prompt;
mod run_log;
mod sinks;
mod summary;
mod table;
mod terminal;
mod text;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use self::sinks::Sinks;
pub use self::{
    canvas::Canvas,
    diff::diff,
    drills::print_drills,
    failure::{error_json, print_error},
    mask::Masks,
    page::KeptRun,
    prompt::{Expected, confirm},
    run_log::RunLog,
    summary::{Run, StepTime, Summary, print_summary},
    table::{Table, Tone},
    terminal::{Side, Terminal},
};
pub use crate::quantity::{bytes, count, duration};
use crate::{error::Error, event::Stamped, inventory::HostName, quantity};

/// The time between two pictures: short enough for a spinner, and little work.
const FRAME: Duration = Duration::from_millis(100);

/// How a run is reported.
#[derive(Debug)]
pub struct Options {
    pub terminal: Terminal,
    pub run_log: Option<RunLog>,
    /// In the order in which they are shown. Other hosts are added when they appear.
    pub hosts: Vec<HostName>,
}

/// Shows and records the events of a run.
#[derive(Debug)]
pub struct Reporter;

impl Reporter {
    /// Starts to listen. Must be called within a Tokio runtime.
    pub fn start(events: mpsc::UnboundedReceiver<Stamped>, options: Options) -> Handle {
        let sinks = Sinks::open(options);
        let (orders, inbox) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        // On a thread of its own: a terminal that is stopped with Ctrl-S, or a slow pipe, may block the report
        // but never the run.
        let task =
            tokio::task::spawn_blocking(move || runtime.block_on(listen(sinks, events, inbox)));
        Handle {
            orders,
            task: Some(task),
        }
    }
}

enum Order {
    Hide(oneshot::Sender<()>),
    Show,
    /// With the run's error as JSON, if there was one.
    Finish(Option<Value>),
}

/// A running report. Dropping it also ends the report, and clears the bars.
#[derive(Debug)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    /// `None` once its result has been taken.
    task: Option<JoinHandle<Run>>,
}

impl Handle {
    /// Reports everything sent so far, clears the bars and returns the run's result. The run's error is kept in
    /// its log, with every excerpt.
    ///
    /// Senders that still exist are not waited for.
    pub async fn conclude(mut self, error: Option<&Error>) -> Run {
        let _ = self.orders.send(Order::Finish(error.map(error_json)));
        match self.task.take() {
            Some(task) => task.await.unwrap_or_default(),
            None => Run::default(),
        }
    }

    /// Has the terminal to itself while `other` runs: for a question in the middle of a run.
    pub async fn aside<T>(&self, other: impl Future<Output = T>) -> T {
        let (ready, hidden) = oneshot::channel();
        let _ = self.orders.send(Order::Hide(ready));
        let _ = hidden.await;
        let result = other.await;
        let _ = self.orders.send(Order::Show);
        result
    }
}

impl Drop for Handle {
    /// A run that is given up, for example at a second Ctrl-C, drops this, and what is printed next must not
    /// get between the bars. The report has its own thread, so waiting here cannot cause a deadlock.
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        let _ = self.orders.send(Order::Finish(None));
        let begin = Instant::now();
        while !task.is_finished() && begin.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

async fn listen(
    mut sinks: Sinks,
    mut events: mpsc::UnboundedReceiver<Stamped>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Run {
    let mut batch = Vec::new();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = true;
    let failure = loop {
        tokio::select! {
            received = events.recv_many(&mut batch, 256), if open => {
                open = received > 0;
                batch.drain(..).for_each(|event| sinks.event(event));
                sinks.flush();
            }
            _ = frames.tick() => sinks.draw(),
            order = orders.recv() => match order {
                Some(Order::Hide(ready)) => {
                    while let Ok(event) = events.try_recv() {
                        sinks.event(event);
                    }
                    sinks.hide();
                    let _ = ready.send(());
                }
                Some(Order::Show) => sinks.show(),
                Some(Order::Finish(failure)) => break failure,
                None => break None,
            },
        }
    };
    events.close();
    while let Some(event) = events.recv().await {
        sinks.event(event);
    }
    if let Some(failure) = failure {
        sinks.failure(failure);
    }
    sinks.finish()
}
