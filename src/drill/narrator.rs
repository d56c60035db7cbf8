//! Reports what clients get while a drill runs.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;

use super::{load::Load, record::GAP, recording::View};
use crate::{
    event::{Event, Events, Moment},
    inventory::HostName,
    quantity,
};

/// How often the narrator looks.
const LOOK: Duration = Duration::from_millis(50);
/// After this many writes, the load is running.
const GOING: u64 = 20;
/// The number of looks between two reports of the load: one second.
const REPORT: u32 = 20;

/// Reports on a running load until it is dropped.
pub async fn narrate(load: &Load, events: &Events) -> Infallible {
    // A client that is still connecting for the first time has not been refused.
    while load.view().writes < GOING {
        sleep(LOOK).await;
    }
    let mut told = load.view();
    let mut leader: Option<(HostName, u32)> = told.leader.clone();
    let mut refused = false;
    let moment = |moment, host| events.emit(Event::DrillMoment { moment, host });
    for look in 1u32.. {
        sleep(LOOK).await;
        let view = load.view();
        let since = view.t - view.last_write;
        if !refused && since > GAP {
            moment(Moment::Refused, None);
        } else if refused && since <= GAP {
            moment(Moment::Accepted, None);
        }
        refused = since > GAP;
        if let Some((now, timeline)) = &view.leader {
            let newer = leader.as_ref().is_some_and(|(_, before)| timeline > before);
            if newer {
                moment(Moment::NewLeader, Some(now.clone()));
            }
            if newer || leader.is_none() {
                leader = Some((now.clone(), *timeline));
            }
        }
        if look.is_multiple_of(REPORT) {
            events.emit(report(&told, &view, refused));
            told = view;
        }
    }
    std::future::pending().await
}

fn report(before: &View, now: &View, refused: bool) -> Event {
    let per_second = |count: u64| {
        let seconds = (now.t - before.t).max(0.001);
        let rate = quantity::whole((count as f64 / seconds).round());
        u32::try_from(rate).unwrap_or(u32::MAX)
    };
    Event::Load {
        writes: per_second(now.writes - before.writes),
        reads: per_second(now.reads - before.reads),
        refused: refused.then_some(now.t - now.last_write),
    }
}
