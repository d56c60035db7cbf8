//! What is waited for, and for how long.

use std::time::Duration;

use super::{Action, Condition, Plan, Step, StepId};
use crate::{
    cluster::Node,
    inventory::{HostName, Role},
};

/// How long a leader or a first replica may take.
pub(super) const FORMING: Duration = Duration::from_secs(180);
/// How long a replica may copy. It is given up only when it is not seen copying any more.
pub(super) const COPYING: Duration = Duration::from_secs(6 * 3600);

/// The step that waits until a member takes writes.
pub(super) const AWAIT_LEADER: &str = "await-leader";

/// Waits until a member takes writes. The step is shown at `host`.
pub(super) fn await_leader(
    plan: &mut Plan,
    host: &HostName,
    after: Vec<StepId>,
    limit: Duration,
) -> StepId {
    let why = "one member must take writes";
    await_member(
        plan,
        host,
        (AWAIT_LEADER, why),
        Condition::Leader,
        after,
        limit,
    )
}

/// Waits until the leader streams to a replica.
pub(super) fn await_streaming(
    plan: &mut Plan,
    host: &HostName,
    after: Vec<StepId>,
    limit: Duration,
) -> StepId {
    let why = "a replica counts once the leader streams to it";
    await_member(
        plan,
        host,
        ("await-streaming", why),
        Condition::Streaming,
        after,
        limit,
    )
}

fn await_member(
    plan: &mut Plan,
    host: &HostName,
    (name, why): (&'static str, &str),
    condition: Condition,
    after: Vec<StepId>,
    limit: Duration,
) -> StepId {
    plan.push(Step {
        host: host.clone(),
        name,
        why: why.into(),
        after,
        changes: Vec::new(),
        action: Action::Await(condition),
        limit,
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
