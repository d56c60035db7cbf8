//! Finds out why replicas do not stream, and whether they can recover.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::{
    inventory::HostName,
    journal,
    services::{
        health::Ways,
        postgres::{Survey, patroni},
    },
};

/// What the journals of members to which no leader streams say, by member.
pub(super) async fn look(ways: &Ways<'_>, survey: &Survey) -> BTreeMap<HostName, String> {
    let leader = patroni::leader_of(survey);
    let primary = leader.and_then(|leader| survey[leader].as_ref().ok());
    let Some(primary) = primary else {
        return BTreeMap::new();
    };
    let stranded = survey
        .keys()
        .filter(|host| Some(*host) != leader && !primary.streams_to(host));
    let asked = stranded.map(|host| async move {
        let inventory = &ways.cluster.inventory;
        let data_dir = &inventory.postgresql.data_dir;
        let journal = journal::read(ways.remote, host, "patroni", Some(data_dir)).await?;
        let said = match journal.needs_reinit() {
            Some(line) => format!(
                "it cannot follow with its present data ({line}); copy the leader's again: {}",
                inventory.command(&format!("reinit {host}"))
            ),
            None => format!("its journal: {}", journal.cause()?),
        };
        Some((host.clone(), said))
    });
    join_all(asked).await.into_iter().flatten().collect()
}
