//! When the certificates that services use expire, for `status`.

use serde_json::{Value, json};

use crate::{
    engine::{certificates::Certificates, context::Context},
    workspace::{Expiry, RENEWAL},
};

/// One sentence for people, and what to do where the end is near.
pub(super) fn sentence(
    certificates: &Certificates,
    context: &Context,
    now: jiff::Timestamp,
) -> Option<String> {
    if !certificates.not_valid.is_empty() {
        return Some(format!(
            "certificates: {}; make new ones: {}",
            certificates.not_valid.join("; "),
            context.command("up")
        ));
    }
    let first = certificates.hosts.first()?;
    let mut text = format!(
        "certificates: the first to expire is {}'s, {}",
        first.name,
        when(first, now)
    );
    if near(first, now) {
        text.push_str(&format!("; renew: {}", context.command("up")));
    }
    if let Some(authority) = &certificates.authority {
        text.push_str(&format!("; the authority's, {}", when(authority, now)));
        if near(authority, now) {
            let rotate = context.command("rotate certs");
            text.push_str(&format!("; make a new one: {rotate}"));
        }
    }
    Some(text)
}

pub(super) fn document(certificates: &Certificates) -> Value {
    let host = |expiry: &Expiry| json!({"host": expiry.name, "ends": expiry.expires});
    json!({
        "authority_ends": certificates.authority.as_ref().map(|expiry| expiry.expires),
        "hosts": certificates.hosts.iter().map(host).collect::<Vec<_>>(),
        "not_valid": certificates.not_valid,
    })
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
        _ if expiry.expires <= now => format!("which expired on {date}"),
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
            ("2029-12-31T00:00:00Z", "which expired on 2029-12-31", true),
        ] {
            let expiry = ends("node1", at);
            assert_eq!(when(&expiry, now), told);
            assert_eq!(near(&expiry, now), is_near, "{at}");
        }
    }
}
