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
/// the new one. With `new_volume`, its data volume goes with the old host.
pub(crate) async fn run(
    context: &Context,
    name: &str,
    new_volume: bool,
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
    let has_volume = context.inventory.data_volume(&host).is_some();
    if new_volume && !has_volume {
        return Err(Error::new(
            Code::InvalidArguments,
            format!("--new-volume: the inventory gives {host} no data volume"),
        )
        .left("nothing was changed")
        .hint("leave --new-volume out, or add data_volume_gb for the host"));
    }
    let keeps_data = has_volume && !new_volume;
    if keeps_data {
        context.provider.check_successor(&host).await?;
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
                let retirement = retire::of_replace(run, &host, keeps_data).await?;
                retirement.end(run).await?;
                context.workspace.note_replacing(&host)?;
            }
            apply::apply(Verb::Up, run, Consent::Once).await
        })
        .await
}
