//! Walks a plan: starts each step when the steps before it are done, on all hosts in parallel.

// If somebody adds a kind of provider or of source, the compiler asks for the missing arms.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    event::{Event, Events, Outcome, Stream},
    http::Http,
    inventory::HostName,
    plan::{Action, Plan, Step, StepId},
    remote::{Output, Remote, Script},
    services::postgres::SharedSurvey,
};

mod action;
mod diagnose;
mod etcd;
mod operate;
mod reboot;
mod restart;
mod retire;
pub(crate) mod space;
#[cfg(test)]
mod tests;
mod trial;
mod wait;
mod walk;

pub use walk::Walk;

/// What the execution of a step needs.
#[derive(Clone)]
pub struct Context {
    pub cluster: Arc<Cluster>,
    pub remote: Arc<dyn Remote>,
    pub http: Http,
    pub events: Events,
    /// What the members say of themselves, asked once for all waiting steps.
    pub survey: SharedSurvey,
    /// Set when the user wants to stop.
    pub cancel: CancellationToken,
}

/// Executes the whole plan, or as much of it as possible.
///
/// If a step fails, the steps that depend on it are skipped. All others continue, so that the next run has less
/// to do and all failed hosts are named. An interrupted walk starts nothing new and returns at once; steps
/// already running on a host finish there, and the next run waits for them.
pub async fn execute(plan: Plan, context: &Context) -> Result<()> {
    let walk = Walk::begin(context.cancel.clone());
    walk.add(plan, context);
    walk.end().await
}

async fn run_step(id: StepId, step: &Step, context: &Context) -> Result<()> {
    context.events.emit(Event::StepStarted {
        step: id,
        host: step.host.clone(),
        name: step.name,
    });
    let begin = Instant::now();
    let result = attempt(id, step, context).await;
    let seconds = begin.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            let outcome = if step.changes_something() {
                Outcome::Changed
            } else {
                Outcome::Done
            };
            finished(context, id, step, outcome, seconds, None);
            Ok(())
        }
        Err(error) => {
            let error = diagnose::explain(error, step, context).await;
            finished(context, id, step, Outcome::Failed, seconds, Some(&error));
            Err(error)
        }
    }
}

fn finished(
    context: &Context,
    id: StepId,
    step: &Step,
    outcome: Outcome,
    seconds: f64,
    error: Option<&Error>,
) {
    context.events.emit(Event::StepFinished {
        step: id,
        host: step.host.clone(),
        name: step.name,
        outcome,
        seconds,
        error: error.map(Error::to_string),
        code: error.map(Error::code),
    });
}

async fn attempt(id: StepId, step: &Step, context: &Context) -> Result<()> {
    let say = |stream: Stream, line: &str| output(context, id, step, &step.host, stream, line);
    match &step.action {
        Action::Run(script) => run(step, &step.host, script, context, &say).await,
        Action::RunOnLeader(script) => {
            let leader = action::leader(step.limit, context).await?;
            run(step, &leader, script, context, &say).await
        }
        Action::Await(condition) => wait::wait(condition, step, context, &say).await,
        Action::TryParameters(script) => trial::run(step, script, context, &say).await,
        Action::PatchConfig(patch) => action::patch_config(patch, step, context).await,
        Action::RestartPending => restart::restart_pending(step, context, &say).await,
        Action::ReleaseBootstrap { revision } => {
            action::release_bootstrap(step, revision, context).await
        }
        Action::HandOver => action::hand_over(step, context, &say).await,
        Action::SetPause(paused) => operate::set_pause(*paused, step, context, &say).await,
        Action::Reinitialize => operate::reinitialize(step, context, &say).await,
        Action::RestartPostgres { leads, since } => {
            operate::restart(*leads, since.as_ref(), step, context, &say).await
        }
        Action::Reboot { boot } => reboot::reboot(boot, step, context, &say).await,
        Action::FailOver => operate::fail_over(step, context, &say).await,
        Action::ForgetMember => action::forget_member(step, context).await,
        Action::ForgetPosition => action::forget_position(context).await,
        Action::AdoptSystem { system } => action::adopt_system(system, context).await,
        Action::ForbidElection(script) => {
            run(step, &step.host, script, context, &say).await?;
            retire::not_electable(step, context, &say).await
        }
        Action::LeadElsewhere { leaving } => {
            retire::lead_elsewhere(leaving, step, context, &say).await
        }
        Action::DropSlot { on, ttl } => retire::drop_slot(on, ttl, step, context, &say).await,
        Action::Wake => {
            action::wake(context).await;
            Ok(())
        }
        Action::TakeOver => {
            action::take_over(context, 1).await;
            Ok(())
        }
        Action::UpdateEtcdMember { peer_url } => {
            action::update_etcd_member(step, peer_url, context).await
        }
        Action::AddEtcdMember { peer_url } => {
            etcd::change(etcd::Change::Add { peer_url }, step, context, &say).await
        }
        Action::PromoteEtcdMember => etcd::change(etcd::Change::Promote, step, context, &say).await,
        Action::RemoveEtcdMember { id } => {
            etcd::change(etcd::Change::Remove { id }, step, context, &say).await
        }
    }
}

/// Receives the lines that a step reports.
type Say<'a> = &'a (dyn Fn(Stream, &str) + Send + Sync);

fn output(context: &Context, id: StepId, step: &Step, host: &HostName, stream: Stream, line: &str) {
    context.events.emit(Event::StepOutput {
        step: id,
        host: host.clone(),
        name: step.name,
        stream,
        line: line.to_owned(),
    });
}

/// Runs a script. Repeats it once if the connection broke, which is safe because every script can be repeated.
async fn run(
    step: &Step,
    host: &HostName,
    script: &Script,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let once = || context.remote.run(host, script, step.limit, say);
    let ended = match once().await {
        Err(error) if error.code() == Code::SshConnectionLost => {
            say(Stream::Stderr, "the connection broke; trying once more");
            once().await?
        }
        ended => ended?,
    };
    if ended.success() {
        Ok(())
    } else {
        Err(script_error(host, &ended))
    }
}

/// The error of a script that ran and failed. Lines that begin with `pgherd-hint:` become hints.
fn script_error(host: &HostName, output: &Output) -> Error {
    const HINT: &str = "pgherd-hint: ";
    let mut error = Error::new(Code::ScriptFailed, format!("exit code {}", output.code)).on(host);
    let said: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| !line.starts_with(HINT))
        .collect();
    error = error.excerpt("stderr", tail(&said.join("\n"), 20)).excerpt(
        "stdout",
        tail(&output.stdout, if said.is_empty() { 20 } else { 6 }),
    );
    for hint in output
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix(HINT))
    {
        error = error.hint(hint);
    }
    error
}

/// The last `count` lines.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The latest line that a wait reported, so that it reports each state once.
#[derive(Default)]
struct Latest(Mutex<String>);

impl Latest {
    fn say(&self, line: String, say: Say<'_>) {
        let mut latest = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *latest != line {
            say(Stream::Stdout, &line);
            *latest = line;
        }
    }
}
