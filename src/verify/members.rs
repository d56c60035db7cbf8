//! Checks that every member, and every service that runs, is in the inventory.

use super::{Check, Prover};
use crate::{
    inventory::Role,
    plan::{Found, membership},
};

impl Prover {
    pub(super) fn members(&self, found: &Found) -> Check {
        let mut wrong: Vec<String> = membership::undeclared(&self.cluster, found)
            .into_iter()
            .map(|finding| finding.what)
            .collect();
        if found.dcs.is_none() {
            wrong.push("Patroni's members are not known: no etcd answers".into());
        }
        let declared: Vec<&str> = self
            .cluster
            .with_role(Role::Postgres)
            .map(|node| node.name.as_str())
            .collect();
        Check::of(
            "members",
            wrong,
            format!("all are in the inventory ({})", declared.join(", ")),
        )
    }
}
