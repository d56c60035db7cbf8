//! Checks addresses and networks, and says why one is wrong.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::super::{
    placed::span_of,
    problem::{Problem, quoted},
    schema::Word,
};
use crate::quantity::count;

/// An address that a host can have and others can reach.
pub(super) fn host_address(word: &Word) -> Result<Ipv4Addr, Problem> {
    let value = word.value.as_str();
    let problem = |what: String| Problem::new(span_of(word), what);
    let Ok(address) = value.parse::<Ipv4Addr>() else {
        let problem = problem(format!("{} is not an IPv4 address", quoted(value)));
        return Err(if value.parse::<Ipv6Addr>().is_ok() {
            problem.label("IPv6 is not supported")
        } else if let Some((address, Ok(_))) = value
            .split_once('/')
            .map(|(address, _)| (address, address.parse::<Ipv4Addr>()))
        {
            problem.label(format!("without the prefix: `{address}`"))
        } else if value.contains(|c: char| c.is_ascii_alphabetic()) {
            problem
                .label("write an address, not a name")
                .hint("the host's name is its key under `hosts`; the cluster's hosts know each other by it")
        } else {
            problem.label("four numbers from 0 to 255, such as `192.168.0.21`")
        });
    };
    match unfit(address) {
        Some(reason) => {
            Err(problem(format!("{address} is not an address of a host")).label(reason))
        }
        None => Ok(address),
    }
}

/// Why an address cannot be that of a host that others reach over a network.
fn unfit(address: Ipv4Addr) -> Option<&'static str> {
    let [first, ..] = address.octets();
    if first == 0 {
        Some("0.0.0.0/8 stands for “this network”")
    } else if address.is_loopback() {
        Some("loopback: other hosts cannot reach it")
    } else if address.is_link_local() {
        Some("link-local: valid on one link only")
    } else if address.is_multicast() {
        Some("multicast: a group, not a host")
    } else if first >= 240 {
        Some("240.0.0.0/4 is reserved")
    } else {
        None
    }
}

/// A network in CIDR notation, with no bits set behind its prefix.
pub(super) fn cidr(word: &Word) -> Result<Ipv4Net, Problem> {
    let value = word.value.as_str();
    let problem = Problem::new(
        span_of(word),
        format!("{} is not an IPv4 network", quoted(value)),
    );
    if let Ok(network) = value.parse::<Ipv4Net>() {
        return if network.addr() == network.network() {
            Ok(network)
        } else {
            Err(problem
                .label(format!(
                    "bits are set behind the prefix; the network is `{}`",
                    network.trunc()
                ))
                .hint(format!(
                    "write `{}` for the network or `{}/32` for the one address",
                    network.trunc(),
                    network.addr()
                )))
        };
    }
    Err(if let Ok(address) = value.parse::<Ipv4Addr>() {
        problem.label(format!("one address is written `{address}/32`"))
    } else if value
        .split('/')
        .next()
        .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
    {
        problem.label("IPv6 is not supported")
    } else {
        problem.label("an address and a prefix from 0 to 32, such as `10.0.0.0/24`")
    })
}

/// A network for hosts: it must have room for `least` of them, beside its own address, the broadcast address
/// and the gateway.
pub(super) fn subnet(word: &Word, least: usize) -> Result<Ipv4Net, Problem> {
    let network = cidr(word)?;
    let problem = |what: String| Problem::new(span_of(word), what);
    let ends = [network.network(), network.broadcast()];
    if let Some(reason) = ends.into_iter().find_map(unfit) {
        return Err(problem(format!("{network} is not a network for hosts")).label(reason));
    }
    // A /8 is never wholly unusable. A larger network may contain an unusable part: 126.0.0.0/7 ends in
    // loopback, which is refused above. Nobody has a network with a shorter prefix.
    if network.prefix_len() < 8 {
        return Err(problem(format!("{network} is not a network for hosts"))
            .label("too large: a prefix of 8 or more"));
    }
    let room = (1_usize << (32 - network.prefix_len())).saturating_sub(3);
    if room < least {
        return Err(problem(format!(
            "{network} has room for {}, not for {least}",
            count(room, "host")
        ))
        .label("too small")
        .hint("its own address, the gateway's and the broadcast address are taken"));
    }
    Ok(network)
}

/// Why an address of a container network cannot be a host's.
pub(super) fn taken(network: Ipv4Net, address: Ipv4Addr) -> Option<&'static str> {
    if !network.contains(&address) {
        Some("outside the subnet")
    } else if address == network.network() {
        Some("the subnet's own address")
    } else if address == network.broadcast() {
        Some("the subnet's broadcast address")
    } else if Some(address) == gateway(network) {
        Some("the engine's own address in the subnet, its gateway")
    } else {
        None
    }
}

/// The address that a container engine uses itself.
fn gateway(network: Ipv4Net) -> Option<Ipv4Addr> {
    network
        .network()
        .to_bits()
        .checked_add(1)
        .map(Ipv4Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::super::super::{limits, placed::Placed};

    use super::*;

    fn word(value: &str) -> Word {
        Placed::nowhere(value.to_owned())
    }

    fn label(result: Result<impl std::fmt::Debug, Problem>) -> String {
        result
            .expect_err("this should be refused")
            .label
            .unwrap_or_default()
    }

    #[test]
    fn addresses_of_hosts_are_taken() {
        for address in ["192.168.0.21", "10.0.0.0", "203.0.113.255", "8.8.8.8"] {
            assert!(host_address(&word(address)).is_ok(), "{address}");
        }
    }

    #[test]
    fn what_no_host_can_have_is_refused_with_its_reason() {
        for (address, reason) in [
            ("0.0.0.0", "this network"),
            ("127.0.0.1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("fe80::1", "IPv6"),
            ("10.0.0.1/24", "without the prefix: `10.0.0.1`"),
            ("db1.example.org", "not a name"),
            ("10.0.0.256", "four numbers"),
            ("10.0.0.01", "four numbers"),
            ("", "four numbers"),
        ] {
            let label = label(host_address(&word(address)));
            assert!(label.contains(reason), "{address}: {label}");
        }
    }

    /// Editors get the same rules for addresses.
    #[test]
    fn unfit_addresses_are_reserved_in_the_schema() {
        for first in 0..=255 {
            for second in [0, 53, 253, 254, 255] {
                let address = Ipv4Addr::new(first, second, 2, 3);
                let text = address.to_string();
                assert!(limits::ADDRESS.fits(&text), "{text}");
                let reserved = limits::ADDRESS.is_reserved(&text);
                assert_eq!(reserved, unfit(address).is_some(), "{text}");
            }
        }
    }

    #[test]
    fn networks_must_be_exact() {
        assert!(cidr(&word("0.0.0.0/0")).is_ok());
        assert!(label(cidr(&word("192.168.0.249/24"))).contains("`192.168.0.0/24`"));
        assert!(label(cidr(&word("192.168.0.249/0"))).contains("`0.0.0.0/0`"));
        assert!(label(cidr(&word("192.168.0.249"))).contains("`192.168.0.249/32`"));
        assert!(label(cidr(&word("fd00::/8"))).contains("IPv6"));
        assert!(label(cidr(&word("10.0.0.0/33"))).contains("prefix"));
    }

    #[test]
    fn a_subnet_must_hold_its_hosts() {
        assert!(subnet(&word("192.168.0.0/29"), 5).is_ok());
        assert!(label(subnet(&word("192.168.0.0/30"), 5)).contains("too small"));
        assert!(label(subnet(&word("192.168.0.1/32"), 1)).contains("too small"));
        for hopeless in [
            "127.0.0.0/24",
            "0.0.0.0/0",
            "126.0.0.0/7",
            "224.0.0.0/24",
            "4.0.0.0/6",
        ] {
            assert!(subnet(&word(hopeless), 1).is_err(), "{hopeless}");
        }
    }

    #[test]
    fn a_subnet_keeps_some_addresses_to_itself() {
        let network: Ipv4Net = "192.168.0.0/24".parse().expect("a network");
        for (address, free) in [
            ("192.168.0.0", false),
            ("192.168.0.1", false),
            ("192.168.0.2", true),
            ("192.168.0.254", true),
            ("192.168.0.255", false),
            ("192.168.1.2", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(taken(network, address).is_none(), free, "{address}");
        }
    }
}
