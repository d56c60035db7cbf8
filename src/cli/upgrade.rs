//! `pgherd upgrade`.

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::{
        context::Context,
        upgrade::{self, Done, Loss, Outlook, Returned, Upgraded},
    },
    error::Result,
    inventory::HostName,
    quantity::{count, duration},
    report::Terminal,
    workspace::Upgrading,
};

/// The arguments of `pgherd upgrade`.
#[derive(Debug, Args)]
pub struct Wish {
    /// The major version
    #[arg(long, value_name = "N")]
    to: Option<u16>,
    /// Only show what would be done, and what stops it
    #[arg(long, requires = "to", conflicts_with_all = ["prepare", "yes"])]
    dry_run: bool,
    /// Only install the new version beside the old one, and try whether it can take the database over
    #[arg(long, requires = "to")]
    prepare: bool,
    /// Go back to the old version, without what was written since
    #[arg(long, conflicts_with_all = ["to", "dry_run", "prepare"])]
    back: bool,
    /// Remove what was kept of the old version; there is no way back afterwards
    #[arg(long, conflicts_with_all = ["to", "dry_run", "prepare", "back"])]
    accept: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(
    global: &Global,
    wish: &Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, wish.yes);
    let context = global.existing(&console).await?;
    let told = if wish.back {
        let returned = upgrade::back(&context, cancel).await;
        returned.map(|it| back(&it, &context))
    } else if wish.accept {
        let accepted = upgrade::accept(&context, cancel).await;
        accepted.map(|it| {
            format!(
                "PostgreSQL {} is accepted; nothing of {} is left in the cluster {}",
                it.to, it.from, context.inventory.cluster
            )
        })
    } else {
        let asked = upgrade::Wish {
            to: wish.to,
            prepare: wish.prepare,
        };
        if wish.dry_run {
            let mut outlook = upgrade::preview(&context, asked).await?;
            return show(&context, &mut outlook, terminal);
        }
        let done = upgrade::run(&context, asked, cancel).await;
        done.map(|it| match it {
            Done::Prepared(outlook) => prepared(&outlook, &context),
            Done::Upgraded(it) => upgraded(&it, &context),
        })
    };
    console.conclude(told)
}

fn prepared(outlook: &Outlook, context: &Context) -> String {
    let to = outlook.ground.to;
    format!(
        "PostgreSQL {to} is installed beside {}, and can take the databases over; nothing has stopped\ndo it: {}",
        outlook.ground.from,
        context.command(&format!("upgrade --to {to}"))
    )
}

fn upgraded(it: &Upgraded, context: &Context) -> String {
    let Upgrading {
        from, to, keeper, ..
    } = &it.upgrading;
    let seconds = u32::try_from(it.seconds.max(0)).unwrap_or(u32::MAX);
    let mut text = format!(
        "the cluster {} runs PostgreSQL {to}, after {}; {from}'s data is kept on {keeper}",
        context.inventory.cluster,
        duration(seconds.into()),
    );
    if it.write.is_some() {
        text.push_str(&format!(
            "\nwrite it into the inventory now: postgresql: {{ version: {to} }}; until then, `up` refuses to work"
        ));
    }
    text.push_str(&format!(
        "\nif all is well: {}; if not, back to {from}: {}",
        context.command("upgrade --accept"),
        context.command("upgrade --back"),
    ));
    text
}

fn back(it: &Returned, context: &Context) -> String {
    let from = it.loss.upgrading.from;
    let mut text = format!(
        "the cluster {} runs PostgreSQL {from} again, {}",
        context.inventory.cluster,
        match it.loss.nothing {
            true => "with everything that was written".to_owned(),
            false => format!("without {}", lost(&it.loss)),
        }
    );
    if it.write.is_some() {
        text.push_str(&format!(
            "\nwrite it into the inventory: postgresql: {{ version: {from} }}; until then, `up` refuses to work"
        ));
    }
    text
}

/// What the way back loses, in words.
fn lost(loss: &Loss) -> String {
    match loss.transactions {
        Some(all) => format!(
            "what {} wrote since the upgrade, pgherd's own among them",
            count(usize::try_from(all).unwrap_or(usize::MAX), "transaction")
        ),
        None => {
            "whatever was written since the upgrade; nobody can be asked how much that is".into()
        }
    }
}

/// What an upgrade means. It is shown before the question.
pub(super) fn outline(cluster: &str, outlook: &Outlook) -> String {
    let ground = &outlook.ground;
    let (from, to, host, keeper) = (ground.from, ground.to, &ground.host, &outlook.keeper);
    let alone = keeper == host;
    let replicas: Vec<&str> = outlook.replicas().map(HostName::as_str).collect();
    let mut text = format!(
        "This upgrades the cluster {cluster} ({} in all) from PostgreSQL {from} to {to}.\n",
        outlook.size()
    );
    let terms = ground.terms();
    let lacking = terms.packages.iter().filter(|(_, it)| !it.is_empty());
    for (host, packages) in lacking {
        text.push_str(&format!(
            "  installed on {host}, beside the old ones: {}\n",
            packages.join(", ")
        ));
    }
    text.push_str(&format!(
        "  then it is tried on {host} whether {to} can take over the databases, while {from} serves; nothing stops if not\n"
    ));
    text.push_str(&format!(
        "  then nobody can use the database for about {}{}\n",
        duration(u32::try_from(outlook.seconds()).unwrap_or(u32::MAX).into()),
        match outlook.poolers {
            true => "; clients of the poolers wait, for 110 s at most",
            false => "; clients get errors meanwhile",
        }
    ));
    text.push_str(&format!(
        "  {host}'s data is upgraded by {}{}\n",
        match alone {
            true => "a copy",
            false => "hard links",
        },
        match replicas.is_empty() {
            true => String::new(),
            false => format!(
                ", and leads; {} {} it, and until then there is no other copy of {to}'s data",
                replicas.join(" and "),
                if replicas.len() == 1 {
                    "copies"
                } else {
                    "copy"
                }
            ),
        }
    ));
    text.push_str("  statistics are collected meanwhile: until then, some queries may be slow\n");
    if outlook.backups {
        text.push_str("  the repository gets a full backup; older backups can only be restored with the old version\n");
    }
    text.push_str(&format!(
        "  the way back: {from}'s data stays in {} on {keeper} until you accept {to}; what is written from then on would be lost by it\n",
        outlook.kept_dir
    ));
    text
}

/// What the way back means.
pub(super) fn cost(cluster: &str, loss: &Loss) -> String {
    let Upgrading {
        from, to, keeper, ..
    } = &loss.upgrading;
    if loss.nothing {
        return format!(
            "The cluster {cluster} goes back to PostgreSQL {from}. Nobody has used {to} yet, so nothing is lost.\n"
        );
    }
    format!(
        "The cluster {cluster} goes back to PostgreSQL {from}, as it was before the upgrade.\n  lost by it: {}\n  \
         {keeper} leads with the data that was kept; the others copy it\n",
        lost(loss)
    )
}

/// What is removed once the new version is accepted.
pub(super) fn removal(cluster: &str, upgrading: &Upgrading) -> String {
    let Upgrading {
        from, to, keeper, ..
    } = upgrading;
    format!(
        "PostgreSQL {to} is accepted in the cluster {cluster}. {from}'s data on {keeper} is removed, and its packages, \
         unless something else needs them.\n  there is no way back to {from} afterwards\n"
    )
}

/// The result of --dry-run.
fn show(context: &Context, outlook: &mut Outlook, terminal: &Terminal) -> Result<()> {
    if terminal.json {
        let ground = &outlook.ground;
        terminal.print_json(&json!({
            "from": ground.from,
            "to": ground.to,
            "host": ground.host,
            "keeper": outlook.keeper,
            "kept_dir": outlook.kept_dir,
            "bytes": ground.databases.size,
            "seconds": outlook.seconds(),
            "poolers": outlook.poolers,
            "packages": ground.terms().packages,
            "findings": outlook.findings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }));
        return outlook.refuse();
    }
    outlook.refuse()?;
    terminal.explain(&outline(&context.inventory.cluster, outlook));
    let to = outlook.ground.to;
    terminal.say(&format!(
        "nothing was changed; do it: {}",
        context.command(&format!("upgrade --to {to}"))
    ));
    terminal.say(&format!(
        "or first install and try the new version: {}",
        context.command(&format!("upgrade --to {to} --prepare"))
    ));
    Ok(())
}
