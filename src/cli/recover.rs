//! `pgherd recover`.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::recover::{self, Recovery, State},
    error::Result,
    quantity::count,
    report::{Table, Terminal, Tone},
    workspace::Workspace,
};

pub(super) async fn run(
    global: &Global,
    trust: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let context = global
        .open(&Console::new(terminal, false), Workspace::recovering)
        .await?;
    let recovery = recover::run(&context, trust, cancel).await?;
    let folder = context.inventory.workspace_dir();
    if terminal.json {
        let mut document = document(&recovery);
        document["cluster"] = json!(context.inventory.cluster);
        document["workspace"] = json!(folder);
        terminal.print_json(&document);
        return Ok(());
    }
    let mut table = Table::new(["", "what", "from"]);
    for item in &recovery.items {
        let tone = match item.state {
            State::Found | State::Given => Tone::Plain,
            State::Made => Tone::Warn,
            State::Lost => Tone::Bad,
        };
        table.toned_row(tone, [item.state.as_str(), &item.what, &item.detail]);
    }
    table.print(terminal);
    terminal.say(&format!(
        "The workspace is there again: {}",
        folder.display()
    ));
    match recovery.pending.len() {
        0 => terminal.say("The hosts are as the inventory says: `up` would change nothing."),
        changes => {
            terminal.say(&format!("`up` would make {}:", count(changes, "change")));
            for change in &recovery.pending {
                terminal.say(&format!("  {change}"));
            }
        }
    }
    terminal.say("Next:");
    for (command, why) in &recovery.next {
        terminal.say(&format!("  {command}"));
        terminal.say(&format!("      {why}"));
    }
    Ok(())
}

fn document(recovery: &Recovery) -> Value {
    let items = recovery.items.iter();
    let items = items.map(
        |item| json!({"what": item.what, "state": item.state.as_str(), "detail": item.detail}),
    );
    let next = recovery.next.iter();
    let next = next.map(|(command, why)| json!({"command": command, "why": why}));
    json!({
        "id": recovery.id,
        "items": items.collect::<Vec<_>>(),
        "pending": recovery.pending,
        "next": next.collect::<Vec<_>>(),
    })
}
