//! What clients saw while others changed or broke something.

use super::{
    Load, Scenario, bands, judge, marks, measure,
    record::{Drill, Limits, Mark},
    samples,
};
use crate::{error::Result, event::Moment};

/// Ends the load, and makes a record without a fault.
///
/// The measurement begins `from` seconds after the load: before that, clients connect.
pub async fn watched(load: Load, from: f64, limits: &Limits) -> Result<Drill> {
    let begun = load.recorder().begun();
    let route = load.clients().route();
    let (recording, balance) = load.stop().await?;
    let mark = |t, moment| Mark {
        t,
        moment,
        host: None,
    };
    let mut all = vec![mark(0.0, Moment::Load)];
    all.extend(marks(&recording, from));
    all.push(mark(recording.length, Moment::End));
    let measured = measure(&recording, from, &balance);
    Ok(Drill {
        scenario: Scenario::Watch,
        run: 1,
        hosts: Vec::new(),
        begun,
        route,
        bound: 0.0,
        hold: None,
        archive: None,
        dropped: None,
        failures: judge(Scenario::Watch, &measured, limits),
        measured,
        samples: samples(&recording),
        marks: all,
        bands: bands(&recording),
    })
}
