//! Keeps reads away from a replica that is about to stop: new clients of the read port go to the others, and those that
//! are connected may end what they do.

use std::time::Duration;

use super::{Action, Change, Plan, Step, StepId};
use crate::{
    cluster::Cluster,
    inventory::HostName,
    remote::Script,
    services::haproxy::{
        self,
        drain::{self, SAY},
    },
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
    let names: Vec<String> = drain::servers(cluster, host)
        .map(|name| format!("$2 == \"{name}\""))
        .collect();
    let read = haproxy::READ;
    let script = Script::new()
        .alone("drain-reads")
        .line(SAY)
        .line(drain::later(
            &unit(host),
            AT_MOST,
            &drain::set_state(cluster, read, host, "ready"),
        ))
        .line(drain::set_state(cluster, read, host, "drain"))
        .line(format!(
            "connected() {{ say 'show stat' | awk -F, '$1 == \"{read}\" && ({}) {{ n += $5 }} END {{ print n + 0 }}'; }}",
            names.join(" || ")
        ))
        .line(format!("n=0\nwhile [ \"$(connected)\" -gt 0 ] && [ $n -lt {} ]; do sleep 0.5; n=$((n + 1)); done", PATIENCE * 2))
        .line("left=$(connected)")
        .line(format!(
            "[ \"$left\" = 0 ] || echo \"clients that are still connected to {host}, and will be cut off: $left\""
        ));
    let step = Draft {
        name: "drain-reads",
        why: format!("{host} is about to stop, and other replicas can answer reads"),
        change: format!("the read port leads nobody to {host}, for {AT_MOST} s at most"),
        limit: Duration::from_secs(60),
        script,
    };
    step.at(plan, doors, after)
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
        .line(drain::set_state(cluster, haproxy::READ, host, "ready"))
        .line(drain::not_later(&unit(host)));
    let step = Draft {
        name: "let-reads-in",
        why: format!("{host} streams again"),
        change: format!("the read port leads to {host} again"),
        limit: Duration::from_secs(30),
        script,
    };
    step.at(plan, doors, after)
}

/// The timer that lets reads in again. Each member has its own: one run may drain a member before the timer of an
/// earlier one has ended.
fn unit(host: &HostName) -> String {
    format!("pgherd-read-undrain-{host}")
}

/// A step on the front doors, in words.
struct Draft {
    name: &'static str,
    why: String,
    change: String,
    limit: Duration,
    script: Script,
}

impl Draft {
    fn at(self, plan: &mut Plan, doors: &[HostName], after: &[StepId]) -> Vec<StepId> {
        let step = |door: &HostName| Step {
            host: door.clone(),
            name: self.name,
            why: self.why.clone(),
            after: after.to_vec(),
            changes: vec![Change::Other(self.change.clone())],
            action: Action::Run(self.script.clone()),
            limit: self.limit,
            units: vec!["haproxy"],
        };
        doors.iter().map(|door| plan.push(step(door))).collect()
    }
}
