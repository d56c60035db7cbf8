//! What is done on new hosts while others still boot.
//!
//! What a host needs before its services (its own files, packages, Patroni's venv) depends on no other host,
//! but for their addresses. So a host that this run makes is looked at as soon as it answers, and gets that;
//! once all of them answer, the plan for the whole cluster takes over what has begun. The rules are those of
//! any step: the run's lease is held on a host before it is changed, what is taken there is noted before, and
//! a host that cannot be taken over is left alone. Nothing that is said here is lost either: whatever kept a
//! host from being looked at, or from being changed, the look at all hosts and the plan for them say.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected, connections::is_at_work, context::Context, headway::Headway,
    hosts::HostStatus, lapse, run::Run, settle::Consent,
};
use crate::{
    cluster::TlsStage,
    error::Result,
    execute,
    facts::Facts,
    inventory::HostName,
    machine::Machine,
    plan::{self, Found, Plan},
    provider::Arrival,
    render::{self, Files},
    workspace::Renewal,
};

/// Whether hosts may be changed one by one as they come: all that come are new, whoever was asked has
/// agreed to what is done on them, and nothing else is to change first.
pub(super) fn is_possible(context: &Context, hosts: &HostStatus, agreed: Consent) -> Result<bool> {
    Ok(agreed == Consent::Once
        && context.provider.owns_hosts()
        && hosts.stopped.is_empty()
        && hosts.moving.is_empty()
        && context.workspace.tls()? == TlsStage::of(&context.inventory)
        && lapse::lapsed(context)?.is_none())
}

/// Looks at hosts as they arrive, and begins on them what depends on no other host.
///
/// `there` are the cluster's other hosts. Ends once all that have arrived are looked at.
pub(super) async fn begin(
    run: &Run<'_>,
    there: &[Machine],
    mut arrivals: UnboundedReceiver<Arrival>,
    headway: &Headway,
) {
    let there = there.iter().map(|it| (it.host.clone(), it.clone()));
    let mut machines: BTreeMap<HostName, Machine> = there.collect();
    let mut answering = Vec::new();
    let site = OnceLock::new();
    let mut greeting = FuturesUnordered::new();
    let mut more = true;
    while more || !greeting.is_empty() {
        tokio::select! {
            arrival = arrivals.recv(), if more => match arrival {
                Some(Arrival::Running(machine)) => {
                    machines.insert(machine.host.clone(), machine);
                }
                Some(Arrival::Answers(machine)) => {
                    answering.push(machine.host.clone());
                    machines.insert(machine.host.clone(), machine);
                }
                None => more = false,
            },
            Some(()) = greeting.next() => {}
        }
        // Every host's own files name the addresses of all.
        if machines.len() == run.context.inventory.hosts.len() && site.get().is_none() {
            let all: Vec<Machine> = machines.values().cloned().collect();
            match Site::open(run, &all, headway).await {
                Ok(opened) => drop(site.set(opened)),
                Err(_) => return,
            }
        }
        if let Some(site) = site.get() {
            greeting.extend(answering.drain(..).map(|host| site.greet(host)));
        }
    }
}

/// What is the same for all hosts that arrive.
struct Site<'a> {
    connected: Connected<'a>,
    tls: TlsStage,
    draft: Files,
    /// Set when the user wants to stop, or another run has the cluster.
    stop: CancellationToken,
    headway: &'a Headway,
}

impl<'a> Site<'a> {
    async fn open(run: &Run<'a>, machines: &[Machine], headway: &'a Headway) -> Result<Self> {
        let connected = run.context.connect(machines, &run.events).await?;
        let tls = run.context.workspace.tls()?;
        Ok(Self {
            draft: connected.draft(tls)?,
            connected,
            tls,
            stop: run.cancel.child_token(),
            headway,
        })
    }

    /// Reads a host that answers, and begins what it needs.
    async fn greet(&self, host: HostName) {
        let read = self.connected.read(&host, &self.draft).await;
        match &read {
            Ok(facts) => {
                // What keeps a host from being planned, the plan for all of them says.
                if let Ok(Some((plan, context))) = self.plan(&host, facts).await {
                    self.headway.add(plan, &context);
                }
            }
            Err(error) if is_at_work(error) => self.stop.cancel(),
            Err(_) => {}
        }
        self.headway.note(host, read);
    }

    /// What one host needs that depends on no other; nothing where the lease is not held there, or
    /// another run has the cluster.
    async fn plan(
        &self,
        host: &HostName,
        facts: &Facts,
    ) -> Result<Option<(Plan, execute::Context)>> {
        if self.stop.is_cancelled() || !self.connected.remote.holds_lease(host).await {
            return Ok(None);
        }
        let context = self.connected.context;
        let machines = &self.connected.machines;
        // The others are taken to run the same, as long as they are not seen.
        let cluster = context.cluster(machines, self.tls, Renewal::Never, |_| facts.os.clone())?;
        let files = render::render(&cluster, &context.templates)?;
        let found = Found {
            facts: BTreeMap::from([(host.clone(), facts.clone())]),
            known: context.workspace.members()?,
            ..Found::default()
        };
        let plan = plan::ahead(&cluster, &files, &found, host)?;
        let context = self.connected.execution(&Arc::new(cluster), &self.stop);
        Ok((!plan.is_empty()).then_some((plan, context)))
    }
}
