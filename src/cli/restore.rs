//! `pgherd restore`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Global, backup, clone, console::Console};
use crate::{
    engine::{
        context::Context,
        restore::{self, Outlook, Restored, clone::Wish as Cloned},
        take_out,
    },
    error::{Code, Error, Result},
    inventory::HostName,
    moment::Moment,
    quantity::{bytes, count, duration},
    report::Terminal,
};

/// The arguments of `pgherd restore`.
#[derive(Debug, Args)]
pub struct Wish {
    /// `latest`, a time with its zone, `lsn POSITION`, or `before-xid TRANSACTION`
    #[arg(long, value_name = "MOMENT", num_args = 1..=2)]
    to: Vec<String>,
    /// Use this backup, by its label
    #[arg(long, value_name = "LABEL")]
    set: Option<String>,
    /// Follow this timeline, such as the one that an earlier restore has left
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    timeline: Option<u32>,
    /// Restore from this place, if backups are in both; otherwise the first that has the moment
    #[arg(long, value_name = "PLACE", value_parser = ["disk", "bucket"])]
    from: Option<String>,
    /// Restore this member, and copy the others from it; otherwise the leader
    #[arg(long, value_name = "HOST", conflicts_with = "table")]
    host: Option<String>,
    /// Only take this table out, into the file of --out; nothing is changed
    #[arg(long, value_name = "DATABASE.TABLE", requires_all = ["out", "to"])]
    table: Option<String>,
    /// The file that the table's dump is written to
    #[arg(long, value_name = "FILE", requires = "table", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
    /// Make another cluster, of this inventory; this one is only read
    #[arg(long, value_name = "FILE", conflicts_with = "table", value_hint = ValueHint::FilePath)]
    into: Option<PathBuf>,
    /// SQL for the new cluster, before anybody can reach it; give it again for more
    #[arg(long, value_name = "[DATABASE:]FILE", requires = "into", value_hint = ValueHint::FilePath)]
    run: Vec<String>,
    /// Only show what would be restored, and what would be lost
    #[arg(long, conflicts_with_all = ["table", "yes"])]
    dry_run: bool,
    /// Undo a restore that was cut off, as long as no client can have used it
    #[arg(long, conflicts_with_all = ["to", "set", "timeline", "from", "host", "table", "into", "dry_run"])]
    back: bool,
    /// Remove the data that restores have kept
    #[arg(long, conflicts_with_all = ["to", "set", "timeline", "from", "host", "table", "into", "dry_run", "back"])]
    discard_old: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Wish {
    fn moment(&self) -> Result<Option<Moment>> {
        if self.to.is_empty() {
            return Ok(None);
        }
        let text = self.to.join(" ");
        let moment = text.parse().map_err(|why: String| {
            Error::new(Code::InvalidArguments, format!("--to {text}: {why}"))
        })?;
        Ok(Some(moment))
    }
}

pub(super) async fn run(
    global: &Global,
    wish: Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let to = wish.moment()?;
    let console = Console::new(terminal, wish.yes);
    if let Some(into) = wish.into {
        let request = clone::Request {
            into,
            wish: Cloned {
                to,
                set: wish.set,
                timeline: wish.timeline,
                host: wish.host,
                from: wish.from,
                run: Vec::new(),
            },
            run: wish.run,
            dry_run: wish.dry_run,
        };
        return clone::run(global, request, &console, cancel).await;
    }
    let context = global.existing(&console).await?;
    let told = if wish.back {
        restore::back(&context, cancel).await
    } else if wish.discard_old {
        discarded(&context, cancel).await
    } else if let (Some(table), Some(out), Some(to)) = (&wish.table, &wish.out, &to) {
        let (database, table) = in_database(table)?;
        let wish = take_out::Wish {
            database,
            table,
            to,
            set: wish.set.as_deref(),
            timeline: wish.timeline,
            from: wish.from.as_deref(),
            out,
        };
        let taken = take_out::run(&context, &wish, cancel).await;
        taken.map(|(size, host)| taken_out(&wish, size, &host))
    } else {
        let asked = restore::Wish {
            to,
            set: wish.set,
            timeline: wish.timeline,
            host: wish.host,
            from: wish.from,
        };
        if wish.dry_run {
            let outlook = restore::preview(&context, &asked).await?;
            show(&context, &outlook, terminal);
            return Ok(());
        }
        let restored = restore::run(&context, &asked, cancel).await;
        restored.map(|it| told(&it, &context))
    };
    console.conclude(told)
}

/// Database and table; `pg_dump` itself understands the rest.
fn in_database(text: &str) -> Result<(&str, &str)> {
    let parts = text
        .split_once('.')
        .filter(|it| !it.0.is_empty() && !it.1.is_empty());
    parts.ok_or_else(|| {
        Error::new(
            Code::InvalidArguments,
            format!("--table {text}: it is a database and a table, such as shop.orders"),
        )
        .hint("with a schema: shop.sales.orders")
    })
}

fn taken_out(wish: &take_out::Wish<'_>, size: u64, host: &HostName) -> String {
    format!(
        "{} of {}, as of {}, restored on {host}: {} of SQL in {}",
        wish.table,
        wish.database,
        wish.to,
        bytes(size),
        wish.out.display()
    )
}

async fn discarded(context: &Context, cancel: &CancellationToken) -> Result<String> {
    let removed = restore::discard(context, cancel).await?;
    Ok(match removed.as_slice() {
        [] => "no data from before a restore is kept".to_owned(),
        removed => format!("removed: {}", removed.join("; ")),
    })
}

/// What was restored.
fn told(restored: &Restored, context: &Context) -> String {
    let seconds = u32::try_from(restored.seconds.max(0)).unwrap_or(u32::MAX);
    let mut text = format!(
        "the cluster {} is restored to {}, from {} on {}, in {}",
        context.inventory.cluster,
        restored.to,
        restored.backup,
        restored.host,
        duration(seconds.into())
    );
    if let Some(newest) = restored.newest {
        text.push_str(&format!(
            "; its newest heartbeat is of {}",
            backup::time(newest)
        ));
    }
    if let Some(dir) = &restored.kept_dir {
        text.push_str(&format!(
            "\nthe data from before is kept in {dir} on {}; remove it: {}",
            restored.host,
            context.command("restore --discard-old")
        ));
    }
    text
}

/// What a restore means. It is shown before the question.
pub(super) fn outline(cluster: &str, outlook: &Outlook) -> String {
    let Outlook {
        to,
        host,
        replicas,
        source,
        places,
        ground,
        kept_dir,
        anew,
    } = outlook;
    let what = format!(
        "to {to}, on {host}, from the backup {} ({}){}",
        source.label,
        bytes(source.size),
        backup::in_place(places)
    );
    let mut text = match anew {
        Some(_) => format!(
            "No host has the database of {cluster} any more. This makes it from its repository, {what}.\n"
        ),
        None => {
            format!("This restores the cluster {cluster} {what}. Meanwhile nobody can use it.\n")
        }
    };
    if let Some(made) = anew.as_ref().filter(|made| !made.is_empty()) {
        text.push_str(&format!(
            "  hosts that are made first: {}\n",
            names(made, ", ")
        ));
    }
    for (place, why) in &ground.places {
        if let Some(why) = why {
            text.push_str(&format!(
                "  what is only {} is left out: pgBackRest cannot read it: {why}\n",
                place.inside()
            ));
        }
    }
    text.push_str(&match (to, ground.later) {
        (Moment::Time(_), Some(later)) => format!(
            "  lost by it: {}{} committed after that moment{}\n",
            if ground.complete { "" } else { "at least " },
            count(usize::try_from(later).unwrap_or(usize::MAX), "transaction"),
            match later {
                0 => "",
                _ => ", pgherd's heartbeats among them",
            }
        ),
        (Moment::Latest, _) => "  lost by it: whatever has not reached the repository\n".to_owned(),
        _ => "  lost by it: everything that was committed after that moment\n".to_owned(),
    });
    text.push_str(&match (kept_dir, anew) {
        (Some(dir), _) => format!("  the present data is kept in {dir} on {host}\n"),
        (None, Some(_)) => String::new(),
        (None, None) => format!(
            "  the present data on {host} is overwritten: there is no room beside it, or it cannot be moved\n"
        ),
    });
    if !replicas.is_empty() {
        let (verb, how) = match (replicas.len(), anew) {
            (1, None) => ("follows", "by pg_rewind or a new copy"),
            (_, None) => ("follow", "by pg_rewind or a new copy"),
            (1, Some(_)) => ("copies", "and follows it"),
            (_, Some(_)) => ("copy", "and follow it"),
        };
        let glue = if anew.is_none() { "it, " } else { "it " };
        text.push_str(&format!(
            "  then {} {verb} {glue}{how}\n",
            names(replicas, " and ")
        ));
    }
    text
}

fn names(hosts: &[HostName], between: &str) -> String {
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    names.join(between)
}

/// The result of --dry-run.
fn show(context: &Context, outlook: &Outlook, terminal: &Terminal) {
    if terminal.json {
        terminal.print_json(&json!({
            "to": outlook.to.to_string(),
            "host": outlook.host,
            "backup": outlook.source.label,
            "bytes": outlook.source.size,
            "place": outlook.source.place,
            "transactions_after": outlook.ground.later,
            "transactions_after_complete": outlook.ground.complete,
            "kept_dir": outlook.kept_dir,
            "replicas": outlook.replicas,
            "anew": outlook.anew.is_some(),
            "hosts_made": outlook.anew.as_deref().unwrap_or_default(),
        }));
        return;
    }
    terminal.explain(&outline(&context.inventory.cluster, outlook));
    terminal.say(&format!(
        "nothing was changed; do it: {}",
        context.command(&format!("restore --to '{}'", outlook.to))
    ));
}
