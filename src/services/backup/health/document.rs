//! The backups in `--json`.

use serde_json::{Value, json};

use super::{super::client::Repository, judged::Judged};
use crate::{
    inventory::Inventory,
    services::archive::rehearsal::{Rehearsals, Verdict},
};

/// The repositories and their proof.
///
/// What is beside `places` is of all places together: with two, `missing_wal` is what is missing in any, and `proven` the
/// older of the two proofs.
pub(crate) fn whole_document(
    repositories: &[Repository],
    judged: &Judged,
    rehearsals: &[Rehearsals],
    inventory: &Inventory,
) -> Value {
    let places = repositories.iter().zip(&judged.places).zip(rehearsals);
    let places = places.map(|((repository, (_, wrong)), rehearsals)| {
        let mut document = contents(std::slice::from_ref(repository));
        document["place"] = json!(repository.place);
        document["error"] = json!(repository.unreadable());
        document["wrong"] = json!(wrong);
        document["rehearsed"] = json!(rehearsals.last);
        document["proven"] = json!(rehearsals.proof);
        document
    });
    let mut document = contents(repositories);
    document["places"] = places.collect();
    document["at_work"] = json!(repositories.iter().any(Repository::is_at_work));
    document["wrong"] = json!(judged.told());
    let last = rehearsals.iter().filter_map(|it| it.last.as_ref());
    document["rehearsed"] = json!(last.max_by_key(|it| it.ended));
    document["proven"] = json!(oldest_proof(rehearsals));
    document["rehearsing"] = json!(rehearsals.iter().find_map(|it| it.at_work.as_ref()));
    document["prove_within_days"] = json!(inventory.backup.prove_within);
    document
}

/// Nothing is proven as a whole before each place is.
fn oldest_proof(rehearsals: &[Rehearsals]) -> Option<&Verdict> {
    let proofs: Option<Vec<&Verdict>> = rehearsals.iter().map(|it| it.proof.as_ref()).collect();
    proofs?.into_iter().min_by_key(|it| it.ended)
}

fn contents(repositories: &[Repository]) -> Value {
    let time = |at: i64| jiff::Timestamp::from_second(at).ok();
    let backups = repositories.iter().flat_map(|repository| {
        let backups = repository.backups.iter();
        backups.map(|it| {
            json!({
                "label": it.label,
                "place": repository.place,
                "type": it.kind,
                "start": time(it.start),
                "stop": time(it.stop),
                "size": it.size,
                "stored": it.stored,
                "damaged": it.damaged,
                "gone": it.gone,
            })
        })
    });
    let spans = || repositories.iter().filter_map(Repository::span);
    let mut missing: Vec<String> = repositories.iter().flat_map(Repository::holes).collect();
    missing.sort();
    missing.dedup();
    json!({
        "from": spans().map(|it| it.0).min().and_then(time),
        "to": spans().map(|it| it.1).max().and_then(time),
        "missing_wal": missing,
        "backups": backups.collect::<Vec<_>>(),
        "bytes": repositories.iter().map(Repository::bytes).sum::<u64>(),
    })
}
