//! `replace`: one host is taken out of the cluster, and created again under its name.

use tokio_util::sync::CancellationToken;

use super::{
    apply::{self, Applied, Verb},
    context::Context,
    retire,
    settle::Consent,
    taken::{Leftovers, Taken},
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    provider::Drifted,
};

/// Replaces the host with that name.
///
/// The workspace records that the old host is gone, so that after an interruption the next run continues with
/// the new one.
pub(crate) async fn run(
    context: &Context,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Applied> {
    let host = HostName::new(name);
    if !context.inventory.hosts.contains_key(&host) {
        let names: Vec<&str> = context
            .inventory
            .hosts
            .keys()
            .map(HostName::as_str)
            .collect();
        return Err(
            Error::new(Code::HostUnknown, format!("no host is called {name}"))
                .hint(format!("the inventory's hosts: {}", names.join(", "))),
        );
    }
    let taken = Taken::by(context, "replace", Leftovers::Offer, cancel).await?;
    taken
        .run(async |run| {
            if context.workspace.replacing()?.as_ref() != Some(&host) {
                // Anything that would stop the run later must stop it before the host is removed.
                let preview = context
                    .preview(context.host_status().await?, Drifted::default())
                    .await;
                match preview {
                    Ok(preview) => preview.plan.refuse_while_paused(&context.inventory)?,
                    // That it cannot be reached may be the reason to replace it.
                    Err(error) if error.host() == Some(&host) && error.failures().is_empty() => {}
                    Err(error) => return Err(error),
                }
                let retirement = retire::of_replace(run, &host).await?;
                retirement.end(run).await?;
                context.workspace.note_replacing(&host)?;
            }
            apply::apply(Verb::Up, run, Consent::Once).await
        })
        .await
}
