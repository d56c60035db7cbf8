//! Finds out whether a host on which a step failed has no disk space left, which explains most other failures.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;

use crate::{
    cluster::Cluster,
    error::Error,
    facts,
    inventory::HostName,
    remote::{Remote, Script, quote},
};

/// With less free space than this (in KiB), a filesystem counts as full: the failed step may have freed a
/// little.
const FULL: u64 = 64 * 1024;
/// How long the look may take.
const LOOK: Duration = Duration::from_secs(8);
const FEW_INODES: u64 = 100;

/// Adds the filesystems of `hosts` that are full.
pub(crate) async fn tell(
    mut error: Error,
    hosts: &BTreeSet<HostName>,
    remote: &dyn Remote,
    cluster: &Cluster,
) -> Error {
    let script = script(cluster);
    let silent = |_, _: &str| {};
    let looks = hosts
        .iter()
        .map(|host| remote.run(host, &script, LOOK, &silent));
    for (host, looked) in hosts.iter().zip(join_all(looks).await) {
        let Ok(output) = looked else {
            continue;
        };
        let full: BTreeSet<_> = output.stdout.lines().filter_map(full).collect();
        for (target, what) in full {
            error = error
                .cause(format!("the filesystem {target} on {host} is full: {what}"))
                .hint(format!("free space on {host}, and run the same command again: sudo du -xh --max-depth=2 {target} | sort -h | tail"));
        }
    }
    error
}

fn script(cluster: &Cluster) -> Script {
    let inventory = &cluster.inventory;
    let etcd = facts::etcd_dir(cluster.name());
    let paths = [
        inventory.postgresql.data_dir.as_str(),
        &etcd,
        "/etc",
        "/usr",
        "/var/lib",
        "/var/cache",
        "/var/log",
        "/opt",
        "/tmp",
        "/run",
    ];
    let words: Vec<String> = paths.into_iter().map(quote).collect();
    Script::probe(format!(
        "for d in {}; do\n\
           while [ ! -e \"$d\" ] && [ \"$d\" != / ]; do d=${{d%/*}}; d=${{d:-/}}; done\n\
           timeout 5 df -k --output=used,avail,itotal,iavail,target \"$d\" 2>/dev/null | tail -n 1\n\
         done",
        words.join(" ")
    ))
}

/// From a line of `df`: the filesystem, and what it lacks.
fn full(line: &str) -> Option<(String, String)> {
    let mut fields = line.split_whitespace();
    let mut number = || fields.next()?.parse::<u64>().ok();
    let (used, available) = (number()?, number()?);
    let (inodes, free) = (number().unwrap_or(0), number().unwrap_or(0));
    let target = fields.collect::<Vec<_>>().join(" ");
    // A small filesystem may have no more than that.
    if available < FULL && available < used / 10 {
        return Some((target, format!("{} MiB free", available / 1024)));
    }
    (inodes > 0 && free < FEW_INODES).then(|| (target, format!("{free} of {inodes} inodes free")))
}

#[cfg(test)]
mod tests {
    use super::full;

    #[test]
    fn what_is_full_is_told_by_bytes_and_by_inodes() {
        let table = [
            ("90000000  51200000 1000 900 /", None),
            (
                "90000000         0 1000 900 /data",
                Some(("/data", "0 MiB free")),
            ),
            ("   50000     40000 1000 900 /run", None),
            (
                "90000000  51200000 1000   3 /my data",
                Some(("/my data", "3 of 1000 inodes free")),
            ),
            ("90000000  51200000    0   0 /btrfs", None),
            ("90000000  51200000    -   - /vfat", None),
            ("df: no", None),
            ("", None),
        ];
        for (line, expected) in table {
            let expected = expected.map(|(target, what)| (target.to_owned(), what.to_owned()));
            assert_eq!(full(line), expected, "{line}");
        }
    }
}
