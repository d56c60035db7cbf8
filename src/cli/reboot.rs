//! `pgherd reboot`.

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::{
        context::Context,
        reboot::{self, Due, Outlook},
    },
    error::Result,
    quantity::{count, span},
    report::Terminal,
};

/// The arguments of `pgherd reboot`.
#[derive(Debug, Args)]
pub struct Wish {
    /// Only these hosts [default: all]
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// Only hosts for which a kernel or a library waits
    #[arg(long)]
    needed: bool,
    /// Only show which hosts would be rebooted, and why
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(
    global: &Global,
    wish: Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, wish.yes);
    let context = global.existing(&console).await?;
    let asked = reboot::Wish {
        hosts: wish.hosts,
        needed: wish.needed,
    };
    if wish.dry_run {
        let outlook = reboot::preview(&context, &asked).await?;
        show(&context, &outlook, terminal);
        return Ok(());
    }
    console.conclude_changes(reboot::run(&context, &asked, cancel).await)
}

/// What a reboot means. It is shown before the question.
pub(super) fn outline(cluster: &str, outlook: &Outlook) -> String {
    let mut text = format!(
        "In the cluster {cluster} {} boot again, one at a time, in this order:\n",
        count(outlook.due.len(), "host")
    );
    for (n, due) in outlook.due.iter().enumerate() {
        text.push_str(&format!("  {}. {}\n", n + 1, line(due)));
    }
    for felt in &outlook.felt {
        text.push_str(&format!("  {felt}\n"));
    }
    text.push_str("The run stops at the first host that does not come back, and the others serve.");
    text
}

fn line(due: &Due) -> String {
    let roles: Vec<&str> = due.roles.iter().map(|role| role.as_str()).collect();
    let leads = if due.leads { ", leads" } else { "" };
    let why = match due.reasons.as_slice() {
        [] => "nothing waits for a reboot".to_owned(),
        reasons => reasons.join("; "),
    };
    format!(
        "{} ({}{leads}), up for {}: {why}",
        due.host,
        roles.join(", "),
        span(due.up)
    )
}

/// The result of --dry-run.
fn show(context: &Context, outlook: &Outlook, terminal: &Terminal) {
    if terminal.json {
        let hosts = outlook.due.iter().map(|due| {
            json!({
                "host": due.host,
                "roles": due.roles,
                "leads": due.leads,
                "reasons": due.reasons,
                "up_seconds": due.up,
            })
        });
        terminal.print_json(&json!({
            "cluster": context.inventory.cluster,
            "hosts": hosts.collect::<Vec<_>>(),
            "since": outlook.done.as_ref().map(|it| it.0.to_string()),
            "done": outlook.done.as_ref().map(|it| &it.1),
            "felt": outlook.felt,
        }));
        return;
    }
    if outlook.due.is_empty() {
        terminal.say("no host waits for a reboot");
        return;
    }
    terminal.explain(&outline(&context.inventory.cluster, outlook));
    terminal.say(&format!(
        "nothing was changed; do it: {}",
        context.command("reboot")
    ));
}
