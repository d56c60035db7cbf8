//! Chooses the zone and subnet of each host.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
};

/// A subnet for hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) id: String,
    pub(super) vpc: String,
    pub(super) zone: String,
    pub(super) network: Ipv4Net,
    /// The number of free addresses.
    pub(super) free: i32,
}

/// A host without a place.
#[derive(Debug, Clone)]
pub(super) struct Wish<'a> {
    pub(super) host: &'a HostName,
    pub(super) roles: &'a [Role],
    pub(super) zone: Option<&'a str>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) instance_type: &'a str,
    /// The zones in which EC2 offers the instance type.
    pub(super) offered: Vec<String>,
}

/// Spreads hosts of one role over as many zones as there are, because a zone can fail as a whole.
///
/// `there` are the roles and zones of existing hosts. The same input gives the same places.
pub(super) fn place<'a>(
    wishes: &[Wish<'a>],
    there: &[(Vec<Role>, String)],
    subnets: &'a [Subnet],
) -> Result<BTreeMap<&'a HostName, &'a Subnet>> {
    let mut taken: Vec<(Vec<Role>, &str)> = there
        .iter()
        .map(|(roles, zone)| (roles.clone(), zone.as_str()))
        .collect();
    let mut places = BTreeMap::new();
    for wish in wishes {
        let crowd = |zone: &str| {
            let siblings = taken.iter().filter(|(_, other)| *other == zone);
            let same = siblings
                .clone()
                .filter(|(roles, _)| roles.iter().any(|role| wish.roles.contains(role)));
            (same.count(), siblings.count())
        };
        let best = subnets
            .iter()
            .filter(|subnet| refusal(wish, subnet).is_none())
            .min_by_key(|subnet| (crowd(&subnet.zone), &subnet.zone, &subnet.id));
        let Some(subnet) = best else {
            return Err(nowhere(wish, subnets));
        };
        taken.push((wish.roles.to_vec(), &subnet.zone));
        places.insert(wish.host, subnet);
    }
    Ok(places)
}

/// Why a host cannot be in a subnet.
fn refusal(wish: &Wish<'_>, subnet: &Subnet) -> Option<String> {
    if wish.zone.is_some_and(|zone| zone != subnet.zone) {
        return Some("it is in another zone".to_owned());
    }
    if let Some(address) = wish.address {
        if !subnet.network.contains(&address) {
            return Some(format!("{address} is not in it"));
        }
        if reserved(subnet.network, address) {
            return Some(format!("EC2 keeps {address} for itself"));
        }
    }
    if !wish.offered.contains(&subnet.zone) {
        return Some(format!("its zone has no {}", wish.instance_type));
    }
    (subnet.free < 1).then(|| "no address in it is free".to_owned())
}

/// EC2 uses the first four addresses of a subnet and the last one itself.
fn reserved(network: Ipv4Net, address: Ipv4Addr) -> bool {
    let offset = address.to_bits() - network.network().to_bits();
    offset < 4 || address == network.broadcast()
}

fn nowhere(wish: &Wish<'_>, subnets: &[Subnet]) -> Error {
    let reasons: String = subnets
        .iter()
        .filter_map(|subnet| {
            let reason = refusal(wish, subnet)?;
            let Subnet {
                id, zone, network, ..
            } = subnet;
            Some(format!("{id} ({network}, {zone}): {reason}\n"))
        })
        .collect();
    let mut error = Error::new(Code::NetworkUnsuitable, "no subnet fits this host")
        .on(wish.host)
        .excerpt("the subnets", reasons)
        .left("nothing was made");
    if wish.offered.is_empty() {
        error = error.hint(format!(
            "the region has no instance type {}; name another in provider.instance_type",
            wish.instance_type
        ));
    }
    error.hint("provider.subnet_ids names subnets; the host's `zone`, `address` and `instance_type` must agree with one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(id: &str, zone: &str, network: &str) -> Subnet {
        Subnet {
            id: id.to_owned(),
            vpc: "vpc-1".to_owned(),
            zone: zone.to_owned(),
            network: network.parse().unwrap(),
            free: 250,
        }
    }

    fn three() -> Vec<Subnet> {
        ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(n, zone)| subnet(&format!("subnet-{n}"), zone, &format!("10.0.{n}.0/24")))
            .collect()
    }

    fn wish<'a>(host: &'a HostName, roles: &'a [Role]) -> Wish<'a> {
        Wish {
            host,
            roles,
            zone: None,
            address: None,
            instance_type: "t2.medium",
            offered: ["a", "b", "c"].map(str::to_owned).to_vec(),
        }
    }

    const PG: &[Role] = &[Role::Postgres];

    #[test]
    fn databases_are_spread_and_a_replacement_goes_where_its_predecessor_was() {
        let subnets = three();
        let hosts = ["n1", "n2", "n3", "n4", "door"].map(HostName::new);
        let roles = [PG, PG, PG, &[Role::Etcd], &[Role::Haproxy]];
        let wishes: Vec<_> = hosts.iter().zip(roles).map(|(h, r)| wish(h, r)).collect();
        let places = place(&wishes, &[], &subnets).unwrap();
        let zones: Vec<&str> = hosts.iter().map(|h| places[h].zone.as_str()).collect();
        assert_eq!(zones, ["a", "b", "c", "a", "b"]);

        let there: Vec<_> = [(PG, "a"), (PG, "c"), (&[Role::Etcd], "a")]
            .map(|(roles, zone)| (roles.to_vec(), zone.to_owned()))
            .to_vec();
        let places = place(&wishes[1..2], &there, &subnets).unwrap();
        assert_eq!(places[&hosts[1]].zone, "b");
    }

    #[test]
    fn zone_address_and_offer_are_kept() {
        let subnets = three();
        let host = HostName::new("n1");
        let mut wanted = wish(&host, PG);
        wanted.zone = Some("c");
        assert_eq!(
            place(&[wanted.clone()], &[], &subnets).unwrap()[&host].zone,
            "c"
        );
        wanted.zone = None;
        wanted.address = Some("10.0.1.77".parse().unwrap());
        assert_eq!(
            place(&[wanted.clone()], &[], &subnets).unwrap()[&host].zone,
            "b"
        );
        wanted.offered = vec!["a".to_owned()];
        let error = place(&[wanted.clone()], &[], &subnets).unwrap_err();
        assert!(error.excerpts()[0].text.contains("10.0.1.77 is not in it"));
        assert!(
            error.excerpts()[0]
                .text
                .contains("its zone has no t2.medium")
        );
        wanted.address = Some("10.0.1.3".parse().unwrap());
        assert!(place(&[wanted.clone()], &[], &subnets).is_err());
        wanted.address = None;
        wanted.offered.clear();
        let error = place(&[wanted], &[], &subnets).unwrap_err();
        assert!(error.hints()[0].contains("no instance type t2.medium"));
    }
}
