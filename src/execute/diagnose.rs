//! Why a step failed: the units' own words.

use std::{collections::BTreeSet, time::Duration};

use super::{Context, space, tail};
use crate::{
    error::{Error, Kind},
    inventory::{HostName, Role},
    plan::{Action, Step},
    remote::{Script, quote},
};

/// Adds the step, and the state and journal of the units that it concerns.
pub(super) async fn explain(error: Error, step: &Step, context: &Context) -> Error {
    if error.kind() == Kind::Interrupted {
        return error;
    }
    let mut error = error.step(step.name);
    if error.host().is_none() {
        error = error.on(&step.host);
    }
    let unreachable = [crate::remote::BROKEN, crate::remote::UNREACHABLE].contains(&error.what());
    for unit in step.units.iter().filter(|_| !unreachable) {
        for host in concerned(step, unit, context) {
            if let Some(journal) = journal(&host, unit, context).await {
                error = error.excerpt(format!("{unit} on {host}"), journal);
            }
        }
    }
    if !unreachable {
        let mut hosts: BTreeSet<HostName> = error.host().cloned().into_iter().collect();
        for unit in &step.units {
            hosts.extend(concerned(step, unit, context));
        }
        error = space::tell(error, &hosts, context).await;
    }
    let host = &step.host;
    match step.units.first() {
        Some(unit) => error.hint(format!("the rest of it: pgherd logs {host} {unit}")),
        None => error,
    }
}

/// The hosts whose units may be at fault: the step's own, and for a wait for the whole cluster every
/// host with that unit.
fn concerned(step: &Step, unit: &str, context: &Context) -> Vec<HostName> {
    let whole = matches!(
        step.action,
        Action::Await(_) | Action::RunOnLeader(_) | Action::PatchConfig(_)
    );
    if whole && unit == "patroni" {
        let databases = context.cluster.with_role(Role::Postgres);
        return databases.map(|node| node.name.clone()).collect();
    }
    vec![step.host.clone()]
}

async fn journal(host: &HostName, unit: &str, context: &Context) -> Option<String> {
    let unit = quote(unit);
    let script = Script::probe(format!(
        "systemctl show -p ActiveState,SubState,Result,NRestarts {unit} | tr '\\n' ' '; echo\n\
         journalctl --no-pager -q -o short-iso -n 12 -u {unit} 2>/dev/null | cut -c 1-300"
    ));
    let silent = |_, _: &str| {};
    let output = context
        .remote
        .run(host, &script, Duration::from_secs(5), &silent)
        .await
        .ok()?;
    Some(tail(&output.stdout, 13))
}
