//! Checks which member leads, which replicas stream, and which members would follow another leader.

use std::collections::BTreeMap;

use crate::{
    error::Error,
    facts::Facts,
    inventory::{HostName, Role},
    quantity::{agree, count},
    services::{
        health::{Check, Ways},
        postgres::{Survey, patroni::Patroni},
    },
};

/// The name of the check whether every member would follow another leader.
pub const FAILOVER: &str = "failover";

/// Checks that exactly one member leads and says so. Members that do not answer are named too.
pub(super) async fn leader(
    ways: &Ways<'_>,
    survey: &Survey,
    facts: Option<&BTreeMap<HostName, Facts>>,
) -> Check {
    let mut wrong: Vec<String> = survey
        .values()
        .filter_map(|status| status.as_ref().err())
        .map(Error::to_string)
        .collect();
    let asked = survey.keys().map(|host| async move {
        let leads = Patroni::on(ways.http, host).is_leader().await;
        (host, matches!(leads, Ok(true)))
    });
    let leaders: Vec<&HostName> = futures_util::future::join_all(asked)
        .await
        .into_iter()
        .filter(|(_, leads)| *leads)
        .map(|(host, _)| host)
        .collect();
    let detail = match leaders.as_slice() {
        [one] => {
            let status = survey[*one].as_ref().ok();
            let timeline = match status.and_then(|status| status.timeline) {
                Some(timeline) => timeline.to_string(),
                None => {
                    wrong.push(format!("{one} leads, and does not report its timeline"));
                    String::new()
                }
            };
            let watchdog =
                facts.map(
                    |facts| match facts.get(*one).and_then(|facts| facts.watchdog_armed) {
                        Some(true) => "; its watchdog is armed",
                        Some(false) => "; its watchdog is not armed",
                        None => "; it has no watchdog",
                    },
                );
            format!(
                "{one} leads, on timeline {timeline}{}",
                watchdog.unwrap_or_default()
            )
        }
        [] => {
            wrong.push(match undeclared_leader(ways).await {
                Some(leader) => format!("{leader} leads, and is not in the inventory"),
                None => "no member leads".into(),
            });
            String::new()
        }
        several => {
            let names: Vec<&str> = several.iter().map(|host| host.as_str()).collect();
            wrong.push(format!(
                "several members say that they lead: {}",
                names.join(", ")
            ));
            String::new()
        }
    };
    Check::of("leader", wrong, detail)
}

/// The leader according to any member that answers, for the case that no declared member leads.
async fn undeclared_leader(ways: &Ways<'_>) -> Option<String> {
    for node in ways.cluster.with_role(Role::Postgres) {
        let asked = Patroni::on(ways.http, &node.name);
        let Ok(topology) = asked.topology().await else {
            continue;
        };
        let leader = topology.leader()?;
        let declared = ways
            .cluster
            .with_role(Role::Postgres)
            .any(|node| node.name.as_str() == leader.name);
        return (!declared).then(|| leader.name.clone());
    }
    None
}

/// Checks that the leader streams to every replica; `stranded` says why it does not.
pub(super) fn replication(
    survey: &Survey,
    leader: Option<&HostName>,
    stranded: &BTreeMap<HostName, String>,
) -> Check {
    let Some((leader, primary)) =
        leader.and_then(|leader| Some((leader, survey[leader].as_ref().ok()?)))
    else {
        return Check::of(
            "replication",
            vec!["there is no leader to replicate from".into()],
            String::new(),
        );
    };
    let mut wrong = Vec::new();
    let mut replicas = 0;
    for (host, status) in survey.iter().filter(|(host, _)| *host != leader) {
        replicas += 1;
        if !primary.streams_to(host) {
            let why = stranded.get(host);
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            wrong.push(format!("{leader} does not stream to {host}{why}"));
            continue;
        }
        // A member that does not answer is reported by another check.
        let Ok(status) = status else { continue };
        match (status.timeline, primary.timeline) {
            (Some(theirs), Some(leaders)) if theirs == leaders => {}
            (Some(theirs), Some(leaders)) => wrong.push(format!(
                "{host} is on timeline {theirs}, and {leader} on {leaders}"
            )),
            (None, _) => wrong.push(format!("{host} does not report its timeline")),
            (_, None) => wrong.push(format!("{leader} does not report its timeline")),
        }
    }
    Check::of(
        "replication",
        wrong,
        format!(
            "{} {} on the leader's timeline",
            count(replicas, "replica"),
            agree(replicas, "streams", "stream")
        ),
    )
}

/// After an outage of etcd, the members still believe for up to `ttl` in the leader of that time: until then no
/// member would follow another one.
pub(super) fn failover(survey: &Survey) -> Check {
    let bound = survey
        .iter()
        .filter(|(_, status)| {
            status
                .as_ref()
                .is_ok_and(|status| status.failsafe_mode_is_active)
        })
        .map(|(host, _)| format!("{host} would follow no other leader yet: etcd was unavailable"))
        .collect();
    Check::of(
        FAILOVER,
        bound,
        "every member would follow another leader".to_owned(),
    )
}

/// Checks whether a parameter waits for a restart.
pub(super) fn pending_restart(survey: &Survey) -> Check {
    let wrong = survey
        .iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(|status| status.pending_restart))
        .map(|(host, _)| format!("{host} waits for a restart of PostgreSQL"))
        .collect();
    Check::of(
        "pending-restart",
        wrong,
        "no parameter waits for a restart".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Code, Result},
        services::postgres::patroni::Status,
    };

    #[test]
    fn a_member_that_keeps_to_a_leaders_word_would_follow_nobody() {
        let status = |active| -> Result<Status> {
            let told = serde_json::json!({"state": "running", "failsafe_mode_is_active": active});
            Ok(serde_json::from_value(told).unwrap())
        };
        let mut survey = BTreeMap::from([
            (HostName::new("node1"), status(false)),
            (
                HostName::new("node2"),
                Err(Error::new(Code::ServiceUnreachable, "no answer")),
            ),
        ]);
        assert!(failover(&survey).passed, "who is silent is another check's");
        survey.insert(HostName::new("node3"), status(true));
        let check = failover(&survey);
        assert!(
            !check.passed && check.detail.contains("node3"),
            "{}",
            check.detail
        );
    }

    fn member(role: &str, timeline: Option<u64>) -> Status {
        let told = serde_json::json!({
            "state": "running", "role": role, "timeline": timeline,
            "replication": [{"application_name": "node2", "state": "streaming"}],
        });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn a_timeline_that_nobody_tells_is_not_the_same() {
        let leader = HostName::new("node1");
        let judged = |primary, replica| {
            let survey = BTreeMap::from([
                (leader.clone(), Ok(member("primary", primary))),
                (HostName::new("node2"), Ok(member("replica", replica))),
            ]);
            replication(&survey, Some(&leader), &BTreeMap::new())
        };
        assert!(judged(Some(3), Some(3)).passed);
        for (primary, replica, says) in [
            (None, None, "node2 does not report its timeline"),
            (None, Some(3), "node1 does not report its timeline"),
            (Some(3), None, "node2 does not report its timeline"),
            (Some(3), Some(2), "node2 is on timeline 2, and node1 on 3"),
        ] {
            let check = judged(primary, replica);
            assert!(!check.passed, "{primary:?} {replica:?}");
            assert_eq!(check.detail, says);
        }
    }
}
