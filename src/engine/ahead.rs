//! Prepares new hosts while others still boot.
//!
//! Before its services, a host needs its own files, packages and Patroni's venv. These depend on no other host,
//! except for the addresses. So each new host is observed and prepared as soon as it answers. Once all hosts
//! answer, the plan for the whole cluster takes over what has begun. The usual rules apply: the run takes a
//! host's lease before it changes the host, notes in the manifest what it takes there, and leaves a host alone
//! that it cannot take over. Nothing is reported here if a host cannot be observed or changed: observing all
//! hosts and planning for them will report it.

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

/// Whether hosts may be prepared one by one: all missing hosts are new, the user has agreed to the steps on
/// them, and nothing else must change first.
pub(super) fn is_possible(context: &Context, hosts: &HostStatus, agreed: Consent) -> Result<bool> {
    Ok(agreed == Consent::Once
        && context.provider.owns_hosts()
        && hosts.stopped.is_empty()
        && hosts.moving.is_empty()
        && context.workspace.tls()? == TlsStage::of(&context.inventory)
        && lapse::lapsed(context)?.is_none())
}

/// Observes hosts as they arrive, and begins the steps that depend on no other host.
///
/// `there` are the cluster's other hosts. Returns when all hosts that arrived have been observed.
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
        // The files of each host name the addresses of all hosts.
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

/// The input that is the same for all arriving hosts.
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

    /// Observes a host that answers, and begins what it needs.
    async fn greet(&self, host: HostName) {
        let read = self.connected.read(&host, &self.draft).await;
        match &read {
            Ok(facts) => {
                // If the host cannot be planned for, the plan for all hosts reports why.
                if let Ok(Some((plan, context))) = self.plan(&host, facts).await {
                    self.headway.add(plan, &context);
                }
            }
            Err(error) if is_at_work(error) => self.stop.cancel(),
            Err(_) => {}
        }
        self.headway.note(host, read);
    }

    /// The steps of one host that depend on no other host; no steps if the lease is not held there, or if
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
        // Until the other hosts are observed, they are assumed to run the same system.
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
