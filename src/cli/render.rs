//! `pgherd render` without changes to hosts: what would change, or the files alone.

use std::path::Path;

use serde_json::json;

use super::{Global, console::Console, plan};
use crate::{
    engine::{
        compare::{self, Comparison},
        context::Context,
    },
    error::{Code, Error, Result},
    quantity::count,
    report::Terminal,
    workspace::Workspace,
};

/// Shows what `render` would change on the hosts that can be reached. With `check`, any change is an error with
/// its own exit code.
pub(super) async fn compare(global: &Global, check: bool, terminal: &Terminal) -> Result<()> {
    let console = Console::new(terminal, false);
    global.existing(&console).await?;
    let context = global.open(&console, Workspace::preview).await?;
    let compared = compare::compare(&context).await?;
    let left_out = compared.not_compared();
    if terminal.json {
        let mut document = plan::document(&context, &compared.preview);
        document["not_compared"] = json!(left_out);
        terminal.print_json(&document);
    } else {
        terminal.print(&text(&context, &compared, terminal));
    }
    if check && !compared.preview.is_empty() {
        let render = context.command("render");
        return Err(Error::new(Code::ChangesPending, "changes are pending")
            .hint(format!("make them: {render}")));
    }
    if check && !left_out.is_empty() {
        let names = left_out.join(", ");
        return Err(
            Error::new(Code::HostsNotCompared, format!("not compared: {names}"))
                .cause("nothing differs on the hosts that could be reached")
                .hint(format!("how they are: {}", context.command("status"))),
        );
    }
    Ok(())
}

fn text(context: &Context, compared: &Comparison, terminal: &Terminal) -> String {
    let mut text = String::new();
    for error in &compared.unreachable {
        text.push_str(&format!("? {error}; not compared\n"));
    }
    for host in &compared.absent {
        text.push_str(&format!("? {host}: the host does not run; not compared\n"));
    }
    let left_out = compared.unreachable.len() + compared.absent.len();
    if compared.preview.is_empty() && left_out > 0 {
        let rest = context.inventory.hosts.len() - left_out;
        let rest = count(rest, "other host");
        text.push_str(&format!("nothing to do on the {rest}\n"));
        return text;
    }
    text.push_str(&plan::text(context, &compared.preview, terminal));
    text
}

/// Writes every file of every host below `dir`, without connecting to a host.
pub(super) async fn out(global: &Global, dir: &Path, terminal: &Terminal) -> Result<()> {
    let context = global
        .open(&Console::new(terminal, false), Workspace::preview)
        .await?;
    let written = compare::write_files(&context, dir).await?;
    if terminal.json {
        terminal.print_json(&json!({"written": written.files, "notes": written.notes}));
    } else {
        for note in &written.notes {
            terminal.say(&format!("note: {note}"));
        }
        terminal.say(&format!(
            "wrote {} of {} below {}; no host was touched",
            count(written.files.len(), "file"),
            count(written.hosts, "host"),
            dir.display()
        ));
    }
    Ok(())
}
