//! `pgherd adopt`.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::adopt::{self, Adoption, Difference, Fate},
    error::Result,
    inventory::HostName,
    quantity::count,
    report::{Table, Terminal, Tone},
    workspace::Workspace,
};

/// Each fate, and what it means, in the order of the table.
const FATES: [(Fate, &str); 5] = [
    (Fate::Refused, "cannot be taken in as it is"),
    (
        Fate::Clients,
        "some clients must change something, before `up`",
    ),
    (
        Fate::HandOver,
        "changes in `up`, when PostgreSQL starts again: one hand-over for all of these together",
    ),
    (Fate::Converged, "changes, and clients notice nothing"),
    (Fate::Kept, "stays as it is"),
];

pub(super) async fn run(
    global: &Global,
    yes: bool,
    trust: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    if !yes {
        let context = global.open(&console, Workspace::preview).await?;
        let differences = adopt::look(&context).await?;
        match terminal.json {
            true => terminal.print_json(&json!({
                "cluster": context.inventory.cluster,
                "adopted": false,
                "differences": rows(&differences),
            })),
            false => show(&differences, terminal),
        }
        adopt::refused(&context, &differences)?;
        if !terminal.json {
            let command = context.command("adopt --yes");
            terminal.say(&format!("Nothing was changed. To take the cluster in, with no restart of PostgreSQL: {command}"));
        }
        return Ok(());
    }
    let context = global.open(&console, Workspace::recovering).await?;
    let adoption = adopt::run(&context, trust, cancel).await?;
    if terminal.json {
        let mut document = document(&adoption);
        document["cluster"] = json!(context.inventory.cluster);
        document["workspace"] = json!(context.inventory.workspace_dir());
        terminal.print_json(&document);
        return Ok(());
    }
    let cluster = &context.inventory.cluster;
    let folder = context.inventory.workspace_dir();
    terminal.say(&format!(
        "The cluster {cluster} is pgherd's. Its workspace: {}",
        folder.display()
    ));
    match adoption.restarted.as_slice() {
        [] => terminal.say("PostgreSQL was started again on no host."),
        hosts => {
            let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            terminal.say(&format!(
                "! PostgreSQL was started again meanwhile on {}",
                names.join(", ")
            ));
        }
    }
    terminal.say(&format!(
        "`up` would make {}.",
        count(adoption.pending.len(), "change")
    ));
    terminal.say("Next:");
    for (command, why) in [
        ("plan", "shows what differs from pgherd's clusters"),
        ("up", "corrects it, with at most one hand-over"),
    ] {
        terminal.say(&format!("  {}", context.command(command)));
        terminal.say(&format!("      {why}"));
    }
    Ok(())
}

fn show(differences: &[Difference], terminal: &Terminal) {
    let mut table = Table::new(["", "host", "what", "found", "becomes, or what to do"]);
    for row in differences {
        let tone = match row.fate {
            Fate::Refused => Tone::Bad,
            Fate::Clients | Fate::HandOver => Tone::Warn,
            Fate::Converged => Tone::Plain,
            Fate::Kept => Tone::Dim,
        };
        let host = row.host.as_ref().map_or("", HostName::as_str);
        table.toned_row(
            tone,
            [row.fate.as_str(), host, row.what, &row.found, &row.becomes],
        );
    }
    table.print(terminal);
    for (fate, meaning) in FATES {
        let rows = differences.iter().filter(|it| it.fate == fate).count();
        if rows > 0 {
            terminal.say(&format!("{:>9} {rows:>3}  {meaning}", fate.as_str()));
        }
    }
}

fn rows(differences: &[Difference]) -> Vec<Value> {
    let rows = differences.iter();
    rows.map(|row| {
        json!({
            "fate": row.fate.as_str(),
            "host": row.host.as_ref().map(HostName::as_str),
            "what": row.what,
            "found": row.found,
            "becomes": row.becomes,
        })
    })
    .collect()
}

fn document(adoption: &Adoption) -> Value {
    let restarted = adoption.restarted.iter().map(HostName::as_str);
    json!({
        "adopted": true,
        "id": adoption.id,
        "differences": rows(&adoption.differences),
        "restarted": restarted.collect::<Vec<_>>(),
        "pending": adoption.pending,
    })
}
