//! Finds out which ports of other hosts a host can reach.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::remote::Script;

/// The script that tries all `ports` at all `addresses` in parallel, for a few seconds at most.
pub(crate) fn knock(addresses: impl Iterator<Item = Ipv4Addr>, ports: &[u16]) -> Script {
    let mut script = Script::probe("");
    for address in addresses.collect::<BTreeSet<_>>() {
        for port in ports {
            script = script.line(format!(
                "timeout 3 bash -c ': 3<>/dev/tcp/{address}/{port}' 2>/dev/null && printf 'answers\\t{address}\\t{port}\\n' &"
            ));
        }
    }
    script.line("wait")
}

/// The open ports, from its output.
pub(crate) fn answering(text: &str) -> Vec<(Ipv4Addr, u16)> {
    let open = text.lines().filter_map(|line| {
        let (address, port) = line.strip_prefix("answers\t")?.split_once('\t')?;
        Some((address.parse().ok()?, port.parse().ok()?))
    });
    open.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_is_read() {
        let text = "bash: nonsense\nanswers\t192.0.2.1\t8008\nanswers\tno\t1\n";
        let open = answering(text);
        assert_eq!(open, [(Ipv4Addr::new(192, 0, 2, 1), 8008)]);
        let script = knock([Ipv4Addr::LOCALHOST].into_iter(), &[1, 2]);
        assert!(script.contains("/dev/tcp/127.0.0.1/2") && script.contains("wait"));
    }
}
