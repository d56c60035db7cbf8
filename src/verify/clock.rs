//! Checks that the hosts' clocks agree.
//!
//! Different clocks break what compares times: certificates, recovery to a point in time, and the comparison of
//! logs after an outage. This machine's clock counts like a host's, so that the wrong one is named, whichever
//! it is.

use std::collections::BTreeMap;

use super::Check;
use crate::{facts::Facts, inventory::HostName, plan::clock_off};

/// How far a host's clock may differ from the others', in milliseconds.
const LIMIT: i64 = 10_000;

pub(super) fn clock(facts: &BTreeMap<HostName, Facts>) -> Check {
    let unknown = facts
        .iter()
        .filter(|(_, facts)| facts.needs.clock_ahead.is_none())
        .map(|(host, _)| format!("{host} does not report its time"));
    let ahead: Vec<(&HostName, i64)> = facts
        .iter()
        .filter_map(|(host, facts)| Some((host, facts.needs.clock_ahead?)))
        .collect();
    let mut all: Vec<i64> = ahead.iter().map(|(_, ahead)| *ahead).collect();
    all.push(0);
    all.sort_unstable();
    // The middle one, with this machine's included, agrees with most clocks. For an even number, it is the one
    // that is nearer to this machine's.
    let middle = [all[(all.len() - 1) / 2], all[all.len() / 2]];
    let middle = middle.into_iter().min_by_key(|it| it.abs()).unwrap_or(0);
    let wrong = ahead
        .iter()
        .filter(|(_, ahead)| (ahead - middle).abs() > LIMIT)
        .map(|(host, ahead)| format!("{host}'s clock is {}", clock_off(ahead - middle)))
        .chain(unknown)
        .collect();
    let limit = LIMIT / 1000;
    let right = match middle.abs() > LIMIT {
        true => format!(
            "the hosts agree within {limit} s; this machine's clock is {}",
            clock_off(-middle)
        ),
        false => format!("all clocks agree within {limit} s"),
    };
    Check::of("clock", wrong, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(clocks: &[i64]) -> Check {
        let facts = clocks.iter().enumerate().map(|(n, ahead)| {
            let mut facts = Facts::default();
            facts.needs.clock_ahead = Some(*ahead);
            (HostName::new(format!("node{}", n + 1)), facts)
        });
        clock(&facts.collect())
    }

    #[test]
    fn a_clock_that_is_not_known_is_not_right() {
        let facts = BTreeMap::from([(HostName::new("node1"), Facts::default())]);
        let check = clock(&facts);
        assert!(
            !check.passed && check.detail.contains("node1"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn whoever_is_off_is_named_with_by_how_much() {
        let table: &[(&[i64], bool, &str)] = &[
            (&[0, 0, 0], true, "all clocks agree"),
            (&[9_000, -900, 0], true, "all clocks agree"),
            (&[0, 300_000, 0], false, "node2's clock is 5 min ahead"),
            (&[0, -11_500, 0], false, "node2's clock is 11.5 s behind"),
            (&[-90_000], false, "node1's clock is 90.0 s behind"),
            // Not the hosts' clocks are wrong, but this machine's.
            (
                &[-300_000, -300_500, -299_000],
                true,
                "this machine's clock is 5 min ahead",
            ),
            (
                &[-300_000, -300_000, 0, -300_000],
                false,
                "node3's clock is 5 min ahead",
            ),
        ];
        for (clocks, passed, says) in table {
            let check = judged(clocks);
            assert_eq!(check.passed, *passed, "{clocks:?} {}", check.detail);
            assert!(check.detail.contains(says), "{clocks:?} {}", check.detail);
        }
    }
}
