//! Alarms of etcd: a member with an alarm refuses writes that the cluster depends on.
//!
//! With `NOSPACE`, etcd accepts no key and no lease, so Patroni keeps its leader only as long as its members
//! confirm it. An alarm stays until somebody disarms it, even when its cause is gone.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    error::Result,
    inventory::Role,
    services::{
        etcd::{Alarm, Etcd, Member},
        health::{Check, Settles, Ways},
    },
};

const NAME: &str = "alarms";

pub(super) async fn look(ways: &Ways<'_>) -> Check {
    judge(asked(ways).await)
}

/// Every member knows all alarms, so one answer is enough. No answer says nothing.
fn judge(answers: Vec<Answer>) -> Check {
    let unknown = answers.iter().all(|(alarms, _)| alarms.is_err());
    let mut wrong: Vec<String> = all(answers).iter().map(told).collect();
    if unknown {
        wrong.push("no etcd says whether it has an alarm".into());
    }
    Check::of(NAME, wrong, "etcd has no alarm".into()).settles(Settles::Never)
}

type Answer = (Result<Vec<Alarm>>, Result<Vec<Member>>);

/// One alarm in words: its kind and the member that raised it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Raised {
    pub(super) kind: String,
    /// Empty if etcd does not say.
    pub(super) member: String,
}

/// Every alarm that any member knows. Members that do not answer are reported by another check.
pub(super) async fn raised(ways: &Ways<'_>) -> BTreeSet<Raised> {
    all(asked(ways).await)
}

async fn asked(ways: &Ways<'_>) -> Vec<Answer> {
    let asked = ways.cluster.with_role(Role::Etcd).map(|node| async {
        let etcd = Etcd::on(ways.http, &node.name);
        tokio::join!(etcd.alarms(), etcd.members())
    });
    futures_util::future::join_all(asked).await
}

fn all(answers: Vec<Answer>) -> BTreeSet<Raised> {
    let named = answers
        .into_iter()
        .map(|(alarms, members)| named(alarms, members));
    named.flatten().collect()
}

fn named(alarms: Result<Vec<Alarm>>, members: Result<Vec<Member>>) -> Vec<Raised> {
    let members = members.unwrap_or_default();
    let alarms = alarms.unwrap_or_default().into_iter();
    alarms
        // Protocol buffers leave out a zero, which means no alarm.
        .filter(|alarm| !matches!(alarm.kind.as_str(), "" | "NONE" | "0"))
        .map(|alarm| {
            let known = members.iter().find(|member| member.id == alarm.member);
            Raised {
                member: known.map_or(alarm.member, |member| member.name.clone()),
                kind: alarm.kind,
            }
        })
        .collect()
}

pub(super) fn told(alarm: &Raised) -> String {
    let Raised { kind, member } = alarm;
    let who = if member.is_empty() {
        "etcd".to_owned()
    } else {
        format!("etcd on {member}")
    };
    match kind.as_str() {
        "NOSPACE" => format!(
            "{who} has the alarm NOSPACE: its database has reached its quota, and it accepts no writes; \
             compact it, defragment each member, then disarm the alarm: docs/verify.md#alarms"
        ),
        "CORRUPT" => format!(
            "{who} has the alarm CORRUPT: its data differ from the other members'; \
             see docs/verify.md#alarms"
        ),
        other => format!("{who} has the alarm {other}; see docs/verify.md#alarms"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn an_alarm_that_nobody_was_asked_for_is_not_ruled_out() {
        let silent = || {
            (
                Err(Error::new(Code::ServiceUnreachable, "no answer")),
                Err(Error::new(Code::ServiceUnreachable, "no answer")),
            )
        };
        let well = || (Ok(Vec::new()), Ok(Vec::new()));
        assert!(judge(vec![well(), silent()]).passed);
        let check = judge(vec![silent(), silent()]);
        assert!(
            !check.passed && check.detail.contains("no etcd says"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn an_alarm_is_told_with_the_members_name_and_the_way_out() {
        let members = vec![Member {
            id: "9177702212744101060".into(),
            name: "node4".into(),
            ..Member::default()
        }];
        let alarms = json!([
            {"memberID": "9177702212744101060", "alarm": "NOSPACE"},
            {"alarm": "CORRUPT"},
            {"memberID": "1"},
        ]);
        let alarms: Vec<Alarm> = serde_json::from_value(alarms).unwrap();
        let raised = named(Ok(alarms), Ok(members));
        assert_eq!(raised.len(), 2, "{raised:?}");
        let said = told(&raised[0]);
        assert!(said.contains("node4") && said.contains("disarm"), "{said}");
        assert!(told(&raised[1]).starts_with("etcd has the alarm CORRUPT"));
    }
}
