//! Checks that every certificate is valid now: those in files on hosts, and those that services use.
//!
//! A certificate that has expired, or that was made by a clock that was ahead, does no harm at first, because
//! open connections stay open. The next restart, failover or new connection fails. So the files are read, and
//! certificates that a service still uses although its file is newer are reported too.

use std::collections::BTreeMap;

use super::Check;
use crate::{
    facts::Facts,
    http::{Lapsed, service},
    inventory::HostName,
    services,
    workspace::{Lapse, validities},
};

const NAME: &str = "certificates";

/// The folders of certificates on hosts, one for each service.
const FOLDER: &str = "/etc/pgherd/tls/";

const AUTHORITY: &str = "authority";
const CERTIFICATE: &str = "certificate";

/// From how many milliseconds of difference on a host's clock is checked as well.
const AGREES: i64 = 10_000;

pub(super) fn certificates(
    facts: &BTreeMap<HostName, Facts>,
    shown: &Lapsed,
    now: jiff::Timestamp,
) -> Check {
    let wrong = findings(facts, shown, now);
    Check::of(NAME, wrong, "every certificate is valid".into())
}

/// Certificates that are not valid, one sentence each.
pub(crate) fn findings(
    facts: &BTreeMap<HostName, Facts>,
    shown: &Lapsed,
    now: jiff::Timestamp,
) -> Vec<String> {
    let clocks = clocks(facts, now);
    let mut found = Vec::new();
    for (host, facts) in facts {
        // Certificates that expire at the same moment are reported together.
        let mut told: Vec<(String, Vec<&str>)> = Vec::new();
        let mut folders = Vec::new();
        for (path, file) in &facts.files {
            let Some((folder, kind)) = parts(path) else {
                continue;
            };
            if let Some((lapse, clock)) = lapse_of(&file.content, kind, &clocks) {
                let what = format!("{kind} {lapse}{clock}");
                match told.iter_mut().find(|(it, _)| *it == what) {
                    Some((_, owners)) => owners.push(owner(folder)),
                    None => told.push((what, vec![owner(folder)])),
                }
                folders.push(folder);
            }
        }
        found.extend(
            told.into_iter()
                .map(|(what, owners)| format!("{host}: of {}, the {what}", owners.join(", "))),
        );
        let stale = shown
            .iter()
            .filter(|((shower, port), _)| shower == host && !folders.contains(&folder_of(*port)));
        found.extend(stale.map(|((_, port), lapse)| not_read(host, *port, *lapse)));
    }
    found
}

/// The service and the kind of a certificate file, by its folder.
fn parts(path: &str) -> Option<(&str, &'static str)> {
    let (folder, name) = path.strip_prefix(FOLDER)?.split_once('/')?;
    match name {
        "ca.crt" => Some((folder, AUTHORITY)),
        "server.crt" | "server.pem" => Some((folder, CERTIFICATE)),
        _ => None,
    }
}

/// The message that a service uses another certificate than its file has.
fn not_read(host: &HostName, port: u16, lapse: Lapse) -> String {
    let unit = services::asked_at(port).unit();
    format!(
        "{host}: {} (port {port}) shows a certificate that {lapse}, and has not read its file since: sudo \
         systemctl reload-or-restart {unit}",
        service(port)
    )
}

/// The times to check against, with their names: this machine's, and those of hosts that differ.
fn clocks(
    facts: &BTreeMap<HostName, Facts>,
    now: jiff::Timestamp,
) -> Vec<(String, jiff::Timestamp)> {
    let mut ahead = facts.values().filter_map(|facts| facts.needs.clock_ahead);
    let first = ahead.next();
    let differs = |ahead: i64| ahead.abs() > AGREES;
    let ours = match first.is_some_and(differs) && ahead.all(differs) {
        true => " by this machine's clock",
        false => "",
    };
    let mut clocks = vec![(ours.to_owned(), now)];
    clocks.extend(facts.iter().filter_map(|(host, facts)| {
        let ahead = facts.needs.clock_ahead.filter(|it| it.abs() > AGREES)?;
        let there = now
            .checked_add(jiff::SignedDuration::from_millis(ahead))
            .ok()?;
        Some((format!(" by {host}'s clock"), there))
    }));
    clocks
}

/// Why a file's certificate is not valid by one of the clocks. Of several authorities, one valid one is enough.
fn lapse_of<'a>(
    pem: &str,
    kind: &str,
    clocks: &'a [(String, jiff::Timestamp)],
) -> Option<(Lapse, &'a str)> {
    let mut validities = validities(pem);
    if kind == CERTIFICATE {
        validities.truncate(1);
    }
    clocks.iter().find_map(|(clock, at)| {
        let lapses: Vec<_> = validities.iter().map(|it| it.lapse(*at)).collect();
        match lapses.iter().all(Option::is_some) {
            true => Some((lapses.into_iter().flatten().next()?, clock.as_str())),
            false => None,
        }
    })
}

/// The service whose folder it is.
fn owner(folder: &str) -> &str {
    let mut services = services::all();
    let service = services.find(|it| {
        it.tls
            .is_some_and(|tls| tls.strip_prefix(FOLDER) == Some(folder))
    });
    service.map_or(folder, |service| service.title)
}

fn folder_of(port: u16) -> &'static str {
    let folder = services::asked_at(port).service().tls;
    folder
        .and_then(|it| it.strip_prefix(FOLDER))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{contract::PATRONI_PORT, facts::FileFact};

    fn now() -> jiff::Timestamp {
        "2030-06-01T12:00:00Z".parse().unwrap()
    }

    /// A certificate that is valid from one number of days after now to another.
    fn valid(from: i64, until: i64) -> String {
        let at = |days: i64| {
            let at = now() + jiff::SignedDuration::from_hours(24 * days);
            std::time::SystemTime::from(at).into()
        };
        let mut params = rcgen::CertificateParams::new(vec!["node1".to_owned()]).unwrap();
        params.not_before = at(from);
        params.not_after = at(until);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn host(name: &str, files: &[(&str, String)]) -> (HostName, Facts) {
        let mut facts = Facts::default();
        for (path, content) in files {
            let file = FileFact {
                owner: "root".into(),
                group: "root".into(),
                mode: 0o644,
                content: content.as_str().into(),
            };
            facts.files.insert(format!("{FOLDER}{path}"), file);
        }
        (HostName::new(name), facts)
    }

    fn told(hosts: Vec<(HostName, Facts)>, shown: &Lapsed) -> String {
        let check = certificates(&hosts.into_iter().collect(), shown, now());
        assert_eq!(check.passed, check.detail == "every certificate is valid");
        check.detail
    }

    #[test]
    fn what_is_not_valid_is_told_with_whose_it_is_and_since_when() {
        let good = [
            ("etcd/ca.crt", valid(-1, 1)),
            ("etcd/server.crt", valid(-1, 1)),
        ];
        assert_eq!(
            told(vec![host("node1", &good)], &Lapsed::new()),
            "every certificate is valid"
        );

        let ended = valid(-9, -2);
        let bad = [
            ("etcd/ca.crt", valid(-1, 1)),
            ("etcd/server.crt", ended.clone()),
            ("postgres/server.crt", ended.clone()),
            ("haproxy/server.pem", valid(3, 9)),
        ];
        assert_eq!(
            told(
                vec![host("node1", &good), host("node2", &bad)],
                &Lapsed::new()
            ),
            "node2: of etcd, Patroni and PostgreSQL, the certificate ended on 2030-05-30 12:00 UTC; \
             node2: of HAProxy, the certificate is not valid before 2030-06-04 12:00 UTC"
        );
    }

    #[test]
    fn of_authorities_one_that_is_valid_will_do() {
        let both = [valid(-9, -2), valid(-1, 1)].concat();
        assert_eq!(
            told(
                vec![host("node1", &[("etcd/ca.crt", both)])],
                &Lapsed::new()
            ),
            "every certificate is valid"
        );
        let none = [valid(-9, -2), valid(1, 2)].concat();
        let said = told(
            vec![host("node1", &[("etcd/ca.crt", none)])],
            &Lapsed::new(),
        );
        assert!(said.contains("of etcd, the authority ended on"), "{said}");
    }

    #[test]
    fn a_service_that_has_not_read_its_file_is_told_once() {
        let shown = |port| Lapsed::from([((HostName::new("node1"), port), Lapse::Ended(now()))]);
        let good = [("postgres/server.crt", valid(-1, 1))];
        let said = told(vec![host("node1", &good)], &shown(PATRONI_PORT));
        assert!(
            said.contains("Patroni (port 8008) shows a certificate that ended on"),
            "{said}"
        );
        assert!(said.contains("reload-or-restart patroni"), "{said}");
        let bad = [("postgres/server.crt", valid(-9, -1))];
        let said = told(vec![host("node1", &bad)], &shown(PATRONI_PORT));
        assert!(!said.contains("port 8008"), "{said}");
        let (stats, shown) = (7000, shown(7000));
        let said = told(vec![host("node1", &good)], &shown);
        assert!(said.contains(&format!("HAProxy (port {stats})")), "{said}");
    }

    #[test]
    fn the_clock_by_which_it_is_not_valid_is_named() {
        let fresh = valid(0, 9);
        let with = |name: &str, ahead: i64| {
            let (name, mut facts) = host(name, &[("etcd/server.crt", fresh.clone())]);
            facts.needs.clock_ahead = Some(ahead);
            (name, facts)
        };
        let hour = 3_600_000;
        let said = told(
            vec![with("node1", 0), with("node2", -2 * hour)],
            &Lapsed::new(),
        );
        assert!(
            said.contains("node1: of etcd, the certificate is not valid before"),
            "{said}"
        );
        assert!(said.contains("by node2's clock"), "{said}");
        let old = [("etcd/server.crt", valid(-30, -20))];
        let (name, mut facts) = host("node1", &old);
        facts.needs.clock_ahead = Some(-25 * 24 * hour);
        let said = told(vec![(name, facts)], &Lapsed::new());
        assert!(said.contains("by this machine's clock"), "{said}");
    }
}
