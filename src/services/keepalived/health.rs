//! keepalived's health: whether exactly one front door has the cluster's address, and what answers at it.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use serde_json::{Map, json};

use super::client::{All, Said, ask_all, holders};
use crate::{
    inventory::Role,
    services::health::{Check, Health, Look, Shown, Ways, units},
};

pub(crate) const HEALTH: &dyn Health = &Floating;

struct Floating;

#[async_trait]
impl Health for Floating {
    fn role(&self) -> Role {
        Role::Keepalived
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let Some(vip) = look.ways.cluster.inventory.haproxy.vip else {
            return Shown::default();
        };
        let said = ask_all(look.ways.cluster, look.ways.remote, vip).await;
        let holders = holders(&said);
        let mut rows = units(self.role(), look);
        for row in &mut rows {
            if holders.iter().any(|host| host.as_str() == row.host) {
                row.state.push_str(&format!(", has {vip}"));
            }
        }
        let names: Vec<&str> = holders.iter().map(|host| host.as_str()).collect();
        Shown {
            units: rows,
            document: Map::from_iter([("vip".to_owned(), json!({"address": vip, "on": names}))]),
            ..Shown::default()
        }
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        self.standing(&look.ways).await
    }

    async fn standing(&self, ways: &Ways<'_>) -> Vec<Check> {
        match ways.cluster.inventory.haproxy.vip {
            None => Vec::new(),
            Some(vip) => vec![judge(vip, &ask_all(ways.cluster, ways.remote, vip).await)],
        }
    }
}

/// Checks that exactly one host has the address, and that others in the network reach a server through it.
fn judge(vip: Ipv4Addr, said: &All) -> Check {
    let holders: Vec<&str> = holders(said).iter().map(|host| host.as_str()).collect();
    let mut wrong: Vec<String> = Vec::new();
    for (host, it) in said {
        match it {
            Err(error) => wrong.push(error.to_string()),
            Ok(Said::Silent) if holders.len() == 1 => wrong.push(format!(
                "from {host}, no server answers at {vip}, which {} has",
                holders[0]
            )),
            Ok(_) => {}
        }
    }
    match holders.as_slice() {
        [] => wrong.insert(0, format!("no front door has {vip}")),
        [_] => {}
        several => wrong.insert(0, format!("{vip} is on {} at once", several.join(" and "))),
    }
    let right = format!("{vip} is on {}, and leads to a server", holders.join(", "));
    Check::of("vip", wrong, right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Code, Error},
        inventory::HostName,
    };

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

    fn said(one: Said, other: Said) -> All {
        let host = |name| HostName::new(name);
        vec![(host("door1"), Ok(one)), (host("door2"), Ok(other))]
    }

    #[test]
    fn one_host_must_have_the_address_and_lead_to_a_server() {
        let check = judge(VIP, &said(Said::Answers, Said::Holds));
        assert!(check.passed, "{}", check.detail);
        assert_eq!(
            check.detail,
            "192.0.2.100 is on door2, and leads to a server"
        );
        for (one, other, what) in [
            (Said::Silent, Said::Silent, "no front door has 192.0.2.100"),
            (
                Said::Holds,
                Said::Holds,
                "192.0.2.100 is on door1 and door2 at once",
            ),
            (
                Said::Holds,
                Said::Silent,
                "from door2, no server answers at 192.0.2.100, which door1 has",
            ),
        ] {
            let check = judge(VIP, &said(one, other));
            assert!(!check.passed);
            assert_eq!(check.detail, what);
        }
    }

    #[test]
    fn a_host_that_cannot_be_asked_may_have_it_too() {
        let mut all = said(Said::Holds, Said::Answers);
        all[1].1 = Err(Error::new(Code::ServiceRefused, "no answer"));
        let check = judge(VIP, &all);
        assert!(!check.passed && check.detail.contains("no answer"));
    }
}
