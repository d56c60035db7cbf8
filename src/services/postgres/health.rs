//! The health of PostgreSQL under Patroni: leader, replicas, and the settings of each member.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{
    inventory::{HostName, Role},
    plan,
    services::{
        health::{Check, Health, Look, Seen, Shown, Ways},
        postgres::patroni,
    },
};

mod archive;
mod members;
mod pause;
mod settings;
mod shown;
mod stranded;
mod waits;

pub use members::FAILOVER;
pub(crate) use waits::{leader, streaming};

pub(crate) const HEALTH: &dyn Health = &Members;

struct Members;

#[async_trait]
impl Health for Members {
    fn role(&self) -> Role {
        Role::Postgres
    }

    async fn ready(&self, host: &HostName, ways: &Ways<'_>) -> Seen {
        waits::registered(host, ways).await
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        shown::look(look).await
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let ways = &look.ways;
        let of_members = async {
            let survey = ways.survey().await;
            let found = tokio::join!(
                members::leader(ways, &survey, Some(&look.found.facts)),
                settings::look(look, &survey),
                archive::look(look, &survey),
                stranded::look(ways, &survey),
            );
            (survey, found)
        };
        let (paused, (survey, found)) = tokio::join!(pause::in_the_dcs(ways), of_members);
        let (leader, settings, archive, stranded) = found;
        vec![
            leader,
            members::replication(&survey, patroni::leader_of(&survey), &stranded),
            members::pending_restart(&survey),
            pause::check(&survey, paused, &resume(ways)),
            settings,
            archive.check(),
        ]
    }

    async fn standing(&self, ways: &Ways<'_>) -> Vec<Check> {
        let (survey, paused) = tokio::join!(ways.survey(), pause::in_the_dcs(ways));
        vec![
            pause::check(&survey, paused, &resume(ways)),
            members::leader(ways, &survey, None).await,
            members::replication(&survey, patroni::leader_of(&survey), &BTreeMap::new()),
            members::failover(&survey),
        ]
    }
}

/// How to end a pause.
fn resume(ways: &Ways<'_>) -> String {
    plan::how_to_resume(&ways.cluster.inventory)
}
