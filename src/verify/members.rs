//! Whether everybody who is a member, or at work, is declared.

use super::{Check, Prover, check};
use crate::{
    inventory::Role,
    plan::{Found, membership},
    services::postgres::patroni,
};

impl Prover {
    pub(super) fn members(&self, found: &Found) -> Check {
        let mut wrong: Vec<String> = membership::undeclared(&self.cluster, found)
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        if found.dcs.is_none() {
            wrong.push("who Patroni's members are cannot be seen: no etcd answers".into());
        }
        let declared: Vec<&str> = self
            .cluster
            .with_role(Role::Postgres)
            .map(|node| node.name.as_str())
            .collect();
        check(
            "members",
            wrong,
            format!("all are declared ({})", declared.join(", ")),
        )
    }

    /// The leader by the word of any member that answers, for when none of the declared ones leads.
    pub(super) async fn undeclared_leader(&self) -> Option<String> {
        for node in self.cluster.with_role(Role::Postgres) {
            let asked = patroni::Patroni::on(&self.http, &node.name);
            let Ok(topology) = asked.topology().await else {
                continue;
            };
            let leader = topology.leader()?;
            let declared = self
                .cluster
                .with_role(Role::Postgres)
                .any(|node| node.name.as_str() == leader.name);
            return (!declared).then(|| leader.name.clone());
        }
        None
    }
}
