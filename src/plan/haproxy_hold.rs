//! Makes HAProxy keep a leader whose Patroni is not running for a moment.
//!
//! HAProxy asks Patroni which member leads. If a leader's Patroni does not answer, HAProxy counts the leader as
//! dead, and would close all connections to a PostgreSQL that is running and still leads. So HAProxy's checks
//! are disabled while a new Patroni takes over.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId};
use crate::{
    cluster::{Cluster, Node},
    inventory::Role,
    remote::Script,
    services::haproxy::{
        self,
        drain::{self, SAY},
    },
};

/// After this time HAProxy checks again, whatever happened to the run. Until then it would not notice a
/// leader's death, but a failover takes longer than this anyway.
const AT_MOST: u32 = 15;

/// Makes every HAProxy keep `leader` in its present state; returns a step for each HAProxy that runs.
pub(super) fn hold(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    leader: &Node,
    after: &[StepId],
) -> Vec<StepId> {
    let script = Script::new()
        .alone("hold-haproxy")
        .line(SAY)
        .line(drain::later(
            &unit(leader),
            AT_MOST,
            &say(cluster, leader, "enable"),
        ))
        .line(say(cluster, leader, "disable"));
    let draft = Draft {
        name: "hold-haproxy",
        why: format!("the Patroni of {} does not run for a moment", leader.name),
        change: format!("HAProxy does not check {} for {AT_MOST} s", leader.name),
        script,
    };
    push(plan, cluster, found, after, &draft)
}

/// Makes every HAProxy check `leader` again.
pub(super) fn release(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    leader: &Node,
    after: &[StepId],
) -> Vec<StepId> {
    let script = Script::new()
        .alone("hold-haproxy")
        .line(SAY)
        .line(say(cluster, leader, "enable"))
        .line(drain::not_later(&unit(leader)));
    let draft = Draft {
        name: "release-haproxy",
        why: format!("the Patroni of {} runs again", leader.name),
        change: format!("HAProxy checks {} again", leader.name),
        script,
    };
    push(plan, cluster, found, after, &draft)
}

/// Changes HAProxy's checks of a leader.
fn say(cluster: &Cluster, leader: &Node, what: &str) -> String {
    drain::say_each(cluster, &leader.name, |name| {
        format!("{what} health {}/{name}", haproxy::WRITE)
    })
}

/// The timer after which HAProxy checks again.
fn unit(leader: &Node) -> String {
    format!("pgherd-check-again-{}", leader.name)
}

/// A step on the HAProxy hosts, in words.
struct Draft {
    name: &'static str,
    why: String,
    change: String,
    script: Script,
}

fn push(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    after: &[StepId],
    draft: &Draft,
) -> Vec<StepId> {
    let runs = |node: &&Node| {
        let facts = found.facts.get(&node.name);
        facts.is_some_and(|facts| facts.unit("haproxy").is_active())
    };
    let doors = cluster.with_role(Role::Haproxy).filter(runs);
    doors.map(|door| step(plan, door, after, draft)).collect()
}

fn step(plan: &mut Plan, door: &Node, after: &[StepId], draft: &Draft) -> StepId {
    // A reload would undo it.
    let reloads = plan.steps.iter().enumerate();
    let reloads = reloads
        .filter(|(_, step)| step.host == door.name && step.units.contains(&"haproxy"))
        .map(|(id, _)| id);
    let after = reloads.chain(after.iter().copied()).collect();
    plan.push(Step {
        host: door.name.clone(),
        name: draft.name,
        why: draft.why.clone(),
        after,
        changes: vec![Change::Other(draft.change.clone())],
        action: Action::Run(draft.script.clone()),
        limit: Duration::from_secs(30),
        units: vec!["haproxy"],
    })
}
