//! `pgherd image`.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Global, Image, console::Console};
use crate::{
    engine::image::{self, List},
    error::Result,
    prepared::{Prepared, Recipe, Size},
    quantity::count,
    report::{self, Summary, Table, Terminal, Tone},
    workspace::Workspace,
};

/// The price of one GB of snapshots, in dollars a month: an assumption, which the output says beside the result.
/// Regions differ. EC2's API does not tell prices, and AWS's price API needs a permission of its own.
const SNAPSHOT_PRICE: f64 = 0.05;

pub(super) async fn run(
    global: &Global,
    what: &Image,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    match what {
        Image::Build { yes } => build(global, *yes, terminal, cancel).await,
        Image::List => list(global, terminal).await,
        Image::Remove { id, yes } => remove(global, id, *yes, terminal, cancel).await,
    }
}

async fn build(
    global: &Global,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    let asked_for = global.load()?.provider.is_prepared();
    let context = image::context(global.source(&console)?)?;
    let image = image::build(&context, cancel).await?;
    let settled = format!(
        "the image {} holds {} ({})",
        image.id,
        image.holds,
        space(&image)
    );
    let run = console.ended().unwrap_or_default();
    let summary = Summary {
        settled: &settled,
        endpoints: &[],
    };
    report::print_summary(terminal, &run, &summary);
    terminal.say(&settled);
    if !asked_for {
        terminal
            .say("hosts are made from it with `image: prepared` under `provider` in the inventory");
    }
    Ok(())
}

async fn list(global: &Global, terminal: &Terminal) -> Result<()> {
    let console = Console::new(terminal, false);
    let context = global.open(&console, Workspace::preview).await?;
    let list = image::list(&context).await?;
    if terminal.json {
        terminal.print_json(&document(&list));
        return Ok(());
    }
    if !list.images.is_empty() {
        table(&list).print(terminal);
        terminal.say(&costs(&list));
    }
    let now = jiff::Timestamp::now();
    for listed in list.images.iter().filter(|listed| listed.used_next) {
        for reason in listed.image.aged(now) {
            terminal.say(&format!("! {}: {reason}", listed.image.id));
        }
    }
    let build = context.command("image build");
    for recipe in &list.missing {
        terminal.say(&format!(
            "no image holds what this inventory's hosts need: {}; make one: {build}",
            recipe.in_words()
        ));
    }
    if list.missing.is_empty() && !list.asked_for {
        terminal
            .say("this inventory does not ask for one: `image: prepared` under `provider` does");
    }
    Ok(())
}

fn table(list: &List) -> Table {
    let now = jiff::Timestamp::now();
    let mut table = Table::new([
        "image",
        "system",
        "holds",
        "made",
        "size",
        "hosts",
        "this cluster",
    ]);
    for listed in &list.images {
        let image = &listed.image;
        let next = match (listed.used_next, list.asked_for) {
            (true, true) => "uses it next",
            (true, false) => "could use it",
            (false, _) => "",
        };
        let tone = if listed.used_next {
            Tone::Good
        } else {
            Tone::Plain
        };
        table.toned_row(
            tone,
            [
                image.id.clone(),
                format!("{}, {}", image.system, image.architecture),
                image.holds.clone(),
                match &image.unfit {
                    None => format!("{}, {} ago", image.date(), days(image.days(now))),
                    Some(why) => format!("{} ({why})", image.date()),
                },
                space(image),
                image.used_by.len().to_string(),
                next.to_owned(),
            ],
        );
    }
    table
}

fn days(days: i64) -> String {
    count(usize::try_from(days).unwrap_or_default(), "day")
}

fn space(image: &Prepared) -> String {
    match image.size {
        Size::Bytes(bytes) => report::bytes(bytes),
        Size::Snapshot(gib) => format!("{gib} GiB of snapshot at most"),
    }
}

/// The space that all images take, and what it costs.
fn costs(list: &List) -> String {
    let sizes = || list.images.iter().map(|listed| listed.image.size);
    let bytes = sizes().filter_map(|size| match size {
        Size::Bytes(bytes) => Some(bytes),
        Size::Snapshot(_) => None,
    });
    let snapshots: u32 = sizes()
        .map(|size| match size {
            Size::Snapshot(gib) => gib,
            Size::Bytes(_) => 0,
        })
        .sum();
    match snapshots {
        0 => format!(
            "{} in the engine at most: images share what they have of one base",
            report::bytes(bytes.sum())
        ),
        gib => format!(
            "at most {gib} GB-month of snapshots, about ${:.2} a month if one costs ${SNAPSHOT_PRICE:.2} \
             (your region's price: https://aws.amazon.com/ebs/pricing/); what was never written is not counted",
            f64::from(gib) * SNAPSHOT_PRICE
        ),
    }
}

fn document(list: &List) -> Value {
    let now = jiff::Timestamp::now();
    let images: Vec<Value> = list
        .images
        .iter()
        .map(|listed| {
            let image = &listed.image;
            let (bytes, snapshot) = match image.size {
                Size::Bytes(bytes) => (Some(bytes), None),
                Size::Snapshot(gib) => (None, Some(gib)),
            };
            json!({
                "id": image.id,
                "name": image.name,
                "digest": image.digest,
                "made": image.made,
                "system": image.system,
                "architecture": image.architecture,
                "base": image.base,
                "holds": image.holds,
                "bytes": bytes,
                "snapshot_gib": snapshot,
                "used_by": image.used_by,
                "used_next": listed.used_next,
                "aged": image.aged(now),
                "unfit": image.unfit,
            })
        })
        .collect();
    json!({
        "images": images,
        "asked_for": list.asked_for,
        "missing": list.missing.iter().map(Recipe::in_words).collect::<Vec<_>>(),
    })
}

async fn remove(
    global: &Global,
    id: &str,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    let context = global.open(&console, Workspace::preview).await?;
    let removed = image::remove(&context, id, cancel).await?;
    if terminal.json {
        terminal.print_json(&json!({"removed": removed.id}));
    } else {
        terminal.say(&format!(
            "removed the image {} ({})",
            removed.id, removed.name
        ));
    }
    Ok(())
}

/// What a build creates. It is shown before the question.
pub(super) fn outline(recipes: &[Recipe], made: &[String], doubts: &[String]) -> String {
    let holds: Vec<String> = recipes.iter().map(Recipe::in_words).collect();
    let mut text = format!(
        "This makes an image of {}, by way of a host that goes again:\n",
        holds.join(" and of ")
    );
    for line in made {
        text.push_str(&format!("+ {line}\n"));
    }
    for doubt in doubts {
        text.push_str(&format!("  note: {doubt}\n"));
    }
    text
}

/// What is removed. It is shown before the question.
pub(super) fn removal(image: &Prepared) -> String {
    format!(
        "This removes the image {} ({}) of {}, which holds {}.",
        image.id,
        image.name,
        image.date(),
        image.holds
    )
}
