//! `pgherd switchover`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    context::{self, Base, Site},
    drill::{self, repair},
    run::Session,
};
use crate::{
    cli::Global,
    drill::{
        Crew, Fault, Scenario,
        record::{Drill, Limits, Record},
    },
    error::{Error, Kind, Result},
    inventory::{HostName, Role},
    patroni, plan,
    report::{self, Expected, Handle, Summary, Terminal},
    switchover::Handover,
};

/// As few clients as tell how long writes were refused: others are at work here.
pub(crate) const CREW: Crew = Crew {
    writers: 1,
    new_writers: 2,
    readers: 0,
    new_readers: 1,
    pause: Duration::from_millis(10),
};

pub(crate) async fn run(
    global: &Global,
    to: Option<&str>,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global).await?;
    let to = to.map(|name| known(&base, name)).transpose()?;
    let _lock = base.lock("switchover")?;
    terminal.conceal(base.workspace.secrets()?.values());
    repair::offer(&base, yes, terminal, cancel).await?;
    let outlook = base.outlook().await?;
    if outlook.running.is_empty() {
        return Err(context::no_hosts(&base.inventory));
    }
    let session = Session::begin(&base, "switchover", terminal.clone(), base.hosts())?;
    let limits = Limits {
        max_outage: None,
        max_lost: 0,
    };
    let result = async {
        let site = base.connect(&outlook.running, &session.events).await?;
        let handed = async {
            let sight = site.look().await?;
            sight.members_as_declared()?;
            site.certificates_valid(&sight)?;
            if sight.found.is_paused() {
                return Err(plan::paused(&base.inventory));
            }
            let cluster = sight.cluster;
            let survey = patroni::survey(&site.http, &cluster).await;
            let Some(handover) = Handover::plan(&survey, to.as_ref())? else {
                return Ok(None);
            };
            if !yes {
                ask(&site, &handover, terminal, &session.reporter).await?;
                // An answer may take an hour.
                let survey = patroni::survey(&site.http, &cluster).await;
                if survey.values().flatten().any(|status| status.pause) {
                    return Err(plan::paused(&base.inventory));
                }
                handover.still(&survey)?;
            }
            let mut stage = drill::stage(
                &site,
                cluster.clone(),
                session.folder.clone(),
                limits,
                cancel,
            );
            stage.crew = CREW;
            let fault = Fault {
                scenario: Scenario::Switchover,
                hosts: vec![handover.from.clone()],
                candidate: Some(handover.to.clone()),
                lag: None,
            };
            let drill = stage.play_fault(fault, 1, 1).await?;
            let record = Record::of(&cluster, session.begun, limits, vec![drill]);
            record.write(&session.folder)?;
            Ok(Some((handover, record)))
        }
        .await;
        site.close().await;
        handed
    }
    .await;
    let result = result.and_then(|done: Option<(Handover, Record)>| {
        match done.as_ref().and_then(|(_, record)| record.verdict()) {
            Some(error) => Err(error),
            None => Ok(done),
        }
    });
    let run = session.end(&result).await;
    match result? {
        None => {
            let leader = to.map(|to| to.to_string()).unwrap_or_default();
            let summary = Summary {
                settled: &format!("{leader} leads already"),
                endpoints: &[],
            };
            report::print_summary(terminal, &run, &summary);
        }
        Some((handover, record)) => {
            if let Some(drill) = record.drills.first() {
                terminal.explain(&told(&handover, drill));
            }
        }
    }
    Ok(())
}

/// The member of that name.
pub(crate) fn known(base: &Base, name: &str) -> Result<HostName> {
    let members: Vec<&HostName> = base.inventory.with_role(Role::Postgres).collect();
    if let Some(member) = members.iter().find(|member| member.as_str() == name) {
        return Ok((*member).clone());
    }
    let names: Vec<&str> = members.iter().map(|member| member.as_str()).collect();
    Err(Error::input(format!("no member is called {name}"))
        .hint(format!("the inventory's members: {}", names.join(", "))))
}

async fn ask(
    site: &Site<'_>,
    handover: &Handover,
    terminal: &Terminal,
    reporter: &Handle,
) -> Result<()> {
    let Handover { from, to } = handover;
    let agreed = reporter
        .aside(async {
            terminal.explain(&format!(
                "In the cluster {}, {from} hands over to {to}: clients are broken off, and writes are \
                 refused for about 2 s.",
                site.base.inventory.cluster
            ));
            report::confirm(terminal, "Do this?", Expected::Yes).await
        })
        .await?;
    if agreed {
        Ok(())
    } else {
        Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was changed"))
    }
}

fn told(handover: &Handover, drill: &Drill) -> String {
    let measured = &drill.measured;
    let Handover { from, to } = handover;
    format!(
        "{from} has handed over to {to}: no writes for {}, no reads for {}; timeline {} > {}; {} of {} \
         commits missing",
        report::duration(measured.write_outage),
        report::duration(measured.read_outage),
        measured.timeline_before.unwrap_or_default(),
        measured.timeline_after.unwrap_or_default(),
        measured.missing,
        measured.acknowledged,
    )
}
