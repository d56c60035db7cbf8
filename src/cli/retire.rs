//! Messages about hosts that leave the cluster or are replaced.

use crate::{
    engine::{
        context::Context,
        preview::Preview,
        retire::{Becomes, Farewell},
    },
    inventory::{HostName, Role},
    plan::{TakenOff, membership::Left, retire},
};

/// What the departure of a host means. It is shown before the question.
pub(super) fn outline(cluster: &str, farewell: &Farewell<'_>) -> String {
    let Farewell {
        host,
        roles,
        becomes,
        lost,
    } = farewell;
    let roles = words(roles);
    let mut text = match becomes {
        Becomes::New => format!(
            "In the cluster {cluster}, {host} ({roles}) is replaced by a new host of its name:\n"
        ),
        Becomes::Gone => format!("In the cluster {cluster}, {host} ({roles}) leaves for good:\n"),
        Becomes::Less => {
            format!("In the cluster {cluster}, {host} stays, and gives up the role {roles}:\n")
        }
    };
    for line in lost {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// The question. Its answer is the host's name.
pub(super) fn question(farewell: &Farewell<'_>) -> String {
    match farewell.becomes {
        Becomes::New => format!("Replace {}?", farewell.host),
        Becomes::Gone => format!("Remove {} and its data for good?", farewell.host),
        Becomes::Less => format!(
            "Take the role {} off {} for good?",
            words(farewell.roles),
            farewell.host
        ),
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
    for taken in &preview.plan.taken_off {
        let host = &taken.host;
        lines.push(format!(
            "- the role {} of host {host} is to go; the host stays",
            words(&taken.roles)
        ));
        let lost = lost_with(context, taken).into_iter();
        lines.extend(lost.map(|line| format!("    lost by it: {line}")));
        lines.push(format!("    take it off: {}", remove(context, host)));
    }
    lines
}

fn words(roles: &[Role]) -> String {
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    words.join(", ")
}

/// What is lost with roles that are taken off a host.
pub(super) fn lost_with(context: &Context, taken: &TakenOff) -> Vec<String> {
    let inventory = &context.inventory;
    let stay: Vec<&HostName> = inventory.with_role(Role::Postgres).collect();
    let data = retire::Data::IsDeleted(&inventory.postgresql.data_dir);
    let backups = inventory.backup.places();
    retire::lost(&taken.roles, &stay, data, taken.leads, false, backups)
}

/// What the departure of such a host costs.
pub(super) fn lost(context: &Context, left: &Left) -> Vec<String> {
    let inventory = &context.inventory;
    let stay: Vec<&HostName> = inventory.with_role(Role::Postgres).collect();
    let leads = left.role.as_deref() == Some("leader");
    let data = retire::Data::IsDeleted(&inventory.postgresql.data_dir);
    let goes = context.provider.owns_hosts();
    let backups = inventory.backup.places();
    retire::lost(&left.roles, &stay, data, leads, goes, backups)
}

/// The command that takes the host out.
pub(super) fn command(context: &Context, left: &Left) -> String {
    remove(context, &left.name)
}

/// The same for a host by its name.
pub(super) fn remove(context: &Context, host: &HostName) -> String {
    context.command(&format!("up --remove {host}"))
}
