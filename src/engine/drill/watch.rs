//! `drill watch`: measures while others change or break something; breaks nothing itself.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    drill::{
        Clients, Crew, Load, Standing, narrate,
        record::{Limits, Record},
        watched,
    },
    engine::{at_work, connected::Connected, context::Context, drill::play::Played, run::beside},
    error::Result,
    event::{Event, Moment},
};

/// How many seconds clients work before measuring begins. They connect in this time.
const WARM_UP: f64 = 1.0;
/// How often to look for the hosts' present addresses.
const LOOK: Duration = Duration::from_secs(1);

/// The request of the user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub limits: Limits,
    pub crew: Crew,
    /// `None`: until the user stops it.
    pub length: Option<Duration>,
}

/// Measures without breaking anything.
pub(crate) async fn run(
    request: Request,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<Played> {
    context.secrets()?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    let mut record = None;
    // `drill watch` does not lock the cluster, because it runs beside the run that has it.
    let result = beside(context, "drill", cancel, async |run| {
        let folder = &run.folder;
        let watched = context
            .on(running, &run.events, async |connected| {
                watch(connected, request, folder, cancel).await
            })
            .await?;
        // Before the report ends, which writes it to the run's page.
        let written = watched.write(folder);
        let verdict = watched.verdict().map_or(Ok(()), Err);
        record = Some(watched);
        written.and(verdict)
    })
    .await;
    Ok(Played { record, result })
}

async fn watch(
    connected: &Connected<'_>,
    request: Request,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Record> {
    let observed = connected.look().await?;
    at_work::notice(&observed.found.facts, connected.context.operator.as_ref());
    let cluster = observed.cluster;
    let clients = Arc::new(
        Clients::find(
            cluster.clone(),
            connected.remote.clone(),
            connected.tls.clone(),
            &connected.machines,
        )
        .await?,
    );
    let load = Load::start(clients.clone(), folder, &request.crew, Standing::Watching).await?;
    let begun = load.recorder().begun();
    let tell = |moment| {
        connected
            .events
            .emit(Event::DrillMoment { moment, host: None });
    };
    tell(Moment::Load);
    tokio::select! {
        () = length(request.length) => {}
        () = cancel.cancelled() => {}
        never = narrate(&load, &connected.events) => match never {},
        () = follow(connected.context, &clients) => {}
    }
    let drill = watched(load, WARM_UP, &request.limits).await?;
    tell(Moment::End);
    Ok(Record::of(&cluster, begun, request.limits, vec![drill]))
}

async fn length(length: Option<Duration>) {
    match length {
        Some(length) => sleep(length).await,
        None => std::future::pending().await,
    }
}

/// A change of addresses in this time must not count as refused writes.
async fn follow(context: &Context, clients: &Clients) {
    loop {
        sleep(LOOK).await;
        if let Ok(now) = context.host_status().await {
            clients.reroute(&now.running);
        }
    }
}
