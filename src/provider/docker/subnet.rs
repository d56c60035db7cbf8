//! Chooses the addresses of a cluster's network and hosts: pure decisions, without the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use indexmap::IndexMap;
use ipnet::Ipv4Net;

use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
};

/// Where an unused subnet is looked for first: apart from home routers (192.168.0.x), the engine's own pools
/// (172.17.x.x and up) and most offices. Other ranges come next.
const POOLS: [(Ipv4Addr, u8); 3] = [
    (Ipv4Addr::new(10, 83, 0, 0), 16),
    (Ipv4Addr::new(172, 29, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 192, 0), 18),
];

/// The offset in a subnet at which hosts' addresses begin. Those below are for the gateway, and for people who
/// choose one by hand.
const FIRST_HOST: usize = 11;

/// A range of addresses that something else uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) range: Ipv4Net,
    /// As in "overlaps …": `the engine's network foo`, `what eth0 of this machine reaches`.
    pub(super) by: String,
}

/// The subnet that the inventory implies: `subnet`, or the /24 that all fixed addresses share.
pub(super) fn wanted(
    subnet: Option<Ipv4Net>,
    fixed: &IndexMap<HostName, Ipv4Addr>,
) -> Result<Option<Ipv4Net>> {
    let Some(wanted) = subnet.or_else(|| {
        let (_, first) = fixed.first()?;
        Ipv4Net::new(*first, 24).ok().map(|net| net.trunc())
    }) else {
        return Ok(None);
    };
    for (host, address) in fixed {
        if !wanted.contains(address) {
            let error = match subnet {
                Some(subnet) => Error::new(
                    Code::ProviderSettingUnusable,
                    format!("the address {address} is not in the subnet {subnet}"),
                )
                .hint("change hosts.<name>.address or provider.subnet"),
                None => Error::new(
                    Code::ProviderSettingUnusable,
                    format!("the address {address} is not in {wanted}, where the other hosts are"),
                )
                .hint("name the subnet that holds all of them: provider.subnet"),
            };
            return Err(error.on(host));
        }
    }
    Ok(Some(wanted.trunc()))
}

/// The first range of `taken` that overlaps `subnet`.
pub(super) fn overlap(subnet: Ipv4Net, taken: &[Taken]) -> Option<&Taken> {
    taken.iter().find(|other| {
        other.range.contains(&subnet.network()) || subnet.contains(&other.range.network())
    })
}

/// Unused subnets, the best first.
pub(super) fn unused(taken: &[Taken]) -> impl Iterator<Item = Ipv4Net> {
    POOLS
        .iter()
        .filter_map(|(base, prefix)| Ipv4Net::new(*base, *prefix).ok())
        .filter_map(|pool| pool.subnets(24).ok())
        // The network 10.83.0.0/24 would do as well; one that begins at 1 is easier to read.
        .flat_map(|subnets| subnets.skip(1))
        .filter(|subnet| overlap(*subnet, taken).is_none())
}

/// The lowest address, which no host gets.
pub(super) fn gateway(subnet: Ipv4Net, fixed: &IndexMap<HostName, Ipv4Addr>) -> Result<Ipv4Addr> {
    subnet
        .hosts()
        .find(|address| !fixed.values().any(|taken| taken == address))
        .ok_or_else(|| too_small(subnet))
}

/// An address for each of `hosts`, in that order.
///
/// An existing host keeps its own; a fixed one is as in the inventory; the others get the first free one from
/// the subnet's eleventh on. The same question gets the same answer, so plan and up agree, and a host that is
/// created again gets its old address.
pub(super) fn assign<'a>(
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    hosts: impl Iterator<Item = &'a HostName>,
    fixed: &IndexMap<HostName, Ipv4Addr>,
    existing: &BTreeMap<HostName, Ipv4Addr>,
    others: &BTreeSet<Ipv4Addr>,
) -> Result<BTreeMap<HostName, Ipv4Addr>> {
    let mut used: BTreeSet<Ipv4Addr> = others.clone();
    used.insert(gateway);
    used.extend(fixed.values());
    used.extend(existing.values());
    let mut assigned = BTreeMap::new();
    for host in hosts {
        let address = match existing.get(host).or_else(|| fixed.get(host)) {
            Some(address) => *address,
            // `hosts()` leaves out the network's own address and the broadcast address.
            None => subnet
                .hosts()
                .skip(FIRST_HOST - 1)
                .chain(subnet.hosts().take(FIRST_HOST - 1))
                .find(|address| !used.contains(address))
                .ok_or_else(|| too_small(subnet))?,
        };
        used.insert(address);
        assigned.insert(host.clone(), address);
    }
    Ok(assigned)
}

fn too_small(subnet: Ipv4Net) -> Error {
    Error::new(
        Code::ProviderSettingUnusable,
        format!("the subnet {subnet} has too few addresses for the hosts and a gateway"),
    )
    .hint("give provider.subnet a /24")
}

/// The ranges that this machine reaches without its default route, from `/proc/net/route`.
pub(super) fn routes(table: &str) -> Vec<Taken> {
    // The kernel prints addresses as numbers in its own byte order, which hold network byte order.
    let address = |hex: &str| {
        u32::from_str_radix(hex, 16)
            .ok()
            .map(|number| Ipv4Addr::from(number.to_ne_bytes()))
    };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (interface, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
            let range = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
            (range.prefix_len() > 0).then(|| Taken {
                range,
                by: format!("what this machine reaches through {interface}"),
            })
        })
        .collect()
}

/// The interface of the default route, from `/proc/net/route`.
pub(super) fn default_interface(table: &str) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        (fields.next()? == "00000000").then_some(interface)
    })
}

/// Name servers, which a machine may reach only through its default route.
pub(super) fn nameservers(resolv_conf: &str) -> Vec<Taken> {
    resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse::<Ipv4Addr>().ok())
        .filter(|address| !address.is_loopback())
        .map(|address| Taken {
            range: Ipv4Net::from(address),
            by: format!("the name server {address}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn address(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn names(names: &[&str]) -> Vec<HostName> {
        names.iter().map(|name| HostName::new(*name)).collect()
    }

    fn fixed(pairs: &[(&str, &str)]) -> IndexMap<HostName, Ipv4Addr> {
        pairs
            .iter()
            .map(|(host, text)| (HostName::new(*host), address(text)))
            .collect()
    }

    fn taken(text: &str) -> Taken {
        Taken {
            range: net(text),
            by: "somebody".into(),
        }
    }

    #[test]
    fn the_tutorials_addresses_need_no_subnet() {
        let fixed = fixed(&[("node1", "192.168.0.249"), ("haproxy", "192.168.0.173")]);
        assert_eq!(wanted(None, &fixed).unwrap(), Some(net("192.168.0.0/24")));
    }

    #[test]
    fn fixed_addresses_in_two_networks_need_a_subnet() {
        let fixed = fixed(&[("node1", "10.1.1.4"), ("node2", "10.1.2.4")]);
        let error = wanted(None, &fixed).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        assert_eq!(error.host(), Some(&HostName::new("node2")));
        assert_eq!(
            wanted(Some(net("10.1.0.0/16")), &fixed).unwrap(),
            Some(net("10.1.0.0/16"))
        );
        assert!(wanted(Some(net("10.1.1.0/24")), &fixed).is_err());
    }

    #[test]
    fn an_unused_subnet_avoids_what_is_taken() {
        let first = |taken: &[Taken]| unused(taken).next().unwrap();
        assert_eq!(first(&[]), net("10.83.1.0/24"));
        assert_eq!(first(&[taken("10.83.1.77/32")]), net("10.83.2.0/24"));
        assert_eq!(first(&[taken("10.0.0.0/8")]), net("172.29.1.0/24"));
    }

    #[test]
    fn overlap_works_both_ways() {
        let ranges = [taken("192.168.0.0/20")];
        assert!(overlap(net("192.168.4.0/24"), &ranges).is_some());
        assert!(overlap(net("192.168.0.0/16"), &ranges).is_some());
        assert!(overlap(net("192.168.16.0/24"), &ranges).is_none());
    }

    #[test]
    fn hosts_get_the_first_free_addresses_in_order() {
        let hosts = names(&["node1", "node2", "node3", "node4"]);
        let fixed = fixed(&[("node3", "10.83.1.12")]);
        let existing = BTreeMap::from([(HostName::new("node4"), address("10.83.1.14"))]);
        let others = BTreeSet::from([address("10.83.1.11")]);
        let assigned = assign(
            net("10.83.1.0/24"),
            address("10.83.1.1"),
            hosts.iter(),
            &fixed,
            &existing,
            &others,
        )
        .unwrap();
        let got: Vec<_> = hosts
            .iter()
            .map(|host| assigned[host].to_string())
            .collect();
        assert_eq!(
            got,
            ["10.83.1.13", "10.83.1.15", "10.83.1.12", "10.83.1.14"]
        );
    }

    #[test]
    fn a_small_subnet_is_used_up_before_it_is_refused() {
        let assign = |hosts: &[HostName]| {
            assign(
                net("10.9.9.0/29"),
                address("10.9.9.1"),
                hosts.iter(),
                &IndexMap::new(),
                &BTreeMap::new(),
                &BTreeSet::new(),
            )
        };
        let five = names(&["a", "b", "c", "d", "e"]);
        assert_eq!(assign(&five).unwrap()[&five[0]], address("10.9.9.2"));
        let six = names(&["a", "b", "c", "d", "e", "f"]);
        assert_eq!(assign(&six).unwrap_err().kind().exit_code(), 2);
    }

    #[test]
    fn the_gateway_gives_way_to_a_host() {
        let fixed = fixed(&[("node1", "10.9.9.1")]);
        assert_eq!(
            gateway(net("10.9.9.0/24"), &fixed).unwrap(),
            address("10.9.9.2")
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_are_read_without_the_default() {
        let table = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
";
        let routes = routes(table);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].range, net("172.17.0.0/16"));
        assert_eq!(default_interface(table), Some("eth0"));
    }

    #[test]
    fn name_servers_are_avoided() {
        let servers = nameservers("search x\nnameserver 10.83.1.2\nnameserver 127.0.0.53\n");
        assert_eq!(servers.len(), 1);
        assert_eq!(unused(&servers).next(), Some(net("10.83.2.0/24")));
    }
}
