//! What is waited for, and for how long.

use std::time::Duration;

use super::{Action, Condition, Plan, Step, StepId};
use crate::{cluster::Node, inventory::Role};

/// How long a leader or a first replica may take.
pub(super) const FORMING: Duration = Duration::from_secs(180);
/// How long a replica may copy. It is given up only when it is not seen copying any more.
const COPYING: Duration = Duration::from_secs(6 * 3600);

/// Waits until the leader streams to a replica.
pub(super) fn await_streaming(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "await-streaming",
        why: "a replica counts once the leader streams to it".into(),
        after,
        changes: Vec::new(),
        action: Action::Await(Condition::Streaming),
        limit: COPYING,
        units: vec!["patroni"],
    })
}

/// Waits until a service is ready, if the service has such a wait.
pub(super) fn await_ready(
    plan: &mut Plan,
    node: &Node,
    role: Role,
    after: Vec<StepId>,
) -> Option<StepId> {
    let wait = role.service().wait.as_ref()?;
    Some(plan.push(Step {
        host: node.name.clone(),
        name: wait.step,
        why: wait.why.into(),
        after,
        changes: Vec::new(),
        action: Action::Await(Condition::Ready(role)),
        limit: wait.limit,
        units: vec![role.unit()],
    }))
}
