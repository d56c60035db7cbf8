//! `pgherd backup`, `pgherd backups` and `pgherd rehearse`.

use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::backup::{self, Backup, Holds, Kept, KeptThere, Verdict, in_days, in_words},
    error::Result,
    inventory::Place,
    quantity::{bytes, count, duration},
    report::{Table, Terminal, Tone},
};

pub(super) async fn run(
    global: &Global,
    (full, incremental, only): (bool, bool, Option<&str>),
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let holds = match (full, incremental) {
        (true, _) => Holds::Everything,
        (false, true) => Holds::SinceLast,
        (false, false) => Holds::SinceFull,
    };
    let console = Console::new(terminal, false);
    let context = global.existing(&console).await?;
    let in_both = context.inventory.backup.is_in_both();
    let made = backup::make(&context, (holds, only), cancel).await;
    console.conclude(made.map(|made| {
        let each = made.iter().map(|(place, made)| match in_both {
            true => told(made, &format!(" {}", place.inside())),
            false => told(made, ""),
        });
        each.collect::<Vec<_>>().join("\n")
    }))
}

/// What a backup took.
fn told(made: &Backup, place: &str) -> String {
    let seconds = u32::try_from((made.stop - made.start).max(0)).unwrap_or(u32::MAX);
    format!(
        "the {} backup {}{place} is complete: {} of data, {} in the repository, {}",
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
    print(&kept, &context.command("rehearse"), terminal);
    Ok(())
}

/// `rehearse` is the command that rehearses a restore.
fn print(kept: &Kept, rehearse: &str, terminal: &Terminal) {
    let both = kept.places.len() > 1;
    let mut table = Table::new(["backup", "type", "made", "age", "database", "stored"]);
    if both {
        table = Table::new([
            "place", "backup", "type", "made", "age", "database", "stored",
        ]);
    }
    let mut empty = true;
    for there in &kept.places {
        for it in &there.repository.backups {
            let (tone, cells) = row(there, it);
            let place = both.then(|| there.repository.place.as_str().to_owned());
            let cells: Vec<String> = place.into_iter().chain(cells).collect();
            table.toned_row(tone, &cells);
            empty = false;
        }
    }
    if !empty {
        table.print(terminal);
    }
    for there in &kept.places {
        let place = match both {
            true => format!("{}: ", there.repository.place.inside()),
            false => String::new(),
        };
        for line in lines(there, rehearse) {
            terminal.say(&format!("{place}{line}"));
        }
    }
    for line in &kept.wrong {
        terminal.say(&format!("! {line}"));
    }
}

/// A backup's row in the table.
fn row(there: &KeptThere, it: &Backup) -> (Tone, [String; 6]) {
    let tone = match it.damaged || it.gone {
        true => Tone::Bad,
        false => Tone::Plain,
    };
    let label = &it.label;
    let cells = [
        match it.gone {
            true => format!("{label} (its files are gone)"),
            false => label.clone(),
        },
        in_words(&it.kind).to_owned(),
        time(it.stop),
        in_days(there.repository.now - it.stop),
        bytes(it.size),
        bytes(it.stored),
    ];
    (tone, cells)
}

/// What there is to say of what is kept in one place.
fn lines(there: &KeptThere, rehearse: &str) -> Vec<String> {
    let (repository, rehearsals) = (&there.repository, &there.rehearsals);
    let mut lines = vec![there.summary()];
    if let Some((from, to)) = repository.span() {
        lines.push(format!(
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
    let holes = repository.holes();
    lines.extend(holes.iter().map(|hole| format!("missing WAL: {hole}")));
    lines.push(match (&rehearsals.proof, &rehearsals.at_work) {
        (Some(it), _) => format!(
            "a restore was proven {} ago: {}",
            in_days(repository.now - it.ended),
            proven(it)
        ),
        (None, Some(host)) => format!("the first rehearsal of a restore is at work on {host}"),
        (None, None) => format!("no restore was proven yet: {rehearse}"),
    });
    if let Some(it) = there.explained() {
        lines.push(format!(
            "the last rehearsal of a restore, {} ago, proved nothing, since WAL or a backup is missing: {}",
            in_days(repository.now - it.ended),
            it.wrong.join("; ")
        ));
    }
    lines
}

/// Where a backup is that is restored, if there are two places.
pub(super) fn in_place(places: &[Place]) -> String {
    let first = places.first();
    first.map_or(String::new(), |it| format!(" {}", it.inside()))
}

/// A moment, as pgBackRest takes it.
pub(super) fn time(seconds: i64) -> String {
    let at = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S+00").to_string()
}

pub(super) async fn rehearse(
    global: &Global,
    wish: (&str, Option<&str>),
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, false);
    let context = global.existing(&console).await?;
    let in_both = context.inventory.backup.is_in_both();
    let verdict = backup::rehearse(&context, wish, cancel).await;
    console.conclude(verdict.map(|it| {
        let place = it.place.filter(|_| in_both);
        let place = place.map_or(String::new(), |it| format!(", of what is {}", it.inside()));
        format!("a restore is proven{place}: {}", proven(&it))
    }))
}

/// What a rehearsal has proven.
fn proven(verdict: &Verdict) -> String {
    let seconds = |name: &str| verdict.seconds.get(name).copied().unwrap_or_default();
    let in_all: f64 = ["restore", "recovery"].iter().map(|it| seconds(it)).sum();
    let mut text = format!(
        "{} on {}, {} of {} in {in_all:.1} s (restore {:.1} s, recovery {:.1} s), {} and none from after it",
        verdict
            .moment
            .map_or_else(|| "the newest state".to_owned(), time),
        verdict.host,
        bytes(verdict.bytes.unwrap_or_default()),
        verdict.backup.as_deref().unwrap_or("a backup"),
        seconds("restore"),
        seconds("recovery"),
        count(
            usize::try_from(verdict.heartbeats.unwrap_or_default()).unwrap_or(usize::MAX),
            "heartbeat"
        ),
    );
    if let Some(lost) = verdict.lost_seconds {
        text.push_str(&format!("; the newest one was {lost} s old"));
    }
    text
}
