//! The user's terminal: what pgherd shows and asks there.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Mutex;

use crate::{
    engine::operator::Begun,
    error::{Error, Kind, Result},
    report::{self, Expected, Handle, Options, Reporter, Run, RunLog, Summary, Terminal},
};

/// A terminal, with or without a person at it. Clones are the same terminal.
#[derive(Clone)]
pub(super) struct Console {
    pub(super) terminal: Terminal,
    /// `--yes`: every question is answered with yes.
    pub(super) yes: bool,
    /// For verbs that print one document: progress is shown to people only.
    for_people: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The report of the current run.
    reporter: Mutex<Option<Handle>>,
    /// Whether that run is beside the verb's own run ([`Begun::beside`]).
    beside: AtomicBool,
    /// How the verb's own run ended.
    ended: std::sync::Mutex<Option<Run>>,
}

impl Console {
    pub(super) fn new(terminal: &Terminal, yes: bool) -> Self {
        Self {
            terminal: terminal.clone(),
            yes,
            for_people: false,
            shared: Arc::default(),
        }
    }

    /// For a verb that prints one document.
    pub(super) fn for_people(self) -> Self {
        Self {
            for_people: true,
            ..self
        }
    }

    /// How the verb's own run ended; `None` if it ended before it began to report.
    pub(super) fn ended(&self) -> Option<Run> {
        let mut ended = self
            .shared
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ended.take()
    }

    /// Shows the verb's own run and what it came to, unless it failed.
    pub(super) fn conclude(&self, told: Result<String>) -> Result<()> {
        if let Some(run) = self.ended() {
            self.summarise(&run, &told);
        }
        self.terminal.say(&told?);
        Ok(())
    }

    /// The same; where nothing changed, the summary says all. An error that came before anything changed stands alone.
    pub(super) fn conclude_changes(&self, told: Result<String>) -> Result<()> {
        let Some(run) = self.ended() else {
            return told.map(|_| ());
        };
        let untouched = matches!(&told, Err(error) if run.nothing_changed() && error.kind() != Kind::Interrupted);
        if !untouched {
            self.summarise(&run, &told);
        }
        let told = told?;
        if !run.nothing_changed() {
            self.terminal.explain(&told);
        }
        Ok(())
    }

    fn summarise(&self, run: &Run, told: &Result<String>) {
        let summary = Summary {
            settled: told.as_deref().unwrap_or_default(),
            endpoints: &[],
        };
        report::print_summary(&self.terminal, run, &summary);
    }

    /// Asks a question. Meanwhile, the output of a run waits.
    pub(super) async fn ask(
        &self,
        tell: impl FnOnce(&Terminal) + Send,
        question: &str,
        expected: Expected<'_>,
    ) -> Result<bool> {
        let ask = async {
            tell(&self.terminal);
            report::confirm(&self.terminal, question, expected).await
        };
        match self.shared.reporter.lock().await.as_ref() {
            Some(reporter) => reporter.aside(ask).await,
            None => ask.await,
        }
    }

    /// Shows and records a run from now on.
    pub(super) fn begin(&self, run: Begun) -> Result<()> {
        let options = Options {
            terminal: if self.for_people || run.beside {
                self.terminal.for_people()
            } else {
                self.terminal.clone()
            },
            run_log: Some(RunLog::create(&run.folder)?),
            hosts: run.hosts,
        };
        let reporter = Reporter::start(run.events, options);
        self.shared.beside.store(run.beside, Ordering::Relaxed);
        // Nothing else has the lock now: a run asks nothing before it begins.
        if let Ok(mut current) = self.shared.reporter.try_lock() {
            *current = Some(reporter);
        }
        Ok(())
    }

    /// Returns when all of the run has been shown and recorded.
    pub(super) async fn end(&self, error: Option<&Error>) {
        let Some(reporter) = self.shared.reporter.lock().await.take() else {
            return;
        };
        let run = reporter.conclude(error).await;
        if self.shared.beside.load(Ordering::Relaxed) {
            return;
        }
        let mut ended = self
            .shared
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *ended = Some(run);
    }
}
