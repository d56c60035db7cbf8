//! The steps by which one host boots again, while the cluster serves.

use std::time::Duration;

use super::{
    Action, Change, Plan, Step, StepId, in_turn::Turn, operate::refuse_without_successor,
    seen::Seen, waits::await_ready,
};
use crate::{
    cluster::Node,
    error::Result,
    inventory::{HostName, Role},
    remote::Script,
    services::{by_rank, keepalived},
};

/// How long a host may take to shut down, boot and answer again.
pub const BOOTING: Duration = Duration::from_secs(900);
const REBOOT: &str = "reboot";
/// How long another front door may take to have the cluster's address.
const HANDING_OVER: Duration = Duration::from_secs(60);

/// Plans that `node` boots again; `boot` is the mark of its present system. `doors` are the front doors that run.
pub fn plan(
    seen: &Seen<'_>,
    node: &Node,
    boot: &str,
    reasons: &[String],
    doors: &[HostName],
) -> Result<Plan> {
    seen.refuse_paused("what does not come back would not be replaced")?;
    let host = &node.name;
    let mut plan = Plan::default();
    let why = match reasons {
        [] => "it was asked for".to_owned(),
        reasons => reasons.join("; "),
    };
    let mut first = Vec::new();
    let work = |plan: &mut Plan, mut after: Vec<StepId>| {
        after.extend(give_up_address(plan, seen, node, &after));
        plan.push(Step {
            host: host.clone(),
            name: REBOOT,
            why,
            after,
            changes: vec![Change::Other(format!("{host} boots again"))],
            action: Action::Reboot { boot: boot.into() },
            limit: BOOTING,
            units: Vec::new(),
        })
    };
    let turn = Turn::of(seen, host, doors);
    if node.roles.contains(&Role::Postgres) {
        if turn.leads && turn.has_others {
            refuse_without_successor(seen, host)?;
        }
        first.extend(turn.plan(&mut plan, Vec::new(), work));
    } else {
        first.push(work(&mut plan, Vec::new()));
    }
    // A database waits for its store, whose wait comes first where a host has both.
    let rebooted = plan.steps.iter().position(|step| step.name == REBOOT);
    for role in by_rank() {
        if node.roles.contains(&role) {
            await_ready(&mut plan, node, role, Vec::from_iter(rebooted));
        }
    }
    Ok(plan)
}

/// Has another front door take the cluster's address, if there is another one. Clients connect again at once.
fn give_up_address(
    plan: &mut Plan,
    seen: &Seen<'_>,
    node: &Node,
    after: &[StepId],
) -> Option<StepId> {
    let vip = seen.cluster.inventory.haproxy.vip?;
    let unit = Role::Keepalived.unit();
    let others = seen.cluster.with_role(Role::Keepalived).count() > 1;
    if !others || !node.roles.contains(&Role::Keepalived) {
        return None;
    }
    let port = seen.cluster.inventory.haproxy.write_port;
    let script = Script::new()
        .alone("give-up-address")
        .line(format!("VIP={vip} PORT={port}\nexport VIP PORT"))
        .line(format!("ask() (\n{}\n)", keepalived::ASK))
        .line("[ \"$(ask)\" = holds ] || exit 0")
        // Whatever happens, the address has somebody who can take it.
        .line(format!(
            "trap 'systemctl start {unit}' EXIT\nsystemctl stop {unit}"
        ))
        .line("n=0\nuntil [ \"$(ask)\" = answers ]; do\n  n=$((n + 1))\n  if [ $n -ge 20 ]; then")
        .line("    echo 'no other front door took the address within 20 s' >&2\n    exit 1\n  fi\n  sleep 1\ndone")
        .line("trap - EXIT");
    Some(plan.push(Step {
        host: node.name.clone(),
        name: "give-up-address",
        why: "another front door takes the cluster's address before this one is away".into(),
        after: after.to_vec(),
        changes: vec![Change::Other(format!(
            "another front door has {vip}; clients connect again"
        ))],
        action: Action::Run(script),
        limit: HANDING_OVER,
        units: vec![unit],
    }))
}
