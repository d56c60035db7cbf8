//! A planned change of leader, and how long it takes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    connected::Connected,
    context::Context,
    drill,
    operator::{Answer, Question, consent},
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    drill::{
        Crew, Fault, Scenario,
        record::{Drill, Limits, Record},
    },
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    plan,
    services::postgres::patroni,
    switchover::Handover,
};

/// As few clients as can measure how long writes are refused, because other clients use this cluster.
pub(super) const CREW: Crew = Crew {
    writers: 1,
    new_writers: 2,
    readers: 0,
    new_readers: 1,
    pooled: 2,
    pause: Duration::from_millis(10),
};

/// No acknowledged commit may be missing afterwards.
pub(super) const LIMITS: Limits = Limits {
    max_outage: None,
    max_lost: 0,
};

/// A completed handover, and what clients measured.
pub(crate) struct HandedOver {
    pub handover: Handover,
    pub felt: Option<Drill>,
}

/// Hands over to the named member, or to the best replica; `None` if it leads already.
pub(crate) async fn run(
    context: &Context,
    to: Option<&str>,
    cancel: &CancellationToken,
) -> Result<Option<HandedOver>> {
    let to = to.map(|name| member(context, name)).transpose()?;
    let taken = Taken::by(context, "switchover", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    taken
        .run(async |run| {
            let done = context
                .on(running, &run.events, async |connected| {
                    hand_over(run, connected, to.as_ref()).await
                })
                .await?;
            let Some((handover, record)) = done else {
                return Ok(None);
            };
            match record.verdict() {
                Some(error) => Err(error),
                None => Ok(Some(HandedOver {
                    handover,
                    felt: record.drills.into_iter().next(),
                })),
            }
        })
        .await
}

async fn hand_over(
    run: &Run<'_>,
    connected: &Connected<'_>,
    to: Option<&HostName>,
) -> Result<Option<(Handover, Record)>> {
    let context = run.context;
    let observed = connected.look().await?;
    observed.members_as_declared()?;
    connected.certificates_valid(&observed)?;
    if observed.found.is_paused() {
        return Err(plan::not_while_paused(&context.inventory));
    }
    let cluster = observed.cluster;
    let survey = patroni::survey(&connected.http, &cluster).await;
    let Some(handover) = Handover::plan(&survey, to)? else {
        return Ok(None);
    };
    let question = Question::HandOver {
        context,
        handover: &handover,
    };
    if consent(context.operator.as_ref(), question).await? == Answer::Yes {
        // The user's answer may take an hour.
        let survey = patroni::survey(&connected.http, &cluster).await;
        if survey.values().flatten().any(|status| status.pause) {
            return Err(plan::not_while_paused(&context.inventory));
        }
        handover.still(&survey)?;
    }
    let mut runner = drill::runner(run, connected, cluster.clone(), LIMITS);
    runner.crew = CREW;
    let fault = Fault {
        scenario: Scenario::Switchover,
        hosts: vec![handover.from.clone()],
        candidate: Some(handover.to.clone()),
        lag: None,
    };
    let drill = runner.play_fault(fault, 1, 1).await?;
    let record = Record::of(&cluster, run.begun, LIMITS, vec![drill]);
    record.write(&run.folder)?;
    Ok(Some((handover, record)))
}

/// The member with that name.
pub(super) fn member(context: &Context, name: &str) -> Result<HostName> {
    let members: Vec<&HostName> = context.inventory.with_role(Role::Postgres).collect();
    if let Some(member) = members.iter().find(|member| member.as_str() == name) {
        return Ok((*member).clone());
    }
    let names: Vec<&str> = members.iter().map(|member| member.as_str()).collect();
    Err(
        Error::new(Code::HostUnknown, format!("no member is called {name}"))
            .hint(format!("the inventory's members: {}", names.join(", "))),
    )
}
