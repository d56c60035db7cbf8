//! Keeps reads away from a replica that is about to stop: new clients of the read port go to the others, and those that
//! are connected may end what they do.

use std::time::Duration;

use super::{Action, Change, Plan, Step, StepId};
use crate::{
    cluster::Cluster,
    inventory::HostName,
    remote::{Script, quote},
    services::haproxy::{self, drain::SAY},
};

/// How many seconds connected clients have to go.
const PATIENCE: u32 = 20;
/// After this many seconds reads may go there again, whatever became of the run. A replica that does not answer gets
/// none anyway. The first proof of the run that goes on must wait for longer than this.
const AT_MOST: u32 = 60;

/// Each of these front doors leads no new reads to `host`; returns a step for each.
pub(super) fn drain(
    plan: &mut Plan,
    cluster: &Cluster,
    doors: &[HostName],
    host: &HostName,
    after: &[StepId],
) -> Vec<StepId> {
    let later = format!("sleep {AT_MOST}\n{SAY}\n{}", state(cluster, host, "ready"));
    let names: Vec<String> = servers(cluster, host)
        .map(|name| format!("$2 == \"{name}\""))
        .collect();
    let read = haproxy::READ;
    let script = Script::new()
        .alone("drain-reads")
        .line(SAY)
        .line(state(cluster, host, "drain"))
        .line(format!(
            "setsid sh -c {} </dev/null >/dev/null 2>&1 9>&- &",
            quote(&later)
        ))
        .line(format!(
            "connected() {{ say 'show stat' | awk -F, '$1 == \"{read}\" && ({}) {{ n += $5 }} END {{ print n + 0 }}'; }}",
            names.join(" || ")
        ))
        .line(format!("n=0\nwhile [ \"$(connected)\" -gt 0 ] && [ $n -lt {} ]; do sleep 0.5; n=$((n + 1)); done", PATIENCE * 2))
        .line("left=$(connected)")
        .line(format!(
            "[ \"$left\" = 0 ] || echo \"clients that are still connected to {host}, and will be cut off: $left\""
        ));
    let step = |door: &HostName| Step {
        host: door.clone(),
        name: "drain-reads",
        why: format!("{host} is about to stop, and other replicas can answer reads"),
        after: after.to_vec(),
        changes: vec![Change::Other(format!(
            "the read port leads nobody to {host}, for {AT_MOST} s at most"
        ))],
        action: Action::Run(script.clone()),
        limit: Duration::from_secs(60),
        units: vec!["haproxy"],
    };
    doors.iter().map(|door| plan.push(step(door))).collect()
}

/// Each of these front doors leads reads to `host` again.
pub(super) fn let_in(
    plan: &mut Plan,
    cluster: &Cluster,
    doors: &[HostName],
    host: &HostName,
    after: &[StepId],
) -> Vec<StepId> {
    let script = Script::new()
        .alone("drain-reads")
        .line(SAY)
        .line(state(cluster, host, "ready"));
    let step = |door: &HostName| Step {
        host: door.clone(),
        name: "let-reads-in",
        why: format!("{host} streams again"),
        after: after.to_vec(),
        changes: vec![Change::Other(format!(
            "the read port leads to {host} again"
        ))],
        action: Action::Run(script.clone()),
        limit: Duration::from_secs(30),
        units: vec!["haproxy"],
    };
    doors.iter().map(|door| plan.push(step(door))).collect()
}

/// The names that HAProxy has for the member.
fn servers(cluster: &Cluster, host: &HostName) -> impl Iterator<Item = String> {
    let suffixes: &[&str] = match cluster.tls.is_migrating() {
        true => &["", haproxy::OVER_TLS],
        false => &[""],
    };
    suffixes.iter().map(move |suffix| format!("{host}{suffix}"))
}

fn state(cluster: &Cluster, host: &HostName, state: &str) -> String {
    let read = haproxy::READ;
    let lines: Vec<String> = servers(cluster, host)
        .map(|name| format!("say 'set server {read}/{name} state {state}'"))
        .collect();
    lines.join("\n")
}
