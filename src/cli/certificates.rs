//! When the certificates that the hosts show end, for `status`.

use serde_json::{Value, json};

use crate::{
    engine::context::{Base, Sight, typed},
    error::Result,
    http::Lapsed,
    verify::certificates,
    workspace::{Expiry, RENEWAL, expires},
};

/// The certificates of a cluster by when they end.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// The authority's own.
    authority: Option<Expiry>,
    /// What is on each host now, the first to end first.
    hosts: Vec<Expiry>,
    /// What is not valid now, a sentence each.
    not_valid: Vec<String>,
}

impl Certificates {
    /// Reads them from the hosts' files as they were found; nothing is there while TLS is off.
    pub(super) fn of(base: &Base, sight: &Sight, shown: &Lapsed) -> Result<Self> {
        if !base.inventory.tls.enabled {
            return Ok(Self::default());
        }
        let mut hosts = Vec::new();
        for (host, facts) in &sight.found.facts {
            let shown = facts
                .files
                .iter()
                .filter(|(path, _)| path.ends_with("/server.crt") || path.ends_with("/server.pem"));
            // A service's own folder may be behind the others after a run that was cut off.
            let ends = shown.filter_map(|(_, file)| expires(&file.content).ok());
            hosts.extend(ends.min().map(|expires| Expiry {
                name: host.to_string(),
                expires,
            }));
        }
        hosts.sort_by_key(|expiry| expiry.expires);
        let authority = base.workspace.expiries()?;
        let not_valid = certificates::findings(&sight.found.facts, shown, jiff::Timestamp::now());
        Ok(Self {
            not_valid,
            authority: authority.into_iter().find(|expiry| expiry.name == "ca"),
            hosts,
        })
    }

    /// One sentence for people, and what to do where the end is near.
    pub(super) fn sentence(&self, base: &Base, now: jiff::Timestamp) -> Option<String> {
        if !self.not_valid.is_empty() {
            return Some(format!(
                "certificates: {}; make them anew: {}",
                self.not_valid.join("; "),
                typed(&base.inventory.path, "up")
            ));
        }
        let first = self.hosts.first()?;
        let mut text = format!(
            "certificates: the first to end is {}'s, {}",
            first.name,
            when(first, now)
        );
        if near(first, now) {
            text.push_str(&format!("; renew: {}", typed(&base.inventory.path, "up")));
        }
        if let Some(authority) = &self.authority {
            text.push_str(&format!("; the authority's, {}", when(authority, now)));
            if near(authority, now) {
                let rotate = typed(&base.inventory.path, "rotate certs");
                text.push_str(&format!("; make a new one: {rotate}"));
            }
        }
        Some(text)
    }

    pub(super) fn document(&self) -> Value {
        let host = |expiry: &Expiry| json!({"host": expiry.name, "ends": expiry.expires});
        json!({
            "authority_ends": self.authority.as_ref().map(|expiry| expiry.expires),
            "hosts": self.hosts.iter().map(host).collect::<Vec<_>>(),
            "not_valid": self.not_valid,
        })
    }
}

fn near(expiry: &Expiry, now: jiff::Timestamp) -> bool {
    days(expiry, now) <= i64::try_from(RENEWAL.as_secs() / 86_400).unwrap_or(i64::MAX)
}

fn days(expiry: &Expiry, now: jiff::Timestamp) -> i64 {
    (expiry.expires.as_second() - now.as_second()) / 86_400
}

fn when(expiry: &Expiry, now: jiff::Timestamp) -> String {
    let date = expiry.expires.strftime("%Y-%m-%d");
    match days(expiry, now) {
        _ if expiry.expires <= now => format!("which ended on {date}"),
        1 => format!("on {date}, in 1 day"),
        days => format!("on {date}, in {days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(name: &str, at: &str) -> Expiry {
        Expiry {
            name: name.into(),
            expires: at.parse().unwrap(),
        }
    }

    #[test]
    fn the_end_is_told_in_days_and_is_near_within_thirty() {
        let now = "2030-01-01T00:00:00Z".parse().unwrap();
        for (at, told, is_near) in [
            ("2030-03-01T12:00:00Z", "on 2030-03-01, in 59 days", false),
            ("2030-02-01T00:00:00Z", "on 2030-02-01, in 31 days", false),
            ("2030-01-31T12:00:00Z", "on 2030-01-31, in 30 days", true),
            ("2030-01-02T12:00:00Z", "on 2030-01-02, in 1 day", true),
            ("2029-12-31T00:00:00Z", "which ended on 2029-12-31", true),
        ] {
            let expiry = ends("node1", at);
            assert_eq!(when(&expiry, now), told);
            assert_eq!(near(&expiry, now), is_near, "{at}");
        }
    }
}
