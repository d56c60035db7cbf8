//! `pgherd backup` and `pgherd backups`.

use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::backup::{self, Backup, Kept, in_days, in_words},
    error::Result,
    quantity::{bytes, duration},
    report::{self, Summary, Table, Terminal, Tone},
};

pub(super) async fn run(
    global: &Global,
    full: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, false);
    let context = global.existing(&console).await?;
    let made = backup::make(&context, full, cancel).await?;
    let told = told(&made);
    let run = console.ended().unwrap_or_default();
    let summary = Summary {
        settled: &told,
        endpoints: &[],
    };
    report::print_summary(terminal, &run, &summary);
    terminal.say(&told);
    Ok(())
}

/// What a backup took.
fn told(made: &Backup) -> String {
    let seconds = u32::try_from((made.stop - made.start).max(0)).unwrap_or(u32::MAX);
    format!(
        "the {} backup {} is complete: {} of data, {} in the repository, {}",
        in_words(&made.kind),
        made.label,
        bytes(made.size),
        bytes(made.stored),
        duration(seconds.into())
    )
}

pub(super) async fn list(global: &Global, terminal: &Terminal) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    let kept = backup::list(&context).await?;
    if terminal.json {
        terminal.print_json(&kept.document());
        return Ok(());
    }
    print(&kept, terminal);
    Ok(())
}

fn print(kept: &Kept, terminal: &Terminal) {
    let repository = &kept.repository;
    let mut table = Table::new(["backup", "type", "made", "age", "database", "stored"]);
    for it in &repository.backups {
        let tone = if it.damaged { Tone::Bad } else { Tone::Plain };
        let cells = [
            it.label.clone(),
            in_words(&it.kind).to_owned(),
            time(it.stop),
            in_days(repository.now - it.stop),
            bytes(it.size),
            bytes(it.stored),
        ];
        table.toned_row(tone, &cells);
    }
    if !repository.backups.is_empty() {
        table.print(terminal);
    }
    terminal.say(&kept.summary());
    if let Some((from, to)) = repository.span() {
        terminal.say(&format!(
            "any moment from {} to {} can be restored{}",
            time(from),
            time(to),
            if repository.holes().is_empty() {
                ""
            } else {
                ", but for the holes"
            }
        ));
    }
    for hole in repository.holes() {
        terminal.say(&format!("missing WAL: {hole}"));
    }
    for line in &kept.wrong {
        terminal.say(&format!("! {line}"));
    }
}

/// A moment, as pgBackRest takes it.
fn time(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S+00").to_string()
}
