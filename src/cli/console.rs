//! The operator as the engine knows it, at a terminal: what is told is shown, and what is asked is put
//! into words.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{apply, drill, operate, rotate};
use crate::{
    engine::operator::{Answer, Begun, Operator, Question},
    error::{Error, Result},
    report::{self, Expected, Handle, Options, Reporter, Run, RunLog, Terminal},
    secret::Secret,
};

/// A terminal at which somebody may sit; clones are the same one.
#[derive(Clone)]
pub(super) struct Console {
    terminal: Terminal,
    /// `--yes`: whatever is asked is agreed to.
    yes: bool,
    /// A verb that answers with one document has its progress for people only.
    for_people: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The report of the run that is under way.
    reporter: Mutex<Option<Handle>>,
    /// Whether that run is one beside the verb's own.
    beside: AtomicBool,
    /// What the verb's own run came to.
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

    /// For a verb that answers with one document.
    pub(super) fn for_people(self) -> Self {
        Self {
            for_people: true,
            ..self
        }
    }

    /// What the verb's own run came to; `None` where it ended before there was one.
    pub(super) fn ended(&self) -> Option<Run> {
        let mut ended = self
            .shared
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        ended.take()
    }

    /// Asks with the terminal to itself: what a run shows meanwhile waits.
    async fn ask(
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

    /// Puts a question into words, and takes the answer.
    async fn put(&self, question: Question<'_>) -> Result<bool> {
        const THIS: &str = "Do this?";
        match question {
            Question::Apply {
                verb,
                context,
                preview,
            } => {
                let text = apply::outline(verb, context, preview, &self.terminal);
                self.ask(|it| it.explain(&text), THIS, Expected::Yes).await
            }
            Question::Authority(note) => self.ask(|it| it.explain(note), THIS, Expected::Yes).await,
            Question::Rotate { context, intent } => {
                let text = rotate::outline(context, intent);
                self.ask(|it| it.explain(&text), THIS, Expected::Yes).await
            }
            Question::Operate {
                operation,
                host,
                seen,
            } => {
                let text = operate::outline(operation, host, seen);
                let (question, expected) = operate::question(operation, host);
                self.ask(|it| it.explain(&text), &question, expected).await
            }
            Question::HandOver { context, handover } => {
                let text = super::switchover::outline(context, handover);
                self.ask(|it| it.explain(&text), THIS, Expected::Yes).await
            }
            Question::Remove {
                context,
                what,
                keep_secrets,
            } => {
                let name = &context.inventory.cluster;
                let text = super::down::outline(name, what, keep_secrets);
                let question = format!("Remove {name} for good?");
                self.ask(|it| it.say(&text), &question, Expected::Word(name))
                    .await
            }
            Question::Break {
                cluster,
                request,
                other_clients,
            } => {
                let name = cluster.name();
                let text = drill::outline(cluster, request);
                let question = format!("Break {name} on purpose?");
                let agreed = self
                    .ask(|it| it.explain(&text), &question, Expected::Word(name))
                    .await?;
                let Some(text) = drill::others(request, other_clients).filter(|_| agreed) else {
                    return Ok(agreed);
                };
                let clients = Expected::Word("clients");
                self.ask(|it| it.explain(&text), "Break them off?", clients)
                    .await
            }
            Question::Repair => {
                self.ask(|_| (), "Put that right first?", Expected::Yes)
                    .await
            }
        }
    }
}

#[async_trait]
impl Operator for Console {
    fn conceal(&self, secrets: &[&Secret]) {
        self.terminal.conceal(secrets.iter().copied());
    }

    fn say(&self, line: &str) {
        self.terminal.say(line);
    }

    fn explain(&self, prose: &str) {
        self.terminal.explain(prose);
    }

    async fn agree(&self, question: Question<'_>) -> Result<Answer> {
        if self.yes {
            if let Question::Break {
                request,
                other_clients,
                ..
            } = &question
            {
                drill::agreed_beforehand(request, other_clients)?;
            }
            return Ok(Answer::Beforehand);
        }
        Ok(match self.put(question).await? {
            true => Answer::Yes,
            false => Answer::No,
        })
    }

    fn begin(&self, run: Begun) -> Result<()> {
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
        // Nobody else has it: a run begins before anything of it is asked.
        if let Ok(mut current) = self.shared.reporter.try_lock() {
            *current = Some(reporter);
        }
        Ok(())
    }

    async fn end(&self, error: Option<&Error>) {
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
