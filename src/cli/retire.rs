//! Messages about hosts that leave the cluster or are replaced.

use crate::{
    engine::{context::Context, preview::Preview, retire::Farewell},
    inventory::{HostName, Role},
    plan::{membership::Left, retire},
};

/// What the departure of a host means. It is shown before the question.
pub(super) fn outline(cluster: &str, farewell: &Farewell<'_>) -> String {
    let Farewell {
        host,
        roles,
        returns,
        lost,
    } = farewell;
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let what = match returns {
        true => "is replaced by a new host of its name",
        false => "leaves for good",
    };
    let mut text = format!(
        "In the cluster {cluster}, {host} ({}) {what}:\n",
        roles.join(", ")
    );
    for line in lost {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// The question. Its answer is the host's name.
pub(super) fn question(farewell: &Farewell<'_>) -> String {
    match farewell.returns {
        true => format!("Replace {}?", farewell.host),
        false => format!("Remove {} and its data for good?", farewell.host),
    }
}

/// What a plan says of members that left the inventory, one line for each fact.
pub(super) fn planned(context: &Context, preview: &Preview) -> Vec<String> {
    let mut lines = Vec::new();
    for left in preview.leaving() {
        lines.push(format!("- host {left}: it is to leave"));
        lines.extend(
            lost(context, left)
                .into_iter()
                .map(|line| format!("    lost by it: {line}")),
        );
        lines.push(format!("    take it out: {}", command(context, left)));
    }
    lines
}

/// What the departure of such a host costs.
pub(super) fn lost(context: &Context, left: &Left) -> Vec<String> {
    let inventory = &context.inventory;
    let stay: Vec<&HostName> = inventory.with_role(Role::Postgres).collect();
    let leads = left.role.as_deref() == Some("leader");
    retire::lost(&left.roles, &stay, &inventory.postgresql.data_dir, leads)
}

/// The command that takes the host out.
pub(super) fn command(context: &Context, left: &Left) -> String {
    context.command(&format!("up --remove {}", left.name))
}
