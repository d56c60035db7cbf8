//! What is waited for, and for how long.

use std::time::Duration;

use super::{Action, Condition, Plan, Step, StepId};
use crate::cluster::Node;

/// How long a leader or a first replica may take.
pub(super) const FORMING: Duration = Duration::from_secs(180);
/// How long a replica may copy; it is only given up when it is no longer seen to be copying.
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
