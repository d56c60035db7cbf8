//! Whether Patroni is paused: then nothing fails over, and a stopped PostgreSQL stays down.

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{
    inventory::Role,
    liberal,
    services::{
        etcd::Etcd,
        health::{Check, Settles, Ways},
        postgres::Survey,
    },
};

const NAME: &str = "pause";

/// The cluster-wide configuration; `None` if no etcd answers.
pub(super) async fn in_the_dcs(ways: &Ways<'_>) -> Option<bool> {
    let mut asked: FuturesUnordered<_> = ways
        .cluster
        .with_role(Role::Etcd)
        .map(|node| async {
            let etcd = Etcd::on(ways.http, &node.name);
            etcd.patroni_keys(ways.cluster.name()).await
        })
        .collect();
    while let Some(keys) = asked.next().await {
        if let Ok(keys) = keys {
            let config = keys.config.unwrap_or_default();
            return Some(liberal::is_yes(&config["pause"]));
        }
    }
    None
}

/// Compares the members' answers with the DCS: a member reports a pause only after its next loop.
///
/// `resume` says how to end it.
pub(super) fn check(survey: &Survey, dcs: Option<bool>, resume: &str) -> Check {
    let members: Vec<&str> = survey
        .iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(|status| status.pause))
        .map(|(host, _)| host.as_str())
        .collect();
    let wrong = match (dcs, members.as_slice()) {
        (Some(true), _) => Some("Patroni is paused".to_owned()),
        (_, []) => None,
        (_, members) => Some(format!("Patroni is paused on {}", members.join(", "))),
    };
    let wrong = wrong.map(|what| {
        format!("{what}: nothing fails over, and a PostgreSQL that stops stays down; {resume}")
    });
    Check::of(
        NAME,
        wrong.into_iter().collect(),
        "Patroni is not paused".into(),
    )
    .settles(Settles::Never)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Code, Error},
        inventory::HostName,
        services::postgres::patroni::Status,
    };

    fn survey(pause: bool) -> Survey {
        let status = Status {
            pause,
            ..Status::default()
        };
        Survey::from([
            (HostName::new("node1"), Ok(status)),
            (
                HostName::new("node2"),
                Err(Error::new(Code::ServiceUnreachable, "no answer")),
            ),
        ])
    }

    #[test]
    fn a_pause_is_seen_in_the_dcs_and_at_each_member() {
        assert!(check(&survey(false), Some(false), "").passed);
        assert!(
            check(&survey(false), None, "").passed,
            "who is silent is another check's"
        );
        for (members, dcs) in [(true, Some(false)), (true, None), (false, Some(true))] {
            let check = check(&survey(members), dcs, "resume it: pgherd resume");
            assert!(!check.passed, "{members} {dcs:?}");
            assert!(check.detail.contains("pgherd resume"), "{}", check.detail);
        }
    }
}
