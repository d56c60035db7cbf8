//! `pgherd drill watch`: measures, and breaks nothing.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Global, drill::Wish},
    drill::{Clients, Load, narrate, record::Record, watched},
    engine::{
        context::{self, Base, Site},
        run::Session,
    },
    error::Result,
    event::{Event, Moment},
    report::{self, Terminal},
};

/// How long clients work before what they feel counts: seconds. Connections are made meanwhile.
const WARM_UP: f64 = 1.0;
/// How often to look where the hosts are now.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) async fn run(
    global: &Global,
    wish: &Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global).await?;
    terminal.conceal(base.workspace.secrets()?.values());
    let outlook = base.outlook().await?;
    if outlook.running.is_empty() {
        return Err(context::no_hosts(&base.inventory));
    }
    // No lock: it is there to run beside whatever holds it.
    let session = Session::begin(&base, "drill", terminal.for_people(), Vec::new())?;
    let site = base.connect(&outlook.running, &session.events).await?;
    let watched = watch(&site, wish, &session.folder, cancel).await;
    site.close().await;
    // Before the report ends, which puts it on the run's page.
    let (record, result) = match watched {
        Err(error) => (None, Err(error)),
        Ok(record) => {
            let written = record.write(&session.folder);
            let verdict = record.verdict().map_or(Ok(()), Err);
            (Some(record), written.and(verdict))
        }
    };
    session.end(&result).await;
    if let Some(record) = record {
        report::print_drills(terminal, &record);
    }
    result
}

async fn watch(
    site: &Site<'_>,
    wish: &Wish,
    folder: &Path,
    cancel: &CancellationToken,
) -> Result<Record> {
    let cluster = site.look().await?.cluster;
    let clients = Arc::new(
        Clients::find(
            cluster.clone(),
            site.remote.clone(),
            site.tls.clone(),
            &site.machines,
        )
        .await?,
    );
    let load = Load::start(clients.clone(), folder, &wish.crew()).await?;
    let begun = load.tape().begun();
    let tell = |moment| site.events.emit(Event::DrillMoment { moment, host: None });
    tell(Moment::Load);
    tokio::select! {
        () = length(wish.length) => {}
        () = cancel.cancelled() => {}
        never = narrate(&load, &site.events) => match never {},
        () = follow(site.base, &clients) => {}
    }
    let limits = wish.limits();
    let drill = watched(load, WARM_UP, &limits).await?;
    tell(Moment::End);
    Ok(Record::of(&cluster, begun, limits, vec![drill]))
}

async fn length(seconds: Option<f64>) {
    match seconds {
        Some(seconds) => sleep(Duration::from_secs_f64(seconds)).await,
        None => std::future::pending().await,
    }
}

/// Whoever changes addresses meanwhile must not be taken for somebody who refuses writes.
async fn follow(base: &Base, clients: &Clients) {
    loop {
        sleep(LOOK).await;
        if let Ok(now) = base.outlook().await {
            clients.reroute(&now.running);
        }
    }
}
