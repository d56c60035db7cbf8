//! `pgherd down`.

use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::{
        image,
        remove::{self, Request},
    },
    error::Result,
    report::{self, Summary, Terminal},
    workspace::Workspace,
};

pub(super) async fn run(
    global: &Global,
    request: Request<'_>,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    let context = global.open(&console, Workspace::open).await?;
    let removed = remove::run(request, &context, cancel).await?;
    let cluster = &context.inventory.cluster;
    let settled = match request.cluster_id {
        None => format!("nothing of the cluster {cluster} is left"),
        Some(id) => format!("nothing of the cluster {cluster} with the id {id} is left"),
    };
    let stays = removed.stays.into_iter().map(|what| ("stays", what));
    let mut kept: Vec<(&str, String)> = stays.collect();
    kept.extend(image::stays(&context).await.map(|what| ("stays", what)));
    if removed.kept_secrets {
        let dir = context.inventory.workspace_dir();
        kept.push(("kept", dir.display().to_string()));
    }
    let run = console.ended().unwrap_or_default();
    let summary = Summary {
        settled: &settled,
        endpoints: &kept,
    };
    report::print_summary(terminal, &run, &summary);
    if !run.nothing_changed() {
        terminal.say(&settled);
    }
    Ok(())
}

/// What would be removed. It is shown before the question.
pub(super) fn outline(cluster: &str, what: &str, keep_secrets: bool) -> String {
    let secrets = if keep_secrets {
        "the cluster's secrets are kept"
    } else {
        "the cluster's secrets are removed too (--keep-secrets keeps them)"
    };
    format!("This removes the cluster {cluster} and all of its data:\n{what}  {secrets}")
}
