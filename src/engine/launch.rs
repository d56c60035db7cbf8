//! Creates and starts the hosts of the inventory that do not run.

use super::{ahead, headway::Headway, run::Run};
use crate::{
    error::{Error, Result},
    inventory::HostName,
    machine::Machine,
    provider::{Access, Arrivals, Part},
};

/// Creates and starts what does not run, and returns the machines of all hosts. The user has agreed to it.
pub(super) async fn all(run: &Run<'_>) -> Result<Vec<Machine>> {
    let context = run.context;
    context.say_of_bucket().await?;
    context.make_bucket(&run.events).await?;
    let absent = context.host_status().await?.absent();
    if !absent.is_empty() {
        if !context.provider.drift().await?.changes.is_empty() {
            context.provider.repair(Part::Missing, &run.events).await?;
        }
        launch(run, &absent, None).await?;
    }
    Ok(context.host_status().await?.complete(context)?.to_vec())
}

/// Creates and starts the hosts that do not run.
///
/// With `early`, each new host is prepared as soon as it answers. The machines in it run already.
pub(super) async fn launch(
    run: &Run<'_>,
    absent: &[HostName],
    early: Option<(&[Machine], &Headway)>,
) -> Result<Vec<Machine>> {
    let context = run.context;
    let identity = context.workspace.identity()?;
    let access = Access {
        user: context.inventory.ssh.user.clone(),
        public_key: identity.public_key,
        cluster_id: context.secrets()?.cluster_id,
        holder: context.connections.holder(),
    };
    context.state_is_ready().await?;
    let (arrivals, arrived) = Arrivals::channel();
    let launching = async {
        let launched = context
            .provider
            .launch_telling(absent, &access, &run.events, &arrivals)
            .await;
        // No more hosts arrive.
        drop(arrivals);
        launched
    };
    let beginning = async {
        if let Some((there, headway)) = early {
            ahead::begin(run, there, arrived, headway).await;
        }
    };
    tokio::select! {
        (launched, ()) = async { tokio::join!(launching, beginning) } => launched,
        () = run.cancel.cancelled() => Err(Error::interrupted()
            .left("hosts that were being created may exist; the next run continues with them, and `pgherd down` removes them")),
    }
}
