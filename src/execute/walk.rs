//! The order of steps in a walk, to which more steps may be added while it is running.

use std::sync::Arc;

use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Context, finished, run_step};
use crate::{
    error::{Error, Result},
    event::{Event, Outcome},
    inventory::HostName,
    plan::{Plan, Step, StepId},
    quantity::count,
};

/// A running walk, to which plans are added.
///
/// The code that begins a walk must end it: until then the walk waits for more.
pub struct Walk {
    more: UnboundedSender<(Arc<Plan>, Context)>,
    /// The task of the walk. It is aborted when this is dropped.
    walking: JoinSet<Result<()>>,
}

impl Walk {
    /// Begins without any steps. All plans that are added later have the same `cancel`.
    pub fn begin(cancel: CancellationToken) -> Self {
        let (more, added) = mpsc::unbounded_channel();
        let mut walking = JoinSet::new();
        walking.spawn(walk(added, cancel));
        Self { more, walking }
    }

    /// Adds a plan.
    ///
    /// A step that an earlier plan also has is not repeated: later steps of the new plan wait for the earlier
    /// one. If a step of the same name now does something else, it also waits for the earlier one.
    pub fn add(&self, plan: Plan, context: &Context) {
        // Nobody listens only after a panic, which the end of the walk reports.
        let _ = self.more.send((Arc::new(plan), context.clone()));
    }

    /// Waits until everything possible is done.
    pub async fn end(self) -> Result<()> {
        let Self { more, mut walking } = self;
        drop(more);
        match walking.join_next().await {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) => Err(Error::interrupted()),
        }
    }
}

/// Executes all plans that are `added`, or as much of them as possible.
async fn walk(
    mut added: UnboundedReceiver<(Arc<Plan>, Context)>,
    cancel: CancellationToken,
) -> Result<()> {
    let mut steps = Steps::default();
    let mut open = true;
    let mut interrupted = false;
    loop {
        if !interrupted && !cancel.is_cancelled() {
            steps.start_ready();
        }
        if steps.running.is_empty() && !open {
            break;
        }
        tokio::select! {
            biased;
            () = cancel.cancelled(), if !interrupted => {
                interrupted = true;
                steps.running.abort_all();
            }
            plan = added.recv(), if open => match plan {
                Some((plan, context)) => steps.add(&plan, &context),
                None => open = false,
            },
            Some(ended) = steps.running.join_next() => match ended {
                Ok((step, result)) => steps.ended(step, result),
                // The task was aborted, which only an interruption does. A panic is a bug and must propagate.
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
        }
    }
    steps.cancel_rest();
    if interrupted {
        return Err(Error::interrupted()
            .left("steps already running will finish")
            .hint("run the same command again: it continues from here"));
    }
    let mut failures = steps.failures;
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        many => Err(Error::several(
            format!("{} failed", count(many, "step")),
            failures,
        )),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    Failed,
}

/// A step of one of the plans.
struct Entry {
    plan: Arc<Plan>,
    /// Its index in that plan.
    index: usize,
    context: Context,
    /// Indices in the walk.
    after: Vec<StepId>,
    state: State,
}

impl Entry {
    fn step(&self) -> &Step {
        &self.plan.steps[self.index]
    }
}

/// The steps of all plans. A step's index here is its number in events.
#[derive(Default)]
struct Steps {
    entries: Vec<Entry>,
    running: JoinSet<(StepId, Result<()>)>,
    failures: Vec<Error>,
}

impl Steps {
    /// Takes the steps in, and tells of those that are new and of what they wait for, so that a report
    /// can say it.
    fn add(&mut self, plan: &Arc<Plan>, context: &Context) {
        let earlier = self.entries.len();
        let mut places: Vec<StepId> = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            let mut after: Vec<StepId> = step.after.iter().map(|it| places[*it]).collect();
            let begun = self.entries[..earlier].iter().position(|entry| {
                let other = entry.step();
                other.host == step.host && other.name == step.name
            });
            if let Some(begun) = begun {
                if self.entries[begun].step().action == step.action {
                    places.push(begun);
                    continue;
                }
                after.push(begun);
            }
            let place = self.entries.len();
            places.push(place);
            context.events.emit(Event::StepPlanned {
                step: place,
                host: step.host.clone(),
                name: step.name,
                why: step.why.clone(),
                after: after.clone(),
            });
            self.entries.push(Entry {
                plan: plan.clone(),
                index,
                context: context.clone(),
                after,
                state: State::Waiting,
            });
        }
    }

    fn start_ready(&mut self) {
        let is_done = |before: &StepId| self.entries[*before].state == State::Done;
        let is_ready =
            |entry: &Entry| entry.state == State::Waiting && entry.after.iter().all(is_done);
        let ready = (0..self.entries.len()).filter(|id| is_ready(&self.entries[*id]));
        let (mut heavy, light): (Vec<StepId>, Vec<StepId>) =
            ready.partition(|id| self.entries[*id].step().is_heavy());
        // Whoever is nearest to its end goes first, so that its services start while others are still busy.
        heavy.sort_by_key(|id| self.heavy_left(&self.entries[*id].step().host));
        for id in light {
            self.start(id);
        }
        for id in heavy {
            if self.has_room(id) {
                self.start(id);
            }
        }
    }

    /// Whether one more of the steps that keep a core busy may run.
    ///
    /// Hosts that have one such step are left out: it is short, and what it installs is what others wait for.
    fn has_room(&self, id: StepId) -> bool {
        let is_long = |host: &HostName| {
            let all = self.entries.iter().filter(|it| it.step().host == *host);
            all.filter(|it| it.step().is_heavy()).count() > 1
        };
        let entry = &self.entries[id];
        let busy = self.entries.iter().filter(|it| {
            it.state == State::Running && it.step().is_heavy() && is_long(&it.step().host)
        });
        let limit = entry.plan.at_once.filter(|_| is_long(&entry.step().host));
        limit.is_none_or(|limit| busy.count() < limit)
    }

    /// How many steps that keep a core busy are still to end on a host.
    fn heavy_left(&self, host: &HostName) -> usize {
        let all = self.entries.iter().filter(|it| it.step().host == *host);
        let left = all.filter(|it| matches!(it.state, State::Waiting | State::Running));
        left.filter(|it| it.step().is_heavy()).count()
    }

    fn start(&mut self, id: StepId) {
        let entry = &mut self.entries[id];
        let (plan, index) = (entry.plan.clone(), entry.index);
        let context = entry.context.clone();
        entry.state = State::Running;
        self.running.spawn(async move {
            let step = &plan.steps[index];
            (id, run_step(id, step, &context).await)
        });
    }

    fn ended(&mut self, step: StepId, result: Result<()>) {
        match result {
            Ok(()) => self.entries[step].state = State::Done,
            Err(error) => {
                self.entries[step].state = State::Failed;
                self.failures.push(error);
            }
        }
    }

    /// Reports the steps that did not end.
    fn cancel_rest(&self) {
        for (id, entry) in self.entries.iter().enumerate() {
            if matches!(entry.state, State::Waiting | State::Running) {
                let (context, step) = (&entry.context, entry.step());
                finished(context, id, step, Outcome::Cancelled, 0.0, None);
            }
        }
    }
}
