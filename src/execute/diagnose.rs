//! Finds out why a step failed, from the journals of the hosts at fault.

use std::collections::BTreeSet;

use super::{Context, space};
use crate::{
    error::{Code, Error, Kind},
    inventory::{HostName, Role},
    journal::{self, Journal},
    plan::{Action, Condition, Step},
    services,
};

/// Adds the step, and the state and journal of the units that it concerns.
pub(super) async fn explain(error: Error, step: &Step, context: &Context) -> Error {
    if error.kind() == Kind::Interrupted {
        return error;
    }
    let mut error = error.step(step.name);
    let fault = error.host().cloned();
    if error.host().is_none() {
        error = error.on(&step.host);
    }
    let is_unreachable = matches!(
        error.code(),
        Code::SshConnectionLost | Code::SshUnreachable | Code::SshPermissionDenied
    );
    if is_unreachable {
        return hint(error, step);
    }
    for unit in &step.units {
        let hosts = concerned(step, unit, fault.as_ref(), context);
        for (host, journal) in at_fault(read(&hosts, unit, context).await) {
            error = error.excerpt(format!("{unit} on {host}"), journal.excerpt());
            if let Some(line) = journal.needs_reinit().filter(|_| has_database(unit)) {
                error = error.cause(format!("{host}: {line}")).hint(format!(
                    "the data of {host} no longer follow from the leader's; copy them again: pgherd reinit {host}"
                ));
            }
        }
    }
    let mut hosts: BTreeSet<HostName> = error.host().cloned().into_iter().collect();
    for unit in &step.units {
        hosts.extend(concerned(step, unit, fault.as_ref(), context));
    }
    hint(
        space::tell(error, &hosts, &*context.remote, &context.cluster).await,
        step,
    )
}

fn hint(error: Error, step: &Step) -> Error {
    let host = error.host().unwrap_or(&step.host).clone();
    match step.units.first() {
        Some(unit) => error.hint(format!("the rest of it: pgherd logs {host} {unit}")),
        None => error,
    }
}

/// The hosts whose units may be at fault: the one that the error names, or else the step's own. If the step
/// concerns the whole cluster, every host with that unit.
fn concerned(
    step: &Step,
    unit: &str,
    fault: Option<&HostName>,
    context: &Context,
) -> Vec<HostName> {
    let role = services::of_unit(unit);
    let has_it = |host: &HostName| {
        let node = context.cluster.node(host);
        node.zip(role)
            .is_some_and(|(node, role)| node.roles.contains(&role))
    };
    if let Some(fault) = fault.filter(|host| has_it(host)) {
        return vec![fault.clone()];
    }
    let whole = matches!(
        step.action,
        Action::Await(Condition::Leader)
            | Action::RunOnLeader(_)
            | Action::PatchConfig(_)
            | Action::RestartPending
            | Action::HandOver
            | Action::LeadElsewhere { .. }
            | Action::TakeOver
    );
    // A waiting replica may be waiting for its leader.
    let whole = whole || matches!(step.action, Action::Await(Condition::Streaming));
    if let Some(role) = role.filter(|role| whole && role.keeps_database()) {
        let mut hosts = vec![step.host.clone()];
        let databases = context.cluster.with_role(role);
        hosts.extend(databases.map(|node| node.name.clone()));
        hosts.sort_by_key(|host| *host != step.host);
        hosts.dedup();
        hosts.retain(has_it);
        return hosts;
    }
    vec![step.host.clone()]
}

fn has_database(unit: &str) -> bool {
    services::of_unit(unit).is_some_and(Role::keeps_database)
}

async fn read(hosts: &[HostName], unit: &str, context: &Context) -> Vec<(HostName, Journal)> {
    let data_dir = &context.cluster.inventory.postgresql.data_dir;
    let data_dir = has_database(unit).then_some(data_dir.as_str());
    let asked = hosts.iter().map(|host| async move {
        let journal = journal::read(&*context.remote, host, unit, data_dir).await?;
        Some((host.clone(), journal))
    });
    let journals = futures_util::future::join_all(asked).await;
    journals.into_iter().flatten().collect()
}

/// The journals that say what is wrong; all of them if none does.
fn at_fault(journals: Vec<(HostName, Journal)>) -> Vec<(HostName, Journal)> {
    if journals.iter().all(|(_, journal)| journal.is_calm()) {
        return journals;
    }
    let mut journals = journals;
    journals.retain(|(_, journal)| !journal.is_calm());
    journals
}
