//! `pgherd drill`.

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Global, site::Base};
use crate::{
    drill::{
        Clients, Crew, Load, Scenario, bands, judge, marks, measure, narrate,
        record::{Drill, Limits, Mark, Record},
        samples,
    },
    error::{Error, Result},
    event::{Event, Events, Moment},
    report::{self, Options, Reporter, RunLog, Terminal},
};

/// How long clients work before their load counts: connections are made meanwhile.
const WARM_UP: f64 = 1.0;
/// How often `watch` looks where the hosts are now.
const LOOK: Duration = Duration::from_secs(1);

/// What `pgherd drill` takes.
#[derive(Debug, Args)]
pub struct Wish {
    /// What to break [default: all]
    #[arg(value_enum, value_name = "SCENARIO")]
    what: Option<What>,
    /// With `watch`: end by itself after this time, such as `60s` or `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    length: Option<f64>,
    /// Exit with 3 when writes are refused for longer than this, such as `30s`
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    max_outage: Option<f64>,
    /// Exit with 3 when more acknowledged commits than this are missing afterwards
    #[arg(long, value_name = "COMMITS", default_value_t = 0)]
    max_lost: u64,
}

/// The scenarios, as the command line offers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Nothing: measure while somebody else does something, until Ctrl-C
    Watch,
}

pub(super) async fn run(
    global: &Global,
    wish: &Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    watch(global, wish, terminal, cancel).await
}

/// `60s`, `1m 30s`, `500ms`.
fn seconds(text: &str) -> Result<f64, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a number with a unit: 500ms, 30s, 5m".to_owned())?;
    if span.is_negative() {
        return Err("a time cannot be negative".into());
    }
    Ok(span.as_secs_f64())
}

async fn watch(
    global: &Global,
    wish: &Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global)?;
    terminal.conceal(base.workspace.secrets()?.values());
    let outlook = base.outlook().await?;
    if outlook.running.is_empty() {
        return Err(super::site::no_hosts(&base.inventory));
    }
    let folder = base.workspace.new_run(jiff::Timestamp::now())?;
    let (events, receiver) = Events::channel();
    let reporter = Reporter::start(
        receiver,
        Options {
            terminal: terminal.for_people(),
            run_log: Some(RunLog::create(&folder)?),
            hosts: Vec::new(),
        },
    );
    let site = base.connect(&outlook.running, &events).await?;
    let watched = async {
        let cluster = site.look().await?.cluster;
        let clients = Clients::find(
            cluster.clone(),
            site.remote.clone(),
            site.tls.clone(),
            &outlook.running,
        )
        .await?;
        let clients = Arc::new(clients);
        let load = Load::start(clients.clone(), &folder, &Crew::default()).await?;
        let begun = load.tape().begun();
        events.emit(Event::DrillMoment {
            moment: Moment::Load,
            host: None,
        });
        // Whoever changes addresses meanwhile must not be taken for the one who refuses.
        let follow = async {
            loop {
                sleep(LOOK).await;
                if let Ok(now) = base.outlook().await {
                    clients.reroute(&now.running);
                }
            }
        };
        let length = wish.length.map(Duration::from_secs_f64);
        let end = async {
            match length {
                Some(length) => sleep(length).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = end => {}
            () = cancel.cancelled() => {}
            _ = narrate(&load, &events) => {}
            () = follow => {}
        }
        let (recording, balance) = load.stop().await?;
        events.emit(Event::DrillMoment {
            moment: Moment::End,
            host: None,
        });
        let mark = |t, moment| Mark {
            t,
            moment,
            host: None,
        };
        let mut all = vec![mark(0.0, Moment::Load)];
        all.extend(marks(&recording, WARM_UP));
        all.push(mark(recording.length, Moment::End));
        let limits = Limits {
            max_outage: wish.max_outage,
            max_lost: wish.max_lost,
        };
        let measured = measure(&recording, WARM_UP, &balance);
        Ok::<_, Error>(Record::of(
            &cluster,
            begun,
            limits,
            vec![Drill {
                failures: judge(Scenario::Watch, &measured, &limits),
                measured,
                scenario: Scenario::Watch,
                run: 1,
                hosts: Vec::new(),
                begun,
                route: clients.route(),
                bound: 0.0,
                samples: samples(&recording),
                marks: all,
                bands: bands(&recording),
            }],
        ))
    }
    .await;
    site.remote.close().await;
    reporter.finish().await;
    let record = watched?;
    record.write(&folder)?;
    report::print_drills(terminal, &record);
    match record.verdict() {
        None => Ok(()),
        Some(error) => Err(error),
    }
}
