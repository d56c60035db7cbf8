//! `pgherd verify`.

use super::{Global, console::Console};
use crate::{
    engine::{drill::repair, prove, upgrade},
    error::Result,
    report::{Table, Terminal, Tone},
};

pub(super) async fn run(global: &Global, terminal: &Terminal) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    repair::notice(&context)?;
    let proof = prove::now(&context).await?;
    if terminal.json {
        terminal.print_json(&proof);
    } else {
        let mut table = Table::new(["", "check", "what was seen"]);
        for check in &proof.checks {
            let (tone, mark) = if check.passed {
                (Tone::Plain, "ok")
            } else {
                (Tone::Bad, "FAILED")
            };
            table.toned_row(tone, [mark, check.name, &check.detail]);
        }
        table.print(terminal);
        if let Some(note) = upgrade::note(&context)? {
            terminal.say(&note);
        }
    }
    proof.error(&context.inventory.cluster).map_or(Ok(()), Err)
}
