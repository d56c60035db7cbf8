//! `pgherd pause`, `resume`, `reinit`, `restart` and `failover`.

use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::operate::{self, Operation},
    error::Result,
    inventory::HostName,
    plan::operate::Seen,
    report::{Expected, Terminal},
};

pub(super) async fn run(
    operation: &Operation,
    global: &Global,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    let context = global.existing(&console).await?;
    console.conclude_changes(operate::run(operation, &context, cancel).await)
}

/// The question, and the answer that counts as consent.
pub(super) fn question<'a>(
    operation: &Operation,
    host: Option<&'a HostName>,
) -> (String, Expected<'a>) {
    match (operation, host) {
        (Operation::Reinit(_), Some(host)) => (
            format!("Remove the data on {host}, and copy it again?"),
            Expected::Word(host.as_str()),
        ),
        _ => ("Do this?".to_owned(), Expected::Yes),
    }
}

/// What an operation means. It is shown before the question.
pub(super) fn outline(operation: &Operation, host: Option<&HostName>, seen: &Seen<'_>) -> String {
    let name = seen.cluster.name();
    match (operation, host) {
        (Operation::Pause, _) => format!(
            "In the cluster {name} nothing fails over while it is paused: a failed leader is not replaced until somebody resumes the cluster or fails over by hand."
        ),
        (Operation::Resume, _) => format!(
            "In the cluster {name} Patroni manages PostgreSQL again: if no member leads, it chooses one at once, and it starts members that do not run."
        ),
        (Operation::Reinit(_), Some(host)) => reinit_outline(seen, host),
        (Operation::Failover { .. }, Some(to)) => failover_outline(seen, to),
        (Operation::Restart { .. }, host) => restart_outline(seen, host),
        (Operation::Reinit(_) | Operation::Failover { .. }, None) => String::new(),
    }
}

fn reinit_outline(seen: &Seen<'_>, host: &HostName) -> String {
    let leader = seen.leader().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "In the cluster {} all data on {host} is removed and copied again from {leader}; until then {host} serves no reads and cannot take over.",
        seen.cluster.name()
    );
    if seen.is_synchronous(host) {
        text.push_str(&format!(
            " {host} is a synchronous standby: commits wait until another takes its place."
        ));
    } else if seen.waits_for_standbys() {
        text.push_str(" Commits still wait for the synchronous standby, which is another member.");
    }
    text
}

fn restart_outline(seen: &Seen<'_>, host: Option<&HostName>) -> String {
    let name = seen.cluster.name();
    let leader = seen.leader();
    match host {
        Some(host) if Some(host) != leader => format!(
            "In the cluster {name} PostgreSQL restarts on {host}: its clients are disconnected; writes continue."
        ),
        Some(host) => format!(
            "In the cluster {name} {host} hands over to another member and then restarts: clients are disconnected, and new ones wait for about 2 s."
        ),
        None => format!(
            "In the cluster {name} PostgreSQL restarts on each of these members, one at a time, the leader last and after it has handed over: clients are disconnected, and new ones wait for about 2 s."
        ),
    }
}

fn failover_outline(seen: &Seen<'_>, to: &HostName) -> String {
    let mut text = match seen.leader() {
        Some(leader) => format!(
            "In the cluster {} {to} takes the leadership from {leader}, which answers. If {leader} is healthy, `{}` does the same and loses nothing.\n",
            seen.cluster.name(),
            seen.cluster
                .inventory
                .command(&format!("switchover --to {to}"))
        ),
        None => format!(
            "In the cluster {} no member leads; {to} becomes the leader.\n",
            seen.cluster.name()
        ),
    };
    text.push_str(&match (seen.is_synchronous(to), seen.lag(to)) {
        (true, _) => format!("{to} is a synchronous standby: it has every commit that was acknowledged."),
        (false, Some(0)) => format!(
            "{to} has everything up to the leader's last report to the DCS; commits of the leader's last seconds may be lost."
        ),
        (false, Some(lag)) => format!(
            "{to} is {lag} bytes behind the leader's last report to the DCS: acknowledged commits in them are lost, and those of its last seconds may be."
        ),
        (false, None) => {
            format!("It is not known how far {to} is behind: acknowledged commits may be lost.")
        }
    });
    text
}
